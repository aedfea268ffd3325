"""A layer's equations on its own input as numbers, and their rank: one function per kind of layer.

Of layer i are known its output z_i, as far as the layers up to the next weighted one let it through, its
weight W_i, the back-propagated k_i = dL/dz_i and the gradient dL/dW_i. Both are linear in its input x_i:

    W_i x_i = z_i        K_i x_i = vec(dL/dW_i)                            (R-GAP; Zhu and Blaschko 2021)

The gradient is the same for each input channel, K_i = I_C ⊗ K0 with K0 a matrix of (outputs · taps) ×
positions. So rank [W_i; K_i] = C · rank K0 + rank of W_i on I_C ⊗ null(K0), which is much smaller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from gradleak.risk.count import Role, count
from gradleak.risk.links import Link

POSITIONS = 4096  # the SVD of K0 takes seconds
ENTRIES = 2**26  # 512 MB of numbers at a time
SIDE = 6000  # the eigenvalues of a Gram matrix take seconds

_CLEAR = 1e-10  # a Gram matrix's eigenvalue that is no rounding, relative to the largest
_ROUNDING = 1e-11  # what a null space may leak, relative to what it was taken from
_CHUNK = 256  # pictures differentiated at a time
_PROBES = 4


@dataclass(frozen=True)
class Block:
    """The input channels that share one K0, and what the layer makes of their pictures.

    ``spread`` takes pictures [q, positions] of one channel, and gives what each of them becomes when it
    stands in each channel in turn: [channels · q, batch, *out_shape]. ``positions`` runs over the batch too.
    """

    K0: Tensor
    channels: int
    spread: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sent:
    """A batch's activation and dL/dactivation at one cut, with a batch axis; float64."""

    value: Tensor
    grad: Tensor


@singledispatch
def blocks(module: nn.Module, link: Link, delta: Tensor) -> list[Block] | None:
    """The layer's equations, given dL/doutput of a batch; None where there is no rule."""
    return None


@blocks.register(nn.Linear)
def _linear(module: nn.Linear, link: Link, delta: Tensor) -> list[Block]:
    """A linear layer is a convolution with one tap: positions are what stands before the features."""
    W = link.weights["weight"].double()
    k = delta.reshape(-1, W.shape[0])
    before = (delta.shape[0], *link.in_shape[:-1])

    def spread(pictures: Tensor) -> Tensor:
        spread = torch.einsum("qp,of->fqpo", pictures, W)
        return spread.reshape(-1, *before, W.shape[0])

    return [Block(_sent(k.T, link), W.shape[1], spread)]


@blocks.register(nn.Conv1d)
@blocks.register(nn.Conv2d)
def _convolution(module: nn.Conv1d | nn.Conv2d, link: Link, delta: Tensor) -> list[Block]:
    """dL/dW[o, c, tap] = Σ_position k[o, position] · padded x[c, where the tap looks from there]."""
    flat = isinstance(module, nn.Conv1d)
    delta = delta.unsqueeze(-2) if flat else delta
    W = link.weights["weight"].double()
    parts = (W.unsqueeze(-2) if flat else W).chunk(module.groups)
    looks = _looks(module, link, delta.shape[0])
    found = []
    for group, part in enumerate(parts):
        k = delta.chunk(module.groups, 1)[group].flatten(2)  # [batch, outputs, places]
        k = k.permute(1, 0, 2).flatten(1)
        K0 = k.new_zeros(k.shape[0], looks.shape[0], int(delta.shape[0] * _area(link)) + 1)
        shape = (k.shape[0], *looks.shape)
        K0.scatter_add_(2, looks.expand(shape), k.unsqueeze(1).expand(shape))
        spread = _spread_convolution(module, link, part, group, delta.shape[0])
        found.append(Block(_sent(K0[..., 1:].flatten(0, 1), link), part.shape[1], spread))
    return found


def _spread_convolution(
    module: nn.Conv1d | nn.Conv2d, link: Link, part: Tensor, group: int, batch: int
) -> Callable[[Tensor], Tensor]:
    outputs, channels = part.shape[:2]
    settings = _settings(module)

    def spread(pictures: Tensor) -> Tensor:
        x = _padded(module, pictures.reshape(-1, 1, *_picture(link)))
        # every filter's slice for every channel is a filter of its own
        one_by_one = part.transpose(0, 1).flatten(0, 1).unsqueeze(1)
        z = F.conv2d(x, one_by_one, None, settings[1], 0, settings[2])
        z = z.reshape(-1, batch, channels, outputs, *z.shape[2:]).permute(2, 0, 1, 3, 4, 5).flatten(0, 1)
        whole = z.new_zeros(*z.shape[:2], outputs * module.groups, *z.shape[3:])
        whole[:, :, group * outputs : (group + 1) * outputs] = z
        return whole.reshape(*whole.shape[:2], *link.out_shape)

    return spread


def _looks(module: nn.Conv1d | nn.Conv2d, link: Link, batch: int) -> Tensor:
    """[taps, batch · places]: the position from 1 on that a tap looks at from a place; 0 is padding."""
    positions = torch.arange(1, int(batch * _area(link)) + 1, dtype=torch.float64)
    kernel, stride, dilation = _settings(module)
    padded = _padded(module, positions.reshape(batch, 1, *_picture(link)))
    seen = F.unfold(padded, tuple(kernel), tuple(dilation), 0, tuple(stride))
    return seen.permute(1, 0, 2).flatten(1).long()


def _padded(module: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    # what torch itself pads with, whether padding was said as numbers, as "same" or as "valid"
    around = list(module._reversed_padding_repeated_twice)
    around += [0, 0] if isinstance(module, nn.Conv1d) else []
    return F.pad(x, around, "constant" if module.padding_mode == "zeros" else module.padding_mode)


def _settings(module: nn.Conv1d | nn.Conv2d) -> tuple[list[int], list[int], list[int]]:
    one = [1] if isinstance(module, nn.Conv1d) else []
    kernel, stride, dilation = (
        one + [int(n) for n in setting] for setting in (module.kernel_size, module.stride, module.dilation)
    )
    return kernel, stride, dilation


def _picture(link: Link) -> tuple[int, int]:
    rows, columns = (1, *link.in_shape[1:])[-2:]
    return rows, columns


def _area(link: Link) -> int:
    rows, columns = _picture(link)
    return rows * columns


def _sent(K0: Tensor, link: Link) -> Tensor:
    return K0 if "weight" in link.trained else K0[:0]


def let_through(after: Sequence[tuple[Link, Tensor]], changes: Tensor) -> Tensor:
    """What small changes [n, batch, ...] of a layer's output become, as far as the next weighted layer sees.

    ``after`` are the layers between, each with what came into it. Lossless ones at the end change no rank;
    before a lossy one they do: the mean of a window is one equation, and whose depends on their slopes.
    """
    roles = [count(link.module, link).role for link, _ in after]
    lossy = [i for i, role in enumerate(roles) if role is not Role.LOSSLESS]
    for link, came in after[: lossy[-1] + 1] if lossy else ():
        changes = _moved(link, came, changes)
    return changes


def _moved(link: Link, came: Tensor, changes: Tensor) -> Tensor:
    """J v of one layer at ``came``, as the derivative of u ↦ Jᵀu.

    Forward mode would do it once, but compiles its decompositions at first use, with warnings.
    """
    weights = {name: _doubled(tensor) for name, tensor in link.weights.items()}
    x = came.detach().requires_grad_()
    gives: Tensor = functional_call(link.module, weights, (x,))
    u = torch.zeros_like(gives, requires_grad=True)
    (back,) = torch.autograd.grad(gives, x, u, create_graph=True)
    moved = [
        torch.autograd.grad(back, u, some, retain_graph=True, is_grads_batched=True)[0]
        for some in torch.split(changes, _CHUNK)
    ]
    return torch.cat(moved)


def stacked_rank(link: Link, sent: Sent, after: Sequence[tuple[Link, Tensor]]) -> int | None:
    """The rank of [W_i; I_C ⊗ K0_i]; None where the layer has no rule or is too large to rank.

    ``after`` are the layers up to the next weighted one, each with what came into it.
    """
    channels = link.in_shape[-1] if isinstance(link.module, nn.Linear) else link.in_shape[0]
    if sent.grad.shape[0] * link.unknowns > POSITIONS * channels:
        return None
    parts = blocks(link.module, link, sent.grad)
    if parts is None:
        return None
    nulls = [null_space(part.K0) for part in parts]
    hidden = sum(part.channels * null.shape[0] for part, null in zip(parts, nulls, strict=True))
    rank = sent.grad.shape[0] * link.unknowns - hidden
    if hidden == 0:
        return rank
    if too_large(hidden, sent.value.numel()):
        return None
    # Where nothing is left, what comes out is all rounding: random pictures say how large equations are.
    probes = [_probes(part) for part in parts]
    spread = [part.spread(torch.cat(pair)) for part, *pair in zip(parts, nulls, probes, strict=True)]
    seen = let_through(after, torch.cat(spread)).flatten(1)
    probe = torch.cat([_is_probe(part, null) for part, null in zip(parts, nulls, strict=True)])
    return rank + rank_of(seen[~probe], scale=float(seen[probe].norm(dim=1).max()))


def _probes(part: Block) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    pictures = torch.randn(_PROBES, part.K0.shape[1], generator=draws, dtype=torch.float64)
    return F.normalize(pictures)


def _is_probe(part: Block, null: Tensor) -> Tensor:
    rows = torch.arange(null.shape[0] + _PROBES) >= null.shape[0]
    return rows.repeat(part.channels)


def forward_rank(link: Link) -> int | None:
    """The rank of W_i for one record; None where the layer has no rule or is too large to rank."""
    if too_large(link.unknowns, link.outputs):
        return None
    parts = blocks(link.module, link, torch.zeros(1, *link.out_shape, dtype=torch.float64))
    if parts is None:
        return None
    every = [torch.eye(part.K0.shape[1], dtype=torch.float64) for part in parts]
    return rank_of(torch.cat([p.spread(eye) for p, eye in zip(parts, every, strict=True)]).flatten(1))


def too_large(rows: int, columns: int) -> bool:
    return rows * columns > ENTRIES or min(rows, columns) > SIDE


def null_space(K0: Tensor) -> Tensor:
    """An orthonormal basis of what K0 does not see, in rows."""
    if K0.shape[0] == 0:
        return torch.eye(K0.shape[1], dtype=K0.dtype)
    svd: tuple[Tensor, Tensor, Tensor] = torch.linalg.svd(K0)
    _, s, Vh = svd
    rank = int((s > s.max() * max(K0.shape) * torch.finfo(K0.dtype).eps).sum())
    return Vh[rank:]


def rank_of(matrix: Tensor, scale: float = 0.0) -> int:
    """The numerical rank; ``scale`` is how large the numbers were that the matrix is what is left of.

    Full rank shows in the smaller Gram matrix, at a sixth of the cost. It squares the singular values, so
    that what is small in there may be rounding or not, and then they are computed themselves.
    """
    if matrix.numel() == 0:
        return 0
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    e: Tensor = torch.linalg.eigvalsh(wide @ wide.T)
    if e[0] > _CLEAR * max(float(e[-1]), scale**2):
        return len(e)
    s: Tensor = torch.linalg.svdvals(matrix)
    rounding = max(matrix.shape) * torch.finfo(matrix.dtype).eps * float(s[0])
    return int((s > max(rounding, _ROUNDING * scale)).sum())


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
