"""Ladders made by hand, so that these tests need no attack."""

from typing import Any

from report_findings import finding, findings

from gradleak.examination.findings import Findings
from gradleak.threats import Ladder, Rung, Step


def step(name: str, found: Findings | None, skipped: str = "", lost: str = "the labels") -> Step:
    def never(setting: Any) -> list[Any]:
        raise AssertionError("a report attacks nothing")

    return Step(Rung(name, lost, never), found, skipped, same="run was stopped" not in skipped)


def pictures(*psnr: float, **facts: Any) -> Findings:
    return findings(*(finding(psnr=v, seed=i, name=f"picture {i}") for i, v in enumerate(psnr, 1)), **facts)


def ladder(*steps: Step, **facts: Any) -> Ladder:
    known: dict[str, Any] = {"title": "a test", "attack": "gdl"}
    return Ladder(**known | facts, steps=steps)


def usual() -> Ladder:
    return ladder(
        step("everything known", pictures(30.0, 20.0, 9.0, 8.0, 7.0), lost="nothing: all is known"),
        step("train mode", None, "no layer trains differently"),
        step("no labels", pictures(18.0, 9.0, 9.0, 8.0, 7.0)),
        step("no order", pictures(9.0, 9.0, 9.0, 8.0, 7.0)),
    )
