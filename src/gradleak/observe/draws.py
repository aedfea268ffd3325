"""Layers that throw dice while they train, such as dropout, and what a server can do without their dice."""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor, nn

from gradleak.errors import NotDeterministic
from gradleak.observe.layers import Call, same, trace
from gradleak.observe.task import Task
from gradleak.randomness import reseed
from gradleak.trees import Tree


def drawing_layers(task: Task, params: Tree, x: Tensor) -> tuple[str, ...]:
    """The layers that give another output at every run, innermost first, and none once they are at rest.

    The caller keeps the global random state; here it is set, so that dropout draws two masks. The task's
    structure ends with these layers at rest.
    """
    found: list[str] = []
    while (call := _unsteady(task, params, x)) is not None:
        if not call.module.training:
            raise NotDeterministic(
                f"{call.name} gave two different outputs for one batch, though it is in eval mode. Expected "
                "a model that draws, if at all, only where it trains. Remove the layer, or give it a seed."
            )
        found.append(call.path)
        rest(task.model, [call.path])
    return tuple(found)


def rest(structure: nn.Module, paths: Sequence[str]) -> nn.Module:
    """Put these layers, and not their children, into eval mode: dropout then passes everything on."""
    for path in paths:
        structure.get_submodule(path).training = False
    return structure


def _unsteady(task: Task, params: Tree, x: Tensor) -> Call | None:
    """The first layer to differ without an excuse, which is the innermost: children end before parents."""
    runs = []
    for seed in (0, 1):
        reseed(seed, x.device)
        runs.append(_by_turn(trace(task, params, x.clone())))
    first, second = runs
    for turn, a in first.items():
        b = second.get(turn)
        if b is not None and same(a.input, b.input) and not same(a.output, b.output):
            return a
    return None


def _by_turn(calls: Sequence[Call]) -> dict[tuple[str, int], Call]:
    """A layer's first run, its second run, ...: random models need not run the same layers twice."""
    turns: Counter[str] = Counter()
    found = {}
    for call in calls:
        found[call.path, turns[call.path]] = call
        turns[call.path] += 1
    return found


def trains_differently(model: nn.Module) -> bool:
    """Whether the model has layers that compute something else in train mode than in eval mode."""
    kinds = (
        nn.modules.batchnorm._NormBase,
        nn.modules.dropout._DropoutNd,
        nn.RReLU,
        nn.MultiheadAttention,
        nn.RNNBase,
    )
    return any(isinstance(module, kinds) for module in model.modules())
