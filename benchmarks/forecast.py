"""The forecast against the best attack that we have: who is called safe, and who is not."""

from collections.abc import Callable, Sequence

import click
import torch
from torch import Tensor, nn

import gradleak as gl
from benchmarks.common import show
from gradleak.risk import Forecast
from gradleak.trees import flatten

_SIZE = 16
_SEED = 1000
_RECOVERED = 25.0

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": lambda seed: gl.zoo.mlp(channels=1, size=_SIZE, sizes=(256, 128), seed=seed),
    "lenet": lambda seed: gl.zoo.lenet(10, 1, _SIZE, seed=seed),
    "convnet": lambda seed: gl.zoo.convnet(10, 1, _SIZE, width=16, seed=seed),
}
CLIENTS: dict[str, tuple[int, gl.LocalSGD | gl.OneGradient]] = {
    "1 picture": (1, gl.OneGradient()),
    "4 pictures": (4, gl.OneGradient()),
    "4, local steps": (4, gl.LocalSGD(2, 2, 0.02)),
}
NOISE = (0.0, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the update's own root mean square, so that it means the same to every network."""


@click.command()
@click.option("--json", "as_json", is_flag=True)
def main(as_json: bool) -> None:
    """Faces that no setting was chosen on; 45 cases, one draw of noise each, labels known to the attacks."""
    torch.set_num_threads(1)
    rows = [
        _case(model, client, share, case)
        for case, (model, client, share) in enumerate(
            (model, client, share) for model in MODELS for client in CLIENTS for share in NOISE
        )
    ]
    show(
        f"Forecast and best attack, decibels of the best picture; recovered is {_RECOVERED:.0f}",
        rows,
        as_json,
    )
    show("Confusion", _confusion(rows), as_json)


def _case(model: str, client: str, share: float, case: int) -> dict[str, object]:
    n, trains = CLIENTS[client]
    rng = torch.Generator().manual_seed(_SEED + case)
    chosen = torch.randperm(30, generator=rng)[:n]  # of the faces 0 to 29
    x = gl.zoo.pictures("faces", size=_SIZE, n=30, channels=1)[0][chosen]
    y = torch.randperm(10, generator=rng)[:n]
    net = MODELS[model](_SEED + case)
    size = float(flatten(gl.observe(net, x, y, client=trains).update).square().mean().sqrt())
    sends = gl.defenses.GaussianNoise(trains, std=share * size) if share else trains
    told = gl.predict(net, x, y, client=sends, rng=case)
    # The forecast takes the order of local steps for known, and so do the attacks.
    seen = gl.observe(net, x, y, client=sends, reveal=["labels", "order"], rng=case)
    best = max(_reached(attack, seen, x, y) for attack in _attacks(trains))
    return {
        "network": model,
        "client": client,
        "noise": share,
        "forecast": max(sample.psnr for sample in told.samples),
        "null": max(sample.null_psnr for sample in told.samples),
        "attack": best,
        "says": _says(told),
        "is": "recovered" if best >= _RECOVERED else "not recovered",
        "s": told.seconds,
    }


def _says(told: Forecast) -> str:
    return "leaks" if told.leaks else "safe"


def _attacks(client: gl.LocalSGD | gl.OneGradient) -> Sequence[gl.attacks.Attack]:
    tuned = gl.attacks.inverting_gradients(tv=(1e-1, 1e-2), steps=300)
    if isinstance(client, gl.LocalSGD):
        return (gl.attacks.map(), tuned)
    return (gl.attacks.ssras(evaluations=500), tuned)


def _reached(attack: gl.attacks.Attack, seen: gl.Observation, x: Tensor, y: Tensor) -> float:
    found = attack(seen, rng=0)
    if found.x is None:
        return 0.0
    return float(gl.metrics.score(found.x.clamp(0, 1), found.y, x, y, classes=10).psnr.max())


def _confusion(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    table = [
        {
            "forecast": says,
            **{
                was: sum(r["says"] == says and r["is"] == was for r in rows)
                for was in ("recovered", "not recovered")
            },
        }
        for says in ("leaks", "safe")
    ]
    yes = [float(str(r["forecast"])) for r in rows if r["is"] == "recovered"]
    no = [float(str(r["forecast"])) for r in rows if r["is"] != "recovered"]
    above = sum((a > b) + 0.5 * (a == b) for a in yes for b in no)
    table.append({"forecast": "AUC", "recovered": above / max(len(yes) * len(no), 1), "not recovered": ""})
    return table


if __name__ == "__main__":
    main()
