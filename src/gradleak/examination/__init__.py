"""The one room that holds the truth beside a guess."""

from gradleak.examination.examine import Progress, examine
from gradleak.examination.findings import Finding, Findings

__all__ = ["Finding", "Findings", "Progress", "examine"]
