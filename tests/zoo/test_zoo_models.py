from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradleak import zoo
from gradleak.errors import InvalidInput
from gradleak.zoo import MODELS, cnn6, cnn6_d, convnet, lenet, mlp, resnet
from gradleak.zoo.building import seeded

VARIANTS: dict[str, Callable[..., nn.Sequential]] = {
    **MODELS,
    "lenet default": lambda *a, **k: lenet(*a, init="default", **k),
    "convnet avg": lambda *a, **k: convnet(*a, pool="avg", **k),
    "convnet max": lambda *a, **k: convnet(*a, pool="max", **k),
    "mlp leaky": lambda *a, **k: mlp(*a, activation="leaky_relu", **k),
    "mlp sigmoid": lambda *a, **k: mlp(*a, activation="sigmoid", **k),
    "mlp tanh": lambda *a, **k: mlp(*a, activation="tanh", **k),
    "resnet8": lambda *a, **k: resnet(*a, depth=8, **k),
    "resnet20 group": lambda *a, **k: resnet(*a, depth=20, norm="group", **k),
    "resnet18 none": lambda *a, **k: resnet(*a, norm="none", **k),
}
every_variant = pytest.mark.parametrize("build", VARIANTS.values(), ids=VARIANTS.keys())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def bits(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


TEXTS = {"TEXT_MODELS", "bert", "gpt2", "public_sentences", "sentences", "tokenizer"}


def test_the_room_shows_exactly_this() -> None:
    shown = {"lenet", "cnn6", "cnn6_d", "convnet", "mlp", "resnet", "pictures", "public"}
    assert set(zoo.__all__) - TEXTS == shown | {"MODELS", "PICTURES"}
    assert all(MODELS[name] is getattr(zoo, name) for name in MODELS)
    assert set(MODELS) == shown - {"pictures", "public"}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_the_first_line_describes_the_model(build: Callable[..., nn.Module]) -> None:
    first, *rest = (build.__doc__ or "").splitlines()
    assert first.endswith(".")
    assert rest[0] == ""


@pytest.mark.parametrize(
    ("model", "count"),
    [
        # three convolutions (3·12·25+12, twice 12·12·25+12), then 768 features
        (lambda: lenet(10), 912 + 2 * 3612 + 7690),
        (lambda: lenet(), 912 + 2 * 3612 + 76_900),
        (lambda: cnn6(), 576 + 3888 + 2 * 11_664 + 20_736 + 73_728 + 3200),
        (lambda: cnn6_d(), 576 + 2160 + 6480 + 11_664 + 20_736 + 73_728 + 3200),
        (lambda: cnn6(10), 576 + 3888 + 2 * 11_664 + 20_736 + 73_728 + 32_000),
        # 3→32→32→64→64 at 3x3 with biases, 64·8·8 features
        (lambda: convnet(), 896 + 9248 + 18_496 + 36_928 + 40_970),
        (lambda: convnet(pool="max"), 896 + 9248 + 18_496 + 36_928 + 40_970),
        # the small one of the label experiments: 512 features
        (lambda: convnet(10, 1, 16, width=16), 160 + 2320 + 4640 + 9248 + 5130),
        (lambda: mlp(), 786_688 + 65_792 + 2570),
        (lambda: mlp(sizes=(64, 128, 128)), 8320 + 16_512 + 1290),
        (lambda: mlp(7, sizes=(20,)), 147),
        # the counts that are quoted for the CIFAR ResNets with projections
        (lambda: resnet(width=64), 11_173_962),
        (lambda: resnet(depth=20), 272_474),
        (lambda: resnet(depth=20, norm="group"), 272_474),
        # one bias instead of a scale and a shift for each of 784 channels
        (lambda: resnet(depth=20, norm="none"), 272_474 - 784),
    ],
)
def test_parameters_are_as_many_as_counted_by_hand(model: Callable[[], nn.Module], count: int) -> None:
    assert parameters(model()) == count


def test_lenet_with_ten_classes_is_the_one_others_report() -> None:
    assert parameters(lenet(10)) == 15_826


def test_the_papers_sizes_between_layers() -> None:
    x = torch.rand(1, 3, 32, 32)
    assert [lenet()[:i](x).shape[-1] for i in (1, 3, 5)] == [16, 8, 8]
    assert [cnn6()[:i](x).shape[-1] for i in (1, 3, 5, 7, 9, 11)] == [17, 9, 9, 9, 5, 5]
    assert cnn6()[:2](x).numel() == 3468
    assert cnn6()[:3](x).numel() == 2916
    assert cnn6_d()[:3](x).numel() == 1620
    assert cnn6()[:-1](x).numel() == cnn6_d()[:-1](x).numel() == 3200


def test_rgap_networks_have_no_biases_and_can_be_inverted() -> None:
    for model in (cnn6(), cnn6_d()):
        assert all(name.endswith("weight") for name, _ in model.named_parameters())
        slopes = [m.negative_slope for m in model if isinstance(m, nn.LeakyReLU)]
        assert slopes == [0.2] * 6


@every_variant
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (2, 4), (3, 5), (1, 7), (3, 33)])
def test_logits_for_any_input_size(build: Callable[..., nn.Module], channels: int, size: int) -> None:
    assert build(7, channels, size, seed=0)(torch.rand(2, channels, size, size)).shape == (2, 7)


@pytest.mark.parametrize("build", [lenet, cnn6, cnn6_d, convnet, mlp])
def test_a_chain_is_flat_and_named(build: Callable[..., nn.Module]) -> None:
    model = build()
    assert all(not list(child.children()) for child in model.children())
    names = [name for name, _ in model.named_children()]
    assert names[-1] == "linear"
    assert not any(name.isdigit() for name in names)


@every_variant
def test_a_model_comes_in_eval_mode_and_looks_at_each_picture_alone(build: Callable[..., nn.Module]) -> None:
    model = build(4, 3, 8, seed=0).double()
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    assert not any(m.training for m in model.modules())
    torch.testing.assert_close(model(x)[:1], model(x[:1]))
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())


@every_variant
def test_double_backward_is_the_slope_of_the_mismatch(build: Callable[..., nn.Module]) -> None:
    model = build(3, 1, 8, seed=1).double()
    g = torch.Generator().manual_seed(0)
    x, direction = (torch.randn(1, 1, 8, 8, generator=g, dtype=torch.float64) for _ in range(2))
    probe = [torch.randn(p.shape, generator=g, dtype=torch.float64) for p in model.parameters()]

    def along_probe(x: Tensor) -> Tensor:
        grads = torch.autograd.grad(F.softplus(model(x)).sum(), list(model.parameters()), create_graph=True)
        return torch.stack([(a * b).sum() for a, b in zip(grads, probe, strict=True)]).sum()

    x.requires_grad_()
    (slope,) = torch.autograd.grad(along_probe(x), x)
    eps = 1e-6
    measured = (along_probe(x + eps * direction) - along_probe(x - eps * direction)) / (2 * eps)
    assert measured.abs() > 1e-6
    torch.testing.assert_close((slope * direction).sum(), measured, rtol=1e-4, atol=1e-8)


def test_lenet_inits() -> None:
    uniform = lenet(seed=0)
    for p in uniform.parameters():
        assert -0.5 <= p.min() < p.max() <= 0.5
    drawn = bits(uniform)
    assert drawn.min() < -0.499
    assert drawn.max() > 0.499
    # the uniform distribution's spread, 1/√12, within four standard errors of it
    assert abs(drawn.std() - 12**-0.5) < 0.002
    plain = lenet(init="default", seed=0)
    assert plain.linear.weight.abs().max() <= 768**-0.5
    assert plain.conv1.bias.abs().max() <= 75**-0.5


@every_variant
def test_a_seed_fixes_the_bits_and_leaves_the_global_rng_alone(build: Callable[..., nn.Module]) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = bits(build(3, 1, 8, seed=11))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, bits(build(3, 1, 8, seed=11)))
    assert not torch.equal(first, bits(build(3, 1, 8, seed=12)))


@every_variant
def test_without_a_seed_the_global_rng_decides(build: Callable[..., nn.Module]) -> None:
    torch.manual_seed(11)
    first = bits(build(3, 1, 8))
    assert not torch.equal(first, bits(build(3, 1, 8)))
    torch.manual_seed(11)
    assert torch.equal(first, bits(build(3, 1, 8)))
    assert torch.equal(first, bits(build(3, 1, 8, seed=11)))


def test_a_seed_means_the_same_under_another_default_device() -> None:
    with torch.device("meta"):
        model = lenet(seed=3)
    assert torch.equal(bits(model), bits(lenet(seed=3)))


def test_a_failure_inside_puts_the_global_rng_back() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(1):
        torch.rand(3).reshape(7)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_three_poolings_share_weights_and_differ() -> None:
    models = {pool: convnet(pool=pool, seed=0) for pool in ("stride", "avg", "max")}
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(bits(models["avg"]), bits(models["max"]))
    assert torch.equal(bits(models["avg"]), bits(models["stride"]))
    average, largest = models["avg"][:5](x), models["max"][:5](x)
    assert (average <= largest).all()
    assert (average < largest).any()
    # a strided convolution keeps every second pixel of the same one without a stride
    torch.testing.assert_close(models["stride"][:4](x), models["avg"][:4](x)[..., ::2, ::2])


@pytest.mark.parametrize(
    ("activation", "f"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.2 * x)),
        ("sigmoid", lambda x: 1 / (1 + (-x).exp())),
        ("tanh", lambda x: x.exp().sub((-x).exp()) / (x.exp() + (-x).exp())),
    ],
)
def test_mlp_by_hand(activation: str, f: Callable[[Tensor], Tensor]) -> None:
    model = mlp(2, sizes=(12, 5), activation=activation, seed=0)
    x = torch.randn(3, 3, 2, 2)
    hidden = f(x.reshape(3, 12) @ model.linear1.weight.T + model.linear1.bias)
    torch.testing.assert_close(model(x), hidden @ model.linear.weight.T + model.linear.bias)


def test_resnet_norms_are_what_they_are_called() -> None:
    def norms(norm: str) -> list[nn.Module]:
        kinds = (nn.BatchNorm2d, nn.GroupNorm)
        return [m for m in resnet(norm=norm, width=4).modules() if isinstance(m, kinds)]

    # the stem, two in each of 8 blocks, and one on each of 3 projections
    assert [type(m) for m in norms("batch")] == [nn.BatchNorm2d] * 20
    assert [m.num_groups for m in norms("group") if isinstance(m, nn.GroupNorm)] == [4] * 20
    assert norms("none") == []
    assert {m.num_groups for m in resnet(norm="group").modules() if isinstance(m, nn.GroupNorm)} == {8}


def test_resnet_block_carries_its_input() -> None:
    block = resnet(norm="none", seed=0).stage1_block1
    for p in block.parameters():
        nn.init.zeros_(p)
    x = torch.randn(1, 16, 6, 6)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize(("depth", "last"), [(8, 8), (20, 8), (18, 4)])
def test_resnet_halves_once_per_later_stage(depth: int, last: int) -> None:
    assert resnet(depth=depth)[:-3](torch.rand(1, 3, 32, 32)).shape[-1] == last


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lenet(init="uniforn"), r"'uniform', 'default'; got 'uniforn'; did you mean 'uniform'"),
        (lambda: convnet(pool="foo"), r"pool must be one of 'stride', 'avg', 'max'; got 'foo'"),
        (lambda: convnet(width=0), r"width .* 1 or more; got 0"),
        (lambda: mlp(activation="gelu"), r"'relu', 'leaky_relu', 'sigmoid', 'tanh'; got 'gelu'"),
        (lambda: mlp(sizes=()), r"at least the number of inputs"),
        (lambda: mlp(sizes=(10, 0)), r"each of sizes .* got 0"),
        (lambda: resnet(depth=19), r"8, 18, 20; got 19"),
        (lambda: resnet(depth="18"), r"depth must be a whole number"),
        (lambda: resnet(norm="layer"), r"'batch', 'group', 'none'"),
        (lambda: resnet(norm="group", width=12), r"multiple of 8; got 12"),
        (lambda: resnet(width=-1), r"width .* got -1"),
        (lambda: lenet(seed=1.5), r"seed must be a whole number.* got 1.5"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_choices(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize(
    "wrong",
    [{"classes": 0}, {"channels": 0}, {"size": 3}, {"classes": 2.5}, {"classes": True}, {"size": "32"}],
)
def test_every_builder_checks_its_first_three(build: Callable[..., nn.Module], wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InvalidInput, match=f"{name} must be a whole number.*got {value!r}"):
        build(**wrong)
