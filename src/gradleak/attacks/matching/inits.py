"""Where a trial starts, as pixels. ``rng`` is the trial's own; draws are on the CPU and moved afterwards."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradleak.errors import InvalidInput

Init = Callable[[tuple[int, ...], Generator], Tensor]


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


INITS: dict[str, Callable[[], Init]] = {
    "gaussian": Gaussian,
    "uniform": Uniform,
    "gray": Gray,
    "patterned": Patterned,
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
