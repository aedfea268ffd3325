"""Labels of whole batches: every strategy beside both nulls, on untrained and trained networks."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import click
import numpy as np
import torch
from torch import Tensor, nn

import gradleak as gl
from benchmarks.common import show
from gradleak import labels
from gradleak.labels import LabelGuess, Presence

SEED = 1000  # defaults were tuned on seeds below
TRAIN = 1200
STRATEGIES = {
    "row_minimum": labels.row_minimum(),
    "zero_shot": labels.zero_shot(),
    "simulated": labels.simulated(),
    "combined": labels.combined(),
    "best": labels.best(),
}


@dataclass
class Digits:
    """Digits in a random order, 1200 to train on, at the size that a network takes."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, size: int) -> "Digits":
        x, y = gl.zoo.pictures("digits", size=size)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))
        return cls(x[order], y[order])

    def batch(self, seed: int, k: int, skewed: bool) -> tuple[Tensor, Tensor]:
        """Held-out records, drawn uniformly or with class shares from Dirichlet(0.5)."""
        draws = np.random.default_rng(seed)
        held = np.arange(TRAIN, len(self.x))
        if not skewed:
            chosen = draws.choice(held, k, replace=False)
        else:
            wanted = draws.choice(10, k, p=draws.dirichlet([0.5] * 10))
            chosen = np.array([draws.choice(held[self.y[TRAIN:].numpy() == c]) for c in wanted])
        return self.x[chosen], self.y[chosen]


def mlp(seed: int) -> nn.Module:
    return gl.zoo.mlp(10, sizes=(64, 128, 128), seed=seed)


def cnn(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after, stride in ((1, 16, 1), (16, 16, 2), (16, 32, 1), (32, 32, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)).eval()


def lenet(seed: int) -> nn.Module:
    return gl.zoo.lenet(10, 1, 16, seed=seed)


BUILDERS: dict[str, tuple[Callable[[int], nn.Module], int, float]] = {
    "MLP": (mlp, 8, 1e-3),
    "CNN": (cnn, 16, 1e-3),
    "LeNet": (lenet, 16, 3e-3),
}


@dataclass
class Cell:
    """Scores of one state of training and one batch size, over all networks and batches."""

    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    confidences: list[float] = field(default_factory=list)
    proven: int = 0
    falsely: int = 0
    there: int = 0
    certain: int = 0
    wrongly: int = 0
    seconds: float = 0.0


@click.command()
@click.option("--batches", "n", default=3, show_default=True, help="Per network, size, and kind of batch.")
@click.option("--json", "as_json", is_flag=True)
def main(n: int, as_json: bool) -> None:
    """MLP, ReLU CNN and sigmoid LeNet on digits; half of the batches uniform, half skewed."""
    torch.set_num_threads(1)
    digits = {size: Digits.of(size) for size in (8, 16)}
    rows, calibration, by_net = [], [], []
    for state in (0, 80, 90, 97):
        nets = {name: _checkpoint(name, digits, state, SEED) for name in BUILDERS}
        for k in (4, 8, 16, 32):
            cell, each = Cell(), {}
            for name, model in nets.items():
                each[name] = Cell()
                _measure(model, digits[BUILDERS[name][1]], k, n, cell, each[name])
            rows.append(_row(f"{state} %" if state else "untrained", k, cell))
            calibration += list(zip(cell.confidences, cell.scores["best"], strict=True))
            by_net.append(
                {"network": f"{state} %", "K": k}
                | {name: _mean(one.scores["best"]) for name, one in each.items()}
            )
    show(f"One gradient: share of the labels that are right, 3 networks, n = {6 * n} batches", rows, as_json)
    show("best() by network", by_net, as_json)
    show("Is best() as sure as it is right?", _calibrated(calibration), as_json)
    show("Local training, 3 epochs in batches of 8, untrained", _local(digits, n), as_json)
    show("Exact batches of a CNN at 90 %", _exact(digits[16], 2 * n), as_json)


def _checkpoint(name: str, digits: dict[int, Digits], percent: int, seed: int) -> nn.Module:
    """The network when its held-out accuracy first reaches so many percent."""
    build, size, lr = BUILDERS[name]
    model, data = build(seed), digits[size]
    optimizer = torch.optim.Adam(model.parameters(), lr)
    draws = torch.Generator().manual_seed(seed)
    for step in range(6000):
        with torch.no_grad():
            guess = model(data.x[TRAIN:]).argmax(1)
        if 100 * float((guess == data.y[TRAIN:]).double().mean()) >= percent:
            return model
        for _ in range(5 if step < 500 else 20):
            chosen = torch.randint(TRAIN, (32,), generator=draws)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x[chosen]), data.y[chosen]).backward()
            optimizer.step()
    raise RuntimeError(f"{name} did not reach {percent} %")


def _measure(model: nn.Module, data: Digits, k: int, n: int, *cells: Cell) -> None:
    for i in range(2 * n):
        x, y = data.batch(SEED * k + i, k, i % 2 == 1)
        obs = gl.observe(model, x, y)
        scores = _nulls(y)
        for name, strategy in STRATEGIES.items():
            if name == "simulated":
                continue
            start = time.perf_counter()
            guess = strategy(obs, rng=torch.Generator().manual_seed(i))
            scores[name] = _agreement(guess, y)
            if name == "best" and isinstance(guess, LabelGuess):
                for cell in cells:
                    cell.seconds += time.perf_counter() - start
                    cell.confidences.append(guess.confidence or 0.0)
                    cell.certain += guess.certain
                    cell.wrongly += guess.certain and scores[name] < 1
        seen = labels.presence()(obs, rng=torch.Generator().manual_seed(i))
        there = torch.bincount(y, minlength=10) > 0
        for cell in cells:
            for name, score in scores.items():
                cell.scores[name].append(score)
            if isinstance(seen, Presence):
                cell.proven += int(seen.present.sum())
                cell.falsely += int((seen.present & ~there).sum())
                cell.there += int(there.sum())


def _nulls(y: Tensor) -> dict[str, float]:
    return {
        "random": gl.metrics.null_label_agreement(y, 10),
        "flat": gl.metrics.flat_label_agreement(y, 10),
    }


def _agreement(guess: object, y: Tensor) -> float:
    if not isinstance(guess, LabelGuess) or guess.y is None:
        return 0.0
    return gl.metrics.label_agreement(guess.y, y)


def _row(state: str, k: int, cell: Cell) -> dict[str, object]:
    return {
        "network": state,
        "K": k,
        **{name: _mean(scores) for name, scores in cell.scores.items()},
        "certain": f"{cell.certain} of {len(cell.scores['best'])}",
        "wrongly": cell.wrongly,
        "presence precision": 1 - cell.falsely / max(cell.proven, 1),
        "recall": (cell.proven - cell.falsely) / max(cell.there, 1),
        "s": cell.seconds / len(cell.scores["best"]),
    }


def _calibrated(pairs: list[tuple[float, float]]) -> list[dict[str, object]]:
    rows = []
    for low, high in ((0.0, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.98), (0.98, 1.0), (1.0, 1.1)):
        inside = [(c, s) for c, s in pairs if low <= c < high]
        if inside:
            said, right = (_mean([pair[i] for pair in inside]) for i in (0, 1))
            rows.append({"confidence": f"{low} to {high}", "n": len(inside), "said": said, "right": right})
    return rows


def _local(digits: dict[int, Digits], n: int) -> list[dict[str, object]]:
    rows = []
    for name, (build, size, _) in BUILDERS.items():
        for lr in (0.001, 0.01, 0.1):
            for k in (8, 32):
                scores, drifts = defaultdict(list), []
                for i in range(n):
                    x, y = digits[size].batch(SEED * k + i, k, i % 2 == 1)
                    obs = gl.observe(build(SEED + i), x, y, client=gl.LocalSGD(3, 8, lr))
                    drifts.append(obs.drift or 0.0)
                    for null, score in _nulls(y).items():
                        scores[null].append(score)
                    for rule in ("zero_shot", "simulated", "best"):
                        guess = STRATEGIES[rule](obs, rng=torch.Generator().manual_seed(i))
                        scores[rule].append(_agreement(guess, y))
                means = {rule: _mean(values) for rule, values in scores.items()}
                rows.append({"network": name, "lr": lr, "K": k, "drift kT": _mean(drifts), "n": n, **means})
    return rows


def _exact(data: Digits, n: int) -> list[dict[str, object]]:
    model = _checkpoint("CNN", {16: data}, 90, SEED)
    rows = []
    for dtype in (torch.float64, torch.float32):
        model = model.to(dtype)
        for k in (4, 8, 9):
            scores, certain, wrongly = [], 0, 0
            for i in range(n):
                x, y = data.batch(SEED * k + 500 + i, k, i % 2 == 1)
                guess = labels.best()(gl.observe(model, x.to(dtype), y), rng=torch.Generator().manual_seed(i))
                scores.append(_agreement(guess, y))
                claims = isinstance(guess, LabelGuess) and guess.certain
                certain += claims
                wrongly += claims and scores[-1] < 1
            row = {"precision": str(dtype), "K": k, "n": n, "right": _mean(scores)}
            rows.append(row | {"certain": certain, "wrongly": wrongly})
    return rows


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


if __name__ == "__main__":
    main()
