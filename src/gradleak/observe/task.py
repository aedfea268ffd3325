"""What a client is asked to train: the network as a pure function of its parameters, and the loss."""

import copy
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gradleak.errors import InvalidModel
from gradleak.trees import Tree, detached

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """``model`` lends its structure only: every tensor it computes with comes from outside.

    ``constants`` are the tensors that are not trained: buffers, and parameters that need no gradient.
    While it runs, the tensors are put into ``model``: no two threads may share one.
    """

    model: nn.Module
    constants: Tree
    loss: Loss
    transformed: bool = True  # whether a torch.func transform, such as vmap, may be around
    whole: bool = False  # whether the graph of many steps is kept, for derivatives of a higher order

    def forward(self, params: Tree, x: Tensor) -> Tensor:
        output: Tensor = functional_call(self.model, {**self.constants, **params}, (x,))
        return output

    def value(self, params: Tree, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.forward(params, x), y)

    def gradient(self, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """dloss/dparams, differentiable again with respect to everything."""
        if self.transformed:
            transformed: dict[str, Tensor] = grad(self.value)(dict(params), x, y)
            return transformed
        # The same without torch.func, which costs a small model a quarter of its time.
        leaves = {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in params.items()}
        gradients = torch.autograd.grad(
            self.value(leaves, x, y), list(leaves.values()), create_graph=True, materialize_grads=True
        )
        return dict(zip(leaves, gradients, strict=True))

    def weighted_gradient(self, params: Tree, x: Tensor, y: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """The gradient of the records' weighted mean loss, for a step that some take only a share in.

        The loss must be the mean of what it is for each record alone.
        """

        def mean(output: Tensor, y: Tensor) -> Tensor:
            each = vmap(lambda one, label: self.loss(one[None], label[None]))(output, y)
            return (weights * each).sum() / weights.sum()

        return dataclasses.replace(self, loss=mean).gradient(params, x, y)

    def with_copied_constants(self) -> "Task":
        """The same task for a probe: a BatchNorm in train mode would write into the constants."""
        return dataclasses.replace(self, constants=detached(self.constants))


class _Attention:
    """How many are inside, and the way out: torch has one switch for all threads."""

    lock = threading.Lock()
    inside = 0
    switch: Any = None


@contextmanager
def attention_by_formula() -> Iterator[None]:
    """Attention in plain operations, since torch's fused kernels have no second derivative.

    Around a whole run, not each forward: it costs a small model 3 % of a matching gradient.
    """
    with _Attention.lock:
        if not _Attention.inside:
            _Attention.switch = sdpa_kernel(SDPBackend.MATH)
            _Attention.switch.__enter__()
        _Attention.inside += 1
    try:
        yield
    finally:
        with _Attention.lock:
            _Attention.inside -= 1
            if not _Attention.inside:
                _Attention.switch.__exit__(None, None, None)


def structure_of(model: nn.Module) -> nn.Module:
    """A copy without numbers: its parameters and buffers are NaN, under the same names.

    It shares nothing with the model, so that nobody's model changes under anybody, and a tensor that no
    Task can hand in cannot go unnoticed. Other tensors that the model keeps, in an attribute or deeper,
    may be a batch that it has seen: they stay behind. Activations that work in place do so no longer, and
    a BatchNorm in train mode keeps no running statistics: the copy computes the same, and can be
    differentiated twice.
    """
    tensors = (*model.parameters(), *model.buffers())
    try:
        with _Withholding():
            clone = copy.deepcopy(model, {id(t): _without_numbers(t) for t in tensors})
    except Exception as error:  # whatever the attributes' own __deepcopy__ raises
        raise InvalidModel(
            f"the model could not be copied: {error}. Expected a module whose attributes are "
            "parameters, buffers or plain values; came one that keeps a resource, such as a lock or a "
            "file. Build it afresh without."
        ) from error
    for module in clone.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return keep_no_statistics(clone)


def keep_no_statistics(structure: nn.Module) -> nn.Module:
    """In train mode BatchNorm computes with the batch's statistics, and only writes the running ones."""
    for module in structure.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            module.track_running_stats = False
    return structure


class _Withholding(TorchFunctionMode):
    """Inside, a deep copy of a tensor is a ``_Withheld``, and of a parameter one without numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            return _Withheld(args[0])
        if func is Tensor.clone:  # how a parameter copies itself
            return _without_numbers(args[0])
        return func(*args, **(kwargs or {}))


class _Withheld:
    """Stands for a tensor that is neither a parameter nor a buffer; whoever computes with it is told."""

    def __init__(self, tensor: Tensor) -> None:
        self.what = f"{tensor.dtype} of shape {list(tensor.shape)}"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        what = next(leaf.what for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, cls))
        raise InvalidModel(
            "expected a model that computes with its parameters and buffers; it also reads a tensor that is "
            f"neither ({what}), and could hold private data. Give it to register_buffer instead."
        )


def _without_numbers(tensor: Tensor) -> Tensor:
    # One number that is seen everywhere: a large model's structure takes no memory. Not the meta device,
    # on which torch computes garbage from uninitialised memory where it meets another.
    nothing = math.nan if tensor.is_floating_point() or tensor.is_complex() else 0
    empty = tensor.detach().new_full((), nothing).expand(tensor.shape)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def split_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Copies of what is trained, and of what is not (frozen parameters and buffers), by name."""
    if not isinstance(model, nn.Module):
        raise InvalidModel(f"expected a torch.nn.Module; came {type(model).__name__}")
    named = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    _require_numbers(named | buffers)
    lazy = [name for name, tensor in (named | buffers).items() if nn.parameter.is_lazy(tensor)]
    if lazy:
        raise InvalidModel(
            f"expected a model whose parameters have shapes; came lazy ones: {', '.join(lazy)}. "
            "Run the model once on a batch first."
        )
    trained = {name: p for name, p in named.items() if p.requires_grad}
    frozen = {name: p for name, p in named.items() if not p.requires_grad}
    with torch.inference_mode(False):  # what is copied inside it could not be differentiated later
        return detached(trained), detached(frozen | buffers)


def _require_numbers(tensors: Tree) -> None:
    bare = [name for name, t in tensors.items() if t.is_meta or t.layout is not torch.strided]
    if bare:
        raise InvalidModel(
            f"expected dense parameters and buffers that hold numbers; came sparse ones, or such on the meta "
            f"device: {', '.join(bare)}. Use model.to_empty(device=...) and load its weights, or to_dense()."
        )


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy; ``y`` holds class indices [B] or probabilities [B, classes]."""
    return torch.nn.functional.cross_entropy(output, y)


def logistic(output: Tensor, y: Tensor) -> Tensor:
    """Mean logistic loss of one logit per record: cross entropy between class 0, whose logit is 0, and 1.

    ``output`` is [B, 1]; ``y`` holds 0 and 1 as integers [B], or the probabilities of both classes [B, 2].
    """
    return cross_entropy(torch.cat((torch.zeros_like(output), output), 1), y)


def noise_batch(like: Tensor, x_shape: tuple[int, ...]) -> Tensor:
    """A stand-in where nothing is known but the shape: pixels from U(0, 1), the same every time."""
    noise = torch.rand(x_shape, generator=torch.Generator().manual_seed(0), device="cpu")
    return noise.to(like)
