"""Run an audit's cases, one after another or on many workers, and keep each as it ends."""

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from gradleak.cases.case import ATTACK, Case, Left
from gradleak.cases.chain import Chain, cases, chains, expected
from gradleak.cases.done import Done, Facts
from gradleak.cases.event import Event, Tell
from gradleak.cases.kind import Found
from gradleak.cases.record import Record
from gradleak.cases.runners import Here, Runner, WorkerDied
from gradleak.cases.store import Store
from gradleak.cases.work import Work

_TRIES = 2  # of a case whose worker died: the second one may have more memory to itself


def run(
    work: Work,
    store: Store,
    facts: Facts,
    *,
    runner: Runner | None = None,
    seconds: float | None = None,
    retry: bool = False,
    tell: Tell = lambda event: None,
) -> Record:
    """Run every case that the store does not hold yet; the record has them all.

    ``facts`` is what the run says of itself. Ctrl-C ends it and keeps what was finished, and so do
    ``seconds``, which are looked at between cases. With ``retry``, cases that failed before are run again.
    """
    if store.mended:
        tell(Event("said", words=store.mended))
    number = store.begin(facts)
    for group in range(len(work.batches)):
        store.keep_batch(work.batch_name(group), work.truth(group), work.null(group))
    store.keep_vocabulary(work.kind.vocabulary)
    progress = _Progress(work, store, number, runner or Here(), tell, retry)
    try:
        with progress.runner.started(work):
            why = progress.until(None if seconds is None else time.monotonic() + seconds)
    except KeyboardInterrupt:
        why = "interrupted"
    missing = [*progress.lost, *(Left(case, why, spared=False) for case in progress.open())]
    why = why or (progress.lost[0].why if progress.lost else "")
    left = [one.to_dict() for one in [*progress.spared, *missing]]
    store.tell(
        number, facts | {"finished": not why, "stopped": why, "inner": facts["inner"] | {"left": left}}
    )
    return store.record(number)


@dataclass
class _Progress:
    """Which chains wait for what, and what was said of it."""

    work: Work
    store: Store
    number: int
    runner: Runner
    tell: Tell
    retry: bool = False
    spared: list[Left] = field(default_factory=list)
    lost: list[Left] = field(default_factory=list)
    behind: int = 0
    ran: int = 0
    best: float | None = None
    waiting: deque[tuple[Chain, Done | None]] = field(default_factory=deque)
    running: dict[Future[Found], tuple[Case, Chain, int]] = field(default_factory=dict)

    def until(self, end: float | None) -> str:
        """Run until all is done; hands back why it ended earlier, if it did."""
        self.expected, self.begun = expected(self.work), time.monotonic()
        self.waiting.extend((chain, None) for chain in chains(self.work))
        while self.waiting or self.running:
            if end is not None and time.monotonic() > end:
                return "the time given was used up"
            while self.waiting and len(self.running) < self.runner.workers:
                self._begin(*self.waiting.popleft())
            ended, _ = wait(self.running, return_when=FIRST_COMPLETED)
            for future in ended:
                self._end(future)
        return ""

    def open(self) -> list[Case]:
        """All that an unfinished run might still have done."""
        running = [(chain, case) for case, chain, _ in self.running.values()]
        found = [case for _, case in running]
        for chain in [chain for chain, _ in running] + [chain for chain, _ in self.waiting]:
            found += cases(chain)
        return found

    def _begin(self, chain: Chain, done: Done | None) -> None:
        case = self._next(chain, done)
        if case is not None:
            self._submit(case, chain, 1)

    def _submit(self, case: Case, chain: Chain, tries: int) -> None:
        # Noted before it runs: in this very process, Ctrl-C comes out of ``submit``.
        placeholder: Future[Found] = Future()
        self.running[placeholder] = (case, chain, tries)
        future = self.runner.submit(case, lambda share: self._say("moved", case, share=share))
        del self.running[placeholder]
        self.running[future] = (case, chain, tries)

    def _next(self, chain: Chain, done: Done | None) -> Case | None:
        """What the chain has to run next; what is spared, or there already, is passed."""
        while True:
            try:
                asked = next(chain) if done is None else chain.send(done)
            except StopIteration:
                return None
            if isinstance(asked, Left):
                self.spared.append(asked)
                self.behind, done = self.behind + 1, None
                self._say("spared", asked.case, words=asked.why)
                continue
            done = self.store.find(self.work.key(asked), asked, self.work.samples(asked))
            if done is None or (done.error and self.retry):
                return asked
            self.store.take(done, self.number)
            self._passed("kept", done)

    def _end(self, future: Future[Found]) -> None:
        case, chain, tries = self.running.pop(future)
        try:
            facts, guess = future.result()
        except WorkerDied as died:
            if tries < _TRIES:
                self._say("said", case, words=f"{died}; {case} is tried again")
                self._submit(case, chain, tries + 1)
                return
            self.lost.append(Left(case, f"{died}, {tries} times", spared=False))
            self._say("failed", case, words=f"{died}, {tries} times")
            self.waiting.appendleft((chain, None))
            return
        done = Done(case, tuple(self.work.samples(case)), self.work.key(case), facts)
        self.store.keep(done, guess, self.number)
        self.ran += 1
        self._passed("failed" if done.error else "done", done)
        self.waiting.appendleft((chain, done))

    def _passed(self, what: str, done: Done) -> None:
        self.behind += 1
        if done.case.kind == ATTACK:
            reached = [row.value for row in done.rows if row.guessed]
            self.best = max([*reached, *([] if self.best is None else [self.best])], default=None)
        self._say(what, done.case, words=done.reason)

    def _say(self, what: str, case: Case, *, share: float = 0.0, words: str = "") -> None:
        each = (time.monotonic() - self.begun) / self.ran if self.ran else None
        to_do = max(self.expected - self.behind, 0)
        self.tell(
            Event(
                what,
                case,
                finished=self.behind,
                expected=self.expected,
                best=self.best,
                scale=self.work.kind.scale,
                seconds_left=None if each is None else each * to_do,
                share=share,
                words=words,
            )
        )
