"""The order of an audit's work, and what is spared since it could show nothing new."""

from collections.abc import Generator

from gradleak.cases.case import ATTACK, FORECAST, Case, Left
from gradleak.cases.done import Done
from gradleak.cases.work import Work

Chain = Generator[Case | Left, Done | None, None]


def chains(work: Work) -> list[Chain]:
    """One for every way of training and batch; none depends on another."""
    groups = range(len(work.batches))
    return [_chain(work, way, group) for way in work.ways for group in groups]


def _chain(work: Work, way: str, group: int) -> Chain:
    """Yields a case and is sent what came of it, or yields what is spared.

    The forecast first; then the ladder, from a server that knows everything down, and on each rung attacks
    from cheap to dear. Where attacks answered and nothing leaks, no rung below is tried, unless the audit is
    thorough. The first rung alone is in eval mode: of a network that trains differently it says nothing.
    """
    yield Case(FORECAST, way, group)
    skipped, safe = work.skipped(way), ""
    for rung in work.rungs:
        if rung in skipped or group >= work.groups(rung):
            continue
        holds = yield from _on_rung(work, way, group, rung, safe)
        if holds and not work.thorough and not (work.is_eval(rung) and work.trains_differently):
            safe = safe or f"nothing leaked to a server that knows more ({rung})"


def _on_rung(
    work: Work, way: str, group: int, rung: str, spared: str
) -> Generator[Case | Left, Done | None, bool]:
    """Whether attacks answered, and nothing leaks."""
    leaked = answered = False
    for attacker in work.attackers(way):
        why = spared
        for attack in work.attacks:
            ended = []
            for start in range(work.starts):
                case = Case(ATTACK, way, group, rung, attacker, attack, (work.seed + start) % 2**63)
                if why:
                    yield Left(case, why, spared=True)
                    continue
                done = yield case
                if done is not None:
                    ended.append(done)
            leaked = leaked or any(row.leaked for done in ended for row in done.rows)
            answered = answered or any(done.answered for done in ended)
            why = why or next((said for done in ended if (said := _enough(work, done))), "")
    return answered and not leaked


def _enough(work: Work, done: Done) -> str:
    """Why dearer attacks would show nothing new; nothing where they might."""
    if not done.rows or not all(row.guessed for row in done.rows):
        return ""
    if done.outcome == "converged" and all(row.leaked for row in done.rows):
        return f"{done.case.attack} explained the update, and every record leaks"
    past = work.target is not None and all(row.value >= work.target + done.scale.leak for row in done.rows)
    if past and all(row.leaked for row in done.rows):
        return f"{done.case.attack} is well past the target on every record"
    return ""


def cases(chain: Chain) -> list[Case]:
    """All that a chain might still ask for."""
    return [asked.case if isinstance(asked, Left) else asked for asked in chain]


def expected(work: Work) -> int:
    """How many cases there are at most."""
    total = 0
    for way in work.ways:
        skipped = work.skipped(way)
        each = len(work.attackers(way)) * len(work.attacks) * work.starts
        total += len(work.batches)
        total += sum(work.groups(rung) * each for rung in work.rungs if rung not in skipped)
    return total
