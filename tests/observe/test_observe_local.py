"""Clients that train for several steps: what they send, what of it is known, and what it costs."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak import LocalAdam, LocalSGD, observe, zoo
from gradleak.errors import InvalidInput, InvalidModel
from gradleak.observe import Observation
from gradleak.observe import local as local_module
from gradleak.observe.drift import smooth_pixels
from gradleak.trees import add, norm, squared_norm, subtract

ORDER = [[3, 1, 2, 0, 4], [4, 2, 1, 3, 0]]


def net(seed: int = 0) -> nn.Module:
    return zoo.convnet(classes=5, size=8, width=4, seed=seed).double()


def batch(n: int = 5) -> tuple[Tensor, Tensor]:
    x, _ = zoo.pictures("faces", n=n, size=8, channels=3)
    return x.double(), torch.arange(n) % 5


def trained(model: nn.Module, client: Any, optimizer: Callable[..., Any], x: Tensor, y: Tensor) -> nn.Module:
    """The slow twin: torch's own optimizer in a plain training loop."""
    copied = copy.deepcopy(model)
    steps = optimizer(copied.parameters())
    for pick in client.picks(len(x)):
        steps.zero_grad()
        nn.functional.cross_entropy(copied(x[pick]), y[pick]).backward()
        steps.step()
    return copied


def apart(a: Any, b: Any) -> float:
    return float((norm(subtract(a, b)) / norm(b)).detach())


TWINS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "sgd": (LocalSGD(2, 2, 0.1, order=ORDER), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd over all": (LocalSGD(2, 9, 0.1, order="given"), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum and decay": (
        LocalSGD(3, 2, 0.05, 0.9, 0.01, order="given"),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    ),
    "adam": (
        LocalAdam(2, 2, 0.01, (0.8, 0.99), weight_decay=0.01, order=ORDER),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99), weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_the_update_is_that_of_torchs_own_optimizer(name: str) -> None:
    client, optimizer = TWINS[name]
    model = net()
    seen = observe(model, *batch(), client=client)
    twin = trained(model, client, optimizer, *batch())
    after = {name: p.detach() for name, p in twin.named_parameters()}
    assert apart(add(seen.params, seen.update), after) < 1e-14
    assert apart(seen.update, subtract(after, seen.params)) < 1e-12
    assert seen.steps == len(client.picks(5))


def test_one_step_of_the_whole_batch_is_fedsgd_to_rounding() -> None:
    one = observe(net(), *batch())
    for client in (LocalSGD(1, 5, 0.1), LocalSGD(1, 8, 3e-3, 0.9), LocalSGD(1, 5, 0.1, 0.0, 0.2)):
        local = observe(net(), *batch(), client=client)
        gradient = local.gradient
        assert gradient is not None
        assert apart(gradient, one.update) < 1e-11
        assert apart(local.as_one_gradient().update, one.update) < 1e-11
        assert local.as_one_gradient().client == gl.OneGradient()
    assert apart(observe(net(), *batch(), client=LocalSGD(2, 2, 0.1)).gradient, one.update) > 1e-2


def test_the_update_of_adam_is_no_gradient() -> None:
    seen = observe(net(), *batch(), client=LocalAdam(1, 5, 0.1))
    assert seen.gradient is None
    assert seen.as_one_gradient() is seen


@pytest.mark.parametrize("name", TWINS)
def test_replaying_the_steps_gives_the_same_derivative(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = observe(net(), *batch(), client=TWINS[name][0])
    task = dataclasses.replace(seen.task, transformed=False)

    def slope(at_once: int) -> tuple[Tensor, Tensor]:
        monkeypatch.setattr(local_module, "AT_ONCE", at_once)
        x, y = batch()
        soft = nn.functional.one_hot(y, 5).double().mul(0.9).add(0.02)
        leaves = (x.requires_grad_(), soft.requires_grad_())
        length = squared_norm(seen.client(task, seen.params, *leaves))
        return torch.autograd.grad(length, leaves)

    for whole, replayed in zip(slope(100), slope(0), strict=True):
        assert torch.allclose(whole, replayed, rtol=1e-10)


def kept_for_backward(update: Any) -> int:
    """Bytes that the graph behind an update holds on to."""
    nodes = {leaf.grad_fn for leaf in update.values()}
    queue, storages = list(nodes), {}
    while queue:
        node = queue.pop()
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for tensor in (*saved, *getattr(node, "saved_tensors", ())):
            if isinstance(tensor, Tensor):
                storages[tensor.untyped_storage().data_ptr()] = tensor
        fresh = {parent for parent, _ in node.next_functions if parent is not None} - nodes
        nodes |= fresh
        queue += fresh
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def test_replaying_keeps_the_memory_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.convnet(classes=5, size=16, width=4, seed=0).double()
    large, y = zoo.pictures("faces", n=5, size=16, channels=3)[0].double(), batch()[1]
    seen = observe(model, large, y, client=LocalSGD(20, 5, 0.01))
    task = dataclasses.replace(seen.task, transformed=False)

    def kept(at_once: int) -> int:
        monkeypatch.setattr(local_module, "AT_ONCE", at_once)
        return kept_for_backward(seen.client(task, seen.params, large.clone().requires_grad_(), y))

    whole, replayed = kept(100), kept(0)
    weights = 8 * sum(p.numel() for p in model.parameters())
    assert replayed < 20 * weights * 1.2 + 8 * large.numel()  # what each of 20 steps began with
    assert whole > 10 * replayed


def test_a_shuffled_order_is_drawn_by_the_client_and_not_known() -> None:
    shuffled, given = LocalSGD(2, 2, 0.1), LocalSGD(2, 2, 0.1, order="given")
    seen = observe(net(), *batch(), client=shuffled)
    assert seen.client == shuffled
    assert apart(seen.update, observe(net(), *batch(), client=given).update) > 1e-6
    assert apart(seen.update, observe(net(), *batch(), client=shuffled, rng=1).update) > 1e-6
    assert apart(seen.update, observe(net(), *batch(), client=shuffled).update) == 0
    told = observe(net(), *batch(), client=shuffled, reveal=["order"])
    assert told.client != shuffled
    assert apart(told.simulate(*batch()), told.update) < 1e-14
    assert apart(seen.simulate(*batch()), seen.update) > 1e-6


def test_weights_that_came_back_make_the_same_observation() -> None:
    client = LocalSGD(2, 2, 0.1, order=ORDER)
    model = net()
    after = trained(model, client, TWINS["sgd"][1], *batch())
    seen = Observation.from_weights(model, after.state_dict(), client=client, x_shape=(5, 3, 8, 8))
    assert apart(seen.update, observe(model, *batch(), client=client).update) < 1e-12
    assert seen.statistics is None


def test_weighted_records_are_those_of_a_step_without_the_others() -> None:
    seen = observe(net(), *batch())
    x, y = batch()
    some = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    for task in (seen.task, dataclasses.replace(seen.task, transformed=False)):
        blended = task.weighted_gradient(seen.params, x, y, some)
        alone = task.gradient(seen.params, x[[0, 2]], y[[0, 2]])
        assert apart(blended, alone) < 1e-12


def test_the_drift_grows_with_rate_and_steps_and_is_zero_for_one_gradient() -> None:
    def drift(client: Any) -> float:
        value = observe(net(), *batch(), client=client).drift
        assert value is not None
        return value

    base = drift(LocalSGD(1, 5, 0.01))
    assert drift(gl.OneGradient()) == 0
    assert drift(LocalSGD(1, 5, 0.1)) == pytest.approx(10 * base)
    assert drift(LocalSGD(4, 5, 0.01)) == pytest.approx(4 * base)
    assert drift(LocalSGD(2, 5, 0.01, 0.5)) == pytest.approx(2.5 * base)
    assert drift(LocalAdam(1, 5, 0.01)) > 0


def test_the_drift_of_a_linear_network_is_that_of_its_pixels() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).double()
    seen = observe(model, *batch(), client=LocalSGD(3, 2, 0.02))
    pixels = smooth_pixels((5, 3, 8, 8), torch.Generator().manual_seed(0))
    assert seen.drift == pytest.approx(0.02 * 9 * (float(pixels.square().sum()) / 5 + 1))


REFUSED: dict[str, Callable[[], Any]] = {
    "a rate of zero": lambda: LocalSGD(1, 1, 0.0),
    "a negative rate": lambda: LocalSGD(1, 1, -0.1),
    "an infinite rate": lambda: LocalSGD(1, 1, float("inf")),
    "no epoch": lambda: LocalSGD(0, 1, 0.1),
    "half a batch": lambda: LocalSGD(1, 0.5, 0.1),  # type: ignore[arg-type]
    "a momentum of one": lambda: LocalSGD(1, 1, 0.1, 1.0),
    "a negative decay": lambda: LocalSGD(1, 1, 0.1, 0.0, -1.0),
    "an unknown order": lambda: LocalSGD(1, 1, 0.1, order="random"),
    "one order for two epochs": lambda: LocalSGD(2, 1, 0.1, order=[[0, 1]]),
    "an order that repeats": lambda: LocalSGD(1, 1, 0.1, order=[[0, 0]]),
    "an order of words": lambda: LocalSGD(1, 1, 0.1, order=[["a"]]),  # type: ignore[list-item]
    "a beta of one": lambda: LocalAdam(1, 1, 0.1, (0.9, 1.0)),
    "an eps of zero": lambda: LocalAdam(1, 1, 0.1, eps=0.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_clients_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected .*; came"):
        REFUSED[name]()


def test_an_order_of_other_records_is_refused() -> None:
    with pytest.raises(InvalidInput, match="expected 5 records, of which the client's order speaks; came 3"):
        observe(net(), *batch(3), client=LocalSGD(2, 2, 0.1, order=ORDER))


def test_a_layer_without_a_second_derivative_is_found_in_replayed_steps_too() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, slope: Tensor) -> Tensor:
            return slope * ctx.saved_tensors[0].cos()

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(x)  # type: ignore[no-untyped-call, no-any-return]

    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), Layer(), nn.Linear(6, 5)).double()
    for client in (LocalSGD(1, 5, 0.1), LocalSGD(4, 2, 0.1)):
        with pytest.raises(InvalidModel, match="Layer"):
            observe(model, *batch(), client=client)


# --- sums of clients


def test_a_sum_is_the_mean_of_what_its_clients_send() -> None:
    x, y = batch(4)
    each = LocalSGD(2, 1, 0.1, order=[[1, 0], [0, 1]])
    seen = observe(net(), x, y, client=gl.Summed(2, each))
    parts = [observe(net(), x[part], y[part], client=each).update for part in (slice(0, 2), slice(2, 4))]
    assert apart(seen.update, {n: (parts[0][n] + parts[1][n]) / 2 for n in parts[0]}) < 1e-13
    assert seen.steps == 4
    one = observe(net(), x, y)
    plain = observe(net(), x, y, client=gl.Summed(2))
    assert apart(plain.update, one.update) < 1e-13
    assert plain.plainest.client == gl.OneGradient()


def test_a_sum_of_unlike_clients_is_no_gradient() -> None:
    x, y = batch(4)
    slow, fast = LocalSGD(1, 2, 0.1), LocalSGD(1, 2, 1.0)
    alike = observe(net(), x, y, client=gl.Summed(2, (slow, slow)))
    assert alike.gradient is not None
    assert apart(alike.gradient, observe(net(), x, y).update) < 1e-11
    for mixed in ((slow, fast), (gl.OneGradient(), LocalSGD(3, 2, 1.0))):
        seen = observe(net(), x, y, client=gl.Summed(2, mixed))
        assert seen.gradient is None
        assert seen.plainest is seen
    shuffled = observe(net(), x, y, client=gl.Summed(2, LocalSGD(2, 1, 0.1)), reveal=["order"])
    assert isinstance(shuffled.client, gl.Summed)
    assert isinstance(shuffled.client.each, tuple)  # every client in an order of its own
    assert shuffled.gradient is not None


@pytest.mark.parametrize(
    "build",
    [
        lambda: gl.Summed(0),
        lambda: gl.Summed(10**9),
        lambda: gl.Summed(2, "a"),  # type: ignore[arg-type]
        lambda: gl.Summed(2, (gl.OneGradient(),)),
        lambda: observe(net(), *batch(5), client=gl.Summed(2)),
        lambda: Observation.from_weights(net(), [], client=LocalSGD(1, 1, 0.1), x_shape=(1, 3, 8, 8)),  # type: ignore[arg-type]
        lambda: Observation.from_weights(net(), net().state_dict(), client=None, x_shape=(1, 3, 8, 8)),  # type: ignore[arg-type]
        lambda: LocalAdam(1, 1, 0.1, betas=0.9),  # type: ignore[arg-type]
        lambda: LocalSGD(1, 1, 0.1, order=[[0.7, 1.2]]),  # type: ignore[list-item]
        lambda: LocalSGD(1, 1, 10**400),
    ],
)
def test_what_is_no_client_is_refused(build: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInput, match=r"expected .*came"):
        build()


def test_a_hundred_million_steps_are_counted_at_once() -> None:
    client = LocalSGD(10**8, 1, 0.1, 0.9)
    assert client.reach(5) == pytest.approx(0.1 * 10 * 5e8)
    assert LocalSGD(2, 2, 0.1, 0.5).reach(3) == pytest.approx(0.1 * (1 + 1.5 + 1.75 + 1.875))
