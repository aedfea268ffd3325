"""A run as a table, for a spreadsheet or a data frame: one row for each record and attack."""

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

from gradleak.cases.case import ATTACK
from gradleak.cases.record import Done, Record, Row

COLUMNS = (
    "run", "title", "way", "client", "record", "batch", "label", "label_name",
    "rung", "attacker", "attack", "seed", "outcome", "reason", "guessed",
    "psnr", "null_psnr", "leak", "leaked", "ssim", "null_ssim", "label_guess", "labels_given",
    "forecast_psnr", "forecast_null_psnr", "matching_gradients", "seconds", "case",
)  # fmt: skip


def rows(record: Record) -> list[dict[str, Any]]:
    """Attacks that failed, or came to no guess, are in it too; what they lack is None.

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
            found.append(one | _scores(by_sample.get(sample)) | {"client": clients[done.case.protocol]})
    return [{name: one[name] for name in COLUMNS} for one in found]


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
        "forecast_psnr": None if forecast is None else _plain(forecast.psnr),
        "forecast_null_psnr": None if forecast is None else _plain(forecast.null_psnr),
    }


def _scores(row: Row | None) -> dict[str, Any]:
    names = ("psnr", "null_psnr", "leak", "leaked", "ssim", "null_ssim", "label_guess")
    if row is None or not row.guessed:
        return {"guessed": False} | dict.fromkeys(names)
    return {"guessed": True} | {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
