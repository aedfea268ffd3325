"""Can this model be audited at all? If not, which of its layers stands in the way."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidModel, NotDeterministic
from gradleak.observe.client import Client
from gradleak.observe.layers import Call, trace
from gradleak.observe.task import Task
from gradleak.trees import Tree, squared_norm


def require_deterministic(task: Task, params: Tree, x: Tensor) -> None:
    """Two runs on one batch must agree, and leave the buffers as they were.

    The caller keeps the global random state; here it is set, so that dropout draws two masks.
    """
    before = {name: c.clone() for name, c in task.constants.items()}
    moved = _changed_buffers(task, params, x, before)
    if moved:
        raise NotDeterministic(
            f"{', '.join(moved)} changed its running statistics while it was used. Expected a model "
            "that gives the same update for the same batch. Call model.eval() before observing."
        )
    torch.manual_seed(0)
    first = trace(task, params, x.clone())
    torch.manual_seed(1)
    second = trace(task, params, x.clone())
    guilty = next((a for a, b in zip(first, second, strict=True) if not _same(a.output, b.output)), None)
    if guilty is not None:
        raise NotDeterministic(
            f"layer {guilty.name} gave two different outputs for one batch. Expected a model that gives "
            "the same update for the same batch. Call model.eval() before observing, or remove the layer."
        )


def require_differentiable(client: Client, task: Task, params: Tree, x: Tensor, y: Tensor) -> None:
    """The update must depend on the pictures in a way that a gradient can follow."""
    x = x.clone().requires_grad_()
    try:
        # Not through a norm: at a zero update its gradient would not exist.
        (slope,) = torch.autograd.grad(squared_norm(client(task, params, x, y)), x, allow_unused=True)
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


def _suspects(task: Task, params: Tree, x: Tensor) -> str:
    found = [
        f"{call.name} {fault}" for call in trace(task, params, x.detach().clone()) for fault in _faults(call)
    ]
    if found:
        return f"The reason is likely {'; '.join(found)}. Expected layers that are differentiable twice."
    return "No single layer is to blame: look at what the model's own forward does between its layers."


def _faults(call: Call) -> Iterator[str]:
    """What is wrong with one layer, tried alone on the input that it had."""
    if call.input is None or not call.input.is_floating_point() or call.output is None:
        return
    x = call.input.clone().requires_grad_()
    version = x._version
    try:
        output = call.module(x)
        if x._version != version:
            yield "works in place on its input"
            return
        (slope,) = torch.autograd.grad(output.square().sum(), x, create_graph=True, allow_unused=True)
        if slope is None or not bool(slope.any()):
            yield "passes no gradient"
        elif slope.requires_grad:
            torch.autograd.grad(slope.square().sum(), x, allow_unused=True)
    except RuntimeError as error:
        in_place = "in-place" in str(error)
        yield "works in place on its input" if in_place else f"has no second derivative ({error})"


def _changed_buffers(task: Task, params: Tree, x: Tensor, before: Tree) -> list[str]:
    probe = Task(task.model, {name: c.clone() for name, c in task.constants.items()}, task.loss)
    with torch.no_grad():
        probe.forward(params, x.clone())
    changed = {name.rpartition(".")[0] for name, c in probe.constants.items() if not _same(c, before[name])}
    modules: dict[str, nn.Module] = dict(task.model.named_modules())
    return [f"layer '{path}' ({type(modules[path]).__name__})" for path in modules if path in changed]


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is None or b is None or torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
