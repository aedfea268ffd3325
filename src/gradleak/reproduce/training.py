"""A network that has learnt something, for a trained one leaks otherwise than a fresh one."""

import torch
from torch import nn

from gradleak.randomness import generator, undisturbed
from gradleak.reproduce.sample import BUNDLED, Sample, sample
from gradleak.zoo import PICTURES

_STEP = 64


def pools(name: str, private: int, public: int) -> tuple[Sample, Sample]:
    """Pictures to attack and pictures to learn from, which share none: test and train, or a set's halves."""
    if name not in BUNDLED:
        return sample(name, private), sample(name, public, "train")
    everything = sample(name, PICTURES[name].count)
    half = len(everything) // 2
    parts = [slice(0, min(private, half)), slice(half, half + public)]
    first, second = (Sample(name, everything.x[part], everything.y[part]) for part in parts)
    return first, second


def train(model: nn.Module, public: Sample, epochs: int) -> None:
    """Adam in small batches, in train mode where there is BatchNorm; the model comes back in eval mode."""
    rng, weights = generator(0), list(model.parameters())
    with undisturbed(torch.device("cpu")):
        optimizer = torch.optim.Adam(weights, lr=2e-3)
        model.train()
        for _ in range(epochs):
            order = torch.randperm(len(public), generator=rng)
            for first in range(0, len(public), _STEP):
                batch = order[first : first + _STEP]
                loss = nn.functional.cross_entropy(model(public.x[batch]), public.y[batch])
                for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    weight.grad = slope
                optimizer.step()
        model.eval()
    for weight in weights:
        weight.grad = None


def accuracy(model: nn.Module, held_out: Sample) -> float:
    with torch.no_grad():
        return float((model(held_out.x).argmax(-1) == held_out.y).float().mean())
