"""The influence function's three insights: directions, unfairness, initialization."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.errors import InvalidBatch, InvalidInput, InvalidModel
from gradleak.risk.directions import Directions, directions
from gradleak.risk.fairness import fairness
from gradleak.risk.influence import influence
from gradleak.risk.initialization import SCHEMES, initialization
from gradleak.trees import flatten


def digits(n: int, size: int = 8) -> tuple[Tensor, Tensor]:
    return gl.zoo.pictures("digits", size=size, n=n)


def net(seed: int = 0) -> nn.Module:
    return gl.zoo.lenet(10, 1, 8, seed=seed)


@pytest.fixture(scope="module")
def found() -> Directions:
    return directions(net(), *digits(1))


def test_a_change_along_a_direction_moves_the_picture_by_its_error(found: Directions) -> None:
    for i in (0, 20, len(found.errors) - 1):
        told = influence(net(), *digits(1), perturbation=found.perturbation(i, 1e-3))
        moved = float(told.rmse[0]) * math.sqrt(64)
        assert moved == pytest.approx(1e-3 * float(found.errors[i]), rel=1e-6)
        assert float(flatten(found.perturbation(i)).norm()) == pytest.approx(1)
    assert found.errors.diff().max() <= 0  # the most protective first
    assert found.spread == pytest.approx(float(found.errors.max() / found.errors.min()))


def test_directions_are_not_alike_in_a_real_attack(found: Directions) -> None:
    """The same length of noise, and a real attacker: what protects on paper protects."""
    x, y = digits(1)
    seen = gl.observe(net().double(), x.double(), y, reveal=["labels"])
    reached = []
    for i in (0, len(found.errors) - 1):
        change = found.perturbation(i, 2e-3)
        update = {name: leaf + change[name] for name, leaf in seen.update.items()}
        noisy = gl.Observation.from_update(net().double(), update, x_shape=seen.x_shape, labels=y)
        got = gl.attacks.dlg(labels=gl.labels.known(), evaluations=1500)(noisy, rng=0)
        assert got.x is not None
        reached.append(float((got.x - x).norm()))
        assert reached[-1] == pytest.approx(2e-3 * float(found.errors[i]), rel=0.15)
    assert reached[0] > 10 * reached[1]


def test_noise_that_is_spent_well_hides_more_than_noise_that_is_spread(found: Directions) -> None:
    gains = []
    for budget in (1e-4, 1e-1, 1e3):
        spent = found.best(budget)
        assert float(spent.variances.sum()) == pytest.approx(budget)
        assert bool((spent.variances >= 0).all())
        assert spent.rmse > spent.even_rmse
        gains.append(spent.gain)
    assert gains == sorted(gains, reverse=True)  # with much noise, everything is hidden either way


def test_no_other_spending_of_the_same_budget_hides_more(found: Directions) -> None:
    budget = 1e-2
    best = found.best(budget)
    prior = float((digits(1)[0] - 0.5).square().mean())
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = best.variances * torch.rand(best.variances.shape, generator=rng, dtype=torch.float64)
        other = other * (budget / float(other.sum()))
        error = (prior * other / (other + found.values * prior)).mean().sqrt()
        assert float(error) <= best.rmse + 1e-12


@pytest.mark.parametrize("budget", [0, -1.0, math.inf, math.nan, "a"])
def test_a_budget_that_is_none_is_refused(found: Directions, budget: Any) -> None:
    with pytest.raises(InvalidInput, match="expected a budget"):
        found.best(budget)


def test_fairness_ranks_pictures_as_each_is_predicted_alone() -> None:
    x, y = digits(5)
    told = fairness(net(), x, y, noise=1e-3)
    alone = torch.stack([influence(net(), x[i : i + 1], y[i : i + 1], noise=1e-3).psnr[0] for i in range(5)])
    assert torch.equal(told.psnr, alone)
    assert told.order == alone.argsort(descending=True).tolist()
    assert list(told.by_class) == sorted(told.by_class, key=lambda c: -told.by_class[c])
    assert told.spread > 0
    assert f"picture {told.order[0]} (" in told.verdict
    with pytest.raises(InvalidBatch, match="two pictures or more"):
        fairness(net(), x[:1], y[:1], noise=1e-3)


def test_equal_pictures_are_treated_alike() -> None:
    x, y = digits(1)
    told = fairness(net(), x.repeat(3, 1, 1, 1), y.repeat(3), noise=1e-3)
    assert told.spread == 0


def test_small_first_weights_hide_more_at_the_same_noise() -> None:
    x, y = digits(2)
    model = net()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    told = initialization(model, x, y, seeds=(0, 1), schemes=("uniform", "xavier_uniform", "as built"))
    uniform, xavier, built = told.rows
    assert (uniform.cases, xavier.cases, built.cases) == (4, 4, 2)
    assert xavier.psnr < uniform.psnr - 10
    assert told.preferred is xavier
    assert built.psnr == pytest.approx(
        float(
            torch.stack(
                [influence(model, x[i : i + 1], y[i : i + 1], noise=1e-3).psnr[0] for i in (0, 1)]
            ).mean()
        )
    )
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert initialization(model, x, y, seeds=(0,), schemes=("uniform",)) == initialization(
        model, x, y, seeds=(0,), schemes=("uniform",)
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_gives_finite_numbers(name: str) -> None:
    (row,) = initialization(net(), *digits(1), seeds=(0,), schemes=(name,)).rows
    assert row.largest > row.median > row.smallest >= 0
    assert math.isfinite(row.psnr)
    assert math.isfinite(row.relative_psnr)


def test_what_cannot_be_initialised_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected schemes among"):
        initialization(net(), *digits(1), schemes=("zeros",))
    with pytest.raises(InvalidInput, match="came none"):
        initialization(net(), *digits(1), schemes=())
    with pytest.raises(InvalidModel, match="two dimensions or more"):
        initialization(nn.Sequential(nn.Flatten(), nn.LayerNorm(64)), *digits(1))


@pytest.mark.parametrize("i", [-1, 64, 1.5, "a", True])
def test_a_direction_that_is_none_is_refused(found: Directions, i: Any) -> None:
    with pytest.raises(InvalidInput, match="expected a direction from 0 to 63"):
        found.perturbation(i)
    with pytest.raises(InvalidInput, match="expected a direction"):
        found.picture(i)
    with pytest.raises(InvalidInput, match="expected a finite length"):
        found.perturbation(0, float("nan"))


def test_mid_gray_has_nothing_to_hide() -> None:
    gray = directions(net(), torch.full((1, 1, 8, 8), 0.5), torch.tensor([1]))
    with pytest.raises(InvalidInput, match="something to hide"):
        gray.best(1.0)


def test_what_is_frozen_and_what_normalises_stays() -> None:
    from gradleak.risk.initialization import _started

    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10)
    ).eval()
    model[0].requires_grad_(False)
    made = _started(model, lambda leaf: nn.init.constant_(leaf, 2.0), 0)
    kept = {name: torch.equal(leaf, made.state_dict()[name]) for name, leaf in model.state_dict().items()}
    assert [name for name, same in kept.items() if not same] == ["4.weight", "4.bias"]


@pytest.mark.parametrize(
    "wrong",
    [{"seeds": []}, {"seeds": [-1]}, {"seeds": None}, {"share": "a"}, {"noise": None}, {"schemes": None}],
)
def test_an_initialisation_study_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        initialization(net(), *digits(1), **wrong)


@pytest.mark.parametrize("noise", [None, "a", 0.0, -1.0, float("nan"), True])
def test_fairness_under_no_noise_is_refused(noise: Any) -> None:
    with pytest.raises(InvalidInput, match="expected noise"):
        fairness(net(), *digits(2), noise=noise)
