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
    check_tensors,
    count_classes,
    require_function,
    require_trainable,
)
from gradleak.observe.client import Client, OneGradient, Summed, Trained
from gradleak.observe.domain import Domain
from gradleak.observe.draws import drawing_layers, rest
from gradleak.observe.drift import drift_of, smooth_pixels
from gradleak.observe.layers import head, name_of, trace
from gradleak.observe.probe import require_still
from gradleak.observe.statistics import norm_layers, statistics_between
from gradleak.observe.task import (
    Loss,
    Task,
    attention_by_formula,
    cross_entropy,
    noise_batch,
    split_tensors,
    structure_of,
)
from gradleak.observe.uncertainty import Defended, told, uncertainty
from gradleak.observe.words import OfWords
from gradleak.randomness import undisturbed
from gradleak.trees import Tree, map_tree


@dataclass(frozen=True, repr=False, eq=False)
class Observation:
    """What an honest-but-curious server knows. A field that is None is *not known to it*.

    ``update`` is what the client sent: one gradient, or, after local training, W_T − W_0. ``client`` is
    the client that the attacker believes in, and ``model`` keeps the modes in which its layers were:
    ``draws`` are those that threw dice, such as dropout in train mode, which the server does not see.
    ``statistics`` are "path.mean" and "path.var" of what every BatchNorm layer saw.

    The private batch is never in here; the fields that are present are the threat model, and ``knows``
    says it in words.
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
    statistics: Tree | None = None
    draws: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_shape(self.x_shape)
        check_channels(len(self.domain.mean), self.x_shape)
        if not self.params:
            raise InvalidUpdate("expected the parameters before the step; came none at all")
        check_fit("parameters", self.params, dict(self.model.named_parameters()), partial=True)
        check_fit("update's entries", self.update, self.params, exact=True)
        check_finite(self.update)
        self._check_statistics()
        if self.labels is not None:
            plain = self.loss is cross_entropy  # another loss may take numbers that are no class
            check_labels(
                self.labels,
                self.batch_size,
                self.classes if plain else None,
                words=isinstance(self.model, OfWords),
            )

    def _check_statistics(self) -> None:
        if self.statistics is None:
            return
        expected = {
            f"{path}.{name}": self.like.new_empty(layer.num_features)
            for path, layer in norm_layers(self.model).items()
            for name in ("mean", "var")
        }
        check_fit("statistics", self.statistics, expected, partial=True)
        check_finite(self.statistics)

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
        statistics: Tree | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> "Observation":
        """An observation from your own run: a model as it was sent out, and the update that came back.

        ``params`` are the parameters before the step, where the model no longer holds them. ``classes``
        is counted at the model's output, and only needed where that is no matrix of logits. The model is
        in the modes in which the client trained it. ``statistics`` are those of ``Observation``.
        """
        trained, constants = split_tensors(model)
        require_trainable(model, trained)
        for what, value in (("loss", loss), ("client", client)):
            if value is not None:
                require_function(what, value)
        check_fit("update's entries", update, trained)
        if params is not None:
            check_fit("parameters", params, trained)
            trained = _moved(params, trained)
        shape = check_shape(x_shape)
        if labels is not None:
            check_labels(labels, shape[0], None, words=isinstance(model, OfWords))
        task = Task(structure_of(model), constants, loss or cross_entropy)
        like = next(iter(trained.values()))
        with undisturbed(like.device):
            classes = count_classes(task, trained, shape, classes)
            noise = noise_batch(like, shape)
            require_still(task, trained, noise)
            draws = drawing_layers(task, trained, noise)
        if statistics is not None:
            statistics = check_tensors("statistics", statistics)
        return cls(
            model=structure_of(model),
            params=trained,
            update=_moved(update, trained),
            x_shape=shape,
            constants=constants,
            classes=classes,
            loss=task.loss,
            client=client or OneGradient(),
            domain=Domain.of(normalization),
            labels=None if labels is None else labels.detach().to(like.device, torch.int64, copy=True),
            statistics=None if statistics is None else map_tree(lambda s: s.detach().to(like), statistics),
            draws=draws,
        )

    @classmethod
    @torch.inference_mode(False)
    def from_weights(
        cls,
        model: nn.Module,
        after: Tree,
        *,
        client: Client,
        x_shape: Sequence[int],
        classes: int | None = None,
        loss: Loss | None = None,
        labels: Tensor | None = None,
        normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> "Observation":
        """An observation from the model as it was sent out, and the ``state_dict`` that came back.

        Where the state holds running statistics that moved, the server reads the batch's off them.
        """
        trained, constants = split_tensors(model)
        after = check_tensors("weights that came back", after)
        require_function("client", client)
        check_fit("weights that came back", {n: t for n, t in after.items() if n in trained}, trained)
        steps = client.steps(check_shape(x_shape)[0]) if isinstance(client, Trained) else 1
        update = {name: after[name].detach().to(before) - before for name, before in trained.items()}
        if not any(bool(leaf.any()) for leaf in update.values()):
            raise InvalidUpdate(
                "expected weights that have moved; those that came back are the model's own. If the model "
                "was trained in place, pass one with the weights from before: copy.deepcopy(model) ahead "
                "of training."
            )
        statistics = statistics_between(model, constants, after, steps)
        if statistics is not None and not any(n.training for n in norm_layers(model).values()):
            raise InvalidUpdate(
                "the running statistics that came back have moved, so the client was in train mode, and the "
                "model is in eval mode. Call model.train() first, so that the attacker simulates the same."
            )
        return cls.from_update(
            model,
            update,
            x_shape=x_shape,
            classes=classes,
            loss=loss,
            client=client,
            labels=labels,
            statistics=statistics,
            normalization=normalization,
        )

    @property
    def task(self) -> Task:
        """A task with a structure of its own, so that an observation can be used by many threads.

        Layers that drew are at rest in it: without their dice, the mean of what they do is the best guess.
        """
        return Task(rest(structure_of(self.model), self.draws), self.constants, self.loss)

    @property
    def steps(self) -> int:
        """How many steps the client took."""
        return self.client.steps(self.batch_size) if isinstance(self.client, Trained) else 1

    @property
    def gradient(self) -> Tree | None:
        """The gradient of the batch, as far as the update tells, and the update itself where it is one.

        After local SGD, the mean gradient along the way: it is that of the whole batch up to the drift.
        None where a client's update is none, as after Adam.
        """
        if isinstance(self.client, Trained):
            return self.client.gradient_of(self.params, self.update, self.batch_size)
        return self.update

    def as_one_gradient(self) -> "Observation":
        """The same facts, with local training, or a sum of clients, taken for one gradient of the batch.

        Exact after one step of the whole batch, and otherwise as good as the drift is small. Itself where
        the client's update is no gradient.
        """
        gradient = self.gradient
        if gradient is None or not isinstance(self.client, Trained):
            return self
        return dataclasses.replace(self, update=gradient, client=OneGradient())

    @property
    def plainest(self) -> "Observation":
        """Local training that took one step, said as the gradient that it is; otherwise itself.

        Exact up to the rounding of weights, which leaves a small step few digits. Clients that are summed
        are one gradient too, unless BatchNorm looked at each one's records apart. What a defense sends is
        none.
        """
        apart = isinstance(self.client, Summed) and any(n.training for n in norm_layers(self.model).values())
        if self.steps != 1 or apart or isinstance(self.client, Defended):
            return self
        return self.as_one_gradient()

    @property
    def drift(self) -> float | None:
        """kT: how far the logits move in local training, as random pictures show; see ``drift_of``.

        None where the model does not end in a linear layer.
        """
        last = head(self)
        if last is None:
            return None
        pixels = smooth_pixels(self.x_shape, torch.Generator().manual_seed(0))
        calls = trace(self.task, self.params, self.domain.from_pixels(pixels.to(self.like)))
        path = last.weight.rpartition(".")[0]
        features = next((call.input for call in calls if call.path == path), None)
        return None if features is None else drift_of(self.client, features.flatten(1), self.batch_size)

    @property
    def told_client(self) -> Client:
        """The assumed client, with those of its dice that the update shows."""
        return told(self.client, self.params, self.update, self.batch_size)

    @property
    def uncertainty(self) -> dict[str, Tensor]:
        """The deviation of every entry of the update from what ``told_client`` sends; infinite is unseen."""
        return uncertainty(self.client, self.params, self.update, self.batch_size)

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
        facts += [f"client {self.client!r}", f"batch size {self.batch_size}"]
        words = isinstance(self.model, OfWords)
        facts += [f"at most {self.x_shape[1]} words in a text" if words else "picture shape and range"]
        facts += ["labels"] if self.labels is not None else []
        norms = norm_layers(self.model)
        if any(layer.training for layer in norms.values()):
            facts.append("that BatchNorm used the batch's own statistics")
        facts += ["the batch's statistics at every BatchNorm"] if self.statistics is not None else []
        if self.draws:
            drawing = (name_of(path, self.model.get_submodule(path)) for path in self.draws)
            facts.append(f"that {', '.join(drawing)} drew at random, and not what")
        return tuple(facts)

    def simulate(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The update that the assumed client would have sent for ``x`` and ``y``."""
        with attention_by_formula():
            return self.told_client(self.task, self.params, x, y)

    def to(self, dtype: torch.dtype) -> "Observation":
        """The same facts in another precision, to compute with; integers stay as they are."""

        def cast(tree: Tree) -> dict[str, Tensor]:
            return {name: leaf.to(dtype) if leaf.is_floating_point() else leaf for name, leaf in tree.items()}

        return dataclasses.replace(
            self,
            params=cast(self.params),
            update=cast(self.update),
            constants=cast(self.constants),
            statistics=None if self.statistics is None else cast(self.statistics),
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
