"""The second room: from an observation to a guess at its labels."""

from gradleak.labels.guess import LabelGuess, LabelStrategy, Unanswerable
from gradleak.labels.idlg import idlg
from gradleak.labels.inferred import inferred
from gradleak.labels.joint import joint
from gradleak.labels.known import known

__all__ = ["LabelGuess", "LabelStrategy", "Unanswerable", "idlg", "inferred", "joint", "known"]
