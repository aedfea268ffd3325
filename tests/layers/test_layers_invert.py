"""Every rule against its layer's own forward and backward, linear ones against the dense system too."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradleak.errors import MissingInformation, UnsupportedLayer
from gradleak.layers import Layer, Signal, apply_linear, apply_transpose, equations, invert

# torch's word on asymmetric 'same' padding
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def lived(module: nn.Module, shape: tuple[int, ...], seed: int = 0) -> tuple[Layer, Tensor, Signal, Signal]:
    """A layer, its true input signal, and the signal at its output, from torch's own forward and backward."""
    torch.manual_seed(seed)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        for tensor in (*module.parameters(), module.running_mean, module.running_var):
            nn.init.uniform_(tensor, 0.2, 1.2)
    module = copy.deepcopy(module).double().eval()  # which no other test has left a gradient in
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = module(x[None])[0]
    out = torch.randn(y.shape, dtype=torch.float64)
    y.backward(out)
    params = {name: t.detach() for name, t in (*module.named_parameters(), *module.named_buffers())}
    grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    layer = Layer("here", module, params, grads, tuple(shape), tuple(y.shape))
    return layer, x.detach(), Signal(x.detach(), x.grad), Signal(y.detach(), out)


def dense(layer: Layer, out: Signal) -> tuple[Tensor, Tensor]:
    """The slow twin: a matrix whose columns are what torch makes of one pixel at a time."""
    module, n = layer.module, torch.Size(layer.in_shape).numel()
    weight = module.weight.detach().clone().requires_grad_()
    tensors = {
        "weight": weight,
        **({} if module.bias is None else {"bias": torch.zeros(len(weight)).double()}),
    }
    columns = []
    for pixel in torch.eye(n, dtype=torch.float64):
        y = torch.func.functional_call(module, tensors, pixel.reshape(1, *layer.in_shape))[0]
        parts = [y.detach().flatten()]
        if "weight" in layer.grads:
            (gradient,) = torch.autograd.grad(y, weight, out.grad)
            parts.append(gradient.flatten())
        columns.append(torch.cat(parts))
    z = out.value
    if module.bias is not None:
        bias = module.bias.detach()
        z = z - (bias if isinstance(module, nn.Linear) else bias.reshape(-1, *(1 for _ in z.shape[1:])))
    target = [z.flatten(), *(layer.grads[name].flatten() for name in ("weight",) if name in layer.grads)]
    return torch.stack(columns, 1), torch.cat(target)


def twin(layer: Layer, out: Signal) -> tuple[Tensor, int]:
    A, b = dense(layer, out)
    rank = int(torch.linalg.matrix_rank(A, rtol=1e-7))
    x = torch.linalg.pinv(A, rtol=1e-7) @ b
    return x.reshape(layer.in_shape), A.shape[1] - rank


def far(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


CONVOLUTIONS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv2d(2, 6, 3, padding=1), (2, 6, 6)),
    (nn.Conv2d(2, 6, 3, padding=1, bias=False), (2, 6, 6)),
    (nn.Conv2d(3, 8, 4, 2, 2), (3, 8, 8)),
    (nn.Conv2d(3, 12, 5, 2, 2), (3, 12, 12)),
    (nn.Conv2d(2, 9, (3, 2), (2, 3), (1, 0)), (2, 7, 9)),
    (nn.Conv2d(2, 20, 3, 3, 1), (2, 8, 8)),
    (nn.Conv2d(2, 8, 3, padding=2, dilation=2), (2, 7, 5)),
    (nn.Conv2d(2, 8, (2, 4), padding="same"), (2, 6, 5)),
    (nn.Conv2d(2, 8, 2, padding="valid"), (2, 6, 5)),
    (nn.Conv2d(4, 12, 3, padding=1, groups=2), (4, 6, 6)),
    (nn.Conv2d(4, 8, 3, 1, 1, groups=4), (4, 6, 6)),
    (nn.Conv1d(2, 6, 3, padding=1), (2, 11)),
    (nn.Conv1d(2, 8, 5, 2, 2, bias=False), (2, 12)),
    (nn.Conv1d(4, 8, 4, padding="same", dilation=2, groups=2), (4, 12)),
    (nn.Conv1d(2, 8, 3, 3), (2, 13)),  # the last pixel is never read
    # rank-deficient
    (nn.Conv2d(2, 2, 3, 2, 1), (2, 8, 8)),
    (nn.Conv2d(4, 3, 1), (4, 6, 6)),
    (nn.Conv2d(3, 4, 2, 4), (3, 8, 8)),
    (nn.Conv2d(4, 4, 3, 2, 1, groups=2), (4, 8, 8)),
    (nn.Conv2d(2, 2, 5, 3), (2, 12, 9)),
    (nn.Conv1d(3, 2, 3, 2), (3, 14)),
    # too many pixels to be factorised: conjugate gradients
    (nn.Conv2d(1, 4, 3, 1, 1), (1, 26, 26)),
    (nn.Conv2d(1, 3, 4, 2, 1), (1, 26, 26)),
]
LINEARS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(7, 5), (7,)),
    (nn.Linear(7, 1, bias=False), (7,)),
    (nn.Linear(4, 6), (3, 4)),
    (nn.Linear(4, 3), (5, 4)),
    (nn.Linear(9, 2), (5, 9)),
]


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS + LINEARS, ids=str)
def test_linear_maps_against_the_dense_twin(module: nn.Module, shape: tuple[int, ...]) -> None:
    layer, x, below, out = lived(module, shape)
    found = invert(layer.module, layer, out, tolerance=1e-11)
    smallest, deficit = twin(layer, out)
    assert found.deficit == deficit
    assert found.residual < 1e-9
    assert far(found.signal.value, smallest) < 1e-6
    assert far(found.signal.grad, below.grad) < 1e-12
    if not deficit:
        assert far(found.signal.value, x) < 1e-6


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS + LINEARS, ids=str)
def test_a_frozen_weight_leaves_the_forward_equations(module: nn.Module, shape: tuple[int, ...]) -> None:
    layer, _, below, out = lived(module, shape)
    layer = dataclasses.replace(layer, grads={})
    found = invert(layer.module, layer, out, tolerance=1e-12)
    smallest, deficit = twin(layer, out)
    assert found.deficit == deficit
    assert far(found.signal.value, smallest) < 1e-5
    assert far(found.signal.grad, below.grad) < 1e-12


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS + LINEARS, ids=str)
def test_the_system_is_balanced_and_has_its_transpose(module: nn.Module, shape: tuple[int, ...]) -> None:
    layer, x, below, out = lived(module, shape)
    system = equations(layer, out)
    A, b = dense(layer, out)
    assert torch.allclose(system.matvec(x), system.target, atol=1e-10)
    assert system.matvec(x).shape == b.shape
    u, v = torch.randn_like(system.target), torch.randn_like(x)
    assert float(u @ system.matvec(v)) == pytest.approx(float((system.rmatvec(u) * v).sum()))
    several = torch.randn(2, 3, *shape, dtype=torch.float64)
    assert torch.allclose(system.matvec(several)[1, 2], system.matvec(several[1, 2]))
    assert torch.allclose(
        system.rmatvec(system.matvec(several))[1, 2], system.rmatvec(system.matvec(several[1, 2]))
    )
    n = out.value.numel()
    assert torch.allclose(apply_linear(layer, x).flatten(), A[:n] @ x.flatten())
    assert torch.allclose(apply_transpose(layer, out.grad), below.grad)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_geometry(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups = data.draw(st.integers(1, 2))
    channels, out = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 5))
    size, kernel, stride, dilation, padding = pair(3, 8), pair(1, 4), pair(1, 3), pair(1, 2), pair(0, 2)
    assume(all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    module = nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, data.draw(st.booleans()))
    layer, _, below, above = lived(module, (channels, *size))
    found = invert(layer.module, layer, above, tolerance=1e-11)
    A, b = dense(layer, above)
    values = torch.linalg.svdvals(A)
    assume(not bool(((values > 1e-9 * values[0]) & (values < 1e-3 * values[0])).any()))  # a clear rank
    smallest, deficit = twin(layer, above)
    assert found.deficit == deficit
    assert far(A @ found.signal.value.flatten(), b) < 1e-6
    assert far(found.signal.value, smallest) < 1e-5
    assert torch.allclose(found.signal.grad, below.grad)


def test_a_dead_gradient_leaves_the_forward_equations() -> None:
    for outputs, deficit in ((4, 3), (9, 0)):
        layer, x, _, out = lived(nn.Linear(7, outputs), (7,))
        dead = dataclasses.replace(layer, grads={n: torch.zeros_like(g) for n, g in layer.grads.items()})
        found = invert(layer.module, dead, Signal(out.value, torch.zeros_like(out.grad)))
        assert found.deficit == deficit
        assert (far(found.signal.value, x) < 1e-9) == (deficit == 0)


def test_rows_that_are_not_known_are_not_used() -> None:
    layer, x, _, out = lived(nn.Conv2d(2, 8, 3, padding=1), (2, 5, 5))
    known = torch.rand(out.value.shape) > 0.5
    wrong = Signal(torch.where(known, out.value, 1e3), out.grad, known)
    assert far(invert(layer.module, layer, wrong).signal.value, x) < 1e-9
    forward_only = dataclasses.replace(layer, grads={})
    assert far(invert(layer.module, forward_only, wrong).signal.value, x) < 1e-6
    assert (
        invert(layer.module, forward_only, dataclasses.replace(wrong, known=torch.zeros_like(known))).deficit
        == 50
    )


@pytest.mark.parametrize(("module", "shape"), [*CONVOLUTIONS[:12], *LINEARS], ids=str)
def test_a_wrong_signal_shows_in_the_residual(module: nn.Module, shape: tuple[int, ...]) -> None:
    layer, _, _, out = lived(module, shape)
    wrong = Signal(out.value, out.grad + 0.3 * torch.randn_like(out.grad))
    assert invert(layer.module, layer, out).residual < 1e-6
    if out.grad.numel() > 1:
        assert invert(layer.module, layer, wrong).residual > 1e-3


POINTWISE = [
    nn.LeakyReLU(0.2),
    nn.PReLU(4),
    nn.PReLU(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.ELU(),
    nn.ELU(0.7),
    nn.CELU(1.5),
    nn.SELU(),
    nn.Softplus(),
    nn.Softplus(2, 15),
    nn.LogSigmoid(),
    nn.Softsign(),
    nn.Identity(),
    nn.Dropout(0.5),
    nn.Dropout2d(0.5),
    nn.AlphaDropout(0.5),
    nn.Flatten(),
    nn.Unflatten(1, (2, 2)),
    nn.BatchNorm2d(4),
    nn.BatchNorm2d(4, affine=False),
    nn.AvgPool2d(1),
]


@pytest.mark.parametrize("module", POINTWISE, ids=str)
def test_what_can_be_undone_is(module: nn.Module) -> None:
    layer, x, below, out = lived(module, (4, 3, 5))
    found = invert(layer.module, layer, out)
    assert far(found.signal.value, x) < 1e-12
    assert far(found.signal.grad, below.grad) < 1e-12
    assert (found.deficit, found.signal.known) == (0, None)
    assert found.residual < 1e-12


@pytest.mark.parametrize(
    ("module", "shape"), [(nn.BatchNorm1d(4), (4,)), (nn.BatchNorm1d(4), (4, 6))], ids=str
)
def test_batch_norm_of_one_dimension(module: nn.Module, shape: tuple[int, ...]) -> None:
    layer, x, below, out = lived(module, shape)
    found = invert(layer.module, layer, out)
    assert far(found.signal.value, x) < 1e-12
    assert far(found.signal.grad, below.grad) < 1e-12
    wrong = Signal(out.value, out.grad + 0.3 * torch.randn_like(out.grad))
    assert invert(layer.module, layer, wrong).residual > 1e-2


def test_batch_norm_reads_the_layers_tensors_and_not_the_modules() -> None:
    layer, x, _, out = lived(nn.BatchNorm2d(3), (3, 2, 2))
    layer = dataclasses.replace(layer, params={name: t.clone() for name, t in layer.params.items()})
    for tensor in (*layer.module.parameters(), *layer.module.buffers()):
        if tensor.is_floating_point():
            tensor.data.fill_(torch.nan)
    assert far(invert(layer.module, layer, out).signal.value, x) < 1e-12


def test_a_channel_with_weight_zero_is_lost() -> None:
    layer, _, _, out = lived(nn.BatchNorm2d(3), (3, 2, 2))
    weight = layer.params["weight"].clone()
    weight[1] = 0
    found = invert(layer.module, dataclasses.replace(layer, params={**layer.params, "weight": weight}), out)
    assert found.deficit == 4
    assert found.signal.known is not None
    assert found.signal.known.flatten(1).any(1).tolist() == [True, False, True]
    assert not found.signal.grad[1].any()


def test_what_a_relu_still_tells() -> None:
    for module in (nn.ReLU(), nn.LeakyReLU(0.0)):
        layer, x, below, out = lived(module, (4, 3, 5))
        found = invert(layer.module, layer, out)
        assert found.signal.known is not None
        assert torch.equal(found.signal.known, x > 0)
        assert torch.equal(found.signal.value, x.clamp_min(0))
        assert torch.equal(found.signal.grad, below.grad)
        assert found.deficit == int((x <= 0).sum())


POOLS = [
    (nn.AvgPool2d(2), (2, 6, 8)),
    (nn.AvgPool2d((3, 2), (2, 1), (1, 0)), (2, 7, 5)),
    (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (1, 7, 6)),
    (nn.AvgPool2d(3, 2, ceil_mode=True), (1, 6, 6)),
    (nn.AvgPool2d((2, 3), divisor_override=4), (2, 4, 6)),
    (nn.AvgPool1d(3, 2, 1), (2, 9)),
    (nn.AvgPool1d(2, ceil_mode=True, count_include_pad=False), (2, 7)),
    (nn.AdaptiveAvgPool2d(1), (3, 4, 5)),
    (nn.AdaptiveAvgPool2d((2, None)), (2, 5, 3)),
    (nn.AdaptiveAvgPool1d(3), (2, 7)),
]


@pytest.mark.parametrize(("module", "shape"), POOLS, ids=str)
def test_average_pools_against_the_dense_twin(module: nn.Module, shape: tuple[int, ...]) -> None:
    layer, x, below, out = lived(module, shape)
    found = invert(layer.module, layer, out)
    eye = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *shape)
    A = module(eye).flatten(1).T
    assert torch.allclose(found.signal.value.flatten(), torch.linalg.pinv(A) @ out.value.flatten())
    assert torch.allclose(found.signal.grad, below.grad)
    assert found.deficit == x.numel() - int(torch.linalg.matrix_rank(A))
    assert found.signal.known is not None
    assert not found.signal.known.any()
    assert found.residual < 1e-12


def test_values_outside_the_range_are_taken_to_be_just_inside() -> None:
    layer, _, _, out = lived(nn.Sigmoid(), (4,))
    value = torch.tensor([-1e-7, 0.5, 1.0, 1 + 1e-7], dtype=torch.float64)
    found = invert(layer.module, layer, Signal(value, out.grad))
    assert bool(found.signal.value.isfinite().all())
    assert bool(found.signal.grad.isfinite().all())
    assert 0 < found.residual < 1e-6
    assert invert(layer.module, layer, Signal(value + 1, out.grad)).residual > 0.1


def test_a_sign_that_rounding_hides_is_told_by_the_layer_below() -> None:
    torch.manual_seed(0)
    conv, act = nn.Conv2d(2, 12, 3, padding=1, bias=False), nn.LeakyReLU(0.2)
    below, x, _, z = lived(conv, (2, 6, 6))
    shift = z.value.clone()
    shift[3, 2, 2] = 1e-9  # what the layer above it would have found for -1e-9
    slope = torch.where(shift > 0, 1.0, 0.2)
    slope[3, 2, 2] = 0.2
    out = Signal(torch.where(shift > 0, shift, 0.2 * shift), z.grad / slope)
    middle = Layer("act", act, {}, {}, z.value.shape, z.value.shape)
    signal = invert(act, middle, out).signal
    assert signal.either is not None
    assert int((signal.either != signal.grad).sum()) == 1
    told = dataclasses.replace(signal, value=z.value)
    found = invert(conv, below, told)
    assert far(found.signal.value, x) < 1e-7
    blind = invert(conv, below, dataclasses.replace(told, either=None))
    assert blind.residual > 100 * found.residual
    assert far(blind.signal.value, x) > 1e-4


class Mine(nn.Conv2d):
    pass


class Dense(nn.Linear):
    pass


@pytest.mark.parametrize(("module", "shape"), [(Mine(1, 4, 3), (1, 5, 5)), (Dense(3, 4), (3,))], ids=str)
def test_a_subclass_has_its_parents_rule(module: nn.Module, shape: tuple[int, ...]) -> None:
    layer, x, _, out = lived(module, shape)
    assert far(invert(layer.module, layer, out).signal.value, x) < 1e-9


def refusing(module: nn.Module, shape: tuple[int, ...] = (2, 6, 6), **settings: Any) -> Layer:
    return Layer("stem.1", module, dict(module.named_parameters()), {}, shape, shape, **settings)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Hardtanh(), ["Hardtanh", "stem.1", "Conv2d, ", "Linear, "]),
        (nn.MaxPool2d(2), ["MaxPool2d"]),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), ["reflect", "zeros"]),
        (nn.Dropout(0.5), ["train mode", "dropped"]),
        (nn.BatchNorm2d(2), ["eval mode"]),
        (nn.BatchNorm2d(2, track_running_stats=False).eval(), ["running statistics"]),
        (nn.LeakyReLU(-0.1), ["negative slope"]),
        (nn.ELU(-1.0), ["alpha"]),
    ],
    ids=str,
)
def test_refusals_say_which_layer_and_why(module: nn.Module, words: list[str]) -> None:
    signal = Signal(torch.rand(2, 6, 6).double(), torch.rand(2, 6, 6).double())
    with pytest.raises(UnsupportedLayer) as refused:
        invert(module, refusing(module), signal)
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize("module", [nn.Sigmoid(), nn.ReLU(), nn.LeakyReLU(0.2)], ids=str)
def test_a_gradient_through_an_unknown_number_is_refused(module: nn.Module) -> None:
    value, grad = torch.rand(2, 3).double(), torch.rand(2, 3).double()
    known = torch.ones(2, 3, dtype=torch.bool)
    known[0, 1] = False
    with pytest.raises(MissingInformation, match=r"stem\.1"):
        invert(module, refusing(module, (2, 3)), Signal(value, grad, known))
    grad[0, 1] = 0
    passed = invert(module, refusing(module, (2, 3)), Signal(value, grad, known))
    assert passed.signal.known is not None
    assert not passed.signal.known[0, 1]


def test_what_saturation_magnified_weighs_less() -> None:
    layer, _, _, out = lived(nn.Sigmoid(), (4,))
    value = torch.tensor([0.5, 0.3, 1 - 1e-6, 1e-6], dtype=torch.float64)
    trust = invert(layer.module, layer, Signal(value, out.grad)).signal.trust
    assert trust is not None
    assert bool((trust[:2] > 0.5).all())
    assert bool((trust[2:] < 1e-4).all())
    assert invert(layer.module, layer, Signal(value[:2], out.grad[:2])).signal.trust is None
    conv, x, _, above = lived(nn.Conv2d(2, 8, 3, padding=1), (2, 5, 5))
    noise = torch.zeros_like(above.value)
    noise[3, 2] = 1e-3
    trust = torch.where(noise > 0, 1e-6, 1.0)
    noisy = Signal(above.value + noise, above.grad)
    conv = dataclasses.replace(conv, grads={})
    assert far(invert(conv.module, conv, noisy).signal.value, x) > 1e-5
    assert far(invert(conv.module, conv, dataclasses.replace(noisy, trust=trust)).signal.value, x) < 1e-7
