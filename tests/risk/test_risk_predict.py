"""The forecast beside real attacks, its labels beside the truth, and what it says of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.errors import InvalidInput
from gradleak.risk import predict


def digits(n: int) -> tuple[Tensor, Tensor]:
    return gl.zoo.pictures("digits", size=8, n=n)


def mlp() -> nn.Module:
    return gl.zoo.mlp(sizes=(64, 32), classes=10, seed=0)


def lenet() -> nn.Module:
    return gl.zoo.lenet(10, 1, 8, seed=0)


def reached(seen: gl.Observation, attack: Any, x: Tensor, y: Tensor) -> list[float]:
    found = attack(seen, rng=0)
    assert found.x is not None
    return [float(v) for v in gl.metrics.score(found.x, found.y, x, y, classes=10).psnr]


def test_what_is_called_exact_is_recovered_exactly() -> None:
    x, y = digits(4)
    told = predict(mlp(), x, y)
    assert [sample.verdict for sample in told.samples] == ["recoverable exactly"] * 4
    assert all(sample.label_read for sample in told.samples)
    assert min(reached(gl.observe(mlp(), x, y), gl.attack, x, y)) > 60
    assert told.verdict == (
        "4 of 4 pictures can be recovered from this update, 4 of them exactly; 4 of 4 labels can be read off."
    )


def test_noise_that_hides_a_picture_is_said_to_and_an_attack_agrees() -> None:
    x, y = digits(1)
    told = predict(lenet(), x, y, noise=3.0)
    assert told.samples[0].verdict == "not recoverable from this update"
    assert told.leaks == 0
    clear = gl.observe(lenet(), x, y, reveal=["labels"])
    rng = torch.Generator().manual_seed(0)
    update = {
        name: leaf + 3.0 * torch.randn(leaf.shape, generator=rng) for name, leaf in clear.update.items()
    }
    noisy = gl.Observation.from_update(lenet(), update, x_shape=clear.x_shape, labels=y)
    attack = gl.attacks.inverting_gradients(steps=200)
    assert reached(noisy, attack, x, y)[0] < told.samples[0].null_psnr + 6


def test_between_the_two_it_says_how_near() -> None:
    x, y = digits(1)
    values = [predict(lenet(), x, y, noise=noise).samples[0].psnr for noise in (0.0, 1e-3, 1e-2, 1e-1)]
    assert values == sorted(values, reverse=True)
    (sample,) = predict(lenet(), x, y, noise=2e-3).samples
    assert sample.verdict == f"recoverable to about {sample.psnr:.0f} dB"


def test_rounding_alone_bounds_what_float32_shows() -> None:
    x, y = digits(1)
    short, long = predict(lenet(), x, y), predict(lenet().double(), x.double(), y)
    assert long.samples[0].psnr > short.samples[0].psnr + 100


def test_a_small_step_of_weights_shows_less_than_its_gradient() -> None:
    """float32 weights keep few digits of a step that is small beside them."""
    x, y = digits(1)
    gradient, step = predict(lenet(), x, y), predict(lenet(), x, y, client=gl.LocalSGD(1, 1, 1e-3))
    assert step.samples[0].psnr < gradient.samples[0].psnr - 30


def test_long_local_training_is_said_to_be_taken_for_one_gradient() -> None:
    x, y = digits(4)
    told = predict(mlp(), x, y, client=gl.LocalSGD(5, 2, 1e-3))
    assert "10 local steps are taken for one gradient" in told.notes[0]
    assert told.leaks == 4
    assert not any(
        "local steps" in note for note in predict(mlp(), x, y, client=gl.LocalSGD(2, 2, 1e-3)).notes
    )


def test_a_label_that_is_guessed_once_is_not_read_off_twice() -> None:
    from gradleak.risk.predict import _in_the_multiset

    guess, truth = torch.tensor([1, 2, 2]), torch.tensor([1, 1, 2])
    assert [_in_the_multiset(i, guess, truth) for i in range(3)] == [True, False, True]


def test_it_says_all_that_as_json_and_leaves_the_model_alone() -> None:
    x, y = digits(2)
    model = lenet()
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    facts = predict(model, x, y, noise=1e-3).to_dict()
    assert [sample["leaks"] for sample in facts["samples"]] == [True, True]
    assert facts["labels"] == sorted(y.tolist())
    assert facts["ranks"] is not None
    assert [layer["path"] for layer in facts["layers"]] == ["conv1", "conv2", "conv3", "linear"]
    assert all(len(layer["psnr"]) == 2 for layer in facts["layers"])
    assert all(torch.equal(before[name], leaf) for name, leaf in model.state_dict().items())


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf"), "a", None, True])
def test_noise_that_is_none_is_refused(noise: Any) -> None:
    with pytest.raises(InvalidInput, match="expected noise"):
        predict(mlp(), *digits(1), noise=noise)


def test_labels_are_read_off_what_the_noise_leaves() -> None:
    x, y = digits(8)
    clear, hidden = predict(mlp(), x, y), predict(mlp(), x, y, noise=1e3)
    assert all(sample.label_read for sample in clear.samples)
    assert sum(bool(sample.label_read) for sample in hidden.samples) < 6
    assert "8 of 8 labels" not in hidden.verdict


def test_a_picture_unlike_any_other_is_not_called_safe_for_being_so() -> None:
    """The prior takes a checkerboard for next to impossible; an attacker without a prior does not."""
    board = (torch.arange(16)[:, None] + torch.arange(16)[None]).remainder(2).float()[None, None]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.Tanh(), nn.Linear(64, 10))
    y = torch.tensor([3])
    (sample,) = predict(model, board, y, noise=1e-2).samples
    clear = gl.observe(model, board, y, reveal=["labels"])
    rng = torch.Generator().manual_seed(0)
    update = {
        name: leaf + 1e-2 * torch.randn(leaf.shape, generator=rng) for name, leaf in clear.update.items()
    }
    noisy = gl.Observation.from_update(model, update, x_shape=clear.x_shape, labels=y)
    attack = gl.attacks.dlg(labels=gl.labels.known(), evaluations=300)
    assert reached(noisy, attack, board, y)[0] < sample.psnr + 3
    assert sample.leaks


def test_mid_gray_is_not_called_recovered_where_nothing_is_seen() -> None:
    x = 0.5 + 0.002 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    told = predict(lenet(), x, torch.tensor([1]), noise=1e6)
    assert told.samples[0].verdict == "not recoverable from this update"
    gray = predict(lenet(), torch.full((1, 1, 8, 8), 0.5), torch.tensor([1]), noise=1e6)
    assert gray.samples[0].verdict == "not recoverable from this update"
    assert gray.to_dict()["samples"][0]["null_psnr"] == "inf"


def test_what_the_number_leaves_out_is_said() -> None:
    x, y = digits(2)
    dropping = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10)).train()
    told = predict(dropping, x, y, noise=1e-2, layers=False)
    assert (
        "layer '2' (Dropout) drew at random: the forecast is that of the network without the draw"
        in told.notes
    )
    resting = predict(dropping.eval(), x, y, noise=1e-2, layers=False)
    assert told.samples[0].psnr == pytest.approx(resting.samples[0].psnr, abs=0.1)
    flat = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    assert any("no pictures" in note for note in predict(flat, x.flatten(1), y).notes)


def test_one_picture_is_spoken_of_as_one() -> None:
    x, y = digits(1)
    assert predict(mlp(), x, y).verdict == ("The picture is recoverable exactly; its label can be read off.")
    hidden = predict(mlp(), x, y, noise=1e6)
    assert hidden.verdict.startswith("The picture is not recoverable from this update; its label can")


def test_the_most_exposed_come_first_and_those_at_no_distance_last() -> None:
    x, y = digits(4)
    x[2] = 0.5
    told = predict(mlp(), x, y, noise=1e-2)
    assert told.order[0] == max(range(4), key=lambda i: (told.samples[i].leaks, told.samples[i].psnr))
    assert told.order[-1] == 2
    assert sorted(told.order) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        (lambda x, y: (x * float("nan"), y), "finite"),
        (lambda x, y: (x, None), "one label for each of the 2 pictures"),
        (lambda x, y: (x, y[:1]), "one label for each of the 2 pictures"),
        (lambda x, y: (x, y + 100), "expected labels from 0 to 9"),
        (lambda x, y: (None, y), "expected pictures"),
    ],
)
def test_batches_that_are_none_are_refused(spoilt: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        predict(mlp(), *spoilt(*digits(2)))


def test_no_layer_alone_can_be_enough_where_all_together_are() -> None:
    from gradleak.risk.by_layer import Alone
    from gradleak.risk.predict import Exposed, _Found

    def reason(*psnr: float, bounds: tuple[int, ...] = ()) -> str:
        rows = tuple(Alone(f"layer{n}", torch.tensor([v]), 1.0, n in bounds) for n, v in enumerate(psnr))
        found = _Found(None, None, rows, None, None, None, None)  # type: ignore[arg-type]
        return found._layer(0, Exposed("", 30.0, 10.0, None, ()))

    assert reason(11.0, 15.0) == "no layer's part gives it away alone, all of them together do"
    assert reason(11.0, 20.0) == "the part of layer1 alone gives it away, to 20 dB"
    assert reason(11.0, float("nan")) == ""
    assert reason(20.0, float("nan")) == "the part of layer0 alone gives it away, to 20 dB"
    assert reason(11.0, 105.0, bounds=(1,)) == ""
    assert reason(18.0, 105.0, bounds=(1,)) == "the part of layer0 alone gives it away, to 18 dB"
    assert reason(11.0, 12.0, bounds=(1,)).startswith("no layer's part")


def test_what_the_batch_s_own_statistics_hide_is_not_called_safe() -> None:
    x, y = digits(3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)
        )
    training = predict(model.train(), x, y, noise=1e2, layers=False)
    assert training.leaks == 0
    assert training.verdict.startswith(
        "None of 3 pictures can be recovered as they are from this update, "
        "and up to brightness and contrast this does not say"
    )
    assert training.samples[0].verdict == "not recoverable as it is from this update"
    assert any("hide brightness and contrast" in note for note in training.notes)
    resting = predict(model.eval(), x, y, noise=1e2, layers=False)
    assert resting.verdict.startswith("None of 3 pictures can be recovered from this update")
    assert not any("brightness" in note for note in resting.notes)
