"""Made-up pictures, and what the network says to them: an attacker has no others."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gradleak.observe import Observation
from gradleak.observe.layers import walk
from gradleak.trees import Tree


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network makes of some pictures: the last layer's inputs, and the probabilities."""

    features: Tensor  # [n, features]
    p: Tensor  # [n, classes]


def uniform(obs: Observation, n: int, rng: Generator) -> Tensor:
    """[n, ...]: every pixel from U(0, 1)."""
    pixels = torch.rand((n, *obs.x_shape[1:]), generator=rng, device=rng.device)
    return obs.domain.from_pixels(pixels.to(obs.like))


def smooth(obs: Observation, n: int, rng: Generator) -> Tensor:
    """[n, ...]: noise whose amplitude falls as 1/frequency, as that of photographs does, within [0, 1].

    Each picture and channel is stretched to the whole range. What is not made of two-dimensional planes
    has no neighbouring pixels: it is drawn uniformly.
    """
    if len(obs.x_shape) != 4:
        return uniform(obs, n, rng)
    return obs.domain.from_pixels(_planes((n, *obs.x_shape[1:]), rng).to(obs.like))


def low_pass(x: Tensor, power: float = 1.0) -> Tensor:
    """Every frequency f of the last two axes divided by (1/size + |f|)^power."""
    height, width = x.shape[-2:]
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    distance = (rows[:, None].square() + columns.square()).sqrt() + 1 / max(height, width)
    spectrum = torch.fft.rfft2(x.double()) * distance.to(x.device, torch.float64).pow(-power)
    filtered: Tensor = torch.fft.irfft2(spectrum, s=(height, width)).to(x.dtype)
    return filtered


def _planes(shape: tuple[int, ...], rng: Generator) -> Tensor:
    noise = torch.randn(shape, generator=rng, device=rng.device)
    soft = low_pass(noise)
    low, high = soft.amin((-2, -1), keepdim=True), soft.amax((-2, -1), keepdim=True)
    return (soft - low) / (high - low).clamp_min(1e-6)


def look(obs: Observation, x: Tensor, params: Tree | None = None) -> Seen:
    """Show the pictures to the network, all at once, or as batches of the right size where that matters."""
    whole = not any(_mixes(module) for module in obs.task.model.modules())
    step = len(x) if whole else obs.batch_size
    padded = x[torch.arange(-(-len(x) // step) * step, device=x.device) % len(x)]
    seen = [_look(obs, padded[i : i + step], params or obs.params) for i in range(0, len(padded), step)]
    return Seen(torch.cat([s.features for s in seen])[: len(x)], torch.cat([s.p for s in seen])[: len(x)])


def _look(obs: Observation, x: Tensor, params: Tree) -> Seen:
    last: dict[str, Tensor] = {}

    def keep(path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        if isinstance(module, nn.Linear):  # the last of them is the head
            last["input"] = (args[0] if args else kwargs["input"]).detach()
            last["output"] = output.detach()

    walk(obs.task, params, x, keep)
    return Seen(last["input"].double(), last["output"].double().softmax(-1))


def _mixes(module: nn.Module) -> bool:
    """Whether a record's output depends on the rest of its batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and (
        module.training or not module.track_running_stats
    )
