"""How much of a defense is enough, and what it costs: every strength's leak beside its accuracy."""

from gradleak.tradeoff.cost import Course, Training
from gradleak.tradeoff.frontier import Curve, Point, Tradeoff
from gradleak.tradeoff.leak import Leak, Subject, Target
from gradleak.tradeoff.search import tradeoff
from gradleak.tradeoff.store import Store
from gradleak.tradeoff.strengths import STRENGTHS, Setting, Yardstick

__all__ = [
    "STRENGTHS",
    "Course",
    "Curve",
    "Leak",
    "Point",
    "Setting",
    "Store",
    "Subject",
    "Target",
    "Tradeoff",
    "Training",
    "Yardstick",
    "tradeoff",
]
