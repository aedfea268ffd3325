"""gradleak for pytest. Outside of gradleak, whose import loads torch: who audits nothing pays nothing."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradleak.report.audited import Report


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradleak", "audits of gradient leakage")
    group.addoption(
        "--gradleak-budget",
        choices=("quick", "standard", "thorough"),
        help="How hard the audits of gradleak_audit attack, whatever the tests say.",
    )
    group.addoption(
        "--gradleak-report",
        metavar="DIR",
        help="Write the report of each audit that fails there. It holds private pictures.",
    )


@pytest.fixture
def gradleak_audit(request: pytest.FixtureRequest) -> "Callable[..., Report]":
    """``gradleak.testing.assert_no_leak``, with the budget and the folder of the command line."""
    budget = request.config.getoption("--gradleak-budget")
    folder = request.config.getoption("--gradleak-report")
    name = re.sub(r"[^\w.-]+", "-", request.node.nodeid).strip("-")
    audits = 0

    def audited(model: Any, x: Any, y: Any, **said: Any) -> "Report":
        __tracebackhide__ = True
        from gradleak.testing import assert_no_leak

        nonlocal audits
        audits += 1
        if budget is not None:
            said["budget"] = budget
        if folder is not None:
            said["report"] = Path(folder) / (name if audits == 1 else f"{name}-{audits}")
        return assert_no_leak(model, x, y, **said)

    return audited
