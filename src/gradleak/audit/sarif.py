"""What a gate found, as SARIF 2.1.0, which code scanning shows beside the plan."""

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gradleak.audit.limits import FAULTS, Judged
from gradleak.audit.places import line_of, lines_of
from gradleak.cases.record import Record

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

# What each rule is about, and what to do where it is broken.
_RULES = {
    "max_psnr": (
        "A record comes back closer than allowed",
        "An attack on the shared update recovered a private record with a PSNR above the limit, and closer "
        "than a guess that never saw the update.",
        "Look at the record in the report. Then make the update say less: a stronger defense, more records "
        "in a batch, or more local steps. Run the audit again; `gradleak runs diff` says what it did.",
    ),
    "max_ssim": (
        "A record comes back with more of its structure than allowed",
        "An attack on the shared update recovered a private record with an SSIM above the limit, and above "
        "that of a guess that never saw the update.",
        "Look at the record in the report, and treat it as with max_psnr.",
    ),
    "max_rouge": (
        "A text comes back with more of its words than allowed",
        "An attack on the shared update recovered a private text with a ROUGE-L above the limit, and closer "
        "than a guess that never saw the update.",
        "Look at the text in the report. Then make the update say less: a stronger defense, more texts in a "
        "batch, dropout, or more local steps. Frozen word embeddings alone hide nothing.",
    ),
    "max_leaked": (
        "More records leak than allowed",
        "The share of private records that some attack recovered clearly better than a guess without the "
        "update, by 6 dB or 25 points of ROUGE-L, is above the limit.",
        "The report says down to which server they leak, and `gradleak defend` how much of which defense "
        "is enough.",
    ),
    "max_label_accuracy": (
        "More labels come back than allowed",
        "The best attack read more of a batch's labels off the update than the limit allows, and more than "
        "chance does.",
        "Labels are read from the last layer's gradient. Larger batches with repeated classes, local steps, "
        "and defenses of the last layer hide them.",
    ),
    "max_forecast": (
        "The forecast sees a record come back closer than allowed",
        "Before any attack, the forecast says that the update determines a record to more decibels than the "
        "limit allows.",
        "The forecast tends to say too much for networks with kinks, and knows nothing of a smarter prior. "
        "`gradleak risk predict` says which layer gives the record away.",
    ),
    "unfinished": (
        "Cases of the audit were not run",
        "The run ended before every case was done, so that it may have missed a leak.",
        "Run `gradleak audit` again with --resume: it goes on where it ended.",
    ),
    "failed": (
        "Cases of the audit failed",
        "Some attacks or forecasts ended in an error, so that the run may have missed a leak.",
        "The message says why the first of them failed, and the report has the others.",
    ),
    "unanswered": (
        "The audit cannot answer for a limit",
        "No attack came to a guess, or none was run that could break the limit. That is not the same as "
        "being safe.",
        "Take more attacks, another ladder or a larger budget, or allow it with `--allow unanswered`.",
    ),
}


def sarif(record: Record, judged: Sequence[Judged], plan: Path) -> str:
    """A result for every broken limit, on the line of ``plan`` that sets it. No pictures are in it."""
    lines = _lines(plan)
    broken = [one for one in judged if not one.holds]
    driver = {"name": "gradleak", "version": record.facts["versions"]["gradleak"]} | {
        "rules": [_rule(name) for name in _RULES]
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": "gradleak/"},
        "invocations": [{"executionSuccessful": all(one.limit not in FAULTS for one in broken)}],
        "results": [_result(one, plan, lines) for one in broken],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(name: str) -> dict[str, Any]:
    short, full, advice = _RULES[name]
    return {
        "id": name.replace("_", "-"),
        "name": "".join(word.capitalize() for word in name.split("_")),
        "shortDescription": {"text": short},
        "fullDescription": {"text": full},
        "help": {"text": advice.replace("`", ""), "markdown": advice},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["security", "privacy"]},
    }


def _result(one: Judged, plan: Path, lines: Mapping[tuple[str | int, ...], int]) -> dict[str, Any]:
    line = line_of(lines, ("limits", one.limit)) or 1  # code scanning asks for one
    where = {"artifactLocation": {"uri": _uri(plan)}, "region": {"startLine": line}}
    facts = {name: value for name, value in one.to_dict().items() if name not in ("holds", "sentence")}
    return {
        "ruleId": one.limit.replace("_", "-"),
        "ruleIndex": list(_RULES).index(one.limit),
        "level": "error",
        "message": {"text": f"{one}."},
        "locations": [{"physicalLocation": where}],
        # The same limit on the same way stays the same alert, whatever its numbers are next time.
        "partialFingerprints": {"primaryLocationLineHash": f"{_hash(f'{one.way} {one.limit}')}:1"},
        "properties": facts,
    }


def _lines(plan: Path) -> dict[tuple[str | int, ...], int]:
    """None in what is not a plan, such as the folder of a run."""
    try:
        text = plan.read_text(encoding="utf-8")
        return lines_of(text, tomllib.loads(text))
    except (OSError, ValueError):
        return {}


def _uri(path: Path) -> str:
    """Relative to where the command runs, which in a checkout is its root."""
    try:
        return quote(path.resolve().relative_to(Path.cwd().resolve()).as_posix() or ".", errors="replace")
    except ValueError:
        return "file://" + quote(os.fsencode(path.resolve()))


def _hash(said: str) -> str:
    return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:16]
