"""JᵀJ of a chain of plain layers, from what each of them says of its own weights.

For one gradient of a chain of convolutions, linear layers and activations, a layer's share of the update is
Σ δ hᵀ over records and places, with h its input, or the patches of it, and δ the slope of the loss at its
output. So J's columns are Σ δ' hᵀ + δ h'ᵀ: one sweep forward for h', and one back for δ', of many pixels at
once, as products of matrices. torch's own derivatives come to the same in more than twice the time: its
convolutions of float64 are slow, and it copies each block of weights more often than it computes with it.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.autograd import functional
from torch.nn.functional import pad
from torch.nn.grad import conv2d_input

from gradleak.observe import OneGradient
from gradleak.observe.jacobian import Jacobian
from gradleak.trees import Tree

_MEMORY = 2**30  # bytes of J
_NUMBERS = 2**19  # in the largest of what a layer makes of a block of pixels: it stays in the cache
_ROUNDING = 1000  # of float64's own: what two ways to sum the same may differ by
_ACTIVATIONS = (nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Softplus, nn.SiLU, nn.GELU)


class _Layer(Protocol):
    """One layer at one batch. Pictures are [..., height, width, channels], and many at once [t, n, ...].

    ``forward`` and ``backward`` come first, once, and keep what the others need.
    """

    rows: dict[str, int]
    """Of J, by the names of the parameters."""

    largest: int
    """How many numbers the layer needs for one pixel."""

    def forward(self, h: Tensor) -> Tensor: ...

    def backward(self, slope: Tensor) -> Tensor: ...

    def pushed(self, moved: Tensor) -> Tensor:
        """How the output moves where the input does."""
        ...

    def pulled(self, turned: Tensor) -> Tensor:
        """How the slope at the input turns where that at the output does, and the input moved as before."""
        ...

    def write(self, turned: Tensor, rows: dict[str, Tensor]) -> None:
        """How the parameters' gradients move: [t, rows] each."""
        ...


class _Activation:
    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.rows: dict[str, int] = {}
        self.largest = 0

    def forward(self, h: Tensor) -> Tensor:
        self.leaf = h.detach().requires_grad_()
        with torch.enable_grad():
            out: Tensor = self.module(self.leaf)
            (self.steep,) = torch.autograd.grad(out.sum(), self.leaf, create_graph=True)
        return out.detach()

    def backward(self, slope: Tensor) -> Tensor:
        (bend,) = torch.autograd.grad(self.steep, self.leaf, slope, allow_unused=True)
        self.steep = self.steep.detach()
        self.bend = torch.zeros_like(slope) if bend is None else bend.detach()
        return slope * self.steep

    def pushed(self, moved: Tensor) -> Tensor:
        self.moved = moved
        return moved * self.steep

    def pulled(self, turned: Tensor) -> Tensor:
        return (turned * self.steep).addcmul_(self.moved, self.bend)

    def write(self, turned: Tensor, rows: dict[str, Tensor]) -> None: ...


class _Flatten:
    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.largest = 0

    def forward(self, h: Tensor) -> Tensor:
        self.shape = h.shape[1:]
        return self.pushed(h[None])[0]

    def backward(self, slope: Tensor) -> Tensor:
        return self.pulled(slope[None])[0]

    def pushed(self, moved: Tensor) -> Tensor:
        return moved.movedim(-1, 2).flatten(2)

    def pulled(self, turned: Tensor) -> Tensor:
        *sides, channels = self.shape
        return turned.reshape(*turned.shape[:2], channels, *sides).movedim(2, -1)

    def write(self, turned: Tensor, rows: dict[str, Tensor]) -> None: ...


class _Linear:
    """Its gradient's rank is at most that of the records, and a basis of few rows says it all.

    M = δ'ᵀh + δᵀh' is as long as UᵀM and (1 − UUᵀ)MV together, with U and V bases of δᵀ and hᵀ.
    """

    def __init__(self, name: str, module: nn.Linear, tensors: Tree, records: int) -> None:
        self.name, self.weight = name, tensors[f"{name}.weight"]
        self.bias = None if module.bias is None else tensors[f"{name}.bias"]
        outputs, inputs = self.weight.shape
        self.thin = records * (outputs + inputs) < outputs * inputs
        self.rows = {f"{name}.weight": records * (outputs + inputs) if self.thin else outputs * inputs}
        self.largest = self.rows[f"{name}.weight"]
        if self.bias is not None:
            self.rows[f"{name}.bias"] = outputs

    def forward(self, h: Tensor) -> Tensor:
        self.h = h
        out = h @ self.weight.T
        return out if self.bias is None else out + self.bias

    def backward(self, slope: Tensor) -> Tensor:
        self.slope = slope
        self.u, self.v = torch.linalg.qr(slope.T)[0], torch.linalg.qr(self.h.T)[0]
        return slope @ self.weight

    def pushed(self, moved: Tensor) -> Tensor:
        self.moved = moved
        return moved @ self.weight.T

    def pulled(self, turned: Tensor) -> Tensor:
        return turned @ self.weight

    def write(self, turned: Tensor, rows: dict[str, Tensor]) -> None:
        turned = turned.mT
        if self.thin:
            inside = self.u.T @ turned
            first = inside @ self.h + (self.slope @ self.u).T @ self.moved
            second = (turned - self.u @ inside) @ (self.h @ self.v)
            change = torch.cat((first.flatten(1), second.flatten(1)), 1)
        else:
            change = (turned @ self.h + self.slope.T @ self.moved).flatten(1)
        rows[f"{self.name}.weight"].copy_(change)
        if self.bias is not None:
            rows[f"{self.name}.bias"].copy_(turned.sum(2))


class _Convolution:
    def __init__(self, name: str, module: nn.Conv2d, tensors: Tree) -> None:
        self.name, self.weight = name, tensors[f"{name}.weight"]
        self.stride, self.padding = module.stride, tuple(map(int, module.padding))
        self.bias = None if module.bias is None else tensors[f"{name}.bias"]
        self.rows = {f"{name}.weight": self.weight.numel()}
        if self.bias is not None:
            self.rows[f"{name}.bias"] = len(self.weight)
        self.matrix = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [patch, channels out]

    def forward(self, h: Tensor) -> Tensor:
        self.shape = h.shape[1:]
        patches = self._patches(h).contiguous()
        self.sides = patches.shape[1:3]
        self.h = patches.flatten(3).flatten(0, 2)  # [places, patch]
        self.largest = self.h.numel()
        self.room = h.new_empty(0)  # for patches: memory that is used again is there at once
        out = (self.h @ self.matrix).view(*patches.shape[:3], -1)
        return out if self.bias is None else out + self.bias

    def backward(self, slope: Tensor) -> Tensor:
        self.slope = slope.flatten(0, 2)
        return self.pulled(slope[None])[0]

    def pushed(self, moved: Tensor) -> Tensor:
        patches = self._patches(moved.flatten(0, 1))
        if len(self.room) < len(patches):
            self.room = torch.empty_like(patches, memory_format=torch.contiguous_format)
        self.moved = self.room[: len(patches)].copy_(patches).view(-1, self.h.shape[1])
        return (self.moved @ self.matrix).view(*moved.shape[:2], *self.sides, -1)

    def pulled(self, turned: Tensor) -> Tensor:
        height, width, channels = self.shape
        outer = turned.flatten(0, 1).permute(0, 3, 1, 2)
        shape = (len(outer), channels, height, width)
        inner: Tensor = conv2d_input(shape, self.weight, outer, self.stride, self.padding)  # type: ignore[no-untyped-call]
        return inner.permute(0, 2, 3, 1).reshape(*turned.shape[:2], *self.shape)

    def write(self, turned: Tensor, rows: dict[str, Tensor]) -> None:
        outer = turned.flatten(1, 3).mT.contiguous()  # [t, channels out, places]
        change = (outer.flatten(0, 1) @ self.h).view(*outer.shape[:2], -1)
        inner = self.moved.view(len(outer), *self.h.shape)
        place = rows[f"{self.name}.weight"].view(change.shape)
        torch.baddbmm(change, self.slope.T.expand(outer.shape), inner, out=place)
        if self.bias is not None:
            rows[f"{self.name}.bias"].copy_(outer.sum(2))

    def _patches(self, h: Tensor) -> Tensor:
        """[n, height, width, *patch] of the output's places; a patch has its channels last."""
        (high, wide), (down, right), (top, left) = self.weight.shape[2:], self.stride, self.padding
        seen = pad(h, (0, 0, left, left, top, top)).unfold(1, high, down).unfold(2, wide, right)
        return seen.permute(0, 1, 2, 4, 5, 3)


def gram(jacobian: Jacobian) -> Tensor:
    """JᵀJ [columns, columns] in float64: by these rules where they hold, and by autograd otherwise.

    One product checks the whole.
    """
    layers = _layers(jacobian)
    found = None if layers is None else _by_rules(jacobian, layers)
    if found is not None:
        v = torch.randn(jacobian.x.shape, generator=Generator().manual_seed(0), dtype=torch.float64)
        right = jacobian.transposed(jacobian.times(v)).flatten()
        off = (found @ v.flatten() - right).norm()
        if bool(off <= _ROUNDING * torch.finfo(torch.float64).eps * right.norm()):
            return found
    return jacobian.gram()


def _by_rules(jacobian: Jacobian, layers: list[_Layer]) -> Tensor | None:
    """None where J would be too large to write down."""
    columns = jacobian.x.numel()
    sizes = {name: size for layer in layers for name, size in layer.rows.items()}
    if 8 * columns * sum(sizes.values()) > _MEMORY:
        return None
    with torch.no_grad():
        curvature = _curvature(jacobian, layers)
        at_once = max(1, min(columns, _NUMBERS // max(layer.largest for layer in layers)))
        written = np.empty((columns, sum(sizes.values())))  # NumPy asks for large pages, which come sooner
        for k, block in enumerate(torch.split(torch.from_numpy(written), at_once)):
            moved = _units(jacobian.x, k * at_once, len(block))
            parts = torch.split(block, list(sizes.values()), 1)
            _sweep(layers, curvature, moved, dict(zip(sizes, parts, strict=True)))
    return torch.from_numpy(written @ written.T)  # half of it is computed, and mirrored


def _curvature(jacobian: Jacobian, layers: list[_Layer]) -> Tensor:
    """The loss's second derivatives at the logits, after each layer has seen its input and its slope."""
    h = _channels_last(jacobian.x, 1)
    for layer in layers:
        h = layer.forward(h)

    def loss(logits: Tensor) -> Tensor:
        return jacobian.obs.loss(logits, jacobian.y)

    slope = functional.jacobian(loss, h)  # type: ignore[no-untyped-call]
    for layer in reversed(layers):
        slope = layer.backward(slope)
    curvature: Tensor = functional.hessian(loss, h)  # type: ignore[no-untyped-call]
    return curvature.reshape(h.numel(), h.numel())


def _sweep(layers: list[_Layer], curvature: Tensor, moved: Tensor, rows: dict[str, Tensor]) -> None:
    for layer in layers:
        moved = layer.pushed(moved)
    turned = (moved.flatten(1) @ curvature).view(moved.shape)
    for layer in reversed(layers):
        layer.write(turned, rows)
        if layer is not layers[0]:
            turned = layer.pulled(turned)


def _units(x: Tensor, start: int, n: int) -> Tensor:
    units = x.new_zeros(n, x.numel())
    units[range(n), range(start, start + n)] = 1
    return _channels_last(units.view(n, *x.shape), 2)


def _channels_last(pictures: Tensor, at: int) -> Tensor:
    return pictures.movedim(at, -1).contiguous()


def _layers(jacobian: Jacobian) -> list[_Layer] | None:
    """None where the client, the weights, the device or some layer is not such as the rules are for."""
    obs, x = jacobian.obs, jacobian.x
    plain = obs.told_client == OneGradient() and jacobian.weights is None
    here = x.device.type == "cpu" and x.dtype == torch.float64 and x.dim() in (2, 4)
    few = obs.classes is not None and len(x) * obs.classes <= x.numel()
    if not (plain and here and few):
        return None
    tensors, flat = {**obs.constants, **obs.params}, x.dim() == 2
    layers: list[_Layer] = []
    for name, module in _parts(obs.task.model):
        layer = _rule(name, module, tensors, len(x), flat)
        if layer is None:
            return None
        layers.append(layer)
        flat = flat or isinstance(layer, _Flatten)
    named = {name for layer in layers for name in layer.rows}
    return layers if flat and named == set(obs.params) else None


def _parts(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    if type(model) is nn.Sequential and not _hooked(model):
        for name, child in model._modules.items():  # named_children leaves out what comes a second time
            yield from _parts(child, f"{path}.{name}" if path else name)
    else:
        yield path, model


def _rule(name: str, module: nn.Module, tensors: Tree, records: int, flat: bool) -> _Layer | None:
    missing = any(f"{name}.{own}" not in tensors for own, _ in module.named_parameters())  # as of tied layers
    if missing or _hooked(module):
        return None
    if type(module) in _ACTIVATIONS:
        return _Activation(module)
    if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return _Flatten()
    if type(module) is nn.Linear and flat:
        return _Linear(name, module, tensors, records)
    if type(module) is nn.Conv2d and not flat and module.groups == 1 and module.dilation == (1, 1):
        plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return _Convolution(name, module, tensors) if plain else None
    return None


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
