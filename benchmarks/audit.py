"""What an audit costs beside its cases, and what a second worker brings."""

import tempfile
import time
from pathlib import Path

import click
import torch

import gradleak as gl
from benchmarks.common import show
from gradleak.cases import Here, Pool, Runner, Store, Work, run
from gradleak.cases.facts import facts_of


@click.command()
@click.option("--cases", default=200, show_default=True, help="Forecasts and attacks, half of each.")
@click.option("--evaluations", default=100, show_default=True, help="Of each attack: what makes it cheap.")
@click.option("--repeats", default=1, show_default=True, help="Of each way to run it, one after another.")
@click.option("--json", "as_json", is_flag=True)
def main(cases: int, evaluations: int, repeats: int, as_json: bool) -> None:
    """One picture in each update of a LeNet; a forecast and a short DLG for each, kept in a folder.

    "outside" is the share of the wall time in which no case was computed: choosing, keeping and starting.
    """
    torch.set_num_threads(1)
    work = cheap(cases // 2, evaluations)
    ways: dict[str, Runner | None] = {"in process": None, "1 worker": Pool(1), "2 workers": Pool(2)}
    rows = [measured(work, name, runner or Here()) for _ in range(repeats) for name, runner in ways.items()]
    one = min(row["s"] for row in rows if row["run"] == "1 worker")
    for row in rows:
        row["throughput"] = one / row["s"]
    show(f"An audit of {cases} cheap cases", rows, as_json)


def cheap(batches: int, evaluations: int) -> Work:
    x, y = gl.zoo.pictures("faces", n=batches, size=16)
    return Work(
        model=gl.zoo.lenet(classes=10, channels=x.shape[1], size=16, seed=0),
        batches=[(x[i : i + 1], y[i : i + 1] % 10) for i in range(batches)],
        names=[[f"face {i + 1}"] for i in range(batches)],
        ways={"one gradient": gl.OneGradient()},
        attacks={"dlg": gl.attacks.dlg(evaluations=evaluations)},
        rungs=("no labels",),
    )


def measured(work: Work, name: str, runner: Runner) -> dict[str, object]:
    inside = 0.0
    real = Work.perform

    def timed(self: Work, *given: object) -> object:
        nonlocal inside
        start = time.perf_counter()
        found = real(self, *given)  # type: ignore[arg-type]
        inside += time.perf_counter() - start
        return found

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        Work.perform = timed  # type: ignore[assignment, method-assign]
        try:
            with Store(Path(folder)) as store:
                record = run(work, store, facts_of(work, title="cheap"), runner=runner)
        finally:
            Work.perform = real  # type: ignore[method-assign]
        spent = time.perf_counter() - start
    return {
        "run": name,
        "cases": len(record.done),
        "s": spent,
        "s of cases": inside or float("nan"),
        "outside": 1 - inside / spent if inside else float("nan"),
        "failed": len(record.failed),
    }


if __name__ == "__main__":
    main()
