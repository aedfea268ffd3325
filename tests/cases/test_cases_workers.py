"""Audits in other processes: the same figures, and workers that die."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from small_audit import facts, figures, small_work

import gradleak as gl
from gradleak.cases import Pool, Store, run
from gradleak.errors import InvalidInput, NotInstalled

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def alone():
    work = small_work(records=4)
    return run(work, Store(), facts(work))


def test_processes_find_what_one_finds(alone, tmp_path):
    work = small_work(records=4)
    with Store(tmp_path) as store:
        record = run(work, store, facts(work), runner=Pool(2))
    assert figures(record) == figures(alone)
    assert record.finished


def test_a_worker_that_is_killed_costs_its_case_alone_which_is_tried_again(alone):
    work, said, pool = small_work(records=4), [], Pool(2)
    killed: list[int] = []

    def tell(event):
        said.append(event)
        if event.what == "done" and not killed:
            killed.append(pool.pids[0])
            os.kill(killed[0], signal.SIGKILL)

    record = run(work, Store(), facts(work), runner=pool, tell=tell)
    assert killed
    assert figures(record) == figures(alone)
    done = [str(event.case) for event in said if event.what == "done"]
    assert len(done) == len(set(done))


def test_a_case_that_kills_every_worker_is_missing_with_a_reason():
    work = small_work(records=2, attacks={"deadly": Deadly()}, rungs=("everything known",))
    record = run(work, Store(), facts(work), runner=Pool(2))
    assert not record.finished  # a death is no result: the next run tries again
    assert not record.failed
    assert {left.why for left in record.missing} == {"a worker process died, 2 times"}
    assert len(record.missing) == 2
    assert record.forecast("fedsgd", 1) is not None


class Deadly:
    """An attack under which the system kills the process."""

    name, citations, budget = "deadly", (), 1

    def __repr__(self):
        return "Deadly()"

    def iterate(self, obs, *, rng=0):
        os.kill(os.getpid(), signal.SIGKILL)
        yield

    def __call__(self, obs, *, rng=0):
        return next(self.iterate(obs, rng=rng))


def test_a_model_that_cannot_be_sent_is_refused_with_what_to_do():
    work = small_work(records=1, ways={"own": lambda task, params, x, y: task.gradient(params, x, y)})
    with pytest.raises(InvalidInput, match="cannot be sent to other processes"):
        run(work, Store(), facts(work), runner=Pool(2))


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from small_audit import small_work, facts
from gradleak.cases import Pool, Store, run
from gradleak.cases.on_ray import OnRay
if __name__ == "__main__":
    work = small_work(records=4)
    with Store(Path({folder!r})) as store:
        print("begun", flush=True)
        record = run(work, store, facts(work), runner={runner})
        print("finished" if record.finished else "stopped", len(record.done), flush=True)
"""


def _started(folder, runner="None"):
    script = textwrap.dedent(SCRIPT).format(tests=str(HERE), folder=str(folder), runner=runner)
    file = folder.parent / "audit_script.py"
    file.write_text(script)
    return subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("runner", ["None", "Pool(2)", "OnRay(workers=2)"])
def test_killed_at_any_moment_and_resumed_until_done_nothing_is_lost_or_done_twice(runner, alone, tmp_path):
    """``GRADLEAK_KILLS`` sets the rounds, and a tenth of them for a cluster, which takes long to start."""
    wanted, rounds = int(os.environ.get("GRADLEAK_KILLS", "3")), 0
    if "OnRay" in runner:
        pytest.importorskip("ray")
        if "GRADLEAK_KILLS" not in os.environ:
            pytest.skip("takes minutes: set GRADLEAK_KILLS=30 for three rounds")
        wanted //= 10
    finished = 0
    while rounds < wanted:
        folder = tmp_path / f"audit {finished}"
        seen: dict[str, bytes] = {}
        while True:
            process = _started(folder, runner)
            process.stdout.readline()
            # Spread over the run: the moments are those of a low-discrepancy sequence, and so random enough.
            time.sleep((rounds * 0.618034) % 1 * {"None": 0.25, "Pool(2)": 1.5}.get(runner, 20.0))
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            rest = process.communicate()[0]
            rounds += 1
            _is_sound(folder, seen)
            _all_gone(children)
            if "finished" in rest:
                break
            if rounds >= wanted:
                process = _started(folder, runner)
                assert "finished" in process.communicate()[0]
                break
        with Store(folder) as store:
            record = store.record()
            assert len(store.runs()) == 1
        assert record.finished
        assert figures(record) == figures(alone)
        _is_sound(folder, seen)
        finished += 1


def _is_sound(folder, seen):
    """The index is whole, and no finished case was written a second time with anything else."""
    with Store(folder) as store:
        assert not store.mended
        keys = store._index.execute("SELECT key FROM cases").fetchall()
    for (key,) in keys:
        content = (folder / "cases" / f"{key}.safetensors").read_bytes()
        assert seen.setdefault(key, content) == content


def _all_gone(children):
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "workers outlived the process that they worked for"


def test_two_audits_on_one_folder_are_refused_politely(tmp_path):
    from gradleak.errors import CannotWrite

    with Store(tmp_path), pytest.raises(CannotWrite, match="another audit is at work"):
        Store(tmp_path)
    Store(tmp_path).close()


def test_on_a_cluster_of_two_workers_of_which_one_dies_the_figures_are_the_same(alone):
    pytest.importorskip("ray")
    from gradleak.cases.on_ray import OnRay

    work, killed = small_work(records=4), []

    def tell(event):
        if event.what == "done" and not killed:
            ours = psutil.Process().children(recursive=True)
            busy = [process for process in ours if "ray::_perform" in " ".join(process.cmdline())]
            for process in busy[:1]:
                killed.append(process.pid)
                process.kill()

    record = run(work, Store(), facts(work), runner=OnRay(workers=2), tell=tell)
    assert figures(record) == figures(alone)
    if not killed:
        pytest.skip("the figures are the same, but this system does not show which process is a worker")


def test_a_cluster_that_is_not_there_is_said():
    pytest.importorskip("ray")
    from gradleak.cases.on_ray import OnRay

    with pytest.raises(InvalidInput, match="cannot be reached"):
        run(small_work(records=1), Store(), facts(small_work(records=1)), runner=OnRay("127.0.0.1:1"))


def test_without_ray_a_cluster_is_refused_with_what_to_install(monkeypatch):
    from gradleak.cases.on_ray import OnRay

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NotInstalled, match=r"gradleak\[ray\]"):
        run(small_work(records=1), Store(), facts(small_work(records=1)), runner=OnRay())


def test_the_model_comes_back_untouched():
    work = small_work(records=1)
    before = {name: tensor.clone() for name, tensor in work.model.state_dict().items()}
    run(work, Store(), facts(work))
    assert all((tensor == before[name]).all() for name, tensor in work.model.state_dict().items())
    assert gl.zoo.mlp(channels=1, size=8, sizes=(64, 16, 64), classes=10).training == work.model.training
