"""Can this model be audited at all? If not, which of its layers stands in the way."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.errors import GradleakError, InvalidInput, InvalidModel, NotDeterministic
from gradleak.observe.checks import check_fit
from gradleak.observe.client import Client, Trained
from gradleak.observe.layers import first_tensor, name_of, same, walk
from gradleak.observe.task import Task
from gradleak.observe.words import continuous
from gradleak.trees import Tree, detached, squared_norm


def require_still(task: Task, params: Tree, x: Tensor) -> None:
    """No layer may write into its buffers while it is used; BatchNorm's own are known, and kept apart."""
    names = _changed_buffers(task, params, x)
    if names:
        raise NotDeterministic(
            f"{', '.join(names)} changes its buffers while it is used. Expected a model that gives the same "
            "update for the same batch. Call model.eval() before observing."
        )


def differentiable_update(
    client: Client, task: Task, params: Tree, x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """The client's update, which must depend on the pictures in a way that a gradient can follow."""
    plain = dataclasses.replace(task, transformed=False)
    leaf = continuous(task.model, {**task.constants, **params}, x).requires_grad_()
    try:
        update = detached(_sent(client, task, params, x.clone(), y))
        if isinstance(client, Trained):  # what is replayed shows no graph
            _require_whole(squared_norm(plain.gradient(params, leaf, y)))
        # Once more without torch.func, which lets some layers pass that have no second derivative.
        # Not through a norm: at a zero update its gradient would not exist.
        length = squared_norm(_sent(client, plain, params, leaf, y))
        _require_whole(length)
        slope = torch.autograd.grad(length, leaf, allow_unused=True)[0] if length.requires_grad else None
    except RuntimeError as error:
        raise InvalidModel(
            f"the update cannot be differentiated with respect to the pictures: {error}. "
            + _suspects(task, params, x)
        ) from error
    if slope is None or not bool(slope.any()):
        raise InvalidModel(
            "the update does not change when the pictures change a little, so no attack could follow it. "
            + _suspects(task, params, x)
        )
    return update


def _sent(client: Client, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    name = getattr(client, "__name__", type(client).__name__)
    try:
        update = client(task, params, x, y)
    except (RuntimeError, GradleakError):
        raise
    except Exception as error:  # whatever the user's own client raises
        raise InvalidInput(
            f"the client '{name}' failed: {type(error).__name__}: {error}. Expected a function of "
            "(task, params, x, y) that returns the update, tensors by parameter name."
        ) from error
    check_fit(f"entries that the client '{name}' returned", update, params)
    return update


def _suspects(task: Task, params: Tree, x: Tensor) -> str:
    found: dict[str, str] = {}
    trying = False  # a layer that is tried alone runs its children, which then need no visit

    def look(
        path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        nonlocal trying
        # A parent's fault is its child's, where that has one.
        if trying or any(_is_inside(child, path) for child in found):
            return
        trying = True
        fault = _fault(module, args, kwargs)
        trying = False
        if fault is not None:
            found[path] = f"{name_of(path, module)} {fault}"

    walk(task, params, x.detach().clone(), look)
    if not found:
        return "No single layer is to blame: look at the loss, and at what the client does besides."
    return f"The reason is likely {'; '.join(found.values())}. Expected layers that are differentiable twice."


def _fault(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """What is wrong with one layer, tried alone on the input that it had."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return None

    def length(x: Tensor) -> Tensor:
        # Not module(x), which would visit again.
        output = first_tensor(module.forward(x, *args[1:], **kwargs))
        return x.new_zeros(()) if output is None else output.square().sum()

    x = args[0].detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            torch.func.grad(length)(x.detach())  # as clients differentiate, which is harder to please
            value = length(x)
            slope = _slope(value, x, create_graph=True)
            if slope is None or not bool(slope.any()):
                return "passes no gradient"
            _require_whole(slope)
            _slope(slope.square().sum(), x)
    except RuntimeError as error:
        in_place = "in-place" in str(error) or "inplace" in str(error)
        return "works in place on its input" if in_place else f"cannot be differentiated twice ({error})"
    return None


def _slope(value: Tensor, x: Tensor, *, create_graph: bool = False) -> Tensor | None:
    if not value.requires_grad:
        return None
    return torch.autograd.grad(value, x, create_graph=create_graph, allow_unused=True)[0]


def _require_whole(value: Tensor) -> None:
    """Refuse what torch marked as not differentiable again.

    It puts a node that raises into the graph, and then does not walk there: the derivative is silently
    without its share.
    """
    nodes: set[Any] = {value.grad_fn} - {None}
    queue = list(nodes)
    while queue:
        node = queue.pop()
        if type(node).__name__ == "Error":
            raise RuntimeError("one of its functions is marked @once_differentiable")
        fresh = {parent for parent, _ in node.next_functions if parent is not None} - nodes
        nodes |= fresh
        queue += fresh


def _is_inside(path: str, parent: str) -> bool:
    return not parent or path.startswith(f"{parent}.")


def _changed_buffers(task: Task, params: Tree, x: Tensor) -> list[str]:
    probe = task.with_copied_constants()
    with torch.no_grad():
        probe.forward(params, x.clone())
    changed = {
        name.rpartition(".")[0] for name, c in probe.constants.items() if not same(c, task.constants[name])
    }
    return [name_of(path, module) for path, module in task.model.named_modules() if path in changed]
