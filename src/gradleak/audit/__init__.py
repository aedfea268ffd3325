"""The one room that holds the truth beside a guess."""

from gradleak.audit.examine import Progress, examine
from gradleak.audit.findings import Finding, Findings

__all__ = ["Finding", "Findings", "Progress", "examine"]
