"""How strong each defense can be, from the weakest sensible setting to the strongest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median

from gradleak.defenses import (
    DPSGD,
    Clip,
    Defense,
    Dropout,
    GaussianNoise,
    LaplaceNoise,
    LowPrecision,
    Mask,
    Mixup,
    Prune,
    Sign,
    Soteria,
    Withhold,
)
from gradleak.errors import InvalidInput
from gradleak.observe import Client
from gradleak.trees import Tree, squared_norm


@dataclass(frozen=True)
class Yardstick:
    """What strengths are measured in: the size of an update, so that they mean the same for all networks."""

    rms: float  # of an entry
    entries: int
    records: int
    layers: tuple[str, ...]  # with parameters that are trained, first to last

    @classmethod
    def of(cls, updates: Sequence[Tree], records: int) -> "Yardstick":
        """The median update."""
        entries = sum(leaf.numel() for leaf in updates[0].values())
        norm = median(float(squared_norm(update).sqrt()) for update in updates)
        if not norm > 0:
            raise InvalidInput("expected updates that are not 0 throughout; came such ones: nothing can leak")
        layers = dict.fromkeys(name.rpartition(".")[0] or name for name in updates[0])
        return cls(norm / sqrt(entries), entries, records, tuple(layers))

    @property
    def norm(self) -> float:
        return self.rms * sqrt(self.entries)


@dataclass(frozen=True)
class Setting:
    """One defense at one strength, put around the client; ``rate`` is what the server's is multiplied with.

    A server knows when updates are longer or shorter than a gradient throughout, and steps accordingly.
    """

    defense: str
    words: str
    level: float
    client: Client
    rate: float = 1.0


@dataclass(frozen=True)
class Strengths:
    """A defense's levels, weakest first, and what each is in words and as a client."""

    title: str
    levels: Callable[[Yardstick], Sequence[float]]
    words: Callable[[float, Yardstick], str]
    client: Callable[[Client, float, Yardstick], Defense]
    hint: str = ""  # why even the strongest may not do
    rate: Callable[[float, Yardstick], float] = lambda level, yardstick: 1.0

    def settings(self, name: str, yardstick: Yardstick, around: Client) -> list[Setting]:
        return [self.setting(name, level, yardstick, around) for level in self.levels(yardstick)]

    def setting(self, name: str, level: float, yardstick: Yardstick, around: Client) -> Setting:
        client = self.client(around, level, yardstick)
        return Setting(name, self.words(level, yardstick), level, client, self.rate(level, yardstick))


_NOISE = tuple(10 ** (k / 3) for k in range(-6, 10))  # of the update's size, three to the factor of ten
_DROPPED = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
_LEFT = 20  # entries at least, of what is masked or pruned: fewer train nothing
_FORMATS = ("fp16", "bf16", "int8")


def _always(*levels: float) -> Callable[[Yardstick], Sequence[float]]:
    return lambda yardstick: levels


def _left(yardstick: Yardstick) -> Sequence[float]:
    """Shares of which some entries are left."""
    return [rate for rate in _DROPPED if (1 - rate) * yardstick.entries >= _LEFT]


def _sized(parameter: str, unit: Callable[[Yardstick], float]) -> Callable[[float, Yardstick], str]:
    """A level beside the number that a client is set to."""
    return lambda level, yardstick: f"{level:.2g} × the update, {parameter} {level * unit(yardstick):.2g}"


def _share(what: str) -> Callable[[float, Yardstick], str]:
    return lambda level, yardstick: f"{100 * level:g} % {what}"


def _rms(yardstick: Yardstick) -> float:
    return yardstick.rms


STRENGTHS: dict[str, Strengths] = {
    "gaussian": Strengths(
        "Gaussian noise",
        _always(*_NOISE),
        _sized("std", _rms),
        lambda inner, level, yard: GaussianNoise(inner, std=level * yard.rms),
    ),
    "laplace": Strengths(
        "Laplace noise",
        _always(*_NOISE),
        _sized("std", _rms),
        lambda inner, level, yard: LaplaceNoise(inner, scale=level * yard.rms / sqrt(2)),
    ),
    "dpsgd": Strengths(
        "DP-SGD",
        _always(*_NOISE),
        lambda level, yard: (
            f"clip {yard.norm:.2g}, multiplier {level * yard.records / sqrt(yard.entries):.2g}"
        ),
        lambda inner, level, yard: DPSGD(
            inner, clip=yard.norm, noise_multiplier=level * yard.records / sqrt(yard.entries)
        ),
    ),
    "mask": Strengths(
        "Random masking",
        _left,
        _share("of the entries dropped"),
        lambda inner, level, yard: Mask(inner, rate=level, rescaled=True),
        "what is kept goes out exactly, and more entries are kept than there are pixels",
    ),
    "prune": Strengths(
        "Pruning",
        _left,
        _share("of the entries pruned"),
        lambda inner, level, yard: Prune(inner, fraction=level),
        "what is kept goes out exactly, and it is the part that tells most",
    ),
    "soteria": Strengths(
        "Soteria",
        _always(0.2, 0.4, 0.6, 0.8, 0.9, 0.95),
        _share("of the classifier's features pruned"),
        lambda inner, level, yard: Soteria(inner, fraction=level),
        "all layers but the classifier go out as they were",
    ),
    "dropout": Strengths(
        "Dropout",
        _always(0.1, 0.3, 0.5, 0.7, 0.8, 0.9),
        _share("of the features dropped"),
        lambda inner, level, yard: Dropout(inner, rate=level),
        "of one record, the update shows which features were dropped",
    ),
    "withhold": Strengths(
        "Withholding",
        lambda yard: [float(k) for k in range(1, len(yard.layers))],
        lambda level, yard: f"{', '.join(yard.layers[: int(level)])} not sent",
        lambda inner, level, yard: Withhold(inner, layers=yard.layers[: int(level)]),
        "what the other layers send is exact",
    ),
    "low_precision": Strengths(
        "Low precision",
        _always(0.0, 1.0, 2.0),
        lambda level, yard: _FORMATS[int(level)],
        lambda inner, level, yard: LowPrecision(inner, format=_FORMATS[int(level)]),
        "a rounded number still tells the update to a few digits",
    ),
    "sign": Strengths(
        "Signs",
        _always(1.0),
        lambda level, yard: "signs alone",
        lambda inner, level, yard: Sign(inner),
        "there are many signs for each pixel",
        lambda level, yard: yard.rms,
    ),
    "clip": Strengths(
        "Clipping",
        _always(1.0, 0.3, 0.1, 0.03, 0.01),
        _sized("norm", lambda yardstick: yardstick.norm),
        lambda inner, level, yard: Clip(inner, norm=level * yard.norm),
        "clipping only shortens an update, and whoever simulates it has the same factor",
        lambda level, yard: 1 / level,
    ),
    "mixup": Strengths(
        "Mixup",
        lambda yard: (0.1, 0.3, 1.0, 3.0, 10.0) if yard.records > 1 else (),
        lambda level, yard: f"alpha {level:g}",
        lambda inner, level, yard: Mixup(inner, alpha=level),
        "blends leak as records do, and a batch of one has nothing to blend",
    ),
}
"""By the name that a command line says, in the order in which they are searched."""
