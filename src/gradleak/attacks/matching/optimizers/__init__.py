"""Descents that know one trial and ask for one evaluation at a time."""

from gradleak.attacks.matching.optimizers.adam import Adam
from gradleak.attacks.matching.optimizers.base import Descent, Optimizer, Project, Space
from gradleak.attacks.matching.optimizers.lbfgs import LBFGS
from gradleak.attacks.matching.optimizers.natural import Natural

__all__ = ["LBFGS", "Adam", "Descent", "Natural", "Optimizer", "Project", "Space"]
