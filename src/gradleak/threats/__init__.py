"""What the server must know for a leak: the same attack with less and less, side by side."""

from gradleak.threats.ladder import Ladder, Step, ladder
from gradleak.threats.rungs import RUNGS, Rung

__all__ = ["RUNGS", "Ladder", "Rung", "Step", "ladder"]
