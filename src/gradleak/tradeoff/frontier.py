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

    def doubted(self, target: Target) -> bool:
        """Whether the target is held only because our attacks failed."""
        return target.doubts(self.adaptive, self.predicted)

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

    Attacks and prediction both say so, or, where no setting has both, the attacks alone.
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

        What is held only because our attacks failed comes after all that.

        A cost that may be high is: what counts is the upper end of its interval, where there is one.
        """

        def lost(curve: Curve) -> tuple[bool, float]:
            doubted = curve.chosen is not None and curve.chosen.doubted(self.target)
            cost = None if curve.chosen is None else curve.chosen.cost(self.bare)
            if cost is None:
                return doubted, inf
            return doubted, cost.mean if isnan(cost.high) else cost.high

        return tuple(sorted((curve for curve in self.curves if curve.chosen), key=lost))

    @property
    def needless(self) -> bool:
        """Whether the target is held without a defense, by attacks and prediction."""
        return self.target.holds(self.bare.adaptive) and not self.bare.doubted(self.target)

    @property
    def trusted(self) -> Curve | None:
        """The one to take: the cheapest at which attacks and prediction agree that it holds."""
        best = next(iter(self.holding), None)
        return None if best is None or best.chosen is None or best.chosen.doubted(self.target) else best

    @property
    def headline(self) -> str:
        """What to take, in a few words."""
        if self.needless:
            return "No defense is needed"
        best = self.trusted
        if best is None or best.chosen is None:
            known = "is known to hold" if self.holding or self.target.holds(self.bare.adaptive) else "holds"
            return f"No defense {known}" + (" so far" if self.interrupted else "")
        return f"{best.title}, {best.chosen.words}"

    @property
    def recommendation(self) -> str:
        """One sentence, or two where the first alone would mislead."""
        early = " The run was stopped before all defenses were searched." if self.interrupted else ""
        if self.needless:
            held = self._held(self.bare)
            return f"No defense is needed: without any, the best attacker we have stays at {held}.{early}"
        if self.trusted is None and (self.holding or self.target.holds(self.bare.adaptive)):
            return self._doubtful() + early
        if self.trusted is None:
            least = [curve.shown.adaptive for curve in self.curves if curve.shown]
            reach = ""
            if least:
                lowest = min(least, key=lambda leak: leak.worst)
                reach = f": under the one that leaks least he still reaches {lowest.reached}"
            said = f"No defense that was searched holds the best attacker we have {self.target}{reach}."
            return said + early
        best = self.trusted
        point = best.chosen or self.bare
        words = f"{best.title} ({point.words}) holds the best attacker we have at "
        said = f"{words}{self._held(point)}{self._price(point)}."
        return said + self._identified(point) + self._beware(point) + early

    def _doubtful(self) -> str:
        """That our attacks failed where the prediction says that others need not."""
        best = next(iter(self.holding), None)
        if best is None or best.chosen is None:
            title, point = "Sending updates without a defense", self.bare
        else:
            title, point = f"{best.title} ({best.chosen.words})", best.chosen
        return (
            f"No defense that was searched is known to hold an attacker {self.target}. {title} does so only "
            f"by failure of our attacks, which stay at {self._held(point)}: {predicted_in(point)} dB are "
            "predicted."
        )

    def _held(self, point: Point) -> str:
        parts = [
            f"{point.adaptive.worst:.1f} dB on the worst picture (a guess without the update: "
            f"{self.null.worst:.1f})"
        ]
        if self.target.ssim is not None and point.adaptive.ssim:
            parts.append(f"an SSIM of {max(point.adaptive.ssim):.2f}")
        if self.target.identified is not None:
            found = point.adaptive.identified
            parts.append(f"{sum(found)} of {counted(len(found), 'guess')} identified")
        return ", ".join(parts)

    def _price(self, point: Point) -> str:
        cost = point.cost(self.bare)
        if cost is None:
            return "; what it costs in accuracy was not measured"
        if cost.low <= 0 and telling(cost):
            return f", and costs {points_of(cost)}, which these seeds cannot tell from none"
        return f", and costs {points_of(cost)}"

    def _identified(self, point: Point) -> str:
        """That a poor picture may still say whose it is, which no decibels tell."""
        share, found = point.adaptive.share, point.adaptive.identified
        if share <= self.null.share or self.target.identified is not None:
            return ""
        tell = "tells" if sum(found) == 1 else "tell"
        return (
            f" Still, {sum(found)} of {counted(len(found), 'guess')} {tell} "
            f"which of {counted(self.gallery + 1, 'picture')} was meant."
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
            "held_without_only_by_failure": self.bare.doubted(self.target),
            "without_defense": self.bare.to_dict(self.bare),
            "defenses": [
                {
                    "name": curve.name,
                    "holds": None if curve.chosen is None else curve.chosen.to_dict(self.bare),
                    "held_only_by_failure": bool(curve.chosen and curve.chosen.doubted(self.target)),
                    "reason": curve.reason,
                    "points": [point.to_dict(self.bare) for point in curve.points],
                }
                for curve in self.curves
            ],
        }


def predicted_in(point: Point) -> str:
    """Decibels of the worst picture; beyond 60, no eye sees a difference."""
    worst = max(point.predicted)
    return "60+" if worst >= 60 else f"{worst:.1f}"


def points_of(cost: Spread) -> str:
    """1.2 points of accuracy (95 %: 0.3 to 2.1)."""
    few = f"95 %: {_signed(cost.low)} to {_signed(cost.high)}" if telling(cost) else TOO_FEW
    return f"{_signed(cost.mean)} points of accuracy ({few})"


TOO_FEW = "too few seeds to say"


def telling(cost: Spread) -> bool:
    """Whether an interval is there, and says more than that an accuracy is a share."""
    return -1 <= cost.low <= cost.high <= 1


def counted(n: int, what: str) -> str:
    """1 guess, 2 guesses."""
    if n == 1:
        return f"{n} {what}"
    return f"{n:,} {what}{'es' if what.endswith('s') else 's'}"


def _signed(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")
