"""The update is autograd's own, and nothing of the user's is changed by looking."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradleak import LocalSGD, observe, zoo
from gradleak.observe import OneGradient
from gradleak.trees import flatten

SMALL: dict[str, Callable[[], nn.Module]] = {
    "lenet": lambda: zoo.lenet(5, 3, 16, seed=1),
    "cnn6": lambda: zoo.cnn6(5, 3, 16, seed=1),
    "cnn6_d": lambda: zoo.cnn6_d(5, 3, 16, seed=1),
    "convnet": lambda: zoo.convnet(5, 3, 16, width=4, seed=1),
    "mlp": lambda: zoo.mlp(5, 3, 16, seed=1),
    "resnet": lambda: zoo.resnet(5, 3, 16, depth=8, width=4, seed=1),
}


def batch(n: int, *shape: int, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *(shape or (3, 16, 16)), generator=rng, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=rng)


def backward(
    model: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
) -> dict[str, Tensor]:
    """The slow twin: what a training loop finds in .grad."""
    model.zero_grad()
    loss(model(x), y).backward()  # type: ignore[no-untyped-call]
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_close(came: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(came) == list(expected)
    for name, leaf in expected.items():
        torch.testing.assert_close(came[name], leaf, rtol=1e-9, atol=1e-12)


def test_no_model_of_the_zoo_is_left_out() -> None:
    assert set(SMALL) == set(zoo.MODELS)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("build", SMALL.values(), ids=SMALL.keys())
def test_the_update_is_autograds_gradient(build: Callable[[], nn.Module], n: int) -> None:
    model = build().double()
    x, y = batch(n)
    seen = observe(model, x, y)
    assert_close(dict(seen.update), backward(model, x, y))
    assert list(seen.update) == list(seen.params) == [name for name, _ in model.named_parameters()]
    assert set(seen.constants) == {name for name, _ in model.named_buffers()}
    assert (seen.classes, seen.batch_size, seen.x_shape) == (5, n, (n, 3, 16, 16))
    assert isinstance(seen.client, OneGradient)
    # and so is what the attacker simulates for the right batch, by either way of differentiating
    assert_close(seen.simulate(x, y), dict(seen.update))


def test_soft_labels() -> None:
    model = SMALL["mlp"]().double()
    x, y = batch(4)
    soft = torch.rand(4, 5, dtype=torch.float64).softmax(1)
    assert_close(dict(observe(model, x, soft).update), backward(model, x, soft))
    assert_close(dict(observe(model, x, F.one_hot(y, 5).double()).update), dict(observe(model, x, y).update))


def test_a_loss_of_ones_own() -> None:
    model = SMALL["mlp"]().double()
    x, _ = batch(3)
    y = torch.rand(3, 5, dtype=torch.float64)
    assert_close(dict(observe(model, x, y, loss=F.mse_loss).update), backward(model, x, y, F.mse_loss))


def test_labels_of_another_loss_need_be_no_classes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 1)).double()
    x, _ = batch(3, 6)
    y = torch.tensor([7, 0, 3])

    def squares(output: Tensor, y: Tensor) -> Tensor:
        return (output[:, 0] - y).square().mean()

    seen = observe(model, x, y, loss=squares, reveal=["labels"])
    assert_close(dict(seen.update), backward(model, x, y, squares))
    assert seen.labels is not None
    assert seen.labels.tolist() == [7, 0, 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_may_be_integers_of_any_width(dtype: torch.dtype) -> None:
    model = SMALL["mlp"]().double()
    x, y = batch(3)
    assert_close(dict(observe(model, x, y.to(dtype)).update), dict(observe(model, x, y).update))


def test_frozen_parameters_and_buffers_are_constants() -> None:
    model = SMALL["resnet"]().double()
    frozen = [name for name, _ in model.named_parameters()][:3]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    x, y = batch(2)
    seen = observe(model, x, y)
    assert_close(dict(seen.update), backward(model, x, y))
    buffers = dict(model.named_buffers())
    assert set(seen.constants) == {*frozen, *buffers}
    assert all(torch.equal(seen.constants[name], model.get_parameter(name)) for name in frozen)
    assert all(torch.equal(seen.constants[name], buffer) for name, buffer in buffers.items())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.out = nn.Linear(6, 4), nn.Linear(4, 6), nn.Linear(6, 5)
        self.again = nn.Linear(6, 4)
        self.again.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.up(self.again(self.up(self.down(x)).tanh())))


def test_tied_weights() -> None:
    model = Tied().double()
    x, y = batch(3, 6)
    seen = observe(model, x, y)
    assert "again.weight" not in seen.update
    assert_close(dict(seen.update), backward(model, x, y))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def test_recurrent_layers_which_keep_lists_of_their_weights() -> None:
    model = Recurrent().double()
    x, y = batch(3, 7, 4)
    assert_close(dict(observe(model, x, y).update), backward(model, x, y))


def test_new_weight_norm() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))).double()
    x, y = batch(3, 6)
    seen = observe(model, x, y)
    assert {"0.bias", "0.parametrizations.weight.original0"} < set(seen.update)
    assert_close(dict(seen.update), backward(model, x, y))


def test_relu_in_place_is_the_same_as_not_and_stays_in_place() -> None:
    def net(inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(4 * 14 * 14, 5), nn.ELU(1, inplace)
        ).double()

    x, y = batch(2)
    model = net(inplace=True)
    seen, plain = observe(model, x, y), observe(net(inplace=False), x, y)
    assert torch.equal(flatten(seen.update), flatten(plain.update))
    assert_close(dict(seen.update), backward(model, x, y))
    assert model[1].inplace is model[4].inplace is True  # type: ignore[index]


def test_activations_in_place_where_torch_alone_would_refuse_them() -> None:
    def net(inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        layers = (
            nn.LeakyReLU(0.1, inplace),
            nn.Linear(6, 7),
            nn.Sigmoid(),
            nn.ReLU(inplace),
            nn.Linear(7, 5),
        )
        return nn.Sequential(*layers).double()

    x, y = batch(3, 6)
    seen = observe(net(inplace=True), x, y)
    assert_close(dict(seen.update), backward(net(inplace=False), x, y))
    assert torch.equal(x, batch(3, 6)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_follows_the_model(dtype: torch.dtype) -> None:
    model = SMALL["lenet"]().to(dtype)
    x, y = batch(2)
    for given in (x, x.float()):
        seen = observe(model, given, y, reveal=["labels"])
        assert {leaf.dtype for leaf in (*seen.update.values(), *seen.params.values())} == {dtype}
        assert_close(dict(seen.update), backward(model, given.to(dtype), y))
        assert seen.labels is not None
        assert seen.labels.dtype == torch.int64


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients_around_it_change_nothing(mode: Callable[[], object]) -> None:
    model = SMALL["lenet"]().double()
    x, y = batch(2)
    plain = observe(model, x, y)
    with mode():  # type: ignore[attr-defined]
        seen = observe(model, x.clone(), y.clone())
    assert torch.equal(flatten(seen.update), flatten(plain.update))
    assert not any(leaf.is_inference() for leaf in (*seen.params.values(), *seen.update.values()))


def test_later_changes_to_what_the_user_holds_do_not_reach_the_observation() -> None:
    model = SMALL["resnet"]().double()
    x, y = batch(2)
    seen = observe(model, x, y, reveal=["labels"])
    groups = [seen.params, seen.update, seen.constants]
    before = [flatten({n: leaf.double() for n, leaf in group.items()}) for group in groups]
    simulated = flatten(seen.simulate(*batch(2, seed=1)))
    model.train()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers(), x, y):
            tensor.zero_()
    model.linear.weight.data = torch.zeros(1, 1)  # type: ignore[union-attr]
    model.float()
    model.conv = nn.Identity()
    after = [flatten({n: leaf.double() for n, leaf in group.items()}) for group in groups]
    assert all(map(torch.equal, before, after))
    assert torch.equal(flatten(seen.simulate(*batch(2, seed=1))), simulated)
    assert not any(module.training for module in seen.model.modules())
    assert seen.labels is not None
    assert torch.equal(seen.labels, batch(2)[1])
    assert seen.to(torch.float32).like.dtype == torch.float32


def test_the_observations_model_holds_no_numbers_of_its_own() -> None:
    model = SMALL["resnet"]().double()
    x, y = batch(2)
    backward(model, x, y)
    structure = observe(model, x, y).model
    mine = {id(t) for t in (*model.parameters(), *model.buffers(), *model.modules())}
    assert not mine & {id(t) for t in (*structure.parameters(), *structure.buffers(), *structure.modules())}
    assert all(t.isnan().all() for t in structure.state_dict().values() if t.is_floating_point())
    assert all(p.grad is None for p in structure.parameters())


def snapshot(model: nn.Module) -> list[object]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        [(n, id(p), p.tolist(), p.requires_grad, p._version) for n, p in model.named_parameters()],
        [(id(p.grad), None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
        [(n, id(b), b.tolist(), b._version) for n, b in model.named_buffers()],
        [(n, id(m), m.training, sorted(vars(m))) for n, m in model.named_modules()],
        [[(name, dict(getattr(m, name))) for name in hooks] for m in model.modules()],
        torch.get_rng_state().tolist(),
    ]


def mixed_model() -> nn.Module:
    """Everything that could be disturbed: gradients, frozen weights, odd training flags, hooks, in place."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(4 * 14 * 14, 5),
    ).double().eval()  # fmt: skip
    model[0].train()
    model[0].bias.requires_grad_(False)
    model[5].register_forward_hook(lambda *_: None)
    model(batch(2)[0]).sum().backward()
    return model


def test_the_users_model_and_the_random_state_come_back_as_they_were() -> None:
    model = mixed_model()
    x, y = batch(2)
    before = snapshot(model)
    seen = observe(model, x, y)
    assert snapshot(model) == before
    seen.simulate(x, y)
    assert snapshot(model) == before
    assert torch.equal(x, batch(2)[0])
    assert torch.equal(y, batch(2)[1])


def test_they_come_back_in_train_mode_and_after_a_refusal_too() -> None:
    model = mixed_model().train()
    before = snapshot(model)
    seen = observe(model, *batch(2), client=LocalSGD(2, 1, 0.1), reveal=["statistics", "order"])
    assert snapshot(model) == before
    seen.simulate(*batch(2))
    assert snapshot(model) == before
    with pytest.raises(Exception, match="labels from 0 to 4"):
        observe(model, batch(2)[0], torch.tensor([0, 5]))
    assert snapshot(model) == before


def test_a_model_that_draws_what_it_does_not_use_leaves_the_random_state_alone() -> None:
    class Idle(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(3)
            return super().forward(x)

    before = torch.get_rng_state()
    observe(Idle(6, 5).double(), *batch(2, 6))
    model = Idle(6, 5)
    before = torch.get_rng_state()
    observe(model.double(), *batch(2, 6))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_attacker_may_believe_in_another_client() -> None:
    class Doubled(OneGradient):
        def __call__(self, *args: object) -> dict[str, Tensor]:
            return {name: 2 * leaf for name, leaf in super().__call__(*args).items()}  # type: ignore[arg-type]

    model = SMALL["mlp"]().double()
    x, y = batch(2)
    plain, doubled = observe(model, x, y), observe(model, x, y, client=Doubled())
    assert torch.equal(flatten(doubled.update), 2 * flatten(plain.update))
    assert torch.equal(flatten(doubled.simulate(x, y)), flatten(doubled.update))
    naive = observe(model, x, y, client=Doubled(), assumed=OneGradient())
    assert torch.equal(flatten(naive.update), flatten(doubled.update))
    assert torch.equal(flatten(naive.simulate(x, y)), flatten(plain.update))


def test_what_the_server_knows_is_said() -> None:
    model = SMALL["mlp"]()
    x, y = batch(2)
    assert "labels" not in observe(model, x, y).knows
    assert "labels" in observe(model, x, y, reveal="labels").knows
    assert "labels" in repr(observe(model, x, y, reveal={"labels"}))
    weights = sum(p.numel() for p in model.parameters())
    assert f"{weights:,} parameters" in repr(observe(model, x, y))


def test_another_precision_keeps_the_facts() -> None:
    model = SMALL["resnet"]()
    x, y = batch(2)
    seen = observe(model, x, y, reveal=["labels"])
    double = seen.to(torch.float64)
    assert {t.dtype for t in (*double.params.values(), *double.update.values())} == {torch.float64}
    assert double.constants["norm.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(flatten(double.to(torch.float32).update), flatten(seen.update))
    assert (double.knows, double.x_shape, double.domain) == (seen.knows, seen.x_shape, seen.domain)


@pytest.mark.gpu
def test_the_device_follows_the_model() -> None:
    model = SMALL["lenet"]().double()
    x, y = batch(2)
    there, here = observe(model.cuda(), x, y, reveal=["labels"]), observe(model.cpu(), x, y)
    assert there.labels is not None
    tensors = (*there.params.values(), *there.update.values(), there.labels)
    assert {t.device.type for t in tensors} == {"cuda"}
    torch.testing.assert_close(flatten(there.update).cpu(), flatten(here.update), rtol=1e-8, atol=1e-10)
