"""How the update answers to small changes of the batch, and how much of the batch it leaves open."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from scipy.linalg.blas import dsyrk
from torch import Generator, Tensor
from torch.func import jvp, vmap

from gradleak.observe.client import Client
from gradleak.observe.observation import Observation
from gradleak.observe.task import attention_by_formula
from gradleak.trees import Tree, detached, flatten

_AT_ONCE = 64  # products in one call: more are no faster
_NUMBERS = 2**24  # in what one call returns
_ROUNDING = 1000  # of a dtype's own: what two ways to sum the same may differ by


@dataclass(frozen=True, eq=False)
class Jacobian:
    """J = d update / d x at one batch, as its products with vectors: it is not written down.

    Rows are the update's entries in its own order, columns the batch's. ``weights`` multiply the rows, by
    name: one number each, or one for every entry; None leaves them as they are.
    """

    obs: Observation
    x: Tensor
    y: Tensor
    weights: Mapping[str, Tensor | float] | None = None

    @classmethod
    def even(cls, obs: Observation, x: Tensor, y: Tensor) -> "Jacobian":
        """With rows scaled so that every parameter's share of the update has the same size.

        An attacker may weigh them as it likes, and the rank is the same. A share that is rounding, as that of
        a bias before BatchNorm is, stays small.
        """
        sizes = {name: float(leaf.norm()) for name, leaf in cls(obs, x, y).update.items()}
        least = max(1e-4 * max(sizes.values()), 1e-30)
        return cls(obs, x, y, {name: 1 / max(size, least) for name, size in sizes.items()})

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.x.numel()

    @cached_property
    def update(self) -> dict[str, Tensor]:
        """What the client sends for this very batch, unweighted."""
        return self.sent_by(self.obs.told_client)

    def sent_by(self, client: Client) -> dict[str, Tensor]:
        """What another client would send for it."""
        return detached(self._simulated(self.x.detach(), client))

    def split(self, u: Tensor) -> dict[str, Tensor]:
        """A vector of rows, by the parameters' names."""
        parts = torch.split(u, [leaf.numel() for leaf in self.update.values()])
        return {
            name: part.reshape(leaf.shape)
            for part, (name, leaf) in zip(parts, self.update.items(), strict=True)
        }

    def dense(self) -> Tensor:
        """[rows, columns] in float64, many columns at a time: for a picture that is small enough."""
        columns = self.x.numel()
        found = self.x.new_empty(columns, self.rows, dtype=torch.float64)
        for at, block in self._blocks():
            found[at] = self.times_all(block)
        return found.T

    def gram(self, memory: int = 2**30) -> Tensor:
        """JᵀJ [columns, columns] in float64, symmetric to the last bit.

        J is written down where it takes no more than ``memory`` bytes, and the Gram matrix is one product
        of matrices. Otherwise its columns are Jᵀ(J e), block by block: nothing as large as J is ever held,
        and for a large network that is also the faster way.
        """
        columns = self.x.numel()
        if 8 * self.rows * columns <= memory:
            at_once = self._gram_at_once()
            return _squared(self.dense()) if at_once is None else at_once
        found = self.x.new_empty(columns, columns, dtype=torch.float64)
        for at, block in self._blocks():
            found[at] = self.transposed_all(self.times_all(block)).flatten(1)
        return (found + found.T) / 2

    def _gram_at_once(self) -> Tensor | None:
        """By forward derivatives of as few rows as say the same; None where torch cannot, or does it wrong.

        One product checks the whole.
        """
        v = torch.randn(self.x.shape, generator=Generator().manual_seed(0), dtype=torch.float64).to(
            self.x.device
        )
        moved = self.times(v)
        parts = zip(self._parts[1].values(), self.split(moved).values(), strict=True)
        thin = [_thinner(part.detach(), change) for part, change in parts]

        def sent(x: Tensor) -> Tensor:
            update = self._weighted(self._simulated(x, self.obs.told_client, transformed=True))
            return torch.cat([f(u).flatten() for f, u in zip(thin, update.values(), strict=True)])

        found = self.x.new_empty(self.x.numel(), len(sent(self.x.detach())), dtype=torch.float64)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own parts warn of each other
                warnings.simplefilter("error", UserWarning)  # where it would go one by one
                for at, block in self._blocks():
                    found[at] = vmap(lambda one: jvp(sent, (self.x,), (one,))[1])(block.to(self.x))
        except Exception:  # whatever a client raises that was not made to be transformed
            return None
        gram, right = _squared(found.T), self.transposed(moved).flatten()
        off = (gram @ v.flatten() - right).norm()
        return gram if bool(off <= _ROUNDING * torch.finfo(self.x.dtype).eps * right.norm()) else None

    def times_all(self, vs: Tensor) -> Tensor:
        """J v for each of [n, *batch] at once, in float64: [n, rows]."""
        us, slope = self._slope
        return _products(self._unbatched, slope, us, vs)

    def transposed_all(self, us: Tensor) -> Tensor:
        """Jᵀu for each of [n, rows] at once, in float64: [n, *batch]."""
        leaf, update = self._sent
        return _products(self._unbatched, update, (leaf,), us).reshape(-1, *self.x.shape)

    def transposed(self, u: Tensor) -> Tensor:
        """Jᵀu in float64: one matching gradient."""
        leaf, update = self._sent
        with attention_by_formula():
            (slope,) = torch.autograd.grad(update, leaf, u.to(update), retain_graph=True)
        return slope.detach().double()

    def times(self, v: Tensor) -> Tensor:
        """J v in float64, as the derivative of ⟨Jᵀu, v⟩ with respect to u."""
        us, slope = self._slope
        with attention_by_formula():
            return _product(slope, us, v.to(slope)).double()

    @property
    def rows(self) -> int:
        return self._sent[1].numel()

    @cached_property
    def _sent(self) -> tuple[Tensor, Tensor]:
        leaf, parts = self._parts
        return leaf, flatten(parts)

    @cached_property
    def _parts(self) -> tuple[Tensor, dict[str, Tensor]]:
        leaf = self.x.detach().clone().requires_grad_()
        update = self._simulated(leaf, self.obs.told_client)
        return leaf, self._weighted(update)

    def _weighted(self, update: Tree) -> dict[str, Tensor]:
        weights = self.weights or {}
        return {name: u * torch.as_tensor(weights.get(name, 1.0)).to(u) for name, u in update.items()}

    def _simulated(self, x: Tensor, client: Client, *, transformed: bool = False) -> dict[str, Tensor]:
        task = replace(self.obs.task, transformed=transformed, whole=True)
        with attention_by_formula(), torch.enable_grad():
            return client(task, self.obs.params, x, self.y)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Unit vectors, as many at a time as their products take little memory, and where they stand."""
        columns = self.x.numel()
        size = max(1, min(_AT_ONCE, _NUMBERS // max(self.rows, columns)))
        for start in range(0, columns, size):
            n = min(size, columns - start)
            units = torch.zeros(n, columns, dtype=torch.float64, device=self.x.device)
            units[range(n), range(start, start + n)] = 1
            yield slice(start, start + n), units.reshape(n, *self.x.shape)

    @cached_property
    def _unbatched(self) -> set[int]:
        """Which of the two graphs torch was found not to batch, by the identity of its end."""
        return set()

    @cached_property
    def _slope(self) -> tuple[tuple[Tensor, ...], Tensor]:
        # One u for each parameter: of a single one, every part of J v would be padded to the whole length.
        leaf, parts = self._parts
        us = tuple(torch.zeros_like(part, requires_grad=True) for part in parts.values())
        moving = [(part, u) for part, u in zip(parts.values(), us, strict=True) if part.requires_grad]
        with attention_by_formula(), torch.enable_grad():
            (slope,) = torch.autograd.grad(
                [part for part, _ in moving], leaf, [u for _, u in moving], create_graph=True
            )
        return us, slope


def _thinner(part: Tensor, moved: Tensor) -> Callable[[Tensor], Tensor]:
    """What sees all that ``part`` does in fewer rows, where it is a matrix whose rank is and stays small.

    A linear layer's gradient is the sum of δ hᵀ over its records. Matrices of such a rank form a surface, and
    what moves on it is as long as UᵀM and (1 − UUᵀ)MV together. Whether it stays on it, ``moved`` tells:
    a change of the part along a random direction.
    """
    if part.dim() != 2:
        return lambda m: m
    u, sizes, v = torch.linalg.svd(part, full_matrices=False)
    rank = max(1, int((sizes > 1e-12 * sizes[0]).sum()))
    u, v = u[:, :rank], v[:rank].T
    left = moved - u @ (u.T @ moved)
    stays = bool((left - left @ v @ v.T).norm() <= 1e-12 * moved.norm())
    if not stays or 2 * rank * sum(part.shape) > part.numel():
        return lambda m: m

    def thin(m: Tensor) -> Tensor:
        across = m @ v
        return torch.cat(((u.T @ m).flatten(), (across - u @ (u.T @ across)).flatten()))

    return thin


def _product(outputs: Tensor, inputs: Sequence[Tensor], v: Tensor, *, many: bool = False) -> Tensor:
    """The slopes of ⟨outputs, v⟩, as one vector; of many v at once, as one row for each."""
    slopes = torch.autograd.grad(
        outputs, inputs, v, retain_graph=True, is_grads_batched=many, allow_unused=True
    )
    rows = v.shape[:1] if many else ()
    parts = [
        leaf.new_zeros((*rows, leaf.numel())) if slope is None else slope.detach().reshape(*rows, -1)
        for slope, leaf in zip(slopes, inputs, strict=True)
    ]
    return torch.cat(parts, -1)


def _products(unbatched: set[int], outputs: Tensor, inputs: Sequence[Tensor], vectors: Tensor) -> Tensor:
    """Many products at once where torch can, and one by one otherwise, which ``unbatched`` remembers.

    Some layers cannot be batched, and torch has batched others to wrong numbers without a word. So every
    block is compared with one more product, of a random mixture of its vectors.
    """
    vectors = vectors.to(outputs)
    with attention_by_formula():
        if id(outputs) not in unbatched:
            at_once = _batched(outputs, inputs, vectors)
            if at_once is not None:
                return at_once.double()
            unbatched.add(id(outputs))
        return torch.stack([_product(outputs, inputs, v) for v in vectors]).double()


def _batched(outputs: Tensor, inputs: Sequence[Tensor], vectors: Tensor) -> Tensor | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch says so where it would go one by one, and slowly
            found = _product(outputs, inputs, vectors, many=True)
    except (RuntimeError, UserWarning):
        return None
    shares = torch.randn(len(vectors), generator=Generator().manual_seed(0), dtype=torch.float64).to(outputs)
    mixture = torch.tensordot(shares, vectors, 1)
    off = (shares @ found - _product(outputs, inputs, mixture)).norm()
    return found if bool(off <= _ROUNDING * torch.finfo(found.dtype).eps * found.norm()) else None


def _squared(matrix: Tensor) -> Tensor:
    """AᵀA of a matrix that lies column by column; on the CPU by the BLAS routine that computes half of it."""
    if matrix.is_cuda:
        return matrix.T @ matrix
    half = torch.from_numpy(dsyrk(1.0, matrix.numpy(), trans=1, lower=0))
    return half.triu() + half.triu(1).T


def open_share(jacobian: Jacobian, rng: Generator, *, iterations: int = 300, enough: float = 0.0) -> float:
    """The share of the batch's directions that the update leaves open: the nullity of J, over its columns.

    A random direction is rebuilt from its product with J by conjugate gradients; what cannot be rebuilt
    lies in J's null space, or in directions so weak that ``iterations`` do not reach them. So it is an
    upper bound, which falls with more iterations, and an estimate with an error of 1/sqrt(columns). It
    stops early where the share falls to ``enough``, and where rounding has taken over.
    """
    v = torch.randn(jacobian.x.shape, generator=rng, dtype=torch.float64)
    whole = float(v.square().sum())
    least = 1.0
    for n, rebuilt in enumerate(_rebuilt(jacobian, v)):
        share = float((v - rebuilt).square().sum()) / whole
        if not share <= 2 * least:  # without rounding it only falls
            break
        least = min(least, share)
        if least <= enough or n == iterations:
            break
    return least


def _rebuilt(jacobian: Jacobian, v: Tensor) -> Iterator[Tensor]:
    """Towards the least-squares solution of J w = J v, by CGLS from 0: v without its null space."""
    w, left = torch.zeros_like(v), jacobian.times(v)
    slope = jacobian.transposed(left)
    direction, size = slope, slope.square().sum()
    first = float(size)
    while float(size) > 1e-24 * first:
        moved = jacobian.times(direction)
        step = size / moved.square().sum()
        w, left = w + step * direction, left - step * moved
        yield w
        slope = jacobian.transposed(left)
        size, last = slope.square().sum(), size
        direction = slope + size / last * direction
