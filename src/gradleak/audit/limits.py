"""What a release may leak at most."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Each is held by every way of training that is meant; None is not asked for.

    ``max_label_accuracy`` is a share, or "random+0.2": so much above chance. ``max_leaked`` is the share of
    records that leak, and ``max_forecast`` the decibels that the forecast may say of any record.
    """

    max_psnr: float | None = None
    max_ssim: float | None = None
    max_leaked: float | None = None
    max_label_accuracy: float | str | None = None
    max_forecast: float | None = None
