"""What a defense costs in accuracy, by training a whole federated run with it and without."""

from gradleak.defenses.utility.accuracy import Course, Spread, Utility
from gradleak.defenses.utility.compare import utility
from gradleak.defenses.utility.federated import Federation

__all__ = ["Course", "Federation", "Spread", "Utility", "utility"]
