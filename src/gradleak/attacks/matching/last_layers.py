"""What a batch's update says of each record alone: its features, and what the loss sends back to them.

The gradient of a batch is a sum over its records, and a search can share it out among them in wrong ways.
Up to classes − 1 records the last layer's gradient cannot be: ``exact_batch`` solves it for each record.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gradleak.attacks.closed_form.batch.descent import Head
from gradleak.attacks.closed_form.batch.factors import factor
from gradleak.attacks.closed_form.batch.head import Search, Solution, solutions
from gradleak.labels import LabelGuess, Unanswerable
from gradleak.observe import Observation, OneGradient, Task, cross_entropy, head
from gradleak.observe.layers import trace
from gradleak.observe.task import noise_batch
from gradleak.randomness import Rng, generator
from gradleak.trees import Tree

_AWAKE = 4.0  # a feature is not 0 where it is so many times its own noise


@dataclass(frozen=True, eq=False)
class LastLayers:
    """``features`` [B, F] and their ``deltas`` dL/dfeatures; ``before`` names the layer that made them.

    ``awake`` [B, F] is where the features are not 0. ``before`` is None where the features are not the
    ReLU of a linear layer or a convolution and nothing more.
    """

    y: Tensor
    features: Tensor
    deltas: Tensor
    awake: Tensor
    before: str | None

    def in_order_of(self, y: Tensor | None) -> "LastLayers":
        """The records as their labels stand in ``y``; those with one label in any order."""
        if y is None:
            return self
        rows = torch.empty_like(self.y)
        rows[y.to(self.y.device).argsort(stable=True)] = self.y.argsort(stable=True)
        return LastLayers(self.y[rows], self.features[rows], self.deltas[rows], self.awake[rows], self.before)


def last_layers(
    obs: Observation, y: Tensor | None, search: Search, rng: Generator
) -> LastLayers | Unanswerable:
    """The first plausible explanation of the last layer's gradient; ``y`` are the labels where known."""
    last = head(obs)
    if not isinstance(obs.client, OneGradient) or obs.loss is not cross_entropy:
        return Unanswerable("features are read off one gradient of mean cross entropy, and this is another")
    if last is None or last.bias is None:
        return Unanswerable("features are read off a last linear layer with a bias, and there is none")
    wide = obs.to(torch.float64)
    W, b = wide.params[last.weight], wide.params[last.bias]
    if obs.batch_size > len(b) - 1:
        return Unanswerable(
            f"a batch of {obs.batch_size} is beyond the {len(b) - 1} records that {len(b)} logits tell apart"
        )
    eps = max(torch.finfo(leaf.dtype).eps for leaf in obs.update.values())
    factors = factor(wide.update[last.weight], wide.update[last.bias], obs.batch_size, eps, simplex=True)
    if factors.rank < obs.batch_size:
        return Unanswerable(f"the last layer's gradient shows {factors.rank} of {obs.batch_size} records")
    inputs = last_inputs(wide.task, wide.params, noise_batch(wide.like, wide.x_shape))
    if inputs.shape != (obs.batch_size, W.shape[1]):
        return Unanswerable(f"features are read off one row per record; came inputs {list(inputs.shape)}")
    problem = Head(factors, W, b, obs.batch_size, positive=bool((inputs >= 0).all()))
    with torch.no_grad():
        known = None if y is None else y.to(W.device)
        found = next(iter(solutions(problem, search, rng, known)), None)
    if found is None:
        return Unanswerable("no features and labels were found that explain the last layer's gradient")
    return _kept(found, W, _before(wide))


def _kept(found: Solution, W: Tensor, before: str | None) -> LastLayers:
    awake = _AWAKE * found.blur[:, None] < found.H
    return LastLayers(found.y, found.H, found.D @ W, awake, before)


def _before(obs: Observation) -> str | None:
    """The layer whose outputs, after a ReLU, are the features one by one."""
    calls = trace(obs.task, obs.params, noise_batch(obs.like, obs.x_shape))
    linear = [call for call in calls if isinstance(call.module, nn.Linear | nn.Conv1d | nn.Conv2d)]
    if len(linear) < 2:
        return None
    made, last = linear[-2:]
    once = sum(call.module is made.module for call in linear) == 1
    if made.output is None or last.input is None or not once or f"{made.path}.weight" not in obs.update:
        return None
    after = made.output.relu().flatten(1)
    return made.path if after.shape == last.input.shape and torch.equal(after, last.input) else None


def last_inputs(task: Task, params: Tree, x: Tensor) -> Tensor:
    """[B, features]: what the last linear layer is given, with a graph back to ``x``."""
    found: list[Tensor] = []
    with _watching(task.model, lambda module, args, output: found.append(args[0])):
        task.forward(params, x)
    return found[-1]


def rows_and_inputs(
    task: Task, params: Tree, x: Tensor, before: str, deltas: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of the weight of ``before``, were ``deltas`` what comes back to it; and the features.

    d/dW Σ deltas · z with z = the layer's output, which is linear in W. So it follows the layer's input
    alone, and does not jump where a unit of the layer falls asleep.
    """
    weight = f"{before}.weight"
    layer = task.model.get_submodule(before)

    def passed(leaf: Tensor) -> tuple[Tensor, Tensor]:
        made: list[Tensor] = []
        inputs: list[Tensor] = []

        def look(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            (made.append(output) if module is layer else inputs.append(args[0]))

        with _watching(task.model, look):
            task.forward({**params, weight: leaf}, x)
        return (made[-1].flatten(1) * deltas).sum(), inputs[-1]

    rows, inputs = torch.func.grad(passed, has_aux=True)(params[weight])
    return rows, inputs


@contextmanager
def _watching(model: nn.Module, look: Callable[[nn.Module, tuple[Any, ...], Tensor], None]) -> Iterator[None]:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    handles = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, kinds)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class HeadLabels:
    """A batch's labels as the last layer's gradient gives them, together with its features."""

    search: Search = field(default_factory=Search)
    citations: tuple[str, ...] = ()

    def __call__(self, obs: Observation, *, rng: Rng = 0) -> LabelGuess | Unanswerable:
        found = last_layers(obs, None, self.search, generator(rng))
        return found if isinstance(found, Unanswerable) else LabelGuess(y=found.y.to(obs.like.device))
