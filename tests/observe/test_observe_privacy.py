"""The private batch is never inside an observation, and no attack can reach it."""

import gc
import pickle
import types
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak import observe, zoo
from gradleak.observe import Observation

# What every module's globals would lead to, and no observation owns.
_FOREIGN = (types.ModuleType, type, types.BuiltinFunctionType, types.FrameType)


def reachable(root: object) -> Iterator[object]:
    """Everything that can be reached from ``root``: fields, dicts, module attributes, closures."""
    seen, queue = {id(root)}, [root]
    while queue:
        item = queue.pop()
        yield item
        parts = gc.get_referents(item)
        if isinstance(item, types.FunctionType):  # its own cells and defaults, not its module's globals
            parts = [item.__closure__, item.__defaults__, item.__kwdefaults__, item.__dict__]
        elif isinstance(item, Tensor):  # what autograd would keep is no Python object
            parts += [item.grad, item._base, item.grad_fn]
        for part in parts:
            if id(part) not in seen and not isinstance(part, _FOREIGN):
                seen.add(id(part))
                queue.append(part)


def tensors_in(root: object) -> list[Tensor]:
    return [item for item in reachable(root) if isinstance(item, Tensor)]


def holds(root: object, secret: Tensor) -> bool:
    """Whether a tensor in there lies in the secret's memory, or has its numbers in any shape."""
    for tensor in tensors_in(root):
        if tensor.untyped_storage().data_ptr() == secret.untyped_storage().data_ptr():
            return True
        same_size = tensor.numel() == secret.numel()
        if same_size and torch.allclose(tensor.detach().double().flatten(), secret.double().flatten()):
            return True
    return False


def faces(n: int = 2) -> tuple[Tensor, Tensor]:
    x, y = zoo.pictures("faces", n=n, size=8)
    return x.double(), y + 3


class Remembers(nn.Module):
    """A model that keeps its last input and its features, as feature extractors do."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(192, 10)
        self.last: Tensor | None = None
        self.first: Tensor | None = None
        self.features: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        self.first = x if self.first is None else self.first
        self.features.append(x.flatten(1))
        return self.out(x.flatten(1))


def test_the_search_finds_what_is_hidden() -> None:
    x, _ = faces()

    def closure() -> Tensor:
        return x

    for hiding in ({"a": [x.float().flatten()]}, closure, types.SimpleNamespace(a=(closure,)), x[0]):
        assert holds(hiding, x)
    assert not holds({"a": x + 1}, x)
    leaf = torch.zeros(1)
    leaf.grad = torch.ones(1)
    assert holds([leaf], torch.ones(1))


@pytest.mark.parametrize("build", [lambda: zoo.lenet(10, 3, 8), lambda: zoo.mlp(10, 3, 8), Remembers])
def test_the_batch_is_not_in_the_observation(build: Any) -> None:
    x, y = faces()
    model = build().double()
    seen = observe(model, x, y)
    assert len(tensors_in(seen)) >= 2 * len(seen.params)
    assert not holds(seen, x)
    assert not holds(seen, y)
    assert holds(observe(model, x, y, reveal=["labels"]), y)
    if isinstance(model, Remembers):
        assert model.last is None  # the user's own never ran


def test_not_even_what_the_users_model_had_kept_of_it() -> None:
    x, y = faces()
    model = Remembers().double()
    for kept in (model.out, model):
        kept.ours = {"deep": [types.SimpleNamespace(x=x.clone())], "y": (y,)}
        kept.loose = [nn.Parameter(x.clone()), x.numpy().shape]
    model.last = model.first = x
    with torch.no_grad():
        model(x)
    assert holds(model, x)
    update = dict(observe(model, x, y).update)
    for seen in (observe(model, x, y), Observation.from_update(model, update, x_shape=x.shape)):
        for there in (seen, pickle.loads(pickle.dumps(seen))):
            assert not holds(there, x)
            assert not holds(there, y)
        assert seen.model.loose[1] == x.shape  # plain values stay
    assert model.last is x
    assert torch.equal(model.features[-1], x.flatten(1))


def test_labels_and_pixels_that_are_in_a_client_are_not_handed_on() -> None:
    x, y = faces()

    class Victim(gl.OneGradient):
        data = (x, y)

        def __init__(self) -> None:
            object.__setattr__(self, "batch", (x, y))

    seen = observe(zoo.mlp(10, 3, 8).double(), x, y, client=Victim(), assumed=gl.OneGradient())
    assert not holds(seen, x)
    assert not holds(seen, y)


class Tripwire(Tensor):
    """A batch that raises once it is armed, whatever is done with it."""

    armed: ClassVar[bool] = False

    @classmethod
    def __torch_function__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if cls.armed:
            raise RuntimeError(f"someone touched the private batch: {func}")
        return super().__torch_function__(func, kinds, args, kwargs or {})


@pytest.fixture
def armed() -> Iterator[Observation]:
    x, y = faces(1)
    x, y = x.as_subclass(Tripwire), y.as_subclass(Tripwire)
    seen = observe(zoo.lenet(10, 3, 8, seed=0).double(), x, y, reveal=["labels"])
    Tripwire.armed = True
    try:
        for private in (x, y):
            with pytest.raises(RuntimeError, match="touched"):
                private.sum()
        yield seen
    finally:
        Tripwire.armed = False


def test_a_subclass_does_not_pass_its_type_on(armed: Observation) -> None:
    assert {type(item) for item in tensors_in(armed)} == {Tensor, nn.Parameter}


def test_simulating_touches_no_private_batch(armed: Observation) -> None:
    x = torch.rand(armed.x_shape, dtype=torch.float64)
    update = armed.simulate(x, torch.zeros(1, dtype=torch.int64))
    assert list(update) == list(armed.update)


@pytest.mark.parametrize(
    "attack",
    [
        gl.attacks.dlg(evaluations=5),
        gl.attacks.idlg(evaluations=5),
        gl.attacks.inverting_gradients(steps=5),
        gl.attacks.inverting_gradients(steps=3, trials=2, labels=gl.labels.idlg()),
    ],
    ids=lambda attack: f"{attack.name}, {attack.trials}",
)
def test_an_attack_touches_no_private_batch(armed: Observation, attack: Any) -> None:
    found = attack(armed, rng=0)
    assert found.x is not None
    assert found.x.shape == armed.x_shape
    assert type(found.x) is Tensor
