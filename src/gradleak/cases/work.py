"""Everything that a case needs to be run, here or in another process."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version

import torch
from torch import Tensor, nn

from gradleak.attacks import Attack
from gradleak.cases.case import ATTACK, FORECAST, KNOWS, KNOWS_NOT, Case
from gradleak.cases.done import Facts
from gradleak.cases.index import VERSION
from gradleak.cases.kind import Found, Kind
from gradleak.cases.pictures import Pictures
from gradleak.examination import Progress
from gradleak.identity import identity
from gradleak.observe import Client, Loss, Observation
from gradleak.observe.draws import trains_differently
from gradleak.observe.uncertainty import Defended, undefended
from gradleak.risk.decibels import STEPS
from gradleak.threats.rungs import RUNGS, Batch, Rung, Setting, guess_at


@dataclass(frozen=True, eq=False)
class Work:
    """A network as it is sent out, private batches, and how they are trained, shared and attacked.

    ``ways`` are clients with their defenses around them, ``attacks`` go from cheap to dear, and ``rungs``
    are names, from a server that knows everything down. ``starts`` is how often each attack begins anew. An
    attack is enough, and dearer ones are spared, where it explains the update or is well past ``target``
    decibels. ``forecast_steps`` are those of ``gl.predict``.
    """

    model: nn.Module
    batches: Sequence[Batch]
    names: Sequence[Sequence[str]]
    ways: Mapping[str, Client]
    attacks: Mapping[str, Attack]
    rungs: tuple[str, ...] = tuple(rung.name for rung in RUNGS)
    kind: Kind = field(default_factory=Pictures)
    loss: Loss | None = None
    together: int = 2
    starts: int = 1
    target: float | None = None
    thorough: bool = False
    forecast_steps: int = STEPS
    seed: int = 0
    device: str = "cpu"

    def on(self, rungs: Sequence[str]) -> "Work":
        """The same work with these rungs alone."""
        return replace(self, rungs=tuple(rungs))

    # Which cases there are.

    def samples(self, case: Case) -> list[int]:
        """The numbers of the records that a case is about, over all batches."""
        firsts = [0]
        for x, _ in self.batches:
            firsts.append(firsts[-1] + len(x))
        return [i for g in self.members(case) for i in range(firsts[g], firsts[g + 1])]

    def members(self, case: Case) -> list[int]:
        """The numbers of the batches that a case is about: one, or on the rung that sums, several."""
        if not self._sums(case.rung):
            return [case.group]
        first = case.group * self.together
        return list(range(first, first + self.together))

    def groups(self, rung: str) -> int:
        """How many cases there are of everything on a rung."""
        return len(self.batches) // (self.together if self._sums(rung) else 1)

    def skipped(self, way: str) -> dict[str, str]:
        """The rungs on which this way of training shows nothing of its own, and why."""
        setting = self._setting(way, range(len(self.batches)))
        found = {name: _rung(name).skipped(setting) for name in self.rungs}
        return {name: why for name, why in found.items() if why}

    def attackers(self, way: str) -> tuple[str, ...]:
        """One who knows the defense, and beside him one who does not, where there is one."""
        return (KNOWS_NOT, KNOWS) if isinstance(self.ways[way], Defended) else (KNOWS,)

    def is_eval(self, rung: str) -> bool:
        return rung == RUNGS[0].name

    @cached_property
    def trains_differently(self) -> bool:
        """Whether the network in eval mode is another function than the one that is trained."""
        return trains_differently(self.model)

    def _sums(self, rung: str) -> bool:
        return rung == RUNGS[-1].name

    # What defines one, and running it.

    def key(self, case: Case) -> str:
        """A hash of all that the result depends on."""
        said = {
            # Another version may find another thing.
            "version": [VERSION, *(version(name) for name in ("gradleak", "torch"))],
            "case": case.to_dict() | {"group": 0, "protocol": "", "attack": ""},
            "attack": identity(self.attacks[case.attack]) if case.kind == ATTACK else "",
            "client": identity(self.ways[case.protocol]),
            "subject": self._hash(tuple(self.members(case))),
            "first": case.group,  # a client's dice are those of its place
            "normalization": repr(self.kind.normalization),
            "loss": identity(self.loss),
            "seed": self.seed,
            "steps": self.forecast_steps if case.kind == FORECAST else None,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]

    def perform(self, case: Case, progress: Progress | None = None) -> Found:
        """What goes wrong is a fact too."""
        try:
            facts, guess = (
                (self._forecast(case), None) if case.kind == FORECAST else self._attacked(case, progress)
            )
        except Exception as error:  # the model is someone else's code, and one bad batch ends no audit
            facts, guess = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}, None
        return {"of": self.kind.scale.noun} | facts, guess

    def _forecast(self, case: Case) -> Facts:
        x, y = self.batches[case.group]
        return self.kind.forecast(
            self._there,
            (x.to(self.device), y.to(self.device)),
            client=self.ways[case.protocol],
            loss=self.loss,
            steps=self.forecast_steps,
            rng=self._dice(case.group),
        )

    def _attacked(self, case: Case, progress: Progress | None) -> Found:
        seen, truth = self._observed(case)
        attack, names = self.attacks[case.attack], self._names(case)
        return self.kind.attacked(seen, truth, attack, rng=case.seed, names=names, progress=progress)

    def _observed(self, case: Case) -> tuple[Observation, Batch]:
        """As the server sees it; who does not know a defense takes its update for a plain one."""
        setting = self._setting(case.protocol, self.members(case))
        ((seen, truth),) = _rung(case.rung).observations(setting)
        if case.attacker == KNOWS_NOT:
            seen = replace(seen, client=undefended(seen.client))
        return seen, truth

    def _setting(self, way: str, members: Sequence[int]) -> Setting:
        client = self.ways[way]
        return Setting(
            model=self._there,
            batches=[(x.to(self.device), y.to(self.device)) for x, y in (self.batches[i] for i in members)],
            client=client,
            guessed=guess_at(client),
            together=self.together,
            normalization=self.kind.normalization,
            rng=self._dice(members[0]),
            loss=self.loss,
        )

    def _names(self, case: Case) -> Callable[[int], str]:
        names = [name for g in self.members(case) for name in self.names[g]]
        return lambda i: names[i]

    def _dice(self, group: int) -> int:
        return (self.seed + group) % 2**63

    # Of the whole.

    def batch_name(self, group: int) -> str:
        return self._hash((group,))

    def null(self, group: int) -> Tensor:
        return self.kind.null_of(self.batches[group][0])

    def truth(self, group: int) -> Tensor:
        return self.kind.truth_of(self.batches[group][0])

    @cached_property
    def _there(self) -> nn.Module:
        """On the device where it is attacked; the model that was handed in stays where it is."""
        device = torch.device(self.device)
        here = {tensor.device for tensor in (*self.model.parameters(), *self.model.buffers())}
        return self.model if here <= {device} else copy.deepcopy(self.model).to(device)

    @cached_property
    def _public(self) -> str:
        return identity(self.model, self.kind)

    def _hash(self, members: tuple[int, ...]) -> str:
        tensors = [part for i in members for part in self.batches[i]]
        return hashlib.sha256(f"{self._public} {identity(*tensors)}".encode()).hexdigest()[:24]


def _rung(name: str) -> Rung:
    return next(rung for rung in RUNGS if rung.name == name)
