"""The search: predict where a defense begins to hold, attack around there, and train what was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gradleak.errors import GradleakError, InvalidInput
from gradleak.observe import OneGradient
from gradleak.tradeoff.cost import Training
from gradleak.tradeoff.frontier import Curve, Point, Tradeoff, predicted_in
from gradleak.tradeoff.leak import Subject, Target
from gradleak.tradeoff.store import Store
from gradleak.tradeoff.strengths import STRENGTHS, Setting, Yardstick

Tell = Callable[[str, float], object]
"""Told what is being done, and the share of all defenses that is done."""

_ABOVE_NULL = 3.0  # decibels that a search without a PSNR to hold begins at


def tradeoff(
    subject: Subject,
    *,
    target: Target,
    training: Training | None = None,
    untrained: str = "no training was asked for",
    defenses: Sequence[str] = tuple(STRENGTHS),
    store: Store | None = None,
    title: str = "Leak against accuracy",
    tell: Tell = lambda what, share: None,
) -> Tradeoff:
    """For each of ``defenses``, the weakest setting that holds the best attacker, and its price.

    Where ``training`` is of other data than the subject's, each defense is as strong there, relative to that
    network's own updates. Without it, no accuracy is measured, for the reason ``untrained``. Ctrl-C ends the
    search, and keeps what was found; with a ``store``, the next one goes on there.
    """
    unknown = [name for name in defenses if name not in STRENGTHS]
    if unknown:
        raise InvalidInput(f"expected defenses among {', '.join(STRENGTHS)}; came {', '.join(unknown)}")
    _require_above_null(subject, target)
    if training is not None:
        training.require_usable()
    yardstick = Yardstick.of(subject.updates(OneGradient()), subject.records)
    search = _Search(subject, target, training, store or Store(), yardstick, tell)
    tell("without a defense", 0.0)
    nothing = Setting("none", "no defense", 0.0, OneGradient())
    bare = search.trained(search.point(nothing), nothing)
    curves: list[Curve] = []
    stopped = False
    for i, name in enumerate(dict.fromkeys(defenses)):
        search.begun(i, len(defenses))
        if not stopped:
            stopped = search.curve(name)
        curves.append(search.found(name, stopped))
    return Tradeoff(
        title=title,
        target=target,
        yardstick=yardstick,
        null=subject.null,
        gallery=len(subject.gallery),
        bare=bare,
        curves=tuple(curves),
        of=untrained if training is None else training.of,
        own=training is None or training.own,
        interrupted=stopped,
    )


def weakest(count: int, start: int, holds: Callable[[int], bool]) -> int | None:
    """The weakest of ``count`` levels that holds, when all stronger ones do; None where not even the last.

    From ``start`` on in longer and longer steps until the answer changes, and then by halves: a good start
    costs two questions.
    """
    low, high, step = -1, count, 1  # low does not hold, high does
    at = min(max(start, 0), count - 1)
    while high - low > 1:
        if holds(at):
            high = at
        else:
            low = at
        if low == -1:
            at, step = max(high - step, 0), 2 * step
        elif high == count:
            at, step = min(low + step, count - 1), 2 * step
        else:
            at = (low + high) // 2
    return None if high == count else high


def _require_above_null(subject: Subject, target: Target) -> None:
    null = subject.null
    told = "no defense can push an attacker below a guess without the update, which has"
    if target.psnr is not None and target.psnr <= null.worst:
        raise InvalidInput(
            f"expected a target above {null.worst:.1f} dB; came {target.psnr:g}: {told} {null.worst:.1f} dB "
            "on one of these pictures"
        )
    if target.ssim is not None and null.ssim and target.ssim <= max(null.ssim):
        raise InvalidInput(
            f"expected a target above an SSIM of {max(null.ssim):.2f}; came {target.ssim:g}: {told} that on "
            "one of these pictures"
        )
    if target.ssim is not None and not null.ssim:
        raise InvalidInput(
            "expected a target other than SSIM, since these samples are no pictures of 3x3 or more"
        )
    if target.identified is not None and target.identified < null.share:
        raise InvalidInput(
            f"expected a target of {null.share:.0%} identified or more; came {target.identified:.0%}: {told} "
            "that"
        )


@dataclass
class _Search:
    """One run: what it needs for every point, and what it has of the defense at hand."""

    subject: Subject
    target: Target
    training: Training | None
    store: Store
    yardstick: Yardstick
    tell: Tell
    share: float = 0.0
    points: dict[int, Point] = field(default_factory=dict)
    settings: list[Setting] = field(default_factory=list)
    chosen: int | None = None
    trouble: str = ""

    def begun(self, number: int, defenses: int) -> None:
        self.share = number / defenses
        self.points, self.settings, self.chosen, self.trouble = {}, [], None, ""

    def curve(self, name: str) -> bool:
        """Search one defense; whether that was stopped by Ctrl-C."""
        self.settings = STRENGTHS[name].settings(name, self.yardstick, OneGradient())
        try:
            self._searched()
            for i in self._drawn():
                self._train(i)
        except KeyboardInterrupt:
            return True
        except GradleakError as error:  # a defense that does not fit this network leaves the others be
            self.trouble = str(error).rstrip(".")
        return False

    def found(self, name: str, stopped: bool) -> Curve:
        points = tuple(self.points[i] for i in sorted(self.points))
        chosen = None if self.chosen is None else self.points[self.chosen]
        reason = self.trouble or ("" if chosen else self._short(name, stopped))
        if chosen and not reason and chosen.doubted(self.target):
            reason = f"held only by failure of our attacks; {predicted_in(chosen)} dB are predicted"
        if self.trouble and chosen:
            reason = f"training could not be run at every setting: {self.trouble}"
        return Curve(name, STRENGTHS[name].title, points, chosen, reason)

    def _short(self, name: str, stopped: bool) -> str:
        """Why there is no setting that holds."""
        hint = STRENGTHS[name].hint
        if stopped:
            return "the run was stopped before"
        if not self.settings:
            return f"there is nothing to set here: {hint}"
        last = self.points[len(self.settings) - 1]
        because = f": {hint}" if hint else ""
        return f"even with {last.words} the best attacker reaches {last.adaptive.reached}{because}"

    def _searched(self) -> None:
        count = len(self.settings)
        if not count:
            return
        limit = self.target.psnr or self.subject.null.worst + _ABOVE_NULL
        guess = weakest(count, count // 2, lambda i: max(self._predicted(i)) < limit)
        start = count - 1 if guess is None else guess
        self.chosen = weakest(count, start, lambda i: self._holds(i) and not self._doubted(i))
        if self.chosen is None:  # better than none: what attacks alone say, which is marked as that
            self.chosen = weakest(count, start, self._holds)

    def _holds(self, i: int) -> bool:
        return self.target.holds(self._attacked(i).adaptive)

    def _doubted(self, i: int) -> bool:
        return self._attacked(i).doubted(self.target)

    def _predicted(self, i: int) -> tuple[float, ...]:
        setting = self.settings[i]
        self._say(f"predicting {setting.defense}, {setting.words}")
        return self.subject.predicted(setting.client, self.store)

    def _attacked(self, i: int) -> Point:
        if i not in self.points:
            self.points[i] = self.point(self.settings[i])
        return self.points[i]

    def _drawn(self) -> list[int]:
        """The settings whose accuracy makes the curve: the chosen one between its neighbours, or the last."""
        last, chosen = len(self.settings) - 1, self.chosen
        places = (last - 2, last) if chosen is None else (chosen - 1, chosen, chosen + 1)
        return [i for i in places if 0 <= i <= last]

    def point(self, setting: Setting) -> Point:
        subject, client = self.subject, setting.client
        self._say(f"attacking {setting.defense}, {setting.words}")
        return Point(
            setting.words,
            repr(client),
            subject.predicted(client, self.store),
            subject.naive(client, self.store),
            subject.adaptive(client, self.store),
        )

    def _train(self, i: int) -> None:
        self.points[i] = self.trained(self._attacked(i), self.settings[i])

    def trained(self, point: Point, setting: Setting) -> Point:
        """The point with its accuracy, if it can be measured."""
        if self.training is None:
            return point
        what = f"training with {setting.defense}, {setting.words}"
        course = self.training.course(setting, self.store, lambda share: self._say(what))
        promise = self.training.promise(setting)
        return replace(
            point, words=f"{setting.words}; {promise}" if promise else setting.words, course=course
        )

    def _say(self, what: str) -> None:
        self.tell(what, self.share)
