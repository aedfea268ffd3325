"""General deep leakage (Geng et al. 2021): batches with repeated labels, from gradients or local training."""

from gradleak.attacks.gdl.attack import GDL, gdl
from gradleak.attacks.gdl.defect import defect
from gradleak.attacks.gdl.order import LearntOrder

__all__ = ["GDL", "LearntOrder", "defect", "gdl"]
