"""What a client is asked to train: the network as a pure function of its parameters, and the loss."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from gradleak.errors import InvalidModel
from gradleak.trees import Tree

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """``model`` lends its structure only: every tensor it computes with comes from outside.

    ``constants`` are the tensors that are not trained: buffers, and parameters that need no gradient.
    """

    model: nn.Module
    constants: Tree
    loss: Loss
    transformed: bool = True  # whether a torch.func transform, such as vmap, may be around

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


def structure_of(model: nn.Module) -> nn.Module:
    """A copy that shares the tensors but nothing else, so that nobody's model changes under anybody.

    Activations that work in place do so no longer: the copy computes the same, and can be
    differentiated twice.
    """
    tensors = (*model.parameters(), *model.buffers())
    try:
        clone = copy.deepcopy(model, {id(t): t for t in tensors})
    except RuntimeError as error:
        raise InvalidModel(
            f"the model could not be copied: {error}. Expected a module whose attributes are "
            "parameters, buffers or plain values; came one that keeps the result of a computation. "
            "Build it afresh, or use torch.nn.utils.parametrizations instead of the older weight_norm."
        ) from error
    for module in clone.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return clone


def split_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Copies of what is trained, and of what is not (frozen parameters and buffers), by name."""
    named = dict(model.named_parameters())
    trained = {name: p.detach().clone() for name, p in named.items() if p.requires_grad}
    frozen = {name: p.detach().clone() for name, p in named.items() if not p.requires_grad}
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    return trained, frozen | buffers


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy; ``y`` holds class indices [B] or probabilities [B, classes]."""
    return torch.nn.functional.cross_entropy(output, y)
