"""Why a run may say less than it seems to: cases not run or failed, and records without an answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradleak.cases.record import Record


@dataclass(frozen=True)
class Fault:
    """How often, and in words; a count of zero is none."""

    count: int
    sentence: str


def unfinished(record: Record, way: str) -> Fault:
    missing = [left for left in record.missing if left.case.protocol == way]
    if missing:
        return Fault(len(missing), f"{_cases(len(missing))} not run: {missing[0].why}")
    if not record.finished and not record.missing:  # it was killed, and could no longer say what is missing
        return Fault(1, "the run was not finished; the same audit goes on where it ended")
    return Fault(0, "every case was run, or spared")


def failed(record: Record, way: str) -> Fault:
    found = [one for one in record.failed if one.case.protocol == way]
    if not found:
        return Fault(0, "no case failed")
    return Fault(
        len(found), f"{_cases(len(found))} not ended; the first is {found[0].case}: {found[0].error}"
    )


def unanswered(record: Record, way: str, unsaid: Sequence[str], *, guesses: bool, forecasts: bool) -> Fault:
    """``unsaid`` are limits of which nothing can be said, and why. With ``guesses``, every record
    needs one, and with ``forecasts`` one of these.
    """
    why, everyone = list(unsaid), range(len(record.samples))
    if guesses:
        why += _without(record, [i for i in everyone if record.best(way, i) is None], "guess")
    if forecasts:
        why += _without(record, [i for i in everyone if record.forecast(way, i) is None], "forecast")
    return Fault(len(why), "; ".join(why) or "every record has an answer")


def _without(record: Record, samples: list[int], what: str) -> list[str]:
    names = ", ".join(record.samples[i].name for i in samples[:3]) + (", ..." if len(samples) > 3 else "")
    return [f"no {what} for {len(samples)} of {len(record.samples)} records ({names})"] if samples else []


def _cases(count: int) -> str:
    return "1 case was" if count == 1 else f"{count} cases were"
