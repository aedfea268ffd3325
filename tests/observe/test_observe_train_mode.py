"""Clients whose layers are in train mode, as production's are: what they send, and what the server knows."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradleak import LocalSGD, load, observe, save, zoo
from gradleak.errors import InvalidUpdate
from gradleak.observe import Observation
from gradleak.trees import norm, subtract


class Normed(nn.Sequential):
    """Two BatchNorms of unlike momentum, and dropout where ``rate`` is above 0."""

    def __init__(self, rate: float = 0.0) -> None:
        torch.manual_seed(1)
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2),
            nn.BatchNorm2d(6, momentum=0.3), nn.ReLU(), nn.Flatten(), nn.Dropout(rate), nn.Linear(24, 5),
        )  # fmt: skip
        self.double()


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    x, _ = zoo.pictures("faces", n=n, size=8, channels=3)
    return x.double(), torch.arange(n) % 5


def backward(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The slow twin: what a training loop finds in .grad."""
    nn.functional.cross_entropy(model(x), y).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def apart(a: Any, b: Any) -> float:
    return float(norm(subtract(a, b)) / norm(b))


def test_train_mode_uses_the_batchs_statistics_and_the_attacker_simulates_them() -> None:
    x, y = batch()
    seen = observe(Normed().train(), x, y)
    assert apart(seen.update, backward(Normed().train(), x, y)) < 1e-13
    assert apart(seen.update, backward(Normed().eval(), x, y)) > 0.1
    assert apart(seen.simulate(x, y), seen.update) < 1e-13
    assert "that BatchNorm used the batch's own statistics" in seen.knows
    assert "that BatchNorm used the batch's own statistics" not in observe(Normed().eval(), x, y).knows


def test_dropout_is_drawn_and_its_dice_stay_with_the_client() -> None:
    x, y = batch()
    at_rest = observe(Normed().train(), x, y)
    seen = observe(Normed(0.5).train(), x, y)
    assert seen.draws == ("7",)
    assert apart(seen.update, at_rest.update) > 0.1
    assert apart(seen.update, observe(Normed(0.5).train(), x, y, rng=1).update) > 0.1
    assert apart(seen.update, observe(Normed(0.5).train(), x, y).update) == 0
    # the best that a server can do without them: the network's mean
    assert apart(seen.simulate(x, y), at_rest.update) < 1e-13
    assert any("layer '7' (Dropout) drew at random" in fact for fact in seen.knows)
    assert observe(Normed(0.5).eval(), x, y).draws == ()


def test_statistics_are_revealed_only_where_asked() -> None:
    x, y = batch()
    for model in (Normed().train(), Normed().eval()):
        assert observe(model, x, y).statistics is None
        known = observe(model, x, y, reveal=["statistics"])
        assert known.statistics is not None
        assert set(known.statistics) == {"1.mean", "1.var", "4.mean", "4.var"}
        inputs = model[0](x)
        assert torch.allclose(known.statistics["1.mean"], inputs.mean((0, 2, 3)))
        assert torch.allclose(known.statistics["1.var"], inputs.transpose(0, 1).flatten(1).var(1))
        assert any("statistics at every BatchNorm" in fact for fact in known.knows)


def test_running_statistics_that_were_sent_give_the_batchs_away() -> None:
    x, y = batch()
    model = Normed().train()
    client = LocalSGD(1, 6, 0.1)
    known = observe(model, x, y, client=client, reveal=["statistics"])
    trained = copy.deepcopy(model)
    step = torch.optim.SGD(trained.parameters(), lr=0.1)
    nn.functional.cross_entropy(trained(x), y).backward()
    step.step()
    seen = Observation.from_weights(model, trained.state_dict(), client=client, x_shape=tuple(x.shape))
    assert known.statistics is not None
    assert seen.statistics is not None
    assert apart(seen.statistics, known.statistics) < 1e-12
    assert apart(seen.update, known.update) < 1e-12


def test_after_several_steps_they_are_a_mean_over_the_steps() -> None:
    x, y = batch()
    model = Normed().train()
    client = LocalSGD(2, 2, 0.05, order=[[0, 2, 4, 1, 3, 5], [5, 4, 3, 2, 1, 0]])
    known = observe(model, x, y, client=client, reveal=["statistics"])
    trained = copy.deepcopy(model)
    step = torch.optim.SGD(trained.parameters(), lr=0.05)
    for pick in client.picks(6):
        step.zero_grad()
        nn.functional.cross_entropy(trained(x[pick]), y[pick]).backward()
        step.step()
    seen = Observation.from_weights(model, trained.state_dict(), client=client, x_shape=tuple(x.shape))
    assert known.statistics is not None
    assert seen.statistics is not None
    assert apart(seen.statistics, known.statistics) < 1e-12
    whole = observe(model, x, y, reveal=["statistics"]).statistics
    assert apart(seen.statistics, whole) > 1e-3


def test_statistics_that_do_not_fit_are_refused() -> None:
    x, y = batch()
    known = observe(Normed().train(), x, y, reveal=["statistics"])
    assert known.statistics is not None
    foreign = known.statistics | {"9.var": torch.zeros(4).double()}
    wide = known.statistics | {"1.mean": torch.zeros(5).double()}
    endless = known.statistics | {"1.mean": torch.full((4,), torch.inf).double()}
    for wrong, says in (
        (foreign, "9.var is not expected"),
        (wide, "has shape"),
        (endless, "NaN or infinite"),
    ):
        with pytest.raises(InvalidUpdate, match=says):
            Observation.from_update(Normed(), known.update, x_shape=tuple(x.shape), statistics=wrong)


def test_only_layers_whose_buffers_moved_tell_of_the_batch() -> None:
    x, y = batch()
    model = Normed().train()
    model[4].eval()
    trained = copy.deepcopy(model)
    nn.functional.cross_entropy(trained(x), y).backward()
    torch.optim.SGD(trained.parameters(), lr=0.1).step()
    seen = Observation.from_weights(model, trained.state_dict(), client=LocalSGD(1, 6, 0.1), x_shape=x.shape)
    assert seen.statistics is not None
    assert set(seen.statistics) == {"1.mean", "1.var"}


def test_weights_that_contradict_themselves_are_refused() -> None:
    x, y = batch()
    model = Normed().train()
    client = LocalSGD(1, 6, 0.1)
    with pytest.raises(
        InvalidUpdate, match=r"have moved; those that came back are the model's own.*deepcopy"
    ):
        Observation.from_weights(model, model.state_dict(), client=client, x_shape=x.shape)
    trained = copy.deepcopy(model)
    nn.functional.cross_entropy(trained(x), y).backward()
    torch.optim.SGD(trained.parameters(), lr=0.1).step()
    with pytest.raises(InvalidUpdate, match=r"statistics that came back have moved.*model\.train\(\)"):
        Observation.from_weights(model.eval(), trained.state_dict(), client=client, x_shape=x.shape)


def test_a_capture_keeps_modes_dice_statistics_and_clients(tmp_path: Path) -> None:
    x, y = batch()
    client = LocalSGD(2, 4, 0.05, 0.9, order=[[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]])
    seen = observe(Normed(0.5).train(), x, y, client=client, reveal=["statistics"])
    save(seen, tmp_path / "c.safetensors")
    back = load(tmp_path / "c.safetensors", Normed(0.5).eval())
    assert back.client == client
    assert back.draws == ("7",)
    assert back.statistics is not None
    assert apart(back.statistics, seen.statistics) == 0
    assert apart(back.simulate(x, y), seen.simulate(x, y)) < 1e-15
    assert back.knows == seen.knows
