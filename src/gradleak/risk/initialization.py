"""How a network's first weights decide what its gradient gives away (I2F's third insight)."""

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidInput, InvalidModel
from gradleak.observe import Client
from gradleak.randomness import reseed, undisturbed
from gradleak.risk.gram import jacobian, spectrum
from gradleak.risk.influence import influence_of
from gradleak.trees import flatten

Scheme = Callable[[Tensor], object]

SCHEMES: Mapping[str, Scheme | None] = {
    "uniform": partial(nn.init.uniform_, a=-0.5, b=0.5),
    "normal": partial(nn.init.normal_, std=0.5),
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
    "as built": None,
}
"""What is done to weights of two dimensions or more; biases are U(-0.5, 0.5), as in the paper's study."""

_KEPT = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Start:
    """One scheme: medians over pictures and seeds.

    ``psnr`` is an unbiased attacker's at the same absolute noise; ``relative_psnr`` at noise of the same
    share of the gradient's own size, for schemes differ in that by orders of magnitude.
    """

    scheme: str
    cases: int
    largest: float
    median: float
    smallest: float
    psnr: float
    relative_psnr: float


@dataclass(frozen=True)
class Starts:
    noise: float
    share: float
    rows: tuple[Start, ...]

    @property
    def preferred(self) -> Start:
        """The scheme that hides most at the same absolute noise."""
        return min(self.rows, key=lambda row: row.psnr)

    @property
    def verdict(self) -> str:
        hides, shows = self.preferred, max(self.rows, key=lambda row: row.psnr)
        fair = min(self.rows, key=lambda row: row.relative_psnr)
        return (
            f"At noise {self.noise:.3g}, {hides.scheme} hides most ({hides.psnr:.1f} dB) and {shows.scheme} "
            f"shows most ({shows.psnr:.1f} dB); at noise of {self.share:.3g} of the gradient's own size, "
            f"{fair.scheme} hides most ({fair.relative_psnr:.1f} dB)."
        )


def initialization(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    noise: float = 1e-3,
    share: float = 1e-2,
    schemes: Sequence[str] = tuple(SCHEMES),
    seeds: Sequence[int] = (0, 1, 2),
    client: Client | None = None,
    tell: Callable[[str, int, int], None] | None = None,
) -> Starts:
    """Initialise the model's structure anew by each scheme, and predict every picture's risk, each alone.

    Frozen parameters and those of normalisation layers stay. The model comes back as it was; "as built" is
    what it holds now, once.
    """
    if not isinstance(model, nn.Module) or not all(isinstance(t, Tensor) and len(t) for t in (x, y)):
        raise InvalidInput("expected a model, and at least one picture with its label")
    numbers = (noise, share)
    if not all(isinstance(v, int | float) and 0 < v < float("inf") for v in numbers):
        raise InvalidInput(
            f"expected noise and share as finite numbers above 0; came {noise!r} and {share!r}"
        )
    if not isinstance(seeds, list | tuple | range) or not seeds or not all(_is_seed(s) for s in seeds):
        raise InvalidInput(f"expected seeds as whole numbers of 0 or more, at least one; came {seeds!r}")
    schemes = tuple(schemes) if isinstance(schemes, list | tuple) else ()
    unknown = [repr(name) for name in schemes if name not in SCHEMES]
    if unknown or not schemes:
        raise InvalidInput(
            f"expected schemes among {', '.join(SCHEMES)}; came {', '.join(unknown) or 'none'}"
        )
    if not any(p.dim() >= 2 for p in model.parameters()):
        raise InvalidModel("expected a model with weights of two dimensions or more; came none")
    rows = []
    for i, name in enumerate(schemes):
        if tell is not None:
            tell(name, i, len(schemes))
        scheme = SCHEMES[name]
        started = [model] if scheme is None else [_started(model, scheme, seed) for seed in seeds]
        rows.append(_measured(name, started, x, y, noise, share, client))
    return Starts(float(noise), float(share), tuple(rows))


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _started(model: nn.Module, scheme: Scheme, seed: int) -> nn.Module:
    made = copy.deepcopy(model)
    device = next(made.parameters()).device
    with undisturbed(device), torch.no_grad():
        reseed(seed, device)
        for module in made.modules():
            if isinstance(module, _KEPT):
                continue
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    continue
                if parameter.dim() >= 2:
                    scheme(parameter)
                else:
                    nn.init.uniform_(parameter, -0.5, 0.5)
    return made


def _measured(
    name: str,
    started: Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    noise: float,
    share: float,
    client: Client | None,
) -> Start:
    found: list[tuple[float, ...]] = []
    for model in started:
        for i in range(len(x)):
            known = spectrum(jacobian(model, x[i : i + 1], y[i : i + 1], client=client))
            size = float(flatten(known.jacobian.update).square().mean().sqrt())
            told = influence_of(known, noise=[noise, share * size])
            values = known.values
            numbers = (values[-1], values.median(), values[0].clamp_min(0), *told.psnr[:, 0])
            found.append(tuple(float(number) for number in numbers))
    return Start(name, len(found), *(statistics.median(column) for column in zip(*found, strict=True)))
