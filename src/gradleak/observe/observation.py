"""Everything the server holds after one round, and nothing else."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidBatch, InvalidModel, InvalidUpdate
from gradleak.observe.client import Client, OneGradient
from gradleak.observe.domain import Domain
from gradleak.observe.task import Loss, Task, cross_entropy, split_tensors, structure_of
from gradleak.trees import Tree, detached

_SHOWN = 8  # how many wrong names an error lists before it counts the rest


@dataclass(frozen=True, repr=False, eq=False)
class Observation:
    """What an honest-but-curious server knows. A field that is None is *not known to it*.

    ``client`` is the client that the attacker believes in. The private batch is never in here; the
    fields that are present are the threat model, and ``knows`` says it in words.
    """

    model: nn.Module
    params: Tree
    update: Tree
    x_shape: tuple[int, ...]  # [B, C, H, W], or [B, D], ...
    constants: Tree = field(default_factory=dict)  # buffers and frozen parameters
    classes: int | None = None
    loss: Loss = cross_entropy
    client: Client = field(default_factory=OneGradient)
    domain: Domain = field(default_factory=Domain)
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        check_fit("parameter", self.params, dict(self.model.named_parameters()), partial=True)
        check_fit("update", self.update, self.params)
        check_finite(self.update)
        if self.labels is not None:
            check_labels(self.labels, self.batch_size, self.classes)

    @classmethod
    def from_update(
        cls,
        model: nn.Module,
        update: Tree,
        *,
        x_shape: Sequence[int],
        params: Tree | None = None,
        classes: int | None = None,
        loss: Loss = cross_entropy,
        client: Client | None = None,
        labels: Tensor | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> "Observation":
        """An observation from your own run: a model as it was sent out, and the update that came back.

        ``params`` are the parameters before the step, where the model no longer holds them.
        """
        trained, constants = split_tensors(model)
        require_trainable(model, trained)
        if params is not None:
            check_fit("parameter", params, trained)
        return cls(
            model=structure_of(model),
            params=trained if params is None else detached(params),
            update=detached(update),
            x_shape=tuple(x_shape),
            constants=constants,
            classes=count_classes(model, trained | constants, tuple(x_shape)) if classes is None else classes,
            loss=loss,
            client=client or OneGradient(),
            domain=Domain.of(normalization),
            labels=None if labels is None else labels.detach().clone(),
        )

    @property
    def task(self) -> Task:
        return Task(self.model, self.constants, self.loss)

    @property
    def batch_size(self) -> int:
        return self.x_shape[0]

    @property
    def like(self) -> Tensor:
        """A tensor of the model's dtype and device; ``obs.like.new_zeros(...)`` makes another."""
        return next(iter(self.params.values()))

    @property
    def knows(self) -> tuple[str, ...]:
        """The threat model in words: what this server has in its hands."""
        facts = ["model", "parameters", "update", f"loss {getattr(self.loss, '__name__', 'custom')}"]
        facts += [f"client {self.client!r}", f"batch size {self.batch_size}", "picture shape and range"]
        return (*facts, *(["labels"] if self.labels is not None else []))

    def simulate(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The update that the assumed client would have sent for ``x`` and ``y``."""
        return self.client(self.task, self.params, x, y)

    def to(self, dtype: torch.dtype) -> "Observation":
        """The same facts in another precision, to compute with; integers stay as they are."""

        def cast(tree: Tree) -> dict[str, Tensor]:
            return {name: leaf.to(dtype) if leaf.is_floating_point() else leaf for name, leaf in tree.items()}

        return dataclasses.replace(
            self, params=cast(self.params), update=cast(self.update), constants=cast(self.constants)
        )

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.params.values())
        return (
            f"Observation({type(self.model).__name__} with {weights:,} parameters, "
            f"batch {list(self.x_shape)}, the server knows: {', '.join(self.knows)})"
        )


def require_trainable(model: nn.Module, trained: Tree) -> None:
    if not trained:
        parameters = sum(1 for _ in model.parameters())
        came = "none of its parameters needs a gradient" if parameters else "it has no parameters"
        raise InvalidModel(
            f"expected a model with parameters to train; came {type(model).__name__}, and {came}. "
            "A client that trains nothing shares nothing."
        )


def check_fit(what: str, came: Tree, expected: Tree, *, partial: bool = False) -> None:
    """Names and shapes must be the model's; with ``partial``, names may be left out."""
    wrong = [] if partial else [f"{n} is missing" for n in expected if n not in came]
    wrong += [f"{n} does not exist in the model" for n in came if n not in expected]
    wrong += [
        f"{n} has shape {list(came[n].shape)} where the model has {list(expected[n].shape)}"
        for n in came
        if n in expected and came[n].shape != expected[n].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InvalidUpdate(
            f"the {what} does not fit the model: {'; '.join(wrong[:_SHOWN])}{more}. Expected one tensor "
            "per trained parameter, by the names of model.named_parameters()."
        )


def check_finite(update: Tree) -> None:
    bad = [name for name, leaf in update.items() if not bool(torch.isfinite(leaf).all())]
    if bad:
        raise InvalidUpdate(
            f"the update has NaN or infinite entries in {', '.join(bad[:_SHOWN])}. Expected finite "
            "numbers: a step that overflowed carries nothing to match. Look at the learning rate and loss."
        )


def check_labels(y: Tensor, batch_size: int, classes: int | None) -> None:
    if y.dim() != 1 or y.shape[0] != batch_size or y.is_floating_point():
        raise InvalidBatch(
            f"expected {batch_size} class indices (integers, shape [{batch_size}]); "
            f"came {y.dtype} of shape {list(y.shape)}"
        )
    if classes is not None and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise InvalidBatch(
            f"expected labels from 0 to {classes - 1}, since the model has {classes} outputs; "
            f"came {int(y.min())} to {int(y.max())}"
        )


def count_classes(model: nn.Module, tensors: Tree, x_shape: tuple[int, ...]) -> int | None:
    """How many logits the model has for one record, or None if its output is no matrix of logits."""
    if math.prod(x_shape) <= 0:
        raise InvalidBatch(f"expected a batch shape of positive sizes; came {list(x_shape)}")
    like = next(iter(tensors.values()))
    task = Task(structure_of(model), tensors, cross_entropy)
    with torch.no_grad():
        output = forward_or_explain(task, {}, like.new_zeros(x_shape))
    return logits_of(output)


def logits_of(output: object) -> int | None:
    return output.shape[1] if isinstance(output, Tensor) and output.dim() == 2 else None


def forward_or_explain(task: Task, params: Tree, x: Tensor) -> object:
    try:
        return task.forward(params, x)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise InvalidBatch(
            f"the model cannot take a batch of shape {list(x.shape)}: {error}. Expected the shape that "
            "its first layer reads, with the batch first: [B, C, H, W] for pictures."
        ) from error
