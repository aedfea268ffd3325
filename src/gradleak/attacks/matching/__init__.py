"""Update matching: objectives, priors, starts and optimizers, and the one loop that runs them."""

from gradleak.attacks.matching.inits import INITS, Gaussian, Given, Gray, Init, Patterned, Uniform, as_init
from gradleak.attacks.matching.loop import Matching
from gradleak.attacks.matching.objectives import (
    AbsoluteError,
    Cosine,
    LayerwiseSquaredError,
    Objective,
    SquaredError,
)
from gradleak.attacks.matching.optimizers import LBFGS, Adam, Optimizer
from gradleak.attacks.matching.priors import Box, Energy, Prior, TotalVariation

__all__ = [
    "INITS",
    "LBFGS",
    "AbsoluteError",
    "Adam",
    "Box",
    "Cosine",
    "Energy",
    "Gaussian",
    "Given",
    "Gray",
    "Init",
    "LayerwiseSquaredError",
    "Matching",
    "Objective",
    "Optimizer",
    "Patterned",
    "Prior",
    "SquaredError",
    "TotalVariation",
    "Uniform",
    "as_init",
]
