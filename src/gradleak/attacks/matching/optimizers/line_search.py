"""A step length that satisfies the strong Wolfe conditions, asked for one evaluation at a time.

Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6. It is a coroutine over plain numbers:
it yields a step and is sent (value, slope) there, so whoever drives it is free to answer many at once.
"""

import math
from collections.abc import Generator
from typing import NamedTuple

_SUFFICIENT_DECREASE = 1e-4
_CURVATURE = 0.9
_MARGIN = 0.1  # a trial step keeps this share of the bracket away from both ends


class Probe(NamedTuple):
    step: float
    value: float
    slope: float


def strong_wolfe(
    start: Probe, step: float, evaluations: int = 25
) -> Generator[float, tuple[float, float], bool]:
    """Returns whether the last step that it yielded is one to take."""
    low, high = start, None
    for n in range(evaluations):
        here = Probe(step, *(yield step))
        enough = math.isfinite(here.value) and math.isfinite(here.slope)
        enough = enough and here.value <= start.value + _SUFFICIENT_DECREASE * step * start.slope
        if not enough or (n > 0 and here.value >= low.value):
            high = here
        elif abs(here.slope) <= -_CURVATURE * start.slope:
            return True
        elif high is None and here.slope < 0:
            step, low = _beyond(low, here), here
            continue
        else:
            if high is None or here.slope * (high.step - low.step) >= 0:
                high = low
            low = here
        step = _between(low, high)
        if abs(high.step - low.step) * abs(low.slope) <= 1e-9 * abs(low.value) or step in (
            low.step,
            high.step,
        ):
            break
    # Out of patience: the best point so far lowers the value, unless it is the start itself.
    if low.step == 0:
        return False
    yield low.step
    return True


def _beyond(low: Probe, here: Probe) -> float:
    """Further out, by the cubic through both points, between 2 and 10 times the last stride."""
    stride = here.step - low.step
    guess = _cubic_minimum(low, here)
    nearest, furthest = here.step + stride, here.step + 9 * stride
    return min(max(guess, nearest), furthest) if math.isfinite(guess) else furthest


def _between(low: Probe, high: Probe) -> float:
    left, right = sorted((low.step, high.step))
    width = right - left
    guess = _cubic_minimum(low, high)
    if not math.isfinite(guess):
        # Where the far end is not finite, be quick about leaving it.
        return low.step + (_MARGIN if not math.isfinite(high.value) else 0.5) * (high.step - low.step)
    return min(max(guess, left + _MARGIN * width), right - _MARGIN * width)


def _cubic_minimum(a: Probe, b: Probe) -> float:
    """The minimum of the cubic with these values and slopes, NaN where there is none (their eq. 3.59)."""
    if not (math.isfinite(b.value) and math.isfinite(b.slope)):
        return math.nan
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
    inside = d1 * d1 - a.slope * b.slope
    if inside < 0:
        return math.nan
    d2 = math.copysign(math.sqrt(inside), b.step - a.step)
    below = b.slope - a.slope + 2 * d2
    return b.step - (b.step - a.step) * (b.slope + d2 - d1) / below if below else math.nan
