"""Ways to leak less: clients around clients, and what each of them costs."""

from gradleak.defenses.accounting import epsilon, noise_for
from gradleak.defenses.base import Defense
from gradleak.defenses.clip import Clip
from gradleak.defenses.dpsgd import DPSGD
from gradleak.defenses.dropout import Dropout
from gradleak.defenses.learnt_mask import LearntMask
from gradleak.defenses.low_precision import LowPrecision
from gradleak.defenses.mask import Mask
from gradleak.defenses.mixup import Mixup
from gradleak.defenses.noise import GaussianNoise, LaplaceNoise
from gradleak.defenses.prune import Prune
from gradleak.defenses.sign import Sign
from gradleak.defenses.soteria import Soteria
from gradleak.defenses.utility import Course, Federation, Spread, Utility, utility
from gradleak.defenses.withhold import Withhold
from gradleak.observe import CLIENTS

DEFENSES: dict[str, type[Defense]] = {
    "clip": Clip,
    "dpsgd": DPSGD,
    "dropout": Dropout,
    "gaussian": GaussianNoise,
    "laplace": LaplaceNoise,
    "low_precision": LowPrecision,
    "mask": Mask,
    "mixup": Mixup,
    "prune": Prune,
    "sign": Sign,
    "soteria": Soteria,
    "withhold": Withhold,
}
"""By the name that a command line says."""

CLIENTS.update({kind.__name__: kind for kind in DEFENSES.values()})  # what a capture on disk can name

__all__ = [
    "DEFENSES",
    "DPSGD",
    "Clip",
    "Course",
    "Defense",
    "Dropout",
    "Federation",
    "GaussianNoise",
    "LaplaceNoise",
    "LearntMask",
    "LowPrecision",
    "Mask",
    "Mixup",
    "Prune",
    "Sign",
    "Soteria",
    "Spread",
    "Utility",
    "Withhold",
    "epsilon",
    "noise_for",
    "utility",
]
