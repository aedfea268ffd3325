"""What each defense leaves to an attacker who knows it, to one who does not, and what was said beforehand."""

import statistics
import time
from dataclasses import dataclass

import click
import torch
from torch import Tensor

import gradleak as gl
from benchmarks.common import show
from gradleak.defenses import Clip, Dropout, GaussianNoise, LaplaceNoise, LowPrecision, Mask, Prune, Sign

SETTINGS: dict[str, gl.defenses.Defense | gl.OneGradient] = {
    "none": gl.OneGradient(),
    "dropout .25": Dropout(rate=0.25),
    "dropout .5": Dropout(rate=0.5),
    "dropout .9": Dropout(rate=0.9),
    "clip 1e-3": Clip(norm=1e-3),
    "prune .5": Prune(fraction=0.5),
    "prune .7": Prune(fraction=0.7),
    "mask .3": Mask(rate=0.3),
    "mask .7": Mask(rate=0.7),
    "mask .9": Mask(rate=0.9),
    "gaussian 1e-1": GaussianNoise(std=1e-1),
    "gaussian 1e-2": GaussianNoise(std=1e-2),
    "gaussian 1e-3": GaussianNoise(std=1e-3),
    "gaussian 1e-4": GaussianNoise(std=1e-4),
    "laplace 1e-3": LaplaceNoise(scale=1e-3),
    "fp16": LowPrecision(format="fp16"),
    "bf16": LowPrecision(format="bf16"),
    "int8": LowPrecision(format="int8"),
    "sign": Sign(),
}
_PHOTOS = 6
_NAIVE = 400  # matching gradients of the attacker who does not know


@dataclass(frozen=True)
class Trial:
    setting: str
    told: float
    naive: float
    predicted: float
    null: float
    converged: bool
    label: bool
    spent: int
    seconds: float


@click.command()
@click.option("--pictures", "n", default=5, show_default=True, help="Of each set.")
@click.option("--data", "sets", multiple=True, default=("faces", "photos"), show_default=True)
@click.option("--channels", type=click.Choice(["1", "3"]), default="1", show_default=True)
@click.option("--classes", default=10, show_default=True)
@click.option("--only", multiple=True, help="Settings by name; all unless given.")
@click.option("--seconds", default=1500.0, show_default=True, help="Start no attack after so many.")
@click.option("--json", "as_json", is_flag=True)
def main(
    n: int,
    sets: tuple[str, ...],
    channels: str,
    classes: int,
    only: tuple[str, ...],
    seconds: float,
    as_json: bool,
) -> None:
    """LeNet with U(-0.5, 0.5), 32 x 32, float32, labels unknown, a network and one draw for each picture."""
    torch.set_num_threads(1)
    until, trials = time.monotonic() + seconds, []
    for i in range(n):
        for name in sets:
            x = picture(name, i, int(channels))
            for setting in only or SETTINGS:
                if time.monotonic() < until:
                    trials.append(attacked(setting, x, i, int(channels), classes))
    rows = [_row([t for t in trials if t.setting == setting]) for setting in only or SETTINGS]
    show(
        f"{n} of each of {', '.join(sets)}, {channels} channel(s), {classes} classes; medians, dB",
        rows,
        as_json,
    )


def picture(name: str, i: int, channels: int) -> Tensor:
    """Faces 0 to 29, and crops of photographs with seeds below 20: nothing was chosen on them."""
    if name == "faces":
        return gl.zoo.pictures("faces", n=30, channels=channels)[0][i][None]
    return gl.zoo.pictures("photos", n=_PHOTOS, seed=i, channels=channels)[0][i % _PHOTOS][None]


def attacked(setting: str, x: Tensor, i: int, channels: int, classes: int) -> Trial:
    client, y = SETTINGS[setting], torch.tensor([(37 * i + 11) % classes])
    model = gl.zoo.lenet(classes=classes, channels=channels, seed=i)
    seen = gl.observe(model, x, y, client=client, rng=i)
    started = time.process_time()
    found = gl.attacks.map()(seen, rng=0)
    seconds = time.process_time() - started
    unaware = gl.observe(model, x, y, client=client, assumed=gl.OneGradient(), rng=i)
    naive = gl.attacks.dlg(evaluations=_NAIVE)(unaware, rng=0)
    told = gl.risk.decibels(seen, x, y)
    return Trial(
        setting,
        _psnr(found, x),
        _psnr(naive, x),
        float(told.psnr[0, 0]),
        float(told.null_psnr[0]),
        found.outcome is gl.Outcome.CONVERGED,
        found.y is not None and int(found.y) == int(y),
        found.cost.matching_gradients,
        seconds,
    )


def _psnr(found: gl.Reconstruction, x: Tensor) -> float:
    return float("-inf") if found.x is None else float(gl.metrics.psnr(found.x.clamp(0, 1), x))


def _row(trials: list[Trial]) -> dict[str, object]:
    def middle(name: str) -> object:
        return statistics.median(getattr(t, name) for t in trials) if trials else "-"

    misses = [t.told - t.predicted for t in trials]
    return {
        "defense": trials[0].setting if trials else "-",
        "told": middle("told"),
        "worst told": min((t.told for t in trials), default="-"),
        "not told": middle("naive"),
        "predicted": middle("predicted"),
        "off, median": statistics.median(misses) if misses else "-",
        "off, worst": max(misses, key=abs) if misses else "-",
        "gray": middle("null"),
        "n": len(trials),
        "converged": sum(t.converged for t in trials),
        "labels": sum(t.label for t in trials),
        "gradients": middle("spent"),
        "CPU s": middle("seconds"),
    }


if __name__ == "__main__":
    main()
