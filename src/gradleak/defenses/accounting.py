"""What noise is worth: the privacy budget that DP-SGD spends, as Opacus accounts for it."""

import math
import warnings
from typing import Any

from gradleak.defenses.base import number, one_of
from gradleak.errors import InvalidInput, NotInstalled

ACCOUNTANTS = ("rdp", "prv")
_LEAST, _MOST = 0.05, 1e5  # noise multipliers that are searched
_PRECISION = 1e-3  # of the noise multiplier that is found, relative


def epsilon(
    noise_multiplier: float, sample_rate: float, steps: int, delta: float, accountant: str = "rdp"
) -> float:
    """ε of (ε, ``delta``)-differential privacy after ``steps``, each on a random ``sample_rate`` of the data.

    "rdp" is by moments, quick and somewhat high; "prv" composes numerically, and is nearly exact. ε is
    infinite without noise.
    """
    number("noise_multiplier", noise_multiplier, 0, math.inf)
    _check(sample_rate, steps, delta, accountant)
    if not noise_multiplier:
        return math.inf
    keeper = _accountant(accountant)
    keeper.history = [(float(noise_multiplier), float(sample_rate), steps)]
    with warnings.catch_warnings():  # that another order of moments could give less: what it gives holds
        warnings.simplefilter("ignore")
        return float(keeper.get_epsilon(delta=delta))


def noise_for(epsilon: float, sample_rate: float, steps: int, delta: float, accountant: str = "rdp") -> float:
    """The least noise multiplier that keeps ε at or below ``epsilon``, to a thousandth."""
    number("epsilon", epsilon, 0, math.inf, open_ends="[")
    _check(sample_rate, steps, delta, accountant)

    def spent(noise: float) -> float:
        return _epsilon(noise, sample_rate, steps, delta, accountant)

    low, high = _LEAST, 1.0
    while spent(high) > epsilon:
        low, high = high, 4 * high
        if high > _MOST:
            raise InvalidInput(
                f"expected an epsilon of {spent(low):.3g} or more, which a noise multiplier of {low:g} "
                f"reaches in {steps} steps; came {epsilon!r}. Take fewer steps, a smaller sample_rate or a "
                "larger delta."
            )
    while high / low > 1 + _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= epsilon else (middle, high)
    return high


_epsilon = epsilon  # by which noise_for finds it behind its argument


def _check(sample_rate: float, steps: int, delta: float, accountant: str) -> None:
    number("sample_rate", sample_rate, 0, 1, open_ends="[")
    number("delta", delta, 0, 1, open_ends="[]")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise InvalidInput(f"expected steps as a whole number of 1 or more; came {steps!r}")
    one_of("accountant", accountant, ACCOUNTANTS)


def _accountant(name: str) -> Any:
    try:
        from opacus.accountants import create_accountant
    except ImportError as error:
        raise NotInstalled(
            "accounting for privacy needs the package opacus, which is not installed. Run: pip install "
            "'gradleak[dp]'"
        ) from error
    return create_accountant(mechanism=name)
