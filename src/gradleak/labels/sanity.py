"""Whether what was handed in as a gradient can be one: its sign and its size leave traces at the head."""

import torch
from torch import Generator, Tensor

from gradleak.labels.dummies import look, smooth
from gradleak.labels.evidence import Evidence, evidence
from gradleak.labels.guess import Unanswerable
from gradleak.labels.presence import nonnegative, signs
from gradleak.labels.sent import drift_of
from gradleak.observe import LocalTraining, Observation

_SURE = 8.0  # standard deviations of the noise
_FAR = 0.2  # from a whole number, or twice as far as the dummies' own differences explain
_NEAR = 0.05
_LITTLE = 0.5  # drift
_ASTRAY = 0.15  # of a record: farther from a whole number than little drift explains
_OFF = 0.05  # relative, of a single record's gradient from its own residual


def wrong_sign_or_scale(obs: Observation) -> str | None:
    """What is wrong with this gradient's sign or size, or None where nothing speaks against it.

    It only says what cannot be otherwise. A gradient that is too small and comes from a trained network
    looks like one of well fitted records, and passes.
    """
    found = evidence(obs)
    if isinstance(found, Unanswerable):
        return None
    rng = Generator().manual_seed(0)
    if not found.plain:
        return _backwards(obs, found, rng)
    checks = (_too_large, _more_records, _too_many, _alone, _fractions)
    return next((fault for check in checks if (fault := check(obs, found, rng)) is not None), None)


def _too_large(obs: Observation, found: Evidence, rng: Generator) -> str | None:
    """−db_n <= λ_n / K, so that the negative entries sum to no less than −1."""
    if found.bias is None:
        return None
    mass = float((-found.bias).clamp(min=0).sum())
    if mass <= 1 + _SURE * found.noise * found.classes + 1e-5:
        return None
    return (
        f"expected the mean gradient of the batch, whose negative entries at '{found.head.bias}' sum to -1 "
        f"at the lowest; came {-mass:.3g}. Divide a sum over the batch by its size, and a step by its rate"
    )


def _too_many(obs: Observation, found: Evidence, rng: Generator) -> str | None:
    """No batch holds records of more classes than it has records."""
    if nonnegative(obs, rng) is not True:
        return None
    n = int(signs(found).sum())
    if n <= found.batch:
        return None
    return _turned(f"negative entries in at most {found.batch} rows of '{found.head.weight}'; came {n}")


def _more_records(obs: Observation, found: Evidence, rng: Generator) -> str | None:
    """Every record adds a rank of 1 at most."""
    G = found.full
    if found.batch >= min(G.shape[0] - 1, G.shape[1]):
        return None
    sizes = torch.linalg.svdvals(G)
    rank = int((sizes > _SURE * found.noise * max(G.shape) ** 0.5).sum())
    if rank <= found.batch:
        return None
    return (
        f"expected a rank of {found.batch} at most in the gradient of '{found.head.weight}', as a batch of "
        f"so many has; came {rank}: it holds {rank} records or more, or noise was added. Say its true size"
    )


def _alone(obs: Observation, found: Evidence, rng: Generator) -> str | None:
    """One record's features are dW_n / db_n whatever the scale, and say what its gradient is."""
    if obs.batch_size != 1 or found.bias is None:
        return None
    n = int(found.bias.abs().argmax())
    if float(found.bias[n].abs()) < 1e3 * found.noise:
        return None
    features = found.weight[n] / found.bias[n]
    p = (found.W @ features + found.b).softmax(0)
    y = int(found.bias.argmin())
    fitting = [p - torch.eye(found.classes, dtype=p.dtype, device=p.device)[c] for c in (y, n)]
    scale = [float(d @ found.bias / (d @ d)) for d in fitting]
    off = [
        float((s * d - found.bias).norm() / found.bias.norm()) for s, d in zip(scale, fitting, strict=True)
    ]
    best = min((0, 1), key=lambda i: off[i])
    if off[best] > _OFF or abs(scale[best] - 1) < _OFF:
        return None
    if scale[best] < 0:
        return _turned(
            f"the gradient of a record with probabilities p, p - y; came {scale[best]:.3g} times that"
        )
    return (
        f"expected the gradient of a record with probabilities p, p - y; came {scale[best]:.3g} times that. "
        "Divide the step by its learning rate, and undo clipping"
    )


def _fractions(obs: Observation, found: Evidence, rng: Generator) -> str | None:
    """Where all pictures look alike to the network, K (p̄ − db) must be whole numbers, and not negative."""
    if found.bias is None:
        return None
    p = look(obs, torch.cat((smooth(obs, 64, rng), _plain(obs)))).p
    spread = float((p.amax(0) - p.amin(0)).max())
    far = max(_FAR, _NEAR + 2 * found.batch * spread)
    if found.batch * found.noise * _SURE > _NEAR or _off(found, p.mean(0), 1.0) < far:
        return None
    whole = "whole numbers as counts of the classes, from this network's nearly constant probabilities"
    if _off(found, p.mean(0), -1.0) < _NEAR + found.batch * spread:
        return _turned(f"{whole}; came some only after changing the sign")
    return (
        f"expected {whole}; came fractions. Hand in the mean gradient of the batch: a sum divided by the "
        "batch size, a step by minus its learning rate"
    )


def _backwards(obs: Observation, found: Evidence, rng: Generator) -> str | None:
    """After local training with little drift, counts are nearly whole; with before and after swapped, not."""
    small = isinstance(obs.client, LocalTraining) and drift_of(obs) < _LITTLE
    if not small or found.bias is None:
        return None
    p = look(obs, smooth(obs, 64, rng)).p
    if found.batch * float(p.std(0).mean()) > _NEAR * 4:
        return None
    forward, backward = (_off(found, p.mean(0), sign) for sign in (1.0, -1.0))
    if forward < _ASTRAY or backward > forward / 4:
        return None
    return _turned("nearly whole numbers as counts of the classes; came some only after changing the sign")


def _off(found: Evidence, p: Tensor, sign: float) -> float:
    counts = found.batch * (p - sign * found.full[:, -1])
    return float((counts - counts.round().clamp_min(0)).abs().max())


def _plain(obs: Observation) -> Tensor:
    """Black, grey and white."""
    grey = torch.tensor([0.0, 0.5, 1.0]).reshape(3, *[1] * (len(obs.x_shape) - 1)).to(obs.like)
    return obs.domain.from_pixels(grey.expand(3, *obs.x_shape[1:]))


def _turned(expected: str) -> str:
    return (
        f"expected {expected}. The sign is the other one: a step W_T - W_0 is minus lr times the gradient; "
        "or before and after were swapped"
    )
