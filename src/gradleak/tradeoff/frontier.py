"""Every defense's leak beside its accuracy, and which one to take."""

from dataclasses import dataclass
from math import inf, isnan
from typing import Any

from gradleak.defenses import Spread
from gradleak.tradeoff.cost import Course
from gradleak.tradeoff.leak import Leak, Target
from gradleak.tradeoff.strengths import Yardstick


@dataclass(frozen=True, eq=False)
class Point:
    """One setting, attacked; ``course`` is None where no accuracy was measured. Predicted by picture."""

    words: str
    client: str
    predicted: tuple[float, ...]
    naive: Leak
    adaptive: Leak
    course: Course | None = None

    def cost(self, baseline: "Point") -> Spread | None:
        if self.course is None or baseline.course is None:
            return None
        return self.course.cost(baseline.course)

    def to_dict(self, baseline: "Point") -> dict[str, Any]:
        cost, course = self.cost(baseline), self.course
        return {
            "setting": self.words,
            "client": self.client,
            "predicted": list(self.predicted),
            "naive": self.naive.to_dict(),
            "adaptive": self.adaptive.to_dict(),
            "accuracy": None if course is None else course.final.to_dict(),
            "accuracies": None if course is None else list(course.accuracy),
            "diverged": None if course is None else list(course.diverged),
            "cost": None if cost is None else cost.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class Curve:
    """One defense: the settings that were attacked, weakest first, and the weakest that holds the target.

    ``chosen`` is None where none does, or where the run was stopped before; ``reason`` says which.
    """

    name: str
    title: str
    points: tuple[Point, ...]
    chosen: Point | None
    reason: str = ""

    @property
    def shown(self) -> Point | None:
        """For a table: the chosen one, or else the one that leaks least."""
        return self.chosen or min(self.points[::-1], key=lambda point: point.adaptive.worst, default=None)

    @property
    def trained(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.course is not None)


@dataclass(frozen=True, eq=False)
class Tradeoff:
    """What was searched, and what was found; ``of`` says on what accuracy was measured, or why not."""

    title: str
    target: Target
    yardstick: Yardstick
    null: Leak
    gallery: int
    bare: Point
    curves: tuple[Curve, ...]
    of: str
    own: bool
    interrupted: bool = False

    @property
    def holding(self) -> tuple[Curve, ...]:
        """Those with a setting that holds, the cheapest first, and last those whose cost is not known.

        A cost that may be high is: what counts is the upper end of its interval, where there is one.
        """

        def lost(curve: Curve) -> float:
            cost = None if curve.chosen is None else curve.chosen.cost(self.bare)
            if cost is None:
                return inf
            return cost.mean if isnan(cost.high) else cost.high

        return tuple(sorted((curve for curve in self.curves if curve.chosen), key=lost))

    @property
    def headline(self) -> str:
        """What to take, in a few words."""
        if self.target.holds(self.bare.adaptive):
            return "No defense is needed"
        best = next(iter(self.holding), None)
        if best is None or best.chosen is None:
            return "No defense holds" + (" so far" if self.interrupted else "")
        return f"{best.title}, {best.chosen.words}"

    @property
    def recommendation(self) -> str:
        """One sentence, or two where the first alone would mislead."""
        early = " The run was stopped before all defenses were searched." if self.interrupted else ""
        if self.target.holds(self.bare.adaptive):
            held = self._held(self.bare)
            return f"No defense is needed: without any, the best attacker we have stays at {held}.{early}"
        if not self.holding:
            least = [curve.shown.adaptive for curve in self.curves if curve.shown]
            reach = ""
            if least:
                lowest = min(least, key=lambda leak: leak.worst)
                reach = f": under the one that leaks least he still reaches {lowest.reached}"
            said = f"No defense that was searched holds the best attacker we have {self.target}{reach}."
            return said + early
        best = self.holding[0]
        point = best.chosen or self.bare
        words = f"{best.title} ({point.words}) holds the best attacker we have at "
        said = f"{words}{self._held(point)}{self._price(point)}."
        return said + self._identified(point) + self._beware(point) + early

    def _held(self, point: Point) -> str:
        parts = [
            f"{point.adaptive.worst:.1f} dB on the worst picture (a guess without the update: "
            f"{self.null.worst:.1f})"
        ]
        if self.target.ssim is not None and point.adaptive.ssim:
            parts.append(f"an SSIM of {max(point.adaptive.ssim):.2f}")
        if self.target.identified is not None:
            parts.append(f"{point.adaptive.share:.0%} identified")
        return ", ".join(parts)

    def _price(self, point: Point) -> str:
        cost = point.cost(self.bare)
        if cost is None:
            return "; what it costs in accuracy was not measured"
        if cost.low <= 0:
            return f", and costs {points_of(cost)}, which these seeds cannot tell from none"
        return f", and costs {points_of(cost)}"

    def _identified(self, point: Point) -> str:
        """That a poor picture may still say whose it is, which no decibels tell."""
        share = point.adaptive.share
        if share <= self.null.share or self.target.identified is not None:
            return ""
        return (
            f" Still, {100 * share:.0f} % of the guesses tell which of {self.gallery + 1} pictures was meant."
        )

    def _beware(self, point: Point) -> str:
        """What the price alone would not say."""
        course, bare = point.course, self.bare.course
        if course is None or bare is None:
            return ""
        if bare.note:
            return " That price says nothing: without any defense the network has learnt next to nothing."
        if course.final.mean < (course.null + bare.final.mean) / 2:
            return (
                f" That is most of what training is for ({course.final.mean:.0%} are classed rightly, by a "
                f"constant guess {course.null:.0%}): no defense that was searched is both safe and useful "
                "here."
            )
        return ""

    def to_dict(self) -> dict[str, Any]:
        bare = self.bare.course
        return {
            "title": self.title,
            "target": {
                "psnr": self.target.psnr,
                "ssim": self.target.ssim,
                "identified": self.target.identified,
            },
            "recommendation": self.recommendation,
            "interrupted": self.interrupted,
            "update": {"rms": self.yardstick.rms, "norm": self.yardstick.norm},
            "null": self.null.to_dict(),
            "gallery": self.gallery,
            "accuracy_measured_on": self.of,
            "constant_guess": None if bare is None else bare.null,
            "without_defense": self.bare.to_dict(self.bare),
            "defenses": [
                {
                    "name": curve.name,
                    "holds": None if curve.chosen is None else curve.chosen.to_dict(self.bare),
                    "reason": curve.reason,
                    "points": [point.to_dict(self.bare) for point in curve.points],
                }
                for curve in self.curves
            ],
        }


def points_of(cost: Spread) -> str:
    """1.2 points of accuracy (95 %: 0.3 to 2.1)."""
    few = "" if isnan(cost.low) else f" (95 %: {_signed(cost.low)} to {_signed(cost.high)})"
    return f"{_signed(cost.mean)} points of accuracy{few}"


def _signed(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")
