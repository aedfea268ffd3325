"""The second room: from an observation to a guess at its labels."""

from gradleak.labels.best import best
from gradleak.labels.combined import combined
from gradleak.labels.factorized import factorized
from gradleak.labels.guess import LabelGuess, LabelStrategy, Unanswerable
from gradleak.labels.idlg import idlg
from gradleak.labels.inferred import inferred
from gradleak.labels.joint import joint
from gradleak.labels.known import known
from gradleak.labels.presence import Presence, presence
from gradleak.labels.rows import row_minimum, row_sum
from gradleak.labels.sanity import wrong_sign_or_scale
from gradleak.labels.simulated import simulated
from gradleak.labels.zero_shot import zero_shot

__all__ = [
    "LabelGuess",
    "LabelStrategy",
    "Presence",
    "Unanswerable",
    "best",
    "combined",
    "factorized",
    "idlg",
    "inferred",
    "joint",
    "known",
    "presence",
    "row_minimum",
    "row_sum",
    "simulated",
    "wrong_sign_or_scale",
    "zero_shot",
]
