"""What predictions are held against attacks on: networks, defenses and their strengths, and attacks."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from gradleak import zoo
from gradleak.attacks import Attack, Outcome, Reconstruction, dlg, inverting_gradients
from gradleak.attacks import map as most_probable
from gradleak.attacks.matching import Cosine, Objective, SquaredError
from gradleak.defenses import GaussianNoise, LowPrecision, Mask, Prune
from gradleak.labels import known
from gradleak.observe import Client, Observation, OneGradient

Build = Callable[[int, int, int], nn.Module]
"""Of channels, size and seed."""

Make = Callable[[float], Client]
"""Of the root mean square of the update's entries."""


@dataclass(frozen=True)
class Network:
    family: str
    name: str
    build: Build


@dataclass(frozen=True)
class Setting:
    """A defense at one strength.

    ``seen`` is whether the server knows of it. ``hides``: whether entries go missing before its eyes, so
    that fewer of them tell of the picture.
    """

    defense: str
    level: str
    client: Make
    seen: bool = True
    hides: bool = False


@dataclass(frozen=True)
class Attacker:
    """``prior``: it expects pictures, and is predicted by decibels; without one, by I2F.

    By ``objective`` its answer is compared with the truth; None where it says itself whether it arrived.
    ``only`` names the defenses that it is tried on, where these are not all.
    """

    name: str
    attack: Attack
    prior: bool
    objective: Objective | None = None
    only: tuple[str, ...] = ()

    def tries(self, setting: Setting) -> bool:
        """With a prior, only what the server knows of: what is predicted of it takes that for granted."""
        return (setting.seen or not self.prior) and (not self.only or setting.defense in self.only)

    def arrived(self, found: Reconstruction, obs: Observation, x: Tensor, y: Tensor) -> bool:
        """Whether the answer explains the update at least as well as the true picture does."""
        if self.objective is None:
            return found.outcome is Outcome.CONVERGED
        return found.score <= float(self.objective(obs.simulate(x, y), obs.update))


def _convnet(channels: int, size: int, seed: int) -> nn.Module:
    return zoo.convnet(10, channels, size, width=8, seed=seed)


def _resnet(channels: int, size: int, seed: int) -> nn.Module:
    return zoo.resnet(10, channels, size, depth=8, width=8, seed=seed)


def _lenet(init: str) -> Build:
    return lambda channels, size, seed: zoo.lenet(10, channels, size, init=init, seed=seed)


def _mlp(activation: str) -> Build:
    def build(channels: int, size: int, seed: int) -> nn.Module:
        return zoo.mlp(10, sizes=(channels * size**2, 64, 64), activation=activation, seed=seed)

    return build


def _smooth(build: Build) -> Build:
    """The same network with a softplus for each ReLU."""

    def smoothed(channels: int, size: int, seed: int) -> nn.Module:
        model = build(channels, size, seed)
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.ReLU):
                    setattr(parent, name, nn.Softplus(beta=5))
        return model

    return smoothed


NETWORKS = (
    Network("LeNet", "LeNet U(-0.5, 0.5)", _lenet("uniform")),
    Network("LeNet", "LeNet, torch's init", _lenet("default")),
    Network("ConvNet", "ConvNet, softplus", _smooth(_convnet)),
    Network("ConvNet", "ConvNet, ReLU", _convnet),
    Network("MLP", "MLP, sigmoid", _mlp("sigmoid")),
    Network("MLP", "MLP, ReLU", _mlp("relu")),
    Network("ResNet", "ResNet-8, softplus", _smooth(_resnet)),
    Network("ResNet", "ResNet-8, ReLU", _resnet),
)


def _noise(share: float) -> Make:
    return lambda size: GaussianNoise(std=share * size)


def _quantized(name: str) -> Make:
    return lambda size: LowPrecision(format=name)


def _gradient(size: float) -> Client:
    return OneGradient()


def _pruned(share: float, before: Make = _gradient) -> Make:
    return lambda size: Prune(before(size), fraction=share)


def _masked(share: float, before: Make = _gradient) -> Make:
    return lambda size: Mask(before(size), rate=share)


_BESIDE = _noise(1e-2)  # on what a mask or pruning lets through, which would else be known exactly

SETTINGS = (
    *(Setting("noise", f"{share:.0e}", _noise(share)) for share in (1e-4, 1e-3, 1e-2, 1e-1)),
    *(Setting("quantized", name, _quantized(name)) for name in ("fp16", "bf16", "int8")),
    *(Setting("pruned, unseen", f"{share:g}", _pruned(share), seen=False) for share in (0.3, 0.6)),
    *(Setting("masked, unseen", f"{share:g}", _masked(share), seen=False) for share in (0.001, 0.01)),
    *(Setting("pruned, and noise", f"{s:g}", _pruned(s, _BESIDE), hides=True) for s in (0.5, 0.9)),
    *(Setting("masked, and noise", f"{s:g}", _masked(s, _BESIDE), hides=True) for s in (0.3, 0.7)),
)

ATTACKERS = (
    # Without a tolerance, it ends where no step helps any more, or with the budget.
    Attacker("DLG", dlg(labels=known(), evaluations=1000, tolerance=0.0), False, SquaredError()),
    Attacker("MAP", most_probable(labels=known()), True),
    # Its prior weighs a tenth of the usual: at 16 x 16 the usual one drowns the update. It takes as long as
    # the other two together, and mostly ends before any defense matters.
    Attacker(
        "Inverting Gradients",
        inverting_gradients(labels=known(), tv=(1e-2, 1e-4), steps=300),
        True,
        Cosine(),
        only=("noise",),
    ),
)
