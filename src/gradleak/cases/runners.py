"""Where cases are run: in this process, or in others that may die without harm."""

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from typing import Protocol

import torch

from gradleak.cases.case import Case
from gradleak.cases.kind import Found
from gradleak.cases.work import Work
from gradleak.errors import GradleakError, InvalidInput

Share = Callable[[float], None]


class WorkerDied(GradleakError):
    """A process that ran a case is gone: killed by the system for want of memory, for instance."""


class Runner(Protocol):
    """``started`` hands the work to whoever does it, and ends them all when it is left."""

    @property
    def workers(self) -> int: ...

    def started(self, work: Work) -> AbstractContextManager[None]: ...

    def submit(self, case: Case, share: Share) -> Future[Found]: ...


@dataclass
class Here:
    """This process, one case at a time."""

    workers: int = 1
    _work: list[Work] = field(default_factory=list)

    @contextmanager
    def started(self, work: Work) -> Iterator[None]:
        self._work[:] = [work]
        yield

    def submit(self, case: Case, share: Share) -> Future[Found]:
        future: Future[Found] = Future()
        future.set_result(self._work[0].perform(case, lambda found, so_far: share(so_far)))
        return future


@dataclass
class Pool:
    """Processes of one thread each. One that dies costs the case that it had, and is replaced."""

    workers: int = 2
    _payload: bytes = b""
    _free: list["_Worker"] = field(default_factory=list)
    _all: list["_Worker"] = field(default_factory=list)

    @contextmanager
    def started(self, work: Work) -> Iterator[None]:
        self._payload = packed(work)
        try:
            self._all = [_Worker(self._payload) for _ in range(self.workers)]
            self._free = list(self._all)
            yield
        finally:
            for worker in self._all:
                worker.end()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that have begun."""
        return tuple(worker.pid for worker in self._all if worker.pid is not None)

    def submit(self, case: Case, share: Share) -> Future[Found]:
        worker = self._free.pop()
        if worker.dead:
            self._all.remove(worker)
            worker = _Worker(self._payload)
            self._all.append(worker)
        return worker.run(case, lambda: self._free.append(worker))


class _Worker:
    """One process, which is told the work once and then runs one case at a time."""

    def __init__(self, payload: bytes) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["gradleak.cases.work"])
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_attend)
        self._begun: Future[int] = self._pool.submit(_begin, payload)
        self.dead = False

    @property
    def pid(self) -> int | None:
        """Known once it has been told the work."""
        begun = self._begun.done() and not self._begun.cancelled() and self._begun.exception() is None
        return self._begun.result() if begun else None

    def run(self, case: Case, freed: Callable[[], None]) -> Future[Found]:
        result: Future[Found] = Future()

        def ended(inner: Future[Found]) -> None:
            error = inner.exception()
            self.dead = isinstance(error, BrokenProcessPool)
            freed()
            if self.dead:
                result.set_exception(WorkerDied("a worker process died"))
            elif error is not None:
                result.set_exception(error)
            else:
                result.set_result(inner.result())

        try:
            self._pool.submit(_perform, case).add_done_callback(ended)
        except BrokenProcessPool:  # it died before it was asked anything
            self.dead = True
            freed()
            result.set_exception(WorkerDied("a worker process died"))
        return result

    def end(self) -> None:
        """At once, whatever it is at: all that it had finished is kept elsewhere."""
        if self.pid is not None:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        self._pool.shutdown(wait=True, cancel_futures=True)


_work: list[Work] = []  # of this worker process


def _attend() -> None:
    """Ctrl-C is for the process that waits, and when that one is gone, so is this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _begin(payload: bytes) -> int:
    torch.set_num_threads(1)
    _work[:] = [unpacked(payload)]
    return os.getpid()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _perform(case: Case) -> Found:
    return _work[0].perform(case)


def packed(work: Work) -> bytes:
    """For a worker of our own, in memory; nothing of the kind is ever read from a file."""
    try:
        return pickle.dumps(work)
    except Exception as error:  # a model may hold anything
        raise InvalidInput(
            f"this model, loss or client cannot be sent to other processes: {error}. Define it in a module "
            "that can be imported, or run without workers."
        ) from error


def unpacked(payload: bytes) -> Work:
    found = pickle.loads(payload)
    if not isinstance(found, Work):
        raise TypeError(f"expected work; came {type(found).__name__}")
    return found
