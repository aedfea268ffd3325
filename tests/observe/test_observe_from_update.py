"""An update from one's own run: what does not fit is named."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradleak import Observation, observe, zoo
from gradleak.errors import InvalidBatch, InvalidInput, InvalidModel, InvalidUpdate
from gradleak.observe import Domain
from gradleak.trees import flatten


def net() -> nn.Sequential:
    return zoo.lenet(5, 1, 8, seed=0).double()


def batch() -> tuple[Tensor, Tensor]:
    x, y = zoo.pictures("digits", size=8, n=2)
    return x.double(), y


def gradient(model: nn.Module) -> dict[str, Tensor]:
    x, y = batch()
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


SHAPE = (2, 1, 8, 8)


def test_it_is_the_same_observation_as_observe_gives() -> None:
    model = net()
    x, y = batch()
    mine = Observation.from_update(model, gradient(model), x_shape=SHAPE, labels=y)
    seen = observe(model, x, y, reveal=["labels"])
    for a, b in ((mine.update, seen.update), (mine.params, seen.params)):
        assert list(a) == list(b)
        torch.testing.assert_close(flatten(a), flatten(b), rtol=1e-10, atol=1e-13)
    assert (mine.x_shape, mine.classes, mine.knows) == (seen.x_shape, seen.classes, seen.knows)
    assert mine.labels is not None
    assert torch.equal(mine.labels, y)


def test_order_dtype_and_memory_are_the_observations_own() -> None:
    model = net().float()
    given = {name: leaf.double().requires_grad_() for name, leaf in reversed(gradient(net()).items())}
    labels = torch.tensor([1, 2], dtype=torch.uint8)
    seen = Observation.from_update(model, given, x_shape=torch.Size(SHAPE), labels=labels)
    assert list(seen.update) == [name for name, _ in model.named_parameters()]
    assert {leaf.dtype for leaf in seen.update.values()} == {torch.float32}
    before = flatten(seen.update), flatten(seen.params)
    with torch.no_grad():
        for leaf in (*given.values(), *model.parameters(), labels):
            leaf.zero_()
    assert torch.equal(before[0], flatten(seen.update))
    assert torch.equal(before[1], flatten(seen.params))
    assert seen.labels is not None
    assert (seen.labels.dtype, seen.labels.tolist()) == (torch.int64, [1, 2])


def test_parameters_from_before_the_step() -> None:
    model = net()
    update, before = gradient(model), {n: p.detach().clone() for n, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    seen = Observation.from_update(model, update, x_shape=SHAPE, params=before)
    x, y = batch()
    torch.testing.assert_close(flatten(seen.simulate(x, y)), flatten(update), rtol=1e-10, atol=1e-13)


def changed(**entries: Any) -> dict[str, Any]:
    update: dict[str, Any] = gradient(net())
    for name, entry in entries.items():
        key = name.replace("__", ".")
        if entry is None:
            del update[key]
        else:
            update[key] = entry(update.get(key))
    return update


def at_first(value: float) -> Any:
    def put(leaf: Tensor) -> Tensor:
        leaf = leaf.clone()
        leaf.view(-1)[0] = value
        return leaf

    return put


UPDATES: dict[str, tuple[Any, str]] = {
    "missing": (lambda: changed(conv2__weight=None), r"conv2\.weight is missing"),
    "empty": (dict, r"conv1\.weight is missing"),
    "extra": (
        lambda: changed(num_batches_tracked=lambda _: torch.ones(())),
        "num_batches_tracked is not expected",
    ),
    "misshaped": (
        lambda: changed(linear__weight=lambda leaf: leaf.T),
        r"linear\.weight has shape \[48, 5\] where the model has \[5, 48\]",
    ),
    "NaN": (lambda: changed(conv1__bias=at_first(float("nan"))), r"NaN or infinite entries in conv1\.bias"),
    "infinite": (lambda: changed(conv1__bias=at_first(-float("inf"))), r"infinite entries in conv1\.bias\."),
    "array": (lambda: changed(conv1__bias=np.asarray), r"conv1\.bias is no tensor but ndarray"),
    "sparse": (lambda: changed(conv1__bias=Tensor.to_sparse), r"conv1\.bias is sparse"),
    "meta": (
        lambda: changed(conv1__bias=lambda leaf: leaf.to("meta")),
        r"conv1\.bias is sparse, or on the meta",
    ),
    "None": (lambda: changed(conv1__bias=lambda _: None), r"conv1\.bias is no tensor but NoneType"),
    "integers": (lambda: changed(conv1__bias=Tensor.long), r"conv1\.bias holds torch\.int64 where .*float64"),
    "list": (lambda: list(gradient(net()).values()), r"tensors by parameter name; came list\. .*dict\(zip"),
    "of another model": (
        lambda: gradient(zoo.lenet(6, 1, 8).double()),
        r"linear\.weight has shape .*; linear\.bias has shape",
    ),
    "of a large other model": (
        lambda: {n: p.detach() for n, p in zoo.resnet(5, 1, 8).named_parameters()},
        r"conv1\.weight is missing.*; and \d+ more\.",
    ),
}


@pytest.mark.parametrize(("build", "says"), UPDATES.values(), ids=UPDATES.keys())
def test_an_update_that_does_not_fit_is_named(build: Any, says: str) -> None:
    with pytest.raises(InvalidUpdate, match=says):
        Observation.from_update(net(), build(), x_shape=SHAPE)


def test_no_loss_is_cross_entropy_as_in_observe() -> None:
    seen = Observation.from_update(net(), gradient(net()), x_shape=SHAPE, loss=None)
    assert seen.loss is observe(net(), *batch()).loss


def test_an_update_that_overflows_in_the_models_precision_is_refused() -> None:
    update = changed(conv1__bias=at_first(1e300))
    with pytest.raises(InvalidUpdate, match=r"infinite entries in conv1\.bias"):
        Observation.from_update(net().float(), update, x_shape=SHAPE)


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (8,),
        (0, 1, 8, 8),
        (-2, 1, -8, 8),
        (2.0, 1, 8, 8),
        "2188",
        4,
        None,
        (2, 1, 8, True, "x"),
        (2**70, 1, 8, 8),
        (10**12, 1, 8, 8),
    ],
    ids=str,
)
def test_a_shape_that_is_none_is_refused(shape: Any) -> None:
    with pytest.raises(InvalidBatch, match="batch shape of positive sizes"):
        Observation.from_update(net(), gradient(net()), x_shape=shape, classes=5)


def test_a_shape_that_the_model_cannot_take_is_refused() -> None:
    for shape in ((2, 3, 8, 8), (2, 1, 32, 32), (2, 64)):
        with pytest.raises(InvalidBatch, match=r"the model cannot take a batch of shape \[2, "):
            Observation.from_update(net(), gradient(net()), x_shape=shape)


LABELS: dict[str, tuple[Any, str]] = {
    "list": ([1, 2], "came list"),
    "too many": (torch.tensor([1, 2, 3]), r"came torch.int64 of shape \[3\]"),
    "decimals": (torch.tensor([1.0, 2.0]), r"came torch.float32 of shape \[2\]"),
    "too high": (torch.tensor([1, 5]), "labels from 0 to 4.*came 1 to 5"),
    "negative": (torch.tensor([-1, 2]), "came -1 to 2"),
}


@pytest.mark.parametrize(("labels", "says"), LABELS.values(), ids=LABELS.keys())
def test_labels_that_do_not_fit_are_named(labels: Any, says: str) -> None:
    with pytest.raises(InvalidBatch, match=says):
        Observation.from_update(net(), gradient(net()), x_shape=SHAPE, labels=labels)


def test_parameters_of_another_model_are_named() -> None:
    other = dict(zoo.lenet(6, 1, 8).named_parameters())
    with pytest.raises(InvalidUpdate, match=r"parameters do not fit .*linear\.weight has shape"):
        Observation.from_update(net(), gradient(net()), x_shape=SHAPE, params=other)


def test_a_number_of_classes_that_is_not_the_models_is_refused() -> None:
    assert Observation.from_update(net(), gradient(net()), x_shape=SHAPE, classes=5).classes == 5
    with pytest.raises(InvalidBatch, match="expected 6 classes, as was said; the model has 5 outputs"):
        Observation.from_update(net(), gradient(net()), x_shape=SHAPE, classes=6)


class Broken(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("attention_mask")


def test_a_model_whose_forward_raises_is_named() -> None:
    model = Broken(6, 5)
    update = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    with pytest.raises(InvalidBatch, match=r"cannot take a batch of shape .*KeyError: 'attention_mask'"):
        Observation.from_update(model, update, x_shape=(2, 6))


def test_models_in_train_mode_are_observed_and_left_as_they_were() -> None:
    for layer in (nn.BatchNorm2d(1), nn.Dropout(0.5)):
        model = nn.Sequential(layer, net()).double()
        update = {name: torch.ones_like(p) for name, p in model.named_parameters()}
        buffers = [b.clone() for b in model.buffers()]
        state = torch.get_rng_state()
        seen = Observation.from_update(model, update, x_shape=SHAPE)
        assert seen.draws == (("0",) if isinstance(layer, nn.Dropout) else ())
        assert all(map(torch.equal, buffers, model.buffers()))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(seen.constants[name], b) for name, b in model.named_buffers())


def test_models_that_cannot_be_simulated_are_refused() -> None:
    with pytest.raises(InvalidModel, match="no parameters"):
        Observation.from_update(nn.Flatten(), {}, x_shape=SHAPE)
    with pytest.raises(InvalidModel, match="came dict"):
        Observation.from_update({}, {}, x_shape=SHAPE)  # type: ignore[arg-type]


def test_an_observation_without_parameters_is_none() -> None:
    with pytest.raises(InvalidUpdate, match="none at all"):
        Observation(model=net(), params={}, update={}, x_shape=SHAPE)


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 3), (4, 3, 2, 2, 2)])
@pytest.mark.parametrize("mean_std", [((0.5,), (0.25,)), ((0.1, 0.2, 0.3), (1.0, 2.0, 0.5))])
def test_normalisation_there_and_back(shape: tuple[int, ...], mean_std: Any) -> None:
    domain = Domain.of(mean_std)
    pixels = torch.rand(shape, dtype=torch.float64)
    x = domain.from_pixels(pixels)
    mean, std = (values * 3 if len(values) == 1 else values for values in mean_std)
    for c in range(3):
        torch.testing.assert_close(x[:, c], (pixels[:, c] - mean[c]) / std[c])
    torch.testing.assert_close(domain.to_pixels(x), pixels)
    wild = 5 * torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(domain.to_pixels(domain.clamp(wild)), domain.to_pixels(wild).clamp(0, 1))
    torch.testing.assert_close(domain.clamp(x), x)


def test_no_normalisation_is_none() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(Domain.of(None).to_pixels(x), x)
    assert Domain.of(None) == Domain()
    with pytest.raises(InvalidInput, match="above 0"):
        Domain((0.0,), (0.0,))
