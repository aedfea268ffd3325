"""Descents that know one trial and ask for one evaluation at a time."""

from gradleak.attacks.matching.optimizers.adam import Adam
from gradleak.attacks.matching.optimizers.base import Descent, Optimizer, Project, Space
from gradleak.attacks.matching.optimizers.lbfgs import LBFGS

__all__ = ["LBFGS", "Adam", "Descent", "Optimizer", "Project", "Space"]
