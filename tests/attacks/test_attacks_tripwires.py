"""No attack knows more than its observation reveals: no labels, no order, no statistics, no dice."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.attacks import ATTACKS
from gradleak.observe import Observation

SEARCHING = ("exact_batch", "spear", "ssras")  # where they end depends on the last bit of a sum
SHORT = {"steps": 6, "evaluations": 6, "draws": 50, "starts": 5, "iterations": 6}


def short(name: str) -> Any:
    """An attack by its name, on the smallest budget that it takes."""
    build = ATTACKS[name]
    takes = inspect.signature(build).parameters
    return build(**{key: value for key, value in SHORT.items() if key in takes})


class Normed(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__(
            nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Dropout(0.3), nn.Linear(36, 5),
        )  # fmt: skip


def dense() -> nn.Module:
    return gl.zoo.mlp(sizes=(64, 12), classes=5, seed=0)


def batch() -> tuple[Tensor, Tensor]:
    x, _ = gl.zoo.pictures("faces", n=4, size=8, channels=1)
    return x, torch.tensor([3, 1, 1, 4])


CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "one gradient": (dense, gl.OneGradient()),
    "local training": (dense, gl.LocalSGD(2, 2, 0.05)),
    "train mode": (lambda: Normed().train(), gl.OneGradient()),
    "local training in train mode": (lambda: Normed().train(), gl.LocalSGD(2, 2, 0.05)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gets_as_far_without_anything_private_around(name: str, case: str) -> None:
    """The twin is built from the update alone, where no private tensor can have been left."""
    build, client = CASES[case]
    model = build()
    seen = gl.observe(model, *batch(), client=client, rng=3)
    twin = Observation.from_update(
        model,
        {key: leaf.clone() for key, leaf in seen.update.items()},
        x_shape=seen.x_shape,
        client=client,
    )
    found, again = (short(name)(obs, rng=0) for obs in (seen, twin))
    assert found.outcome is again.outcome
    assert (found.x is None) == (again.x is None)
    assert again.score == pytest.approx(found.score, rel=1e-4)
    if found.x is not None and name not in SEARCHING:
        assert torch.equal(found.x, again.x)
        assert found.y is None or torch.equal(found.y, again.y)


@pytest.mark.parametrize("case", CASES)
def test_an_observation_does_not_hold_what_it_does_not_reveal(case: str) -> None:
    build, client = CASES[case]
    seen = gl.observe(build(), *batch(), client=client, rng=3)
    assert seen.labels is None
    assert seen.statistics is None
    assert seen.client == client
    assert getattr(seen.client, "order", "shuffled") == "shuffled"
    told = gl.observe(build(), *batch(), client=client, rng=3, reveal=["labels", "statistics", "order"])
    assert told.labels is not None
    assert (told.statistics is not None) == ("mode" in case)
    assert (told.client != client) == ("local" in case)
    assert all(torch.equal(told.update[name], leaf) for name, leaf in seen.update.items())
