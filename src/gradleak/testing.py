"""The gate for one's own tests: fail where a model and a protocol leak more than they may."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradleak.audit.limits import Limits, check
from gradleak.observe.words import are_words

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradleak.observe import Client
    from gradleak.report.audited import Report


def assert_no_leak(
    model: "nn.Module",
    x: "Tensor",
    y: "Tensor",
    *,
    client: "Client | None" = None,
    max_psnr: float | None = 18.0,
    max_ssim: float | None = None,
    max_rouge: float | None = 30.0,
    max_leaked: float | None = None,
    max_label_accuracy: float | str | None = None,
    max_forecast: float | None = None,
    allow: tuple[str, ...] = (),
    budget: str = "quick",
    report: Path | str | None = None,
    **audit: Any,
) -> "Report":
    """Audit one private batch, and raise AssertionError with a line for each limit that is broken.

    ``client`` is what you release, with its defenses around it; without one, it sends a plain gradient. The
    limits and ``allow`` are those of ``gradleak check``; ``max_psnr`` is held by pictures, and ``max_rouge``,
    in percent, by texts. ``report`` is a folder for the report of an audit
    that failed; it holds private pictures. What else is said goes to ``gradleak.audit``.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    from gradleak.audit.call import audit as audited

    texts = are_words(x)
    limits = Limits(
        max_psnr=None if texts else max_psnr,
        max_ssim=max_ssim,
        max_rouge=max_rouge if texts else None,
        max_leaked=max_leaked,
        max_label_accuracy=max_label_accuracy,
        max_forecast=max_forecast,
        allow=allow,
    )
    if client is not None:
        audit["client"] = client
    found = audited(model, x, y, budget=budget, **audit)
    broken = check(found.record, limits)
    if not broken:
        return found
    lines = [f"{len(broken)} limit{' is' if len(broken) == 1 else 's are'} broken:"]
    lines += [f"  {one}" for one in broken]
    if report is not None:
        found.write(report)
        lines.append(f"The report is {Path(report) / 'report.html'}.")
    raise AssertionError("\n".join(lines))
