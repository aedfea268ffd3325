"""Pictures that the network takes for a given class, made without data."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradleak.labels.dummies import Seen, look, low_pass, smooth
from gradleak.observe import Observation

_SURE_ENOUGH = 0.5  # where a prototype stops to become more typical
_STEPS = 40
_STRIDE = 0.25  # the largest change of a pixel in one step, of the range [0, 1]


@dataclass(frozen=True, eq=False)
class Prototypes:
    """``p`` [classes, classes]: row c holds the mean probabilities of what looks like class c."""

    p: Tensor
    features: Tensor  # [classes, features]


def prototypes(obs: Observation, rng: Generator, each: int = 6) -> Prototypes:
    """Smooth noise, moved by smooth steps until its class has half of the probability."""
    classes = obs.classes or 0
    wanted = torch.arange(classes).repeat_interleave(each).to(obs.like.device)
    start = smooth(obs, len(wanted), rng)
    seen = look(obs, _towards(obs, start, wanted))
    own = seen.p.reshape(classes, each, -1).mean(1)
    return Prototypes(own, seen.features.reshape(classes, each, -1).mean(1))


def _towards(obs: Observation, x: Tensor, wanted: Tensor) -> Tensor:
    task, params = obs.task.with_copied_constants(), obs.params
    for _ in range(_STEPS):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            log_p = task.forward(params, leaf).log_softmax(-1)[torch.arange(len(x)), wanted]
            open_ = log_p.detach() < torch.log(log_p.new_tensor(_SURE_ENOUGH))
            if not bool(open_.any()):
                break
            slope = torch.autograd.grad(log_p.sum(), leaf)[0]
        slope = low_pass(slope) if x.dim() == 4 else slope
        largest = slope.abs().flatten(1).amax(1).clamp_min(1e-30)
        step = _STRIDE * slope / largest.reshape(-1, *[1] * (x.dim() - 1))
        pixels = obs.domain.to_pixels(x) + torch.where(
            open_.reshape(largest.shape[0], *[1] * (x.dim() - 1)), step, 0
        )
        x = obs.domain.clamp(obs.domain.from_pixels(pixels))
    return x.detach()


def settled(seen: Seen) -> Tensor:
    """[classes]: the mean probabilities."""
    return seen.p.mean(0)
