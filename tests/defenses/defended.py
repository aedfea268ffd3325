"""A small network without kinks, a batch, and one of every defense, for the tests beside this file."""

import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.defenses import (
    DPSGD,
    Clip,
    Defense,
    Dropout,
    GaussianNoise,
    LaplaceNoise,
    LowPrecision,
    Mask,
    Mixup,
    Prune,
    Sign,
    Soteria,
    Withhold,
)
from gradleak.observe import Task, cross_entropy
from gradleak.observe.task import split_tensors, structure_of

STRONG: dict[str, Defense] = {
    "clip": Clip(norm=1e-2),
    "clip by layer": Clip(norm=1e-2, per="layer"),
    "dpsgd": DPSGD(clip=0.1, noise_multiplier=1.0),
    "dropout": Dropout(rate=0.4),
    "gaussian": GaussianNoise(std=1e-2),
    "laplace": LaplaceNoise(scale=1e-2),
    "fp16": LowPrecision(format="fp16"),
    "bf16 by chance": LowPrecision(format="bf16", stochastic=True),
    "int8": LowPrecision(format="int8"),
    "mask": Mask(rate=0.3),
    "mask rescaled": Mask(rate=0.3, rescaled=True),
    "mixup": Mixup(alpha=1.0),
    "prune": Prune(fraction=0.5),
    "prune by layer": Prune(fraction=0.5, per="layer"),
    "sign": Sign(),
    "soteria": Soteria(fraction=0.25),
    "withhold": Withhold(layers=("1",)),
}
IDLE: dict[str, Defense] = {
    "clip": Clip(norm=1e6),
    "clip by layer": Clip(norm=1e6, per="layer"),
    "dpsgd": DPSGD(clip=1e6, noise_multiplier=0.0),
    "dropout": Dropout(rate=0.0),
    "gaussian": GaussianNoise(std=0.0),
    "laplace": LaplaceNoise(scale=0.0),
    "mask": Mask(rate=0.0),
    "mixup": Mixup(alpha=0.0),
    "prune": Prune(fraction=0.0),
    "soteria": Soteria(fraction=0.0),
    "withhold": Withhold(layers=()),
}
DRAWS = {"dpsgd", "dropout", "gaussian", "laplace", "bf16 by chance", "mask", "mask rescaled", "mixup"}


def network(dtype: torch.dtype = torch.float64, *, hidden: int = 12) -> nn.Module:
    rng = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, hidden), nn.Sigmoid(), nn.Linear(hidden, 5)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=torch.float64) / p.shape[-1] ** 0.5)
    return model


def batch(n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(6)
    x = torch.rand((8, 1, 4, 4), generator=rng, dtype=torch.float64).to(dtype)
    return x[:n], torch.randint(5, (8,), generator=rng)[:n]


def task_of(model: nn.Module) -> tuple[Task, dict[str, Tensor]]:
    trained, constants = split_tensors(model)
    return Task(structure_of(model), constants, cross_entropy), trained


def plain(n: int = 3, model: nn.Module | None = None) -> dict[str, Tensor]:
    """The gradient without any defense."""
    task, params = task_of(model or network())
    x, y = batch(n)
    return gl.OneGradient()(task, params, x, y)


def thrown(
    defense: Defense, n: int = 3, *, seed: int = 1, model: nn.Module | None = None
) -> dict[str, Tensor]:
    """What goes out, with dice from ``seed``."""
    task, params = task_of(model or network())
    x, y = batch(n)
    drawn = defense.drawn(n, torch.Generator().manual_seed(seed))
    return {name: leaf.detach() for name, leaf in drawn(task, params, x, y).items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in b) and a.keys() == b.keys()


def flat(tree: dict[str, Tensor]) -> Tensor:
    return torch.cat([leaf.reshape(-1) for leaf in tree.values()])


def whitened(defense: Defense, n: int, *, seed: int, hidden: int = 200) -> Tensor:
    """(sent − simulated at the truth) / deviation, of the entries that are seen."""
    x, y = batch(n)
    seen = gl.observe(network(hidden=hidden), x, y, client=defense, rng=seed)
    expected, deviation = seen.simulate(x, y), seen.uncertainty
    off = flat({k: (seen.update[k] - expected[k]) / deviation[k] for k in seen.update})
    return off[flat(deviation).isfinite()]
