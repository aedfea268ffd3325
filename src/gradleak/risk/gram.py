"""What JᵀJ says of an update: its spectrum in full, or what Lanczos sees of it without writing it down."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidBatch, InvalidInput, NotDeterministic
from gradleak.observe import Client, Loss, Observation, observe
from gradleak.observe.checks import check_finite, check_targets
from gradleak.observe.jacobian import Jacobian
from gradleak.observe.task import cross_entropy
from gradleak.randomness import reseed, undisturbed
from gradleak.risk.chain import gram
from gradleak.risk.lanczos import Lanczos

Function = Callable[[Tensor], Tensor]
"""Of eigenvalues, entry by entry."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """JᵀJ = V diag(λ) Vᵀ in pixels: one decomposition serves every noise, damping and perturbation.

    ``values`` ascend; ``vectors`` are columns. Pixels are those before the normalisation, in [0, 1].
    """

    jacobian: Jacobian
    values: Tensor  # [columns]
    vectors: Tensor  # [columns, columns]

    @property
    def floor(self) -> float:
        """Below it an eigenvalue is rounding, and its direction counts as one of the null space."""
        return floor_of(float(self.values[-1]), len(self.values))

    @property
    def protected(self) -> int:
        """How many directions the update does not depend on."""
        return int((self.values <= self.floor).sum())

    def diagonal(self, f: Function) -> Tensor:
        """The mean of f(JᵀJ)'s diagonal over each sample's pixels: [B]."""
        return per_sample(self.jacobian, self.vectors.square() @ f(self.values))

    def apply(self, f: Function, b: Tensor) -> Tensor:
        """f(JᵀJ) b, for one b or for a row of each."""
        return (b @ self.vectors * f(self.values)) @ self.vectors.T


@dataclass(frozen=True, eq=False)
class Krylov:
    """f(JᵀJ) b for several b by Lanczos, and the spectrum as each b sees it.

    ``nodes`` and ``weights`` are Gauss's quadrature: Σ weights g(nodes) ≈ bᵀ g(JᵀJ) b / bᵀb for any g.
    ``error`` is relative: how far f(JᵀJ) b moved in the last fifth of the steps.
    """

    nodes: Tensor  # [n, steps]
    weights: Tensor  # [n, steps]
    applied: Tensor  # [n, columns]
    error: float


def jacobian(
    model: nn.Module | Observation,
    x: Tensor,
    y: Tensor,
    *,
    client: Client | None = None,
    loss: Loss | None = None,
) -> Jacobian:
    """The Jacobian of the update at a batch, in float64: float32 would hide the directions that matter.

    An Observation brings its client, its loss and its normalisation, and its update is not looked at: the
    client is asked for that of ``x``. A client that shuffles takes the records as they come.
    """
    if isinstance(model, Observation):
        if client is not None or loss is not None:
            raise InvalidInput(
                "an Observation has a client and a loss; came another one besides. Pass the model with "
                "client=... and loss=..., or the Observation alone."
            )
        obs = model
        x, y = _fitting(obs, x, y)
    else:
        obs = observe(model, x, y, client=client, loss=loss)
    obs = obs.to(torch.float64)
    x = x.detach().to(obs.like, copy=True)
    y = y.detach().to(obs.like.device, obs.like.dtype if y.is_floating_point() else torch.int64, copy=True)
    found = Jacobian(obs, x, y)
    _require_same(found)
    return found


def spectrum(jacobian: Jacobian) -> Spectrum:
    """The eigenvalues and eigenvectors of JᵀJ: cubic in the number of pixels."""
    scale = pixels_per_unit(jacobian).flatten()
    values, vectors = torch.linalg.eigh(gram(jacobian) / scale / scale[:, None])
    if not float(values[-1]) > 0:
        raise InvalidInput(_BLIND)
    return Spectrum(jacobian, values, vectors)


_BLIND = (
    "expected an update that depends on the pictures; this one does not change when they change a little. "
    "Look for layers that are switched off at this batch, such as dead ReLUs, or a client that sends nothing."
)


def krylov(
    jacobian: Jacobian, starts: Tensor, f: Function, *, tolerance: float, memory: int = 2**30
) -> Krylov:
    """f(JᵀJ) b for each row b of ``starts``: Lanczos with full reorthogonalisation, all rows together.

    Until f(JᵀJ) b moves by less than ``tolerance`` over a fifth of the steps, or the basis fills ``memory``
    bytes, or the whole space. A 1/λ whose small λ are not found yet is too small: without damping, read
    ``error``.
    """
    n, columns = starts.shape
    scale = pixels_per_unit(jacobian)
    most = max(2, min(columns, memory // (8 * n * columns)))
    space = Lanczos(partial(_normal, jacobian, scale), starts)
    past: dict[int, Tensor] = {}
    while True:
        space.grow(min(most, space.steps + max(10, space.steps // 8)))
        if not float(space.diagonal.max()) > 0 and bool(starts.any()):
            raise InvalidInput(_BLIND)
        (now,) = space.apply(f)
        past[space.steps] = now
        error = 0.0 if space.ended else _moved(past, space.steps)
        if space.ended or space.steps == most or error < tolerance:
            nodes, weights = space.quadrature()
            return Krylov(nodes, weights, now, error)


def per_sample(jacobian: Jacobian, pixels: Tensor) -> Tensor:
    """The mean over each sample's pixels: [B]."""
    return pixels.reshape(len(jacobian.x), -1).mean(1)


def pixels_per_unit(jacobian: Jacobian) -> Tensor:
    """How far a pixel moves where x moves by one, in the batch's shape: the normalisation's std."""
    domain = replace(jacobian.obs.domain, mean=(0.0,) * len(jacobian.obs.domain.std))
    return domain.to_pixels(torch.ones_like(jacobian.x))


def slope(jacobian: Jacobian, perturbation: Tensor) -> Tensor:
    """Jᵀδ in pixels: [columns]."""
    return (jacobian.transposed(perturbation) / pixels_per_unit(jacobian)).flatten()


def floor_of(largest: float, columns: int) -> float:
    return columns * torch.finfo(torch.float64).eps * largest


def _normal(jacobian: Jacobian, scale: Tensor, vectors: Tensor) -> Tensor:
    """JᵀJ v for each row, in pixels."""
    moved = jacobian.times_all(vectors.reshape(-1, *jacobian.x.shape) / scale)
    return (jacobian.transposed_all(moved) / scale).flatten(1)


def _moved(past: dict[int, Tensor], steps: int) -> float:
    """The largest relative change of a row since four fifths of the steps."""
    before = [then for then in past if then <= 0.8 * steps]
    if not before:
        return math.inf
    now, then = past[steps], past[max(before)]
    return float(((now - then).norm(dim=1) / now.norm(dim=1).clamp_min(1e-300)).max())


def _fitting(obs: Observation, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(x, Tensor) or not x.is_floating_point() or tuple(x.shape) != obs.x_shape:
        came = f"{x.dtype} of shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InvalidBatch(
            f"expected the pictures that this observation is of, shape {list(obs.x_shape)}; came {came}"
        )
    if not bool(torch.isfinite(x).all()):
        raise InvalidBatch("expected pixels that are finite; came NaN or infinite ones")
    if not isinstance(y, Tensor) or y.dim() < 1 or len(y) != len(x):
        came = f"shape {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise InvalidBatch(f"expected one label for each of the {len(x)} pictures; came {came}")
    if obs.loss is cross_entropy and obs.classes is not None:
        check_targets(y, len(x), obs.classes)
    return x, y


def _require_same(found: Jacobian) -> None:
    """The client must send the same for the same batch, or its derivative is that of dice."""
    with undisturbed(found.x.device):
        reseed(0, found.x.device)
        once = found.update
        reseed(1, found.x.device)  # a layer that draws does not draw the same again
        again = found.obs.simulate(found.x, found.y)
    check_finite(once)
    names = [name for name, leaf in once.items() if float((again[name] - leaf).norm()) > 1e-6 * leaf.norm()]
    if names:
        raise NotDeterministic(
            "expected a client that sends the same update for the same batch; came two different ones in "
            f"{', '.join(names[:8])}. A layer draws at random: call model.eval(), or fix its draw."
        )
