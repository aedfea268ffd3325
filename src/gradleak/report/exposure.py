"""Which private picture to look at first: the most exposed one."""

import math

from gradleak.errors import InvalidInput
from gradleak.examination.findings import Finding, Findings


def by_exposure(findings: Findings) -> list[tuple[int, Finding]]:
    """Findings and their places in the run, from 1; the largest leak first, those without a guess last."""
    if not findings.findings:
        raise InvalidInput("a report needs the findings of at least one picture; these are of none")
    return sorted(enumerate(findings.findings, 1), key=lambda entry: _exposure(entry[1]))


def _exposure(finding: Finding) -> tuple[bool, float]:
    # NaN compares false with everything and would leave the order to chance.
    leak = -math.inf if math.isnan(finding.leak) else finding.leak
    return finding.guess is None, -leak
