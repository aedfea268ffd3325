"""Whether an attack has to do with a derivative that jumps."""

import torch

from gradleak.observe import Observation
from gradleak.observe.kinks import kinks
from gradleak.observe.task import noise_batch


@torch.inference_mode(False)
def kinked(obs: Observation) -> bool:
    """Whether a made-up batch meets kinks on its way, which second-order descents cannot follow."""
    return bool(kinks(obs, noise_batch(obs.like, obs.x_shape)))
