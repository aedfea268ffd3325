"""What is called certain must be: every way that was found to make a guess surer than it is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradleak import LocalSGD, Observation, labels, logistic, observe
from gradleak.errors import InvalidInput
from gradleak.labels import LabelGuess
from gradleak.trees import map_tree

PIXELS = 12


def mlp(classes: int, act: Callable[[], nn.Module] = nn.ReLU, hidden: int = 32, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(PIXELS, hidden), act(), nn.Linear(hidden, classes))


def drawn(seed: int, n: int, classes: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, PIXELS, generator=rng), torch.randint(classes, (n,), generator=rng)


def asked(obs: Observation, *, all_of_them: bool = True) -> list[LabelGuess]:
    rules: list[Any] = [labels.best(ways=20), labels.inferred()]
    rules += [labels.idlg(), labels.factorized(ways=20), labels.combined()] if all_of_them else []
    answers = [rule(obs, rng=torch.Generator().manual_seed(0)) for rule in rules]
    return [answer for answer in answers if isinstance(answer, LabelGuess) and answer.y is not None]


def never_surely_wrong(obs: Observation, y: Tensor) -> None:
    for answer in asked(obs):
        assert answer.y is not None
        if answer.certain:
            assert answer.y.tolist() == y.sort().values.tolist()


class Noisy(nn.Module):
    """Noise of its own before the last layer, in train mode."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(PIXELS, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        h = h + 0.5 * torch.randn_like(h) if self.training else h
        out: Tensor = self.b(h)
        return out


@pytest.mark.parametrize("seed", range(4))
def test_layers_that_draw_other_than_dropout_prove_nothing(seed: int) -> None:
    x, y = drawn(seed, 10, 10)
    obs = observe(Noisy().train(), x, y, rng=seed)
    assert obs.draws == ("",)
    never_surely_wrong(obs, y)
    assert not any(answer.certain for answer in asked(obs))


@pytest.mark.parametrize("seed", range(6))
def test_one_record_is_certain_only_where_its_gradient_explains_itself(seed: int) -> None:
    x, y = drawn(seed, 1, 2)
    model = mlp(1, seed=seed)
    honest = observe(model, x, y, loss=logistic)
    sure = asked(honest, all_of_them=False)
    assert all(a.certain and a.y is not None and a.y.tolist() == y.tolist() for a in sure)
    rng = torch.Generator().manual_seed(seed)
    noisy = {n: u + torch.randn(u.shape, generator=rng) for n, u in honest.update.items()}
    changed = [
        Observation.from_update(model, noisy, x_shape=x.shape, loss=logistic, classes=2),
        observe(model, x, y, loss=logistic, client=LocalSGD(1, 1, 0.1), assumed=None),
        Observation.from_update(
            model, map_tree(lambda u: -0.1 * u, honest.update), x_shape=x.shape, loss=logistic
        ),
        observe(model, x, torch.tensor([[0.45, 0.55]]), loss=logistic),
    ]
    assert not any(answer.certain for obs in changed for answer in asked(obs))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_soft_labels_and_mixed_records_are_not_certain(seed: int, bias: bool) -> None:
    model = mlp(3, seed=seed)
    if not bias:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model[2] = nn.Linear(32, 3, bias=False)  # type: ignore[index, operator]
    x, y = drawn(seed, 1, 3)
    honest = observe(model, x, y)
    sure = asked(honest, all_of_them=False)
    assert all(a.certain and a.y is not None and a.y.tolist() == y.tolist() for a in sure)
    soft = observe(model, x, torch.tensor([[0.35, 0.0, 0.65]]))
    two, three = drawn(seed + 50, 2, 3)[0], torch.tensor([0, 1])  # of one label they would be right
    mixed = Observation.from_update(model, dict(observe(model, two, three).update), x_shape=(1, PIXELS))
    turned = Observation.from_update(model, map_tree(lambda u: -0.1 * u, honest.update), x_shape=(1, PIXELS))
    assert not any(answer.certain for obs in (soft, mixed, turned) for answer in asked(obs))


@pytest.mark.parametrize("seed", range(8))
def test_a_batch_that_is_said_to_be_smaller_is_noticed(seed: int) -> None:
    x, y = drawn(seed, 6, 10)
    model = mlp(10, seed=seed)
    update = dict(observe(model, x, y).update)
    for claimed in (5, 3):
        obs = Observation.from_update(model, update, x_shape=(claimed, PIXELS))
        fault = labels.wrong_sign_or_scale(obs)
        assert fault is not None
        assert "Say its true size" in fault  # and not that the sign is wrong, which shows alike
        assert not any(answer.certain for answer in asked(obs))
        noted = asked(obs, all_of_them=False)
        assert all(answer.note == fault and (answer.confidence or 0) <= 0.1 for answer in noted)


@pytest.mark.parametrize("seed", range(6))
def test_weights_that_were_swapped_are_noticed_where_the_drift_is_small(seed: int) -> None:
    x, y = drawn(seed, 8, 10)
    client = LocalSGD(2, 4, 0.01)
    before = mlp(10, seed=seed)
    honest = observe(before, x, y, client=client, rng=seed)
    after = mlp(10, seed=seed)
    after.load_state_dict({name: honest.params[name] + leaf for name, leaf in honest.update.items()})
    swapped = Observation.from_weights(after, before.state_dict(), client=client, x_shape=x.shape)
    assert labels.wrong_sign_or_scale(honest) is None
    fault = labels.wrong_sign_or_scale(swapped)
    assert fault is not None
    assert "swapped" in fault
    assert all(answer.note == fault for answer in asked(swapped, all_of_them=False))


def test_asking_the_builder_instead_of_the_strategy_says_how() -> None:
    with pytest.raises(InvalidInput, match=r"gl\.labels\.best\(\)\(seen\)"):
        labels.best(observe(mlp(3), *drawn(0, 1, 3)))  # type: ignore[arg-type]
    x, y = drawn(0, 1, 3)
    answer = labels.best()(observe(mlp(3), x, y))
    assert isinstance(answer, LabelGuess)


@pytest.mark.parametrize("seed", range(4))
def test_smoothed_and_turned_batches_are_not_certain(seed: int) -> None:
    x, _ = drawn(seed, 4, 10)
    y = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:4]
    for act in (nn.ReLU, nn.Sigmoid):
        model = mlp(10, act, 16, seed)
        smooth = nn.functional.one_hot(y, 10) * 0.9 + 0.01
        turned = map_tree(lambda u: -u, observe(model, x, y).update)
        for obs in (
            observe(model, x, smooth),
            Observation.from_update(model, turned, x_shape=x.shape),
        ):
            assert not any(answer.certain for answer in asked(obs))
