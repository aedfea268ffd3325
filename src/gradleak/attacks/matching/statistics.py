"""Pictures with the statistics that the BatchNorm layers saw (Yin et al. 2021)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from gradleak.attacks.matching.candidate import Candidate
from gradleak.attacks.matching.priors import require_weight
from gradleak.errors import InvalidInput
from gradleak.labels import LabelGuess, Unanswerable
from gradleak.observe import Observation, Task
from gradleak.observe.statistics import moments, norm_layers
from gradleak.trees import Tree, total

Source = Literal["sent", "running", "auto"]
_SOURCES = ("sent", "running", "auto")


@dataclass(frozen=True)
class Statistics:
    """weight · Σ (‖μ(x) − μ*‖ + ‖σ²(x) − σ²*‖) / Σ (‖μ*‖ + ‖σ²*‖) over the BatchNorm layers' inputs.

    The paper does not divide: the minimiser stays, the scale goes. ``source="sent"``: the batch's own
    statistics, where the observation holds them; ``"running"``: the model's running ones, which are those
    of all data; the paper calls the two exact and approximate. ``"auto"`` takes the former, else running
    ones that some training has moved, else nothing: then there is no such prior.
    """

    weight: float
    source: Source = "sent"
    citations: tuple[str, ...] = ("gradinversion",)

    def __post_init__(self) -> None:
        require_weight(self.weight)
        if self.source not in _SOURCES:
            raise InvalidInput(f"expected a source among {', '.join(_SOURCES)}; came {self.source!r}")

    def gather(self, obs: Observation, guess: LabelGuess, rng: Generator) -> Tree | Unanswerable:
        if self.source in ("sent", "auto") and obs.statistics is not None:
            return obs.statistics
        if self.source == "sent":
            return Unanswerable(
                "the observation does not hold the batch's BatchNorm statistics; a client in train mode that "
                'sends its buffers gives them away, observe(..., reveal=("statistics",)) grants them, and '
                'the running ones are Statistics(source="running")'
            )
        running = _running(obs, trained=self.source == "auto")
        if self.source == "running" and not running:
            return Unanswerable("the model keeps no running BatchNorm statistics to compare a picture with")
        return running

    def __call__(self, candidate: Candidate) -> Tensor:
        expected = candidate.evidence
        if not expected:
            return candidate.x.new_zeros(())
        found = seen_by_norms(candidate.task, candidate.params, candidate.x)
        gaps = [torch.linalg.vector_norm(found[name] - leaf) for name, leaf in expected.items()]
        sizes = total(torch.linalg.vector_norm(leaf) for leaf in expected.values())
        return self.weight * total(gaps) / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)


def seen_by_norms(task: Task, params: Tree, x: Tensor) -> dict[str, Tensor]:
    """ "path.mean" and "path.var" of every BatchNorm layer's input, with a graph back to ``x``.

    A layer that runs twice counts as it ran last.
    """
    found: dict[str, Tensor] = {}
    with _watching(task.model, found):
        task.forward(params, x)
    return found


@contextmanager
def _watching(model: nn.Module, found: dict[str, Tensor]) -> Iterator[None]:
    def look(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            found[f"{path}.mean"], found[f"{path}.var"] = moments(args[0])

        return hook

    handles = [layer.register_forward_pre_hook(look(path)) for path, layer in norm_layers(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _running(obs: Observation, *, trained: bool) -> dict[str, Tensor]:
    """The buffers as statistics; ``trained``: only of layers that have seen a batch."""
    found: dict[str, Tensor] = {}
    for path in norm_layers(obs.model):
        mean, var = (obs.constants.get(f"{path}.running_{what}") for what in ("mean", "var"))
        seen = obs.constants.get(f"{path}.num_batches_tracked")
        if mean is None or var is None or (trained and seen is not None and int(seen) == 0):
            continue
        found |= {f"{path}.mean": mean, f"{path}.var": var}
    return found
