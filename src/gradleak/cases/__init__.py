"""An audit's engine: cases that are done exactly once, kept as they end, and run anywhere."""

from gradleak.cases.case import Case, Left
from gradleak.cases.event import Event, Tell
from gradleak.cases.record import Record
from gradleak.cases.run import run
from gradleak.cases.runners import Here, Pool, Runner
from gradleak.cases.store import Store
from gradleak.cases.work import Work

__all__ = ["Case", "Event", "Here", "Left", "Pool", "Record", "Runner", "Store", "Tell", "Work", "run"]
