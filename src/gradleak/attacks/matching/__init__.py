"""Update matching: objectives, priors, starts and optimizers, and the one loop that runs them."""

from gradleak.attacks.matching.candidate import Candidate, Informed, Prior
from gradleak.attacks.matching.consensus import Consensus
from gradleak.attacks.matching.features import Features
from gradleak.attacks.matching.inits import (
    INITS,
    Flat,
    Gaussian,
    Given,
    Gray,
    Init,
    LabelledInit,
    Patterned,
    SameClass,
    Uniform,
    as_init,
)
from gradleak.attacks.matching.loop import Matching
from gradleak.attacks.matching.objectives import (
    AbsoluteError,
    Cosine,
    LayerNorms,
    LayerwiseSquaredError,
    Objective,
    SquaredError,
)
from gradleak.attacks.matching.optimizers import LBFGS, Adam, Natural, Optimizer, Space
from gradleak.attacks.matching.priors import Agreement, Box, Energy, Stretch, TotalVariation
from gradleak.attacks.matching.statistics import Statistics

__all__ = [
    "INITS",
    "LBFGS",
    "AbsoluteError",
    "Adam",
    "Agreement",
    "Box",
    "Candidate",
    "Consensus",
    "Cosine",
    "Energy",
    "Features",
    "Flat",
    "Gaussian",
    "Given",
    "Gray",
    "Informed",
    "Init",
    "LabelledInit",
    "LayerNorms",
    "LayerwiseSquaredError",
    "Matching",
    "Natural",
    "Objective",
    "Optimizer",
    "Patterned",
    "Prior",
    "SameClass",
    "Space",
    "SquaredError",
    "Statistics",
    "Stretch",
    "TotalVariation",
    "Uniform",
    "as_init",
]
