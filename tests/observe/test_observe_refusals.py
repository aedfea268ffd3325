"""What cannot be observed is refused with its name, before and after which nothing has changed."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradleak import LocalSGD, observe, zoo
from gradleak.errors import (
    GradleakError,
    InvalidBatch,
    InvalidInput,
    InvalidModel,
    InvalidUpdate,
    NotDeterministic,
)


def mlp(*middle: nn.Module, features: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, features), *middle, nn.Linear(features, 4)).double()


def batch(n: int = 3) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=rng, dtype=torch.float64), torch.arange(n) % 4


class Do(nn.Module):
    """A layer that is one function."""

    def __init__(self, f: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Any:
        return self.f(x)


class Block(nn.Module):
    """Layers inside a module of one's own, which may do something between them."""

    def __init__(self, *inside: nn.Module, before: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.inner, self.before = nn.Sequential(*inside), before

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.before(x))


class NoSecond(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * ctx.saved_tensors[0].cos()


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * ctx.saved_tensors[0].cos()


def frozen() -> nn.Module:
    return mlp().requires_grad_(False)


def hooked_module() -> nn.Module:
    model = mlp(Block(nn.Linear(6, 6)))
    model[1].inner.register_full_backward_hook(lambda *_: None)  # type: ignore[union-attr, operator]
    return model


def hooked_parameter() -> nn.Module:
    model = mlp()
    model[1].bias.register_hook(lambda g: g.clamp(-1, 1))  # type: ignore[union-attr]
    return model


class Aliased(nn.Module):
    """Its weight is read from a list, where no one can put another."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.weights = [self.fc.weight]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[0], self.fc.bias)


class Locked(nn.Linear):
    def __init__(self) -> None:
        import threading

        super().__init__(6, 4)
        self.lock = threading.Lock()


def cached_graph() -> nn.Module:
    model = mlp()
    model.features = model[0](batch()[0])  # type: ignore[assignment]
    return model


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 4)))


class Scaled(nn.Module):
    """It reads a tensor that no one registered."""

    def __init__(self, *scales: Tensor) -> None:
        super().__init__()
        self.scales = list(scales)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.stack(self.scales).sum(0)


def plain_tensor() -> nn.Module:
    scale = torch.ones(6, dtype=torch.float64)
    return mlp(Do(functools.partial(torch.mul, scale)))


def plain_list() -> nn.Module:
    return mlp(Scaled(torch.arange(6), torch.arange(6)))


MODELS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no module": (lambda: batch, InvalidModel, r"torch\.nn\.Module; came function"),
    "no parameters": (nn.Flatten, InvalidModel, "Flatten, and it has no parameters"),
    "all frozen": (frozen, InvalidModel, "none of its parameters needs a gradient"),
    "lazy": (lambda: nn.LazyLinear(4), InvalidModel, "lazy ones: weight, bias.* Run the model once"),
    "backward hook": (hooked_module, InvalidModel, r"hooks on 1\.inner\. Remove"),
    "parameter hook": (hooked_parameter, InvalidModel, r"hooks on 1\.bias\. Remove"),
    "an alias": (Aliased, InvalidModel, "NaN. Either .* reads a parameter or buffer from a list"),
    "a lock": (Locked, InvalidModel, "could not be copied: .*lock"),
    "a plain tensor": (plain_tensor, InvalidModel, r"torch.float64 of shape \[6\]\).*register_buffer"),
    "plain tensors in a list": (plain_list, InvalidModel, r"torch.int64 of shape \[6\]\).*register_buffer"),
    "one class": (
        lambda: mlp(nn.Linear(6, 6))[:2].append(nn.Linear(6, 1)),
        InvalidBatch,
        "two logits or more",
    ),
    "functional dropout": (
        lambda: mlp(Block(nn.Linear(6, 6), before=F.dropout)),
        NotDeterministic,
        r"layer '1' \(Block\) gave two different outputs",
    ),
    "noise at the end": (
        lambda: Block(mlp(), before=F.dropout),
        NotDeterministic,
        r"the model itself \(Block\)",
    ),
    "layers by chance": (
        lambda: mlp(Block(nn.Identity(), before=lambda x: x if torch.rand(()) < 0.6 else x + 1)),
        NotDeterministic,
        r"layer '1' \(Block\)",
    ),
    "instance norm that keeps statistics": (
        lambda: mlp(
            Block(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten())
        ),
        NotDeterministic,
        r"layer '1\.inner\.1' \(InstanceNorm1d\) changes its buffers.*model\.eval\(\)",
    ),
    "detach": (lambda: mlp(Do(Tensor.detach)), InvalidModel, r"layer '1' \(Do\) passes no gradient"),
    "round": (lambda: mlp(Do(torch.round)), InvalidModel, r"layer '1' \(Do\) passes no gradient"),
    "argmax": (
        lambda: mlp(Do(lambda x: F.one_hot(x.argmax(1), 6).double())),
        InvalidModel,
        r"layer '1' \(Do\) passes no gradient",
    ),
    "no_grad": (lambda: mlp(Do(torch.no_grad()(torch.sin))), InvalidModel, r"layer '1' \(Do\) passes no gr"),
    "deep detach": (
        lambda: mlp(Block(nn.Tanh(), Block(Do(Tensor.detach)))),
        InvalidModel,
        r"likely layer '1\.inner\.1\.inner\.0' \(Do\) passes no gradient\. Expected",
    ),
    "detach in a block": (
        lambda: mlp(Block(nn.Tanh(), before=Tensor.detach)),
        InvalidModel,
        r"likely layer '1' \(Block\) passes no gradient\. Expected",
    ),
    "detach in the root": (
        lambda: Block(mlp(), before=Tensor.detach),
        InvalidModel,
        r"likely the model itself \(Block\) passes no gradient",
    ),
    "in place first": (
        lambda: nn.Sequential(Do(lambda x: x.mul_(2)), mlp()),
        InvalidModel,
        r"layer '0' \(Do\) works in place",
    ),
    "in place later": (
        lambda: mlp(nn.Sigmoid(), Do(lambda x: x.mul_(2))),
        InvalidModel,
        r"layer '2' \(Do\) works in place on its input",
    ),
    "no second derivative": (
        lambda: mlp(nn.Tanh(), Do(NoSecond.apply)),
        InvalidModel,
        r"layer '2' \(Do\) cannot be differentiated twice \(.*once_differentiable",
    ),
    "old-style function": (
        lambda: mlp(Do(OldStyle.apply)),
        InvalidModel,
        r"layer '1' \(Do\) cannot be differentiated twice \(.*setup_context",
    ),
    "raises": (lambda: mlp(Do(lambda x: x["key"])), InvalidBatch, "cannot take a batch of shape"),
    "asserts": (lambda: mlp(nn.Linear(7, 6)), InvalidBatch, r"shape \[3, 6\]: RuntimeError: mat1 and mat2"),
    "tuple": (
        lambda: mlp(nn.Linear(6, 6)).append(Do(lambda x: (x, x))),
        InvalidBatch,
        "came tuple.*Pass loss",
    ),
    "3-D": (lambda: mlp().append(Do(lambda x: x[..., None])), InvalidBatch, r"came shape \[3, 4, 1\]"),
    "NaN": (lambda: mlp(Do(lambda x: x / 0)), InvalidModel, "expected numbers from the model; came NaN"),
    "an infinite update": (
        lambda: mlp(Do(lambda x: x + (x - x).square().sqrt())),
        InvalidUpdate,
        r"NaN or infinite entries in 0\.weight",
    ),
}


@pytest.mark.parametrize(("build", "kind", "says"), MODELS.values(), ids=MODELS.keys())
def test_a_model_that_cannot_be_observed_is_named(
    build: Callable[[], Any], kind: type[Exception], says: str
) -> None:
    model, (x, y) = build(), batch()
    if isinstance(model, nn.Module) and not isinstance(model, nn.LazyLinear):
        model = model.double() if "could not" not in says else model
    state = torch.get_rng_state()
    tensors = [t.clone() for t in model.state_dict().values()] if isinstance(model, nn.Sequential) else []
    with pytest.raises(kind, match=says) as caught:
        observe(model, x, y)
    assert type(caught.value) is kind
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, batch()[0])
    if tensors:
        assert all(map(torch.equal, tensors, model.state_dict().values()))


def test_one_record_is_too_few_for_a_batch_norm_in_train_mode() -> None:
    with pytest.raises(InvalidBatch, match="more than 1 value per channel when training"):
        observe(mlp(nn.BatchNorm1d(6).train()), *batch(1))
    with pytest.raises(InvalidInput, match="more than 1 value per channel when training"):
        observe(mlp(nn.BatchNorm1d(6).train()), *batch(3), client=LocalSGD(1, 2, 0.1))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x


def test_a_layer_that_counts_in_a_buffer_is_named() -> None:
    model = mlp(Counting())
    with pytest.raises(NotDeterministic, match=r"layer '1' \(Counting\) changes"):
        observe(model, *batch())
    assert model[1].seen.item() == 0  # type: ignore[union-attr, operator]


FINE: dict[str, Callable[[], nn.Module]] = {
    "in place after a linear layer": lambda: mlp(Do(lambda x: x.mul_(2))),
    "dropout in eval mode": lambda: mlp(nn.Dropout().eval()),
    "batch norm": lambda: mlp(nn.BatchNorm1d(6).train()),
    "deep batch norm": lambda: mlp(Block(Block(nn.BatchNorm1d(6).train()))),
    "dropout of nothing": lambda: mlp(nn.Dropout(0.0).train()),
    "batch norm without statistics": lambda: mlp(nn.BatchNorm1d(6, track_running_stats=False).train()),
    "a branch that is detached": lambda: mlp(Do(lambda x: x + x.detach().sin())),
    "a zero last layer": lambda: zero_head(),
    "a cached graph": cached_graph,
    "old weight_norm": lambda: old_weight_norm().double(),
}


def zero_head() -> nn.Module:
    model = mlp(nn.Tanh())
    nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("build", FINE.values(), ids=FINE.keys())
def test_what_can_be_differentiated_is_not_refused(build: Callable[[], nn.Module]) -> None:
    model, (x, y) = build(), batch()
    seen = observe(model, x, y)
    F.cross_entropy(model(x), y).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(seen.update[name], parameter.grad, rtol=1e-9, atol=1e-12)


def test_a_model_without_numbers_is_named() -> None:
    with pytest.raises(InvalidModel, match=r"meta device: 0\.weight, .*to_empty"):
        observe(mlp().to("meta"), *batch())


SENT: dict[str, tuple[Any, type[Exception], str]] = {
    "a list": (
        lambda task, params, x, y: [x],
        InvalidUpdate,
        "client '<lambda>' returned as tensors .*came list",
    ),
    "nothing": (lambda task, params, x, y: None, InvalidUpdate, "came NoneType"),
    "too little": (
        lambda task, params, x, y: {},
        InvalidUpdate,
        r"returned do not fit .*0\.weight is missing",
    ),
    "raises": (lambda task, params, x, y: 1 / 0, InvalidInput, "'<lambda>' failed: ZeroDivisionError"),
    "no client": ("OneGradient", InvalidInput, "client as a function, .*came 'OneGradient'"),
}


@pytest.mark.parametrize(("client", "kind", "says"), SENT.values(), ids=SENT.keys())
def test_a_client_that_sends_no_update_is_named(client: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        observe(mlp(), *batch(), client=client)


def test_old_weight_norm_works_once_its_weight_is_a_number_like_any_other() -> None:
    model, (x, y) = old_weight_norm().double(), batch()
    with torch.no_grad():
        model(x)
    seen = observe(model, x, y)
    F.cross_entropy(model(x), y).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(seen.update[name], parameter.grad, rtol=1e-9, atol=1e-12)


X, Y = batch()
soft = torch.full((3, 4), 0.25, dtype=torch.float64)
BATCHES: dict[str, tuple[Any, Any, str]] = {
    "x is a list": (X.tolist(), Y, "floating-point tensor with the batch first; came list"),
    "x is integers": (X.long(), Y, "floating-point tensor .* came torch.int64"),
    "x is complex": (X + 0j, Y, "floating-point tensor .* came torch.complex128"),
    "x is empty": (X[:0], Y[:0], r"came torch.float64 of shape \[0, 6\]"),
    "x is one record": (X[0], Y[:1], r"with the batch first; came .* \[6\]"),
    "x has NaN": (X / 0 * 0, Y, "finite in torch.float64; came NaN"),
    "x has infinity": (X.clone().fill_(float("inf")), Y, "NaN or infinite"),
    "x does not fit": (X[:, :5], Y, r"cannot take a batch of shape \[3, 5\]"),
    "x is sparse": (X.to_sparse(), Y, "dense pictures .*came torch.sparse_coo on cpu"),
    "x is meta": (X.to("meta"), Y, "on meta"),
    "y is meta": (X, Y.to("meta"), "on meta"),
    "y is a list": (X, [0, 1, 2], "one label for each of the 3 pictures; came list"),
    "y is too short": (X, Y[:2], r"one label for each of the 3 pictures; came shape \[2\]"),
    "y is a number": (X, torch.tensor(1), "one label for each of the 3 pictures"),
    "y is too high": (X, Y + 2, "labels from 0 to 3, since the model has 4 outputs; came 2 to 4"),
    "y is negative": (X, Y - 1, "labels from 0 to 3.* came -1 to 1"),
    "y is true or false": (X, Y > 0, "class indices .*came torch.bool"),
    "y is one-hot integers": (X, F.one_hot(Y, 4), r"class indices .*of shape \[3, 4\]"),
    "y is decimals": (X, Y.double(), r"probabilities of the 4 classes .*came torch.float64 of shape \[3\]"),
    "y is too narrow": (X, soft[:, :3], r"shape \[3, 4\]\); came torch.float64 of shape \[3, 3\]"),
    "y is too wide": (X, soft.repeat(1, 2), r"came torch.float64 of shape \[3, 8\]"),
    "y is 3-D": (X, soft[..., None], r"came torch.float64 of shape \[3, 4, 1\]"),
    "y has NaN": (X, soft * float("nan"), "finite probabilities"),
}


@pytest.mark.parametrize(("x", "y", "says"), BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_that_does_not_fit_is_named(x: Any, y: Any, says: str) -> None:
    model = mlp()
    before, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    with pytest.raises(InvalidBatch, match=says):
        observe(model, x, y)
    assert all(map(torch.equal, before, model.parameters()))
    assert torch.equal(torch.get_rng_state(), state)


def test_pixels_that_overflow_in_the_models_precision_are_refused() -> None:
    with pytest.raises(InvalidBatch, match=r"finite in torch.float32"):
        observe(mlp().float(), X.clone().fill_(1e300), Y)


def test_a_loss_that_cannot_take_the_labels_is_named() -> None:
    with pytest.raises(InvalidBatch, match=r"'cross_entropy' cannot take .*IndexError: Target 4"):
        observe(mlp(), X, Y + 2, loss=F.cross_entropy)
    with pytest.raises(InvalidBatch, match=r"one number from the loss 'CrossEntropyLoss'; came shape \[3\]"):
        observe(mlp(), X, Y, loss=nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(InvalidBatch, match="came float"):
        observe(mlp(), X, Y, loss=lambda output, y: 1.0)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("reveal", ["label", ["labels", "masks"], [""]])
def test_an_unknown_name_to_reveal_is_refused(reveal: Any) -> None:
    with pytest.raises(InvalidInput, match=r"any of labels, statistics, order; came '(label|masks|)'"):
        observe(mlp(), X, Y, reveal=reveal)


@pytest.mark.parametrize("reveal", [None, True, [None]])
def test_what_is_no_name_to_reveal_is_refused(reveal: Any) -> None:
    with pytest.raises(InvalidInput, match=r"reveal takes .*; came (None|True)"):
        observe(mlp(), X, Y, reveal=reveal)


def test_soft_labels_cannot_be_revealed_as_classes() -> None:
    with pytest.raises(InvalidBatch, match="class indices"):
        observe(mlp(), X, soft, reveal=["labels"])


@pytest.mark.parametrize(
    "normalization",
    [
        0.5,
        (0.5, 0.5),
        ((0.5,), (0.0,)),
        ((0.5,), (-1.0,)),
        ((0.5, 0.5), (1.0,)),
        ((), ()),
        ((float("nan"),), (1.0,)),
        ((0.0,), (float("inf"),)),
        (("a",), ("b",)),
        ((0.0,),),
        ((10**400,), (1,)),
    ],
)
def test_a_normalisation_that_is_none_is_refused(normalization: Any) -> None:
    with pytest.raises(InvalidInput, match="expected a normalisation"):
        observe(mlp(), X, Y, normalization=normalization)


def test_a_normalisation_of_other_channels_is_refused() -> None:
    x, y = zoo.pictures("faces", n=1, size=8)
    model = zoo.mlp(10, 3, 8)
    observe(model, x, y, normalization=((0.5,) * 3, (0.2,) * 3))
    with pytest.raises(InvalidBatch, match=r"one for each of the 3 channels .* came 2 values"):
        observe(model, x, y, normalization=((0.5,) * 2, (0.2,) * 2))


def test_everything_is_caught_by_one_name() -> None:
    assert issubclass(NotDeterministic, GradleakError)
    for kind in (InvalidModel, InvalidBatch, InvalidUpdate):
        assert issubclass(kind, InvalidInput)
        assert issubclass(kind, ValueError)
