"""Where a trial starts, as pixels. ``rng`` is the trial's own; draws are on the CPU and moved afterwards."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from gradleak.errors import InvalidInput
from gradleak.labels import LabelGuess

Init = Callable[[tuple[int, ...], Generator], Tensor]


@runtime_checkable
class LabelledInit(Protocol):
    """An init that depends on what the trial takes its labels to be, and becomes one that does not."""

    def knowing(self, guess: LabelGuess) -> Init: ...

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor: ...


@dataclass(frozen=True)
class Gaussian:
    """N(mean, std²) per pixel; (0, 1) is what the papers call randn."""

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor:
        return self.mean + self.std * torch.randn(shape, generator=rng, dtype=torch.float64)


@dataclass(frozen=True)
class Uniform:
    """Uniform in [low, high] per pixel."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor:
        return self.low + (self.high - self.low) * torch.rand(shape, generator=rng, dtype=torch.float64)


@dataclass(frozen=True)
class Gray:
    """One gray for every pixel, with a little noise so that trials and records differ."""

    level: float = 0.5
    noise: float = 0.1

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor:
        return self.level + self.noise * torch.randn(shape, generator=rng, dtype=torch.float64)


@dataclass(frozen=True)
class Flat:
    """One value for every pixel, without noise: "dark" is 0 and "bright" 1 (Wei et al. 2020)."""

    level: float

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor:
        return torch.full(shape, float(self.level), dtype=torch.float64)


@dataclass(frozen=True)
class Patterned:
    """One small random tile, repeated over the picture (Wei et al. 2020)."""

    tile: int = 16

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor:
        if len(shape) != 4:
            raise InvalidInput(f"a pattern needs pictures [B, C, H, W]; came {list(shape)}")
        *lead, height, width = shape
        tile = torch.rand((*lead, self.tile, self.tile), generator=rng, dtype=torch.float64)
        times = (math.ceil(height / self.tile), math.ceil(width / self.tile))
        return tile.tile((1, 1, *times))[..., :height, :width]


@dataclass(frozen=True, eq=False)
class Given:
    """A start of your own, in pixels: another attack's result, or a public picture."""

    pixels: Tensor

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor:
        try:
            return self.pixels.detach().cpu().double().expand(shape).clone()
        except RuntimeError as error:
            raise InvalidInput(
                f"the given start has shape {list(self.pixels.shape)}; expected {list(shape)}"
            ) from error


@dataclass(frozen=True, eq=False)
class SameClass:
    """A public picture of each record's own class (Wei et al. 2020): pixels [N, ...] with labels [N].

    A class that the public pictures do not show gets any of them. Labels that are to be learnt count as
    the likeliest class of their own random start, which is no more than chance.
    """

    pictures: Tensor
    labels: Tensor
    wanted: Tensor | None = None  # [B], filled in by ``knowing``

    def __post_init__(self) -> None:
        if self.labels.dim() != 1 or not 0 < len(self.labels) == len(self.pictures):
            raise InvalidInput(
                "expected public pictures [N, ...] with as many labels [N]; came "
                f"{list(self.pictures.shape)} and {list(self.labels.shape)}"
            )

    def knowing(self, guess: LabelGuess) -> "SameClass":
        wanted = guess.y if guess.logits is None else guess.logits.argmax(-1)
        return SameClass(self.pictures, self.labels, None if wanted is None else wanted.cpu())

    def __call__(self, shape: tuple[int, ...], rng: Generator) -> Tensor:
        if shape[1:] != self.pictures.shape[1:]:
            raise InvalidInput(
                f"the public pictures have shape {list(self.pictures.shape[1:])}; expected {list(shape[1:])}"
            )
        labels = self.labels.cpu()
        chosen = []
        for i in range(shape[0]):
            fitting = labels == self.wanted[i] if self.wanted is not None else torch.ones_like(labels) > 0
            of = fitting.nonzero()[:, 0] if bool(fitting.any()) else torch.arange(len(labels))
            chosen.append(int(of[int(torch.randint(len(of), (), generator=rng))]))
        return self.pictures.detach()[chosen].cpu().double()


INITS: dict[str, Callable[[], Init]] = {
    "gaussian": Gaussian,
    "uniform": Uniform,
    "gray": Gray,
    "patterned": Patterned,
    "dark": lambda: Flat(0.0),
    "bright": lambda: Flat(1.0),
}


def as_init(init: str | Tensor | Init) -> Init:
    """By name, by your own picture, or as it is."""
    if isinstance(init, Tensor):
        return Given(init)
    if callable(init):
        return init
    if not isinstance(init, str) or init not in INITS:
        raise InvalidInput(
            f"expected an init among {', '.join(INITS)}, a tensor or a function; came {init!r}"
        )
    return INITS[init]()
