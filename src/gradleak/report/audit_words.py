"""What an audit's report says in sentences: the page and the text say the same."""

import json

from gradleak.cases import Record
from gradleak.cases.case import ATTACK, KNOWS
from gradleak.examination.scale import PICTURES, Scale
from gradleak.report import wording
from gradleak.report.audit_table import counted, listed
from gradleak.threats.rungs import RUNGS

Pairs = list[tuple[str, str]]
_NAMED = 3  # ways of training, in one sentence

MEANINGS: Pairs = [
    (
        "A way of training",
        "A client with the defenses around it, by the name that the plan gave it. Every one was attacked on "
        "the same records.",
    ),
    (
        "A rung",
        "A server that no longer knows one thing which it knew on the rung above. Many published attacks "
        "work on the upper rungs only; the lower ones are nearer to production.",
    ),
    (
        "Naive and adaptive",
        "A naive server takes a defended update for a plain one. An adaptive one knows the defense and its "
        "strength, though not its dice. A defense that only holds against the first one hides the leak, and "
        "does not close it.",
    ),
    (
        "The forecast",
        "What can be had from an update, computed before any attack. Where it says more than the attacks "
        "achieved, they may have failed where a better one would not.",
    ),
    (
        "The interval",
        "Between these two shares the attack's rate of success lies with 95 % confidence, were records "
        "independent draws.",
    ),
]


def contents(scale: Scale, *, defended: bool) -> Pairs:
    """The sections by their anchors."""
    named = [
        ("ways", "Way by way"),
        ("pictures", "Pictures" if scale is PICTURES else "Texts"),
        ("ladder", "What the server must know"),
        ("defenses", "Defenses"),
        ("forecast", "Forecast"),
        ("exposure", "Who is exposed"),
        ("next", "What to do now"),
        ("run", "What was run"),
        ("read", "How to read this"),
        ("cite", "Whom to cite"),
    ]
    return [entry for entry in named if defended or entry[0] != "defenses"]


def notices(record: Record) -> list[tuple[str, str, str]]:
    """What must be known before the verdict: in bold, the rest, and where the page says more."""
    found = []
    if not record.finished:
        why = record.facts.get("stopped") or "it is still at work, or it was killed"
        undone = f" {counted(len(record.missing), 'case')} missing." if record.missing else ""
        found.append(
            (
                "This run is not finished.",
                f"Why: {why}.{undone} What follows was found until then; the same audit goes on from there.",
                "missing" if record.missing else "",
            )
        )
    if record.failed:
        found.append(
            (
                f"{counted(len(record.failed), 'case')} failed.",
                "What they would have shown is not in this report.",
                "failed",
            )
        )
    return found


def caveat(record: Record) -> str:
    """What the verdict rests on."""
    rung = f", from “{record.rungs[0]}” down" if record.rungs else ""
    proof = (
        "That is a lower bound: a better attack may do more."
        if any(record.leaked(way.name) for way in record.ways)
        else "That is no proof of safety: a better attack may do more."
    )
    return (
        f"A record leaks if a guess is {record.scale.leak:g} {record.scale.apart} closer to it than any that "
        "was made without the update. "
        f"Each rung of the ladder says what else the server knows{rung}. {proof}"
    )


def rungs(record: Record) -> Pairs:
    """Each with what the server knew on the one above."""
    lost = {rung.name: rung.lost for rung in RUNGS}
    said = [(name, lost.get(name, "")) for name in record.rungs]
    return [
        (name, what.removeprefix("nothing: ") if what.startswith("nothing: ") else f"no longer known: {what}")
        for name, what in said
    ]


def left_out(record: Record) -> list[tuple[str, str, str]]:
    """Rungs that were not tried: which, why, and under which ways, unless under all."""
    found: dict[tuple[str, str], list[str]] = {}
    for way, skipped in record.facts.get("skipped", {}).items():
        for rung, why in skipped.items():
            found.setdefault((rung, why), []).append(f"“{way}”")
    order = {rung: place for place, rung in enumerate(record.rungs)}
    return [
        (rung, why, "" if len(names) == len(record.ways) else listed(names))
        for (rung, why), names in sorted(found.items(), key=lambda entry: order.get(entry[0][0], 0))
    ]


def foretold(record: Record) -> str:
    """How well the forecasts did."""
    pairs = [
        (said.value - said.null >= record.scale.leak, best.row.leaked)
        for way in record.ways
        for best in record.bests(way.name)
        if (said := record.forecast(way.name, best.row.sample)) is not None
    ]
    if not pairs:
        return "There is nothing to compare: no record has both a forecast and a guess."
    right, over = sum(a == b for a, b in pairs), sum(a and not b for a, b in pairs)
    text = f"Whether a record leaks was foretold rightly {right} of {counted(len(pairs), 'time')}."
    more = f" A leak was foretold and not found {counted(over, 'time')}; there, a better attack may find one."
    return text + more * (over > 0)


def next_steps(record: Record) -> list[str]:
    """What to do now, the most urgent first; between two ` stands a command, or a line of the plan."""
    leaking = [way for way in record.ways if record.leaked(way.name)]
    holding = [way for way in record.ways if record.bests(way.name) and way not in leaking]
    limit = "`--max-psnr 18`" if record.scale is PICTURES else "`--max-rouge 30`"
    cost = "`gradleak defend` finds how strong one must be, and what it costs in accuracy."
    if record.scale is not PICTURES:
        cost = "What it costs in accuracy is for your own evaluation to say."
    said = []
    if not record.finished:
        said.append("Give the same command again: the audit goes on from here.")
    if record.failed:
        said.append("Look at the cases that failed, and run them again with `gradleak audit PLAN --retry`.")
    if leaking and not any(way.defenses for way in record.ways):
        said.append(
            'Try defenses: `defenses = ["gaussian:std=1e-2"]` in the plan puts noise around every client. '
            f"{cost}"
        )
    elif leaking and not holding:
        said.append(
            "No way of training that was tried holds. Stronger noise, larger batches, more local steps or "
            f"secure aggregation hide more. {cost}"
        )
    if holding:
        names = listed(f"“{way.name}”" for way in holding[:_NAMED]) + (
            " and others" * (len(holding) > _NAMED)
        )
        said.append(
            f'Before you rely on {names}, try harder: `level = "thorough"` in [budget] takes longer attacks, '
            "more starts and every rung."
        )
    said.append(
        f"Hold releases to what you decide: `gradleak check PLAN` with limits such as {limit} fails a build, "
        "and `gradleak runs diff` says what a change did."
    )
    return said


def ran(record: Record) -> str:
    spared = sum(one.spared for one in record.left)
    parts = [
        (counted(len(record.done) - len(record.failed), "case"), "done"),
        (spared, "spared"),
        (len(record.failed), "failed"),
        (len(record.missing), "missing"),
    ]
    return ", ".join(f"{number} {what}" for number, what in parts if number)


def costs(record: Record) -> Pairs:
    facts = record.facts
    target = facts.get("target")
    said = {
        "Model": facts.get("model"),
        "Records": f"{len(record.samples)} in {counted(len({s.batch for s in record.samples}), 'batch')}",
        "Attacks, from cheap to dear": listed(facts.get("attacks", ())),
        "Starts of each": facts.get("starts"),
        "Target": None if target is None else f"{target:g} {record.scale.unit}",
        "The null": facts.get("null"),
        "Seed": facts.get("seed"),
        "Matching gradients": f"{record.matching_gradients:,}",
        "Time": wording.seconds(record.seconds),
        "Run": record.number,
        **facts.get("versions", {}),
    }
    return [(name, str(value)) for name, value in said.items() if value not in (None, "")]


def knew(record: Record) -> str:
    """What the first attack on the first rung was given, but for the client."""
    for one in record.attacks:
        if one.case.kind == ATTACK and one.case.rung == record.rungs[0] and one.case.attacker == KNOWS:
            known = [fact for fact in one.facts.get("assumptions", ()) if not fact.startswith("client ")]
            return ", ".join([*known, "the client"])
    return ""


def plan(record: Record) -> str:
    said = record.facts.get("plan")
    return json.dumps(said, indent=2, ensure_ascii=False) if said else ""
