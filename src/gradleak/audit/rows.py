"""A run as a table, for a spreadsheet or a data frame: one row for each record and attack."""

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

from gradleak.cases.case import ATTACK
from gradleak.cases.done import Done, Expected, Row
from gradleak.cases.record import Record
from gradleak.examination.scale import Scale

COLUMNS = (
    "run", "title", "way", "client", "record", "batch", "label", "label_name",
    "rung", "attacker", "attack", "seed", "outcome", "reason", "guessed",
    "psnr", "null_psnr", "ssim", "null_ssim", "rouge_l", "null_rouge_l", "tokens", "null_tokens",
    "leak", "leaked", "label_guess", "labels_given",
    "forecast_psnr", "forecast_null_psnr", "forecast_rouge_l", "forecast_null_rouge_l",
    "matching_gradients", "seconds", "case",
)  # fmt: skip


def rows(record: Record) -> list[dict[str, Any]]:
    """Attacks that failed, or came to no guess, are in it too; what they lack is None, and so is what is
    measured of other records, such as the PSNR of a text.

    ``matching_gradients`` and ``seconds`` are the whole case's, which may be about several records.
    """
    clients = {way.name: way.client for way in record.ways}
    found = []
    for done in record.done:
        if done.case.kind != ATTACK:
            continue
        by_sample = {row.sample: row for row in done.rows}
        for sample in done.samples:
            one = _of_case(record, done) | _of_sample(record, done, sample)
            scores = _scores(by_sample.get(sample), record.scale)
            found.append(one | scores | {"client": clients[done.case.protocol]})
    return [{name: one.get(name) for name in COLUMNS} for one in found]


def as_csv(table: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ("folder", *COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _of_case(record: Record, done: Done) -> dict[str, Any]:
    case = done.case
    return {
        "run": record.number,
        "title": record.title,
        "way": case.protocol,
        "rung": case.rung,
        "attacker": case.attacker,
        "attack": case.attack,
        "seed": case.seed,
        "outcome": done.outcome,
        "reason": done.reason,
        "labels_given": done.facts.get("labels_given"),
        "matching_gradients": done.matching_gradients,
        "seconds": done.seconds,
        "case": done.key,
    }


def _of_sample(record: Record, done: Done, sample: int) -> dict[str, Any]:
    about, forecast = record.samples[sample], record.forecast(done.case.protocol, sample)
    return {
        "record": about.name,
        "batch": about.batch + 1,
        "label": about.label,
        "label_name": about.label_name,
    } | _foretold(record.scale, forecast)


def _foretold(scale: Scale, forecast: Expected | None) -> dict[str, Any]:
    if forecast is None:
        return {}
    key = scale.key
    return {
        f"forecast_{key}": _plain(forecast.value),
        f"forecast_null_{key}": _plain(forecast.null),
    }


def _scores(row: Row | None, scale: Scale) -> dict[str, Any]:
    if row is None or not row.guessed:
        return {"guessed": False}
    found = {
        scale.key: row.value,
        f"null_{scale.key}": row.null,
        scale.beside: row.beside,
        f"null_{scale.beside}": row.null_beside,
        "leak": row.leak,
        "leaked": row.leaked,
        "label_guess": row.label_guess,
    }
    return {"guessed": True} | {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
