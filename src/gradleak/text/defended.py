"""The span of a gradient to which a defense has done something, by what a server knows of that."""

import torch
from torch import Tensor

from gradleak.observe.uncertainty import rounding as rounding_of
from gradleak.text.completion import Completed, completed
from gradleak.text.span import Span

_MORE = 3.0  # times its own rounding, by which a number must be off for a defense to be seen
_SUMS = 2.0  # times eps, of a row's root mean square: what the sums behind its entries lose
_LEAST = 1e-9
_FINEST = 0.25  # of a row's root mean square deviation: that entries are surer than this tells little more


def is_blurred(sent: list[Tensor], deviations: list[Tensor], dtype: torch.dtype) -> bool:
    """Whether more than the numbers' own rounding lies between these blocks and a gradient."""
    return any(
        bool((off > _MORE * rounding_of(block.to(dtype))).any())
        for block, off in zip(sent, deviations, strict=True)
    )


def defended_span(sent: list[Tensor], deviations: list[Tensor], dtype: torch.dtype, own: float) -> Span | str:
    """Of gradients [rows, n] whose entries are off by ``deviations``, infinite where they are not seen.

    Of m words they are a matrix of rank m, so that those entries which are seen tell the others, and exact
    ones make up for coarse ones. ``own`` is the rounding of what a layer reads.
    """
    stack, off = torch.cat(sent), torch.cat(deviations)
    seen = off.isfinite()
    if not bool((stack != 0).logical_and(seen).any()):
        return "nothing is seen of the layers that read the words"
    exact = torch.cat([rounding_of(block.to(dtype)) for block in sent])
    noisy = bool((off > _MORE * exact)[seen].any())
    if not noisy:
        off = torch.where(seen, torch.finfo(dtype).eps * _SUMS * _size(stack, seen), torch.inf)
    finest = _FINEST * _size(off, seen)
    finest = finest.clamp_min(_LEAST * float(finest.max()))  # of rows of zeros
    weight = torch.where(seen, 1 / off.clamp_min(finest), 0)
    found = completed(stack, weight, faint=0.0 if noisy else _MORE)
    if isinstance(found, str):
        return found
    return _span(found, [len(block) for block in sent], own, noisy)


def _span(found: Completed, sizes: list[int], own: float, noisy: bool) -> Span | str:
    """In columns that are scaled by how well each is known, errors are as large in one as in another."""
    trust, rank = found.trust[:, None], found.B.shape[1]
    seen = found.trust > 0
    if int(seen.sum()) - rank < 2:
        return f"{int(seen.sum())} of {len(seen)} dimensions are seen, and {rank} words fill them"
    Q, R = torch.linalg.qr(trust * found.B)
    unseen = torch.eye(len(seen)).to(Q)[:, ~seen]
    null = torch.linalg.svd(torch.cat((Q, unseen), 1), full_matrices=True).U[:, rank + unseen.shape[1] :]
    weighted = trust * (Q @ torch.linalg.solve_triangular(R.T, found.spread, upper=False))
    basis = torch.linalg.qr(seen[:, None] * found.B).Q
    blocks = [block for block in torch.split(found.A @ found.B.T * seen, sizes) if bool(block.any())]
    return Span(trust * null, weighted, found.sigma, own, noisy, rank, basis, blocks)


def _size(leaf: Tensor, seen: Tensor) -> Tensor:
    """Of each row, the root mean square of what is seen, [rows, 1]."""
    return (torch.where(seen, leaf, 0).square().sum(1) / seen.sum(1).clamp_min(1)).sqrt()[:, None]
