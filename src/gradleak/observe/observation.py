"""Everything the server holds after one round, and nothing else."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidUpdate
from gradleak.observe.checks import (
    check_channels,
    check_finite,
    check_fit,
    check_labels,
    check_shape,
    count_classes,
    require_trainable,
)
from gradleak.observe.client import Client, OneGradient
from gradleak.observe.domain import Domain
from gradleak.observe.probe import require_deterministic, require_settled
from gradleak.observe.task import (
    Loss,
    Task,
    attention_by_formula,
    cross_entropy,
    noise_batch,
    split_tensors,
    structure_of,
)
from gradleak.randomness import undisturbed
from gradleak.trees import Tree, map_tree


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
        check_shape(self.x_shape)
        check_channels(len(self.domain.mean), self.x_shape)
        if not self.params:
            raise InvalidUpdate("expected the parameters before the step; came none at all")
        check_fit("parameters", self.params, dict(self.model.named_parameters()), partial=True)
        check_fit("update's entries", self.update, self.params, exact=True)
        check_finite(self.update)
        if self.labels is not None:
            plain = self.loss is cross_entropy  # another loss may take numbers that are no class
            check_labels(self.labels, self.batch_size, self.classes if plain else None)

    @classmethod
    @torch.inference_mode(False)  # what is copied inside it could not be differentiated later
    def from_update(
        cls,
        model: nn.Module,
        update: Tree,
        *,
        x_shape: Sequence[int],
        params: Tree | None = None,
        classes: int | None = None,
        loss: Loss | None = None,
        client: Client | None = None,
        labels: Tensor | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> "Observation":
        """An observation from your own run: a model as it was sent out, and the update that came back.

        ``params`` are the parameters before the step, where the model no longer holds them. ``classes``
        is counted at the model's output, and only needed where that is no matrix of logits.
        """
        trained, constants = split_tensors(model)
        require_trainable(model, trained)
        require_settled(model)
        check_fit("update's entries", update, trained)
        if params is not None:
            check_fit("parameters", params, trained)
            trained = _moved(params, trained)
        shape = check_shape(x_shape)
        if labels is not None:
            check_labels(labels, shape[0], None)
        task = Task(structure_of(model), constants, loss or cross_entropy)
        like = next(iter(trained.values()))
        with undisturbed(like.device):
            classes = count_classes(task, trained, shape, classes)
            require_deterministic(task, trained, noise_batch(like, shape))
        return cls(
            model=task.model,
            params=trained,
            update=_moved(update, trained),
            x_shape=shape,
            constants=constants,
            classes=classes,
            loss=task.loss,
            client=client or OneGradient(),
            domain=Domain.of(normalization),
            labels=None if labels is None else labels.detach().to(like.device, torch.int64, copy=True),
        )

    @property
    def task(self) -> Task:
        """A task with a structure of its own, so that an observation can be used by many threads."""
        return Task(structure_of(self.model), self.constants, self.loss)

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
        with attention_by_formula():
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


def _moved(tree: Tree, like: Tree) -> dict[str, Tensor]:
    """Copies in the dtype and on the device that ``like`` has by the same name, and in its order."""
    return map_tree(lambda model, came: came.detach().to(model, copy=True), like, tree)
