"""What BatchNorm layers saw of a batch: the mean and variance of every channel of their input.

A client that sends its running statistics along with its weights gives them away.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradleak.errors import InvalidUpdate
from gradleak.observe.client import Client, Summed
from gradleak.observe.layers import walk
from gradleak.observe.local import LocalTraining
from gradleak.observe.task import Task
from gradleak.trees import Tree


def norm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers by their paths."""
    return {path: module for path, module in model.named_modules() if isinstance(module, _BatchNorm)}


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance per channel, as BatchNorm keeps them; of a single number 0."""
    channels = x.transpose(0, 1).flatten(1)
    one = channels.shape[1] == 1
    return channels.mean(1), (torch.zeros_like(channels[:, 0]) if one else channels.var(1))


def batch_statistics(task: Task, params: Tree, x: Tensor) -> dict[str, Tensor]:
    """ "path.mean" and "path.var" of every BatchNorm layer's input, for one batch."""
    found: dict[str, Tensor] = {}

    def look(
        path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        if isinstance(module, _BatchNorm):
            found[f"{path}.mean"], found[f"{path}.var"] = moments(args[0])

    walk(task, params, x, look)
    return found


def sent_statistics(client: Client, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What the server reads off the running statistics that the client sends.

    In train mode every local step moves them, so that it is a mean over the steps, in which later ones
    weigh more. In eval mode nothing is sent; what comes back is the batch itself, as an attack that is
    granted the statistics takes it.
    """
    if isinstance(client, Summed):
        parts = zip(client.all, client.parts(len(x)), strict=True)
        each = [sent_statistics(one, task, params, x[part], y[part]) for one, part in parts]
        return {name: torch.stack([one[name] for one in each]).mean(0) for name in each[0]}
    layers = norm_layers(task.model)
    if not isinstance(client, LocalTraining) or not any(layer.training for layer in layers.values()):
        return batch_statistics(task, params, x)
    picks = [torch.tensor(pick, device=x.device) for pick in client.picks(len(x))]
    weights = [params, *(after for after, _ in client.path(picks, task, params, x, y))]
    seen = [batch_statistics(task, w, x[pick]) for w, pick in zip(weights, picks, strict=False)]
    found = {}
    for path, layer in layers.items():
        shares = _shares(layer.momentum, len(seen))
        for name in (f"{path}.mean", f"{path}.var"):
            found[name] = sum(
                (share * one[name] for share, one in zip(shares, seen, strict=True)),
                start=torch.zeros_like(seen[0][name]),
            )
    return found


def statistics_between(model: nn.Module, before: Tree, after: Tree, steps: int) -> dict[str, Tensor] | None:
    """The batch's statistics, from the running ones before and after ``steps`` steps in train mode.

    Of the layers whose buffers moved; None where none did: the client was in eval mode, or keeps its
    statistics to itself.
    """
    found: dict[str, Tensor] = {}
    for path, layer in norm_layers(model).items():
        if not _moved(path, before, after):
            continue
        for running, name in (("running_mean", "mean"), ("running_var", "var")):
            key = f"{path}.{running}"
            if after[key].shape != before[key].shape:
                raise InvalidUpdate(
                    f"the buffer {key} has shape {list(after[key].shape)} where the model has "
                    f"{list(before[key].shape)}"
                )
            kept = (1 - (layer.momentum or 0.0)) ** steps
            if layer.momentum is None or kept == 1:
                continue  # a cumulative mean, of which the number of batches before would be needed
            old, new = before[key], after[key].to(before[key])
            found[f"{path}.{name}"] = (new - kept * old) / (1 - kept)
    return found or None


def _moved(path: str, before: Tree, after: Tree) -> bool:
    names = [f"{path}.running_mean", f"{path}.running_var"]
    if any(name not in before or not isinstance(after.get(name), Tensor) for name in names):
        return False
    return any(
        after[n].shape != before[n].shape or not torch.equal(after[n].to(before[n]), before[n]) for n in names
    )


def _shares(momentum: float | None, steps: int) -> Sequence[float]:
    """How much each step weighs in what the running statistics have moved to; they sum to 1."""
    if momentum is None or momentum == 0:
        return [1 / steps] * steps
    raw = [momentum * (1 - momentum) ** (steps - 1 - step) for step in range(steps)]
    return [share / sum(raw) for share in raw]
