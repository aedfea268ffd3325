"""Everything that a case needs to be run, here or in another process."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.attacks import Attack
from gradleak.cases.case import ATTACK, FORECAST, KNOWS, KNOWS_NOT, Case
from gradleak.cases.sharing import run_within_memory
from gradleak.cases.store import VERSION
from gradleak.examination import Findings, Progress
from gradleak.identity import identity
from gradleak.metrics import label_agreement, mean_picture, null_label_agreement
from gradleak.observe import Client, Loss, Observation
from gradleak.observe.domain import Domain
from gradleak.observe.draws import trains_differently
from gradleak.observe.uncertainty import Defended, undefended
from gradleak.risk import Forecast, predict
from gradleak.risk.decibels import STEPS
from gradleak.threats.rungs import RUNGS, Batch, Rung, Setting, guess_at

_SMALL = 1100  # numbers in a batch, up to which a matrix of them takes a second
Facts = dict[str, Any]
Found = tuple[Facts, Tensor | None]


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
    reference: Tensor | None = None
    normalization: Any = None
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
            "normalization": repr(self.normalization),
            "loss": identity(self.loss),
            "seed": self.seed,
            "steps": self.forecast_steps if case.kind == FORECAST else None,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]

    def perform(self, case: Case, progress: Progress | None = None) -> Found:
        """The facts of a case and, of an attack, the guesses by record. What goes wrong is a fact too."""
        try:
            if case.kind == FORECAST:
                return self._forecast(case), None
            return self._attacked(case, progress)
        except Exception as error:  # the model is someone else's code, and one bad batch ends no audit
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}, None

    def _forecast(self, case: Case) -> Facts:
        x, y = self.batches[case.group]
        forecast = predict(
            self._there,
            x.to(self.device),
            y.to(self.device),
            client=self.ways[case.protocol],
            loss=self.loss,
            normalization=self.normalization,
            layers=False,
            steps=self.forecast_steps,
            exact=False if self.forecast_steps < STEPS and x.numel() > _SMALL else None,
            rng=self._dice(case.group),
        )
        found = forecast.to_dict()
        kept = ("verdict", "client", "samples", "dimensions", "way", "notes", "seconds", "label_confidence")
        return {name: found[name] for name in kept} | _labels_read(forecast, y)

    def _attacked(self, case: Case, progress: Progress | None) -> Found:
        seen, truth = self._observed(case)
        found, shared = run_within_memory(
            seen,
            truth,
            self.attacks[case.attack],
            rng=case.seed,
            reference=self.reference,
            names=self._names(case),
            progress=progress,
        )
        if found.interrupted:
            raise KeyboardInterrupt
        guesses = [one.guess for one in found.findings if one.guess is not None]
        return self._told(case, seen, found, shared), torch.stack(guesses) if guesses else None

    def _told(self, case: Case, seen: Observation, found: Findings, shared: str) -> Facts:
        rows = [{"guessed": one.guess is not None, **one.to_dict()} for one in found.findings]
        first = found.findings[0]
        return {
            "outcome": first.outcome,
            "reason": first.reason,
            "score": rows[0]["score"],
            "rows": rows,
            "label_agreement": found.label_agreement,
            "null_label_agreement": found.null_label_agreement,
            "labels_given": seen.labels is not None,
            "assumptions": list(found.assumptions),
            "trials": found.trials,
            "matching_gradients": first.matching_gradients,
            "seconds": first.seconds,
            **({"note": shared} if shared else {}),
        }

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
            normalization=self.normalization,
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
        x, _ = self.batches[group]
        return mean_picture(self.reference, x.shape).cpu()

    def truth(self, group: int) -> Tensor:
        x, _ = self.batches[group]
        return Domain.of(self.normalization).to_pixels(x.cpu()).clamp(0, 1)

    @cached_property
    def _there(self) -> nn.Module:
        """On the device where it is attacked; the model that was handed in stays where it is."""
        device = torch.device(self.device)
        here = {tensor.device for tensor in (*self.model.parameters(), *self.model.buffers())}
        return self.model if here <= {device} else copy.deepcopy(self.model).to(device)

    @cached_property
    def _public(self) -> str:
        return identity(self.model, self.reference)

    def _hash(self, members: tuple[int, ...]) -> str:
        tensors = [part for i in members for part in self.batches[i]]
        return hashlib.sha256(f"{self._public} {identity(*tensors)}".encode()).hexdigest()[:24]


def _labels_read(forecast: Forecast, y: Tensor) -> Facts:
    """How many labels are read off the update, without an attack."""
    guess, classes = forecast.guess, forecast.classes
    if guess is None or guess.y is None or classes is None or y.is_floating_point() or y.dim() != 1:
        return {}
    return {
        "label_agreement": label_agreement(guess.y.cpu(), y.cpu()),
        "null_label_agreement": null_label_agreement(y.cpu(), classes, rng=0),
        "labels_given": False,
    }


def _rung(name: str) -> Rung:
    return next(rung for rung in RUNGS if rung.name == name)
