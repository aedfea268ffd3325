"""How near a guess is: what is measured of pictures and of texts, and from where it is a leak."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from gradleak.examination.findings import LEAK, decibels

NOTHING = "–"


@dataclass(frozen=True)
class Scale:
    """``noun`` is one record, and ``key`` what the figure is called in JSON. A guess that lies ``leak`` or
    more above the best one without the update is a leak. ``apart`` is what such differences are
    counted in. ``top`` and ``ticks`` are those of a figure's axis,
    ``depths`` how far above the null deeper shades begin, and ``spread`` what is counted of such a
    difference at most. ``beside`` is a second measure. Differences under ``same`` are
    none, and a guess at ``whole`` is the record itself.
    """

    noun: str
    key: str
    name: str
    unit: str
    apart: str
    leak: float
    top: float
    ticks: tuple[float, ...]
    depths: tuple[float, ...]
    spread: tuple[float, float]
    beside: str
    beside_name: str
    beside_words: Callable[[float], str]
    same: float
    whole: float
    words: Callable[[float], str]

    def said(self, value: float) -> str:
        """With its unit."""
        return "not a number" if math.isnan(value) else self.words(value)

    def short(self, value: float | None) -> str:
        """Without the unit, which a caption names, and without an article."""
        if value is None:
            return NOTHING
        return self.said(value).removeprefix("an ").removesuffix(f" {self.unit}").replace("-", "−")

    def gap(self, value: float | None) -> str:
        """How far above the null, without the unit."""
        if value is None or math.isinf(value):
            return self.short(value)
        return f"{value:+.1f}".replace("-", "−")

    def second(self, value: float | None) -> str:
        """What is measured beside."""
        return NOTHING if value is None else self.beside_words(value).replace("-", "−")

    @property
    def measured(self) -> str:
        """For captions, whose figures leave the unit out."""
        return f"{self.name} in {self.unit}"

    def exact(self, value: float) -> bool:
        """Whether the guess is the record itself."""
        return value >= self.whole


def _percent(value: float) -> str:
    # Rounded down, so that only a whole text is said to be whole.
    return "no text" if value == -math.inf else f"{math.floor(value + 1e-9)} %"


PICTURES = Scale(
    noun="picture",
    key="psnr",
    name="PSNR",
    unit="dB",
    apart="dB",
    leak=LEAK,
    top=60.0,  # beyond, no eye sees a difference
    ticks=(0.0, 20.0, 40.0, 60.0),
    depths=(LEAK, 12.0, 20.0, 30.0),
    spread=(-10.0, 60.0),
    beside="ssim",
    beside_name="SSIM",
    beside_words="{:.2f}".format,
    same=1.0,
    whole=math.inf,
    words=decibels,
)

TEXTS = Scale(
    noun="text",
    key="rouge_l",
    name="ROUGE-L",
    unit="%",
    apart="points",
    leak=25.0,  # a quarter of its words, in their order, that nobody would have guessed
    top=100.0,
    ticks=(0.0, 25.0, 50.0, 75.0, 100.0),
    depths=(25.0, 50.0, 75.0, 90.0),
    spread=(-10.0, 100.0),
    beside="tokens",
    beside_name="Words in place",
    beside_words="{:.0f} %".format,
    same=5.0,
    whole=100.0,
    words=_percent,
)

SCALES = {scale.noun: scale for scale in (PICTURES, TEXTS)}
