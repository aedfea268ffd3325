"""Ways to leak less: clients around clients, and what each of them costs."""

from gradleak.defenses.base import Defense
from gradleak.defenses.mask import Mask
from gradleak.defenses.noise import GaussianNoise, LaplaceNoise
from gradleak.defenses.prune import Prune
from gradleak.observe import CLIENTS

DEFENSES: dict[str, type[Defense]] = {
    "gaussian": GaussianNoise,
    "laplace": LaplaceNoise,
    "mask": Mask,
    "prune": Prune,
}

CLIENTS.update({kind.__name__: kind for kind in DEFENSES.values()})  # what a capture on disk can name

__all__ = ["DEFENSES", "Defense", "GaussianNoise", "LaplaceNoise", "Mask", "Prune"]
