"""Cases on a cluster, by Ray."""

import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradleak.cases.case import Case
from gradleak.cases.kind import Found
from gradleak.cases.runners import Share, WorkerDied, packed, unpacked
from gradleak.cases.work import Work
from gradleak.errors import InvalidInput, NotInstalled

LOCAL = "local"


@dataclass
class OnRay:
    """``address`` is that of a cluster, or "local" for one on this machine with ``workers`` processes.

    gradleak, and the module that defines the model, are installed on every node. A worker or node that dies
    costs the cases that it had.
    """

    address: str = LOCAL
    workers: int = 2
    _remote: list[Any] = field(default_factory=list)

    @contextmanager
    def started(self, work: Work) -> Iterator[None]:
        ray = _ray(self.address)
        payload = packed(work)
        here = {"num_cpus": self.workers, "include_dashboard": False} if self.address == LOCAL else {}
        _require_someone_at(self.address)
        try:
            ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level="error",
                runtime_env={"env_vars": _environment(self.address)},
                **here,
            )
        except Exception as error:  # Ray has many ways to say so
            raise _not_there(self.address, error) from error
        try:
            held = ray.put(payload)
            # Ray would run a lost case again in silence; how often it was tried is for the audit to say.
            remote = ray.remote(num_cpus=1, max_retries=0)(_perform)
            self._remote[:] = [remote, held]
            yield
        finally:
            self._remote.clear()
            ray.shutdown()

    def submit(self, case: Case, share: Share) -> Future[Found]:
        remote, held = self._remote
        inner: Future[Found] = remote.remote(held, case).future()
        result: Future[Found] = Future()

        def ended(inner: Future[Found]) -> None:
            error = inner.exception()
            if error is None:
                result.set_result(inner.result())
            elif isinstance(error, _losses()):
                result.set_exception(WorkerDied(f"a worker on the cluster died ({type(error).__name__})"))
            else:
                result.set_exception(error)

        inner.add_done_callback(ended)
        return result


def _ray(address: str) -> Any:
    # Ray phones home unless told not to, and that is not for an audit of private data to decide.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        # Ray's own word for a node that nobody else can reach: it then listens on the loopback address only.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise NotInstalled("a cluster needs Ray: pip install 'gradleak[ray]'") from error
    return ray


def _require_someone_at(address: str) -> None:
    """Ray itself would wait for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return  # "local", "auto": for Ray to find
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise _not_there(address, error) from error


def _not_there(address: str, error: Exception) -> InvalidInput:
    first = str(error).strip().partition("\n")[0]
    return InvalidInput(
        f"expected the address of a Ray cluster, such as 10.0.0.1:6379, or {LOCAL}; {address} cannot be "
        f"reached: {first}"
    )


def _losses() -> tuple[type[BaseException], ...]:
    from ray import exceptions

    return (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
    )


def _environment(address: str) -> dict[str, str]:
    """One thread for each worker; on this machine, the same modules as here."""
    said = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    if address == LOCAL:
        said["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return said


_works: dict[bytes, Work] = {}  # of this worker process


def _perform(payload: bytes, case: Case) -> Found:
    import hashlib

    import torch

    torch.set_num_threads(1)
    name = hashlib.sha256(payload).digest()
    if name not in _works:
        _works.clear()
        _works[name] = unpacked(payload)
    return _works[name].perform(case)
