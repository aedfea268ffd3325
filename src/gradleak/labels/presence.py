"""Classes that are certainly in the batch: the signs of the last layer's gradient prove them."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from gradleak.labels.dummies import look, smooth
from gradleak.labels.evidence import Evidence, evidence
from gradleak.labels.guess import Unanswerable
from gradleak.observe import Observation
from gradleak.observe.layers import trace
from gradleak.randomness import Rng, generator

_SURE = 8.0  # standard deviations of the noise
_DUMMIES = 64

_NEVER_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Softmax)
# what is at least 0 before these is so behind them
_KEEPS_SIGNS = (
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)


@dataclass(frozen=True, eq=False)
class Presence:
    """``present`` [classes]: True where the class is in the batch; False says nothing.

    ``proven`` is False where the signs are only a strong hint: the network moved between local steps, or
    its features are not negative on made-up pictures but nothing in its structure says that they never are.
    """

    present: Tensor
    proven: bool
    why: str


@dataclass(frozen=True)
class PresenceRule:
    """Row n of dL/dW is (1/K) Σ_k δ_kn h_k with δ_kn = p_kn - 1[y_k = n].

    Features h are not negative, and δ_kn is negative only if y_k = n: a negative entry in row n proves
    that class n is present. The bias proves the same whatever the features are.
    """

    citations: tuple[str, ...] = ()

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> Presence | Unanswerable:
        rng = generator(rng)
        found = evidence(obs)
        if isinstance(found, Unanswerable):
            return found
        sign = nonnegative(obs, rng)
        if sign is None:
            return Unanswerable(
                "expected features that are never negative, as behind a ReLU or a sigmoid; the last layer's "
                "inputs are negative, so that the signs of its gradient prove no class"
            )
        if not found.plain:
            return Presence(signs(found), False, "several local steps: the features move between them")
        return Presence(
            signs(found), sign, "proven by signs" if sign else "features seen, not proven, positive"
        )


def presence() -> PresenceRule:
    """Which classes the signs of the last layer's gradient prove to be in the batch."""
    return PresenceRule()


def signs(found: Evidence) -> Tensor:
    """[classes]: where an entry lies below zero by more than noise explains.

    An honest absent class has no negative entry at all: sums of non-negative products are not rounded
    below zero.
    """
    return found.full.amin(1) < -_SURE * found.noise


def nonnegative(obs: Observation, rng: Generator) -> bool | None:
    """True: the structure says so. False: only some dummies say so. None: they say otherwise."""
    if bool((look(obs, smooth(obs, _DUMMIES, rng)).features < 0).any()):
        return None
    return _by_structure(obs, rng)


def _by_structure(obs: Observation, rng: Generator) -> bool:
    """Whether the layer that made the features cannot give negative numbers."""
    leaves = [c for c in trace(obs.task, obs.params, smooth(obs, obs.batch_size, rng)) if c.leaf]
    wanted = leaves[-1].input
    for call in reversed(leaves[:-1]):
        if wanted is None or call.output is None or call.output.numel() != wanted.numel():
            return False
        if not torch.equal(call.output.reshape(wanted.shape), wanted):
            return False
        if isinstance(call.module, _NEVER_NEGATIVE):
            return True
        if not isinstance(call.module, _KEEPS_SIGNS):
            return False
        wanted = call.input
    return False
