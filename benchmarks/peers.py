"""Inverting Gradients side by side with ``breaching``, on the same gradients and with the same budget.

Every case is one picture, one freshly initialised ReLU ConvNet and one start. Its gradient is computed once
and handed to both libraries with the label. PSNR is that of the pixels clamped to [0, 1].
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import inspect
import io
import json
import logging
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import gradleak as gl

NOT_SET_UP = "breaching cannot be imported here ({}); `make bench-peers` sets it up and runs this comparison"
SETS = ("faces", "photos")
PRESET = 24_000  # iterations of its preset invertinggradients
MOST = 100  # of the 60 crops, 50


@dataclass(frozen=True, eq=False)
class Case:
    """One private record, the network it was shown to, and the gradient that left."""

    name: str
    seed: int
    model: nn.Module
    x: Tensor
    y: Tensor
    gradient: list[Tensor]
    null: Tensor


@dataclass(frozen=True)
class Run:
    """How one arm did on one case."""

    case: str
    seed: int
    psnr: float
    matching_gradients: int
    seconds: float
    cpu_seconds: float


Attack = Callable[[Case, int], tuple[Tensor, int]]
"""From a case and a number of matching gradients to a picture and the number that was really spent."""


def main() -> None:
    """Run the arms named in ``arms`` on every case, and print the table or the JSON."""
    asked = _arguments()
    torch.set_num_threads(1)
    peer = load_breaching()
    found = compare(arms(peer, asked.steps), cases(asked.pictures, asked.seeds), asked.steps)
    if asked.json:
        print(json.dumps(as_json(found, asked.steps), indent=2))
    else:
        show(found, asked.steps)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--pictures", type=_whole, default=6, help="faces and photos in turn (default 6)")
    parser.add_argument("--seeds", type=_whole, default=1, help="networks and starts per picture (default 1)")
    parser.add_argument(
        "--steps", type=_whole, default=1000, help="matching gradients per attack (default 1000)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    asked = parser.parse_args()
    if asked.pictures > MOST:
        parser.error(f"--pictures must be at most {MOST}; got {asked.pictures}")
    return asked


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more; got {text!r}")
    return int(text)


def load_breaching() -> ModuleType:
    """The package, or one sentence and the end."""
    for name in ("breaching", "torchvision"):
        if importlib.util.find_spec(name) is None:
            sys.exit(NOT_SET_UP.format(f"{name} is not installed"))
    mend_torchvision()
    try:
        with _quiet():
            import breaching
    except (ImportError, RuntimeError) as error:
        sys.exit(NOT_SET_UP.format(error))
    return breaching


_kept: list[torch.library.Library] = []  # what a library defines goes with it


def mend_torchvision() -> None:
    """Declare the two operators without which torchvision's wheels cannot be imported beside a CPU torch.

    Whether it needs them is asked of another process: an import that fails leaves half of itself behind.
    """
    alone = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    if alone.returncode == 0:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what breaching prints and logs, and without warnings about the packages that it uses."""
    logging.getLogger("breaching").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def cases(pictures: int, seeds: int) -> list[Case]:
    """Faces and photographs in turn; a network of its own for every picture and seed."""
    found = []
    everything = {name: gl.zoo.pictures(name, size=32) for name in SETS}
    for i in range(pictures):
        name, row = SETS[i % len(SETS)], i // len(SETS)
        x, y = everything[name]
        private = -(-(pictures - SETS.index(name)) // len(SETS))  # how many of this set are attacked
        null = gl.metrics.mean_picture(gl.zoo.public(name, private), x[:1].shape)
        for seed in range(i * seeds, (i + 1) * seeds):
            found.append(_case(f"{name} {row}", seed, x[row : row + 1], y[row : row + 1], null))
    return found


def _case(name: str, seed: int, x: Tensor, y: Tensor, null: Tensor) -> Case:
    classes = gl.zoo.PICTURES[name.split()[0]].classes
    model = gl.zoo.convnet(classes, pool="stride", seed=seed).eval()
    loss = nn.functional.cross_entropy(model(x), y)
    gradient = [leaf.detach() for leaf in torch.autograd.grad(loss, list(model.parameters()))]
    return Case(name, seed, model, x, y, gradient, null)


def arms(peer: ModuleType, steps: int) -> dict[str, Attack]:
    """What is compared, by the name that the table says."""
    return {
        f"breaching, preset cut to {steps:,} of {PRESET:,} steps": breaching_attack(peer, tv=0.2),
        "breaching, TV 0.001": breaching_attack(peer, tv=0.001),
        "breaching, TV 0.003": breaching_attack(peer, tv=0.003),
        "gradleak, as published": gradleak_attack(tv=0.1, init="gaussian"),
        "gradleak, default": gradleak_attack(),
    }


def gradleak_attack(**settings: Any) -> Attack:
    """``inverting_gradients`` with these settings; it looks at the point after its last step too."""

    def attack(case: Case, steps: int) -> tuple[Tensor, int]:
        names = [name for name, _ in case.model.named_parameters()]
        update = dict(zip(names, case.gradient, strict=True))
        seen = gl.Observation.from_update(case.model, update, x_shape=case.x.shape, labels=case.y)
        found = gl.attacks.inverting_gradients(steps=steps - 1, **settings)(seen, rng=case.seed)
        if found.x is None:
            sys.exit(f"gradleak found nothing on {case.name}: {found.reason}")
        return found.x, found.cost.matching_gradients

    return attack


def breaching_attack(peer: ModuleType, *, tv: float) -> Attack:
    """Its preset ``invertinggradients`` with nothing changed but the iterations and the weight of the TV."""

    def attack(case: Case, steps: int) -> tuple[Tensor, int]:
        changes = [f"optim.max_iterations={steps}", f"regularization.total_variation.scale={tv}"]
        setup = {"device": torch.device("cpu"), "dtype": torch.float}
        payload, shared = _as_breaching_takes_it(case)
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(case.seed)
            preset = peer.get_attack_config("invertinggradients", overrides=changes)
            attacker = peer.attacks.prepare_attack(case.model, nn.CrossEntropyLoss(), preset, setup)
            found, stats = attacker.reconstruct([payload], [shared], {}, dryrun=False)
        return found["data"], len(stats["Trial_0_Val"])

    return attack


def _as_breaching_takes_it(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """What its server sends and its user shares; an empty list of buffers is what puts it in eval mode."""
    from omegaconf import OmegaConf

    channels = case.x.shape[1]
    data = {
        "modality": "vision",
        "task": "classification",
        "shape": list(case.x.shape[1:]),
        "classes": case.gradient[-1].numel(),
        "mean": [0.0] * channels,
        "std": [1.0] * channels,
    }
    known = {"num_data_points": len(case.x), "labels": case.y, "num_users": 1, "local_hyperparams": None}
    buffers = list(case.model.buffers())
    payload = {
        "parameters": list(case.model.parameters()),
        "buffers": buffers,
        "metadata": OmegaConf.create(data),
    }
    shared = {"gradients": [g.clone() for g in case.gradient], "buffers": buffers, "metadata": known}
    return payload, shared


def compare(attacks: dict[str, Attack], found: Sequence[Case], steps: int) -> dict[str, list[Run]]:
    """Case by case and arm by arm, so that a busy spell of the machine meets all arms alike."""
    console = Console(stderr=True)
    runs: dict[str, list[Run]] = {"null": [_null(case) for case in found]}
    jobs = [(case, name) for case in found for name in attacks]
    for case, name in track(
        jobs, "attacking", console=console, transient=True, disable=not console.is_terminal
    ):
        runs.setdefault(name, []).append(_timed(attacks[name], case, steps))
    return runs


def _timed(attack: Attack, case: Case, steps: int) -> Run:
    wall, cpu = time.perf_counter(), time.process_time()
    x, spent = attack(case, steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(case.name, case.seed, _psnr(x, case), spent, wall, cpu)


def _null(case: Case) -> Run:
    return Run(case.name, case.seed, _psnr(case.null, case), 0, 0.0, 0.0)


def _psnr(x: Tensor, case: Case) -> float:
    return gl.metrics.psnr(x.clamp(0, 1), case.x).item()


def notes(steps: int) -> tuple[str, ...]:
    """What the numbers mean."""
    default = inspect.signature(gl.attacks.inverting_gradients).parameters
    return (
        f"breaching: its preset invertinggradients from Gaussian noise, with {steps:,} of the {PRESET:,} "
        "iterations that it ships with; its TV is 0.2 unless the arm says another. gradleak: "
        "inverting_gradients, as published with TV 0.1 from Gaussian noise, by default with TV "
        f"{default['tv'].default} (falling, where it is two) from {default['init'].default}. "
        "That start and the falling weight are gradleak's alone.",
        "A matching gradient is one double backward pass. breaching does one per iteration; the gradient "
        "with which it scores the end result has no second pass and is not counted. gradleak counts its own.",
        "seconds: of one attack, in the mean, with the library's own preparations.",
        "null: the mean of other faces, and of crops of other photographs, or mid-gray where none is left.",
    )


def versions() -> dict[str, str]:
    """Of everything that could change a number."""
    packages = ("gradleak", "breaching", "torch", "torchvision", "hydra-core")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def as_json(found: dict[str, list[Run]], steps: int) -> dict[str, Any]:
    """Every run, and the summaries of the table."""
    summaries = [
        {
            "arm": name,
            "mean_psnr": statistics.mean(run.psnr for run in runs),
            "median_psnr": statistics.median(run.psnr for run in runs),
            "runs": [dataclasses.asdict(run) for run in runs],
        }
        for name, runs in found.items()
    ]
    return {"steps": steps, "versions": versions(), "notes": notes(steps), "arms": summaries}


def show(found: dict[str, list[Run]], steps: int) -> None:
    """One line per arm, one per case, and what the numbers mean."""
    console = Console(highlight=False)
    console.print(_by_arm(found), "", _by_case(found), "", sep="\n")
    console.print(*notes(steps), sep="\n")
    console.print(", ".join(f"{name} {version}" for name, version in versions().items()))


def _by_arm(found: dict[str, list[Run]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("PSNR in dB", no_wrap=True)
    for heading in ("matching gradients", "mean", "median", "seconds", "CPU seconds"):
        table.add_column(heading, justify="right")
    for name, runs in found.items():
        spent = sorted({run.matching_gradients for run in runs})
        psnrs = [run.psnr for run in runs]
        means = (statistics.mean(psnrs), statistics.median(psnrs))
        seconds = (statistics.mean(r.seconds for r in runs), statistics.mean(r.cpu_seconds for r in runs))
        counted = f"{spent[0]}" if len(spent) == 1 else f"{spent[0]}-{spent[-1]}"
        table.add_row(name, counted, *(f"{value:.1f}" for value in (*means, *seconds)))
    return table


def _by_case(found: dict[str, list[Run]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("PSNR in dB", no_wrap=True)
    for name in found:
        table.add_column(name, justify="right", max_width=12)
    for runs in zip(*found.values(), strict=True):
        table.add_row(f"{runs[0].case}, seed {runs[0].seed}", *(f"{run.psnr:.1f}" for run in runs))
    return table


if __name__ == "__main__":
    main()
