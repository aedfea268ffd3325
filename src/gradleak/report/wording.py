"""Numbers and outcomes in the words that a reader sees."""

import math

from gradleak.examination.findings import Finding, decibels
from gradleak.examination.scale import NOTHING, PICTURES, Scale

_OUTCOMES = {
    "converged": "converged",
    "budget": "budget spent",
    "stalled": "stalled",
    "spared": "stopped, another trial had it",
    "diverged": "diverged",
    "not_applicable": "could not be run",
    "running": "stopped early",
}


def recovered_psnr(finding: Finding) -> str:
    return "no guess" if finding.guess is None else short_decibels(finding.psnr)


def null_psnr(value: float) -> str:
    """A null is not scored where there was no guess to hold it against."""
    return "not scored" if value == -math.inf else short_decibels(value)


def short_decibels(value: float) -> str:
    """Short enough to stand below a picture of a hundred pixels."""
    return "not a number" if math.isnan(value) else decibels(value).removeprefix("an ")


def without_unit(text: str) -> str:
    """For a table whose caption names the unit."""
    return text.removesuffix(" dB")


def signed_leak(finding: Finding) -> str:
    """The table's figure, with a true minus sign."""
    leak = finding.leak
    if finding.guess is None or math.isnan(leak):
        return NOTHING
    if math.isinf(leak):
        return "exact copy" if leak > 0 else "no picture"
    return f"{leak:+.1f} dB".replace("-", "−")


def leak_sentence(finding: Finding) -> str:
    """What stands beside 'leaked' or 'not leaked'."""
    return "there is no guess" if finding.guess is None else above_null(finding.leak)


def above_null(leak: float, scale: Scale = PICTURES) -> str:
    if math.isnan(leak):
        return "the guess cannot be scored"
    if math.isinf(leak):
        return "an exact copy" if leak > 0 else f"the guess is no {scale.noun}"
    if abs(leak) < 0.05:
        return "level with the null"
    if 0 < leak < scale.leak and f"{leak:.1f}" == f"{scale.leak:.1f}":
        return f"just under {scale.leak:g} {scale.apart} above the null"
    return f"{abs(leak):.1f} {scale.apart} {'above' if leak > 0 else 'below'} the null"


def ssim(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}".replace("-", "−")


def score(value: float) -> str:
    if math.isnan(value):
        return "not a number"
    return "none" if math.isinf(value) else f"{value:.3g}".replace("-", "−")


def label(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def label_sentence(finding: Finding) -> str:
    true, guess = finding.label, finding.label_guess
    return guessed_label(None if true is None else str(true), None if guess is None else str(guess))


def guessed_label(true: str | None, guess: str | None) -> str:
    said = "not one class" if true is None else true
    if guess is None:
        return f"{said}, not guessed"
    return f"{said}, guessed {guess}" + (" (right)" if true == guess else " (wrong)")


def outcome(finding: Finding) -> str:
    """How the attack ended, in words; an outcome of later days is shown by its own name."""
    return ended(finding.outcome)


def ended(outcome: str) -> str:
    return _OUTCOMES.get(outcome, outcome.replace("_", " "))


def seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 1 else f"{value:,.1f} s" if value < 100 else f"{value:,.0f} s"


def percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.0f} %"
