"""What a setting costs: the accuracy of a network that is trained on such updates."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

from torch import Tensor, nn

from gradleak.defenses import DPSGD, epsilon
from gradleak.defenses.utility import Federation, Spread, utility
from gradleak.defenses.utility.run import prepared
from gradleak.errors import NotInstalled
from gradleak.identity import identity
from gradleak.observe import OneGradient, cross_entropy, observe
from gradleak.tradeoff.store import Facts, Store
from gradleak.tradeoff.strengths import STRENGTHS, Setting, Yardstick

Records = tuple[Tensor, Tensor]

_DELTA = 1e-5  # of a promise
_LEAST_MULTIPLIER = 0.1  # below, no ε is worth its name
_MOST_EPSILON = 100.0
_MEASURED = 8  # batches whose updates say how large one is


@dataclass(frozen=True)
class Course:
    """Where training ended, by seed; seeds share their records and first weights over all clients."""

    accuracy: tuple[float, ...]
    diverged: tuple[int | None, ...]
    null: float
    note: str

    @property
    def final(self) -> Spread:
        return Spread.of(self.accuracy)

    def cost(self, baseline: "Course") -> Spread:
        """How much accuracy is lost, paired by seed."""
        return Spread.of([a - b for a, b in zip(baseline.accuracy, self.accuracy, strict=True)])


@dataclass(frozen=True, eq=False)
class Training:
    """On what accuracy is measured. ``of`` says it in words; ``own`` whether these are the attacked data.

    ``model`` makes the network of a seed.
    """

    model: Callable[[int], nn.Module]
    train: Records
    test: Records
    of: str
    own: bool = True
    federation: Federation = field(default_factory=Federation)
    seeds: int = 3
    seed: int = 0

    def require_usable(self) -> None:
        """Say now what training would say later: a network that does not fit, or too few records."""
        prepared(self.model, self.train, self.test, self.federation, None, cross_entropy, self.seed)

    @cached_property
    def yardstick(self) -> Yardstick:
        """The size of the first updates of this network, on batches as it is trained on."""
        (x, y), size = self.train, self.federation.batch_size or len(self.train[1])
        starts = range(0, min(len(y) - size, _MEASURED * size) + 1, size)
        model = self.model(self.seed)
        return Yardstick.of(
            [observe(model, x[i : i + size], y[i : i + size]).update for i in starts], min(size, len(y))
        )

    def alike(self, setting: Setting) -> Setting:
        """The setting, as strong for this network's updates as for those that are attacked."""
        if self.own or setting.defense not in STRENGTHS:
            return setting
        strengths = STRENGTHS[setting.defense]
        return strengths.setting(setting.defense, setting.level, self.yardstick, OneGradient())

    def promise(self, setting: Setting) -> str:
        """What DP-SGD promises of each record of a participant after this training; nothing for others."""
        client = self.alike(setting).client
        if not isinstance(client, DPSGD):
            return ""
        own = len(self.train[1]) // self.federation.participants
        rate = min(1.0, (self.federation.batch_size or own) / own)
        none = "no promise at this strength"
        if client.noise_multiplier < _LEAST_MULTIPLIER:
            return none
        try:
            spent = epsilon(client.noise_multiplier, rate, self.federation.rounds, _DELTA)
        except NotInstalled:
            return "what it promises is not known without opacus"
        return f"ε {spent:.2g} at δ {_DELTA:g}" if spent <= _MOST_EPSILON else none

    @cached_property
    def hash(self) -> str:
        return identity(self.model(self.seed), *self.train, *self.test)

    def course(self, setting: Setting, store: Store, tell: Callable[[float], object]) -> Course:
        here = self.alike(setting)
        federation = replace(self.federation, lr=self.federation.lr * here.rate)

        def compute() -> Facts:
            # It stands in the baseline's place, so that the baseline is not trained again for each.
            found = utility(
                self.model,
                self.train,
                self.test,
                clients={"none": here.client},
                **asdict(federation),
                seeds=self.seeds,
                evaluations=1,
                rng=self.seed,
                progress=lambda _, share: tell(share),
            )
            only = found.courses["none"]
            return {
                "accuracy": only.accuracy[:, -1].tolist(),
                "diverged": list(only.diverged),
                "null": found.null,
                "note": found.note,
            }

        key = {
            "kind": "accuracy",
            "training": self.hash,
            "federation": asdict(federation),
            "seeds": self.seeds,
            "seed": self.seed,
            "client": repr(here.client),
        }
        facts = store.get(key, compute, ("accuracy", "diverged", "null", "note"))
        return Course(tuple(facts["accuracy"]), tuple(facts["diverged"]), facts["null"], facts["note"])
