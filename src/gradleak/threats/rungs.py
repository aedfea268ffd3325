"""The rungs, from a server that knows everything down to what production hands it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.observe import Client, LocalTraining, Loss, Observation, Summed, observe
from gradleak.observe.draws import trains_differently
from gradleak.observe.statistics import norm_layers
from gradleak.observe.uncertainty import Defended, undefended
from gradleak.observe.words import are_words

Batch = tuple[Tensor, Tensor]
Seen = tuple[Observation, Batch]


@dataclass(frozen=True, eq=False)
class Setting:
    """What is trained, on what and how; ``guessed`` is what a server takes the client for, if not told."""

    model: nn.Module
    batches: Sequence[Batch]
    client: Client
    guessed: Client
    together: int
    normalization: Any
    rng: int
    loss: Loss | None = None

    def seen(
        self, *, reveal: Sequence[str], training: bool, guessed: bool = False, together: int = 1
    ) -> list[Seen]:
        """Every batch as the server sees it, or every group of ``together`` batches."""
        model = copy.deepcopy(self.model)
        if not training or not any(module.training for module in model.modules()):
            model.train(training)  # what was handed in training keeps its modes: some layers may be frozen
        groups = [
            self.batches[i : i + together] for i in range(0, len(self.batches) - together + 1, together)
        ]
        found = []
        if self.labels_are_words:
            reveal = [name for name in reveal if name != "labels"]  # they are the texts themselves
        for i, group in enumerate(groups):
            x, y = torch.cat([x for x, _ in group]), torch.cat([y for _, y in group])
            client, taken = self.client, self.guessed if guessed else None
            if together > 1:
                client, taken = Summed(together, client), Summed(together, taken or client)
            seen = observe(
                model,
                x,
                y,
                client=client,
                assumed=taken,
                reveal=reveal,
                loss=self.loss,
                normalization=self.normalization,
                rng=(self.rng + i) % 2**63,
            )
            found.append((seen, (x, y)))
        return found

    @property
    def labels_are_words(self) -> bool:
        x, y = self.batches[0]
        return are_words(x) and are_words(y)


@dataclass(frozen=True)
class Rung:
    """``lost`` is what the server knew on the rung above. ``skipped`` says why the rung is left out here: it
    is the ``same`` as the one above, or else it cannot be tried.
    """

    name: str
    lost: str
    observations: Callable[[Setting], list[Seen]]
    skipped: Callable[[Setting], str] = lambda setting: ""
    same: bool = True


_ALL = ("labels", "statistics", "order")


def _no_difference(setting: Setting) -> str:
    return "" if trains_differently(setting.model) else "no layer of the model trains differently"


def _no_statistics(setting: Setting) -> str:
    return "" if norm_layers(setting.model) else "the model has no BatchNorm"


def _no_labels(setting: Setting) -> str:
    return "labels are words of the texts, which no server is told" if setting.labels_are_words else ""


def _no_order(setting: Setting) -> str:
    client = undefended(setting.client)
    if not isinstance(client, LocalTraining):
        return "the client takes one gradient of the whole batch"
    if client.knows_order:
        return "the client takes its records in an order that anybody knows"
    records = len(setting.batches[0][0])
    return "" if client.batch_size < records else "every local step takes the whole batch"


def _nothing_to_guess(setting: Setting) -> str:
    return "one gradient has no settings to guess" if setting.guessed == setting.client else ""


def _alone(setting: Setting) -> str:
    needed = max(setting.together, 2)
    few = len(setting.batches) < needed
    return f"it takes the batches of {needed} clients, and {len(setting.batches)} came" if few else ""


RUNGS: tuple[Rung, ...] = (
    Rung(
        "everything known",
        "nothing: the network is in eval mode, and labels, BatchNorm statistics and order are known",
        lambda setting: setting.seen(reveal=_ALL, training=False),
    ),
    Rung(
        "train mode",
        "layers at rest: in training, BatchNorm uses the batch's own statistics, and dropout draws",
        lambda setting: setting.seen(reveal=_ALL, training=True),
        _no_difference,
    ),
    Rung(
        "no statistics",
        "the batch's statistics at every BatchNorm",
        lambda setting: setting.seen(reveal=("labels", "order"), training=True),
        _no_statistics,
    ),
    Rung(
        "no labels",
        "the labels",
        lambda setting: setting.seen(reveal=("order",), training=True),
        _no_labels,
    ),
    Rung(
        "no order",
        "the order in which local training takes the records",
        lambda setting: setting.seen(reveal=(), training=True),
        _no_order,
    ),
    Rung(
        "settings guessed",
        "the client's local settings: its rate and epochs are a guess",
        lambda setting: setting.seen(reveal=(), training=True, guessed=True),
        _nothing_to_guess,
    ),
    Rung(
        "clients summed",
        "which client sent what: only the sum of several is seen",
        lambda setting: setting.seen(reveal=(), training=True, guessed=True, together=setting.together),
        _alone,
        same=False,
    ),
)
"""Each loses what the one above it knew, and those below lack it too."""


def guess_at(client: Client) -> Client:
    """A guess at local training by a server that was not told: half the rate, one epoch more.

    Batch size, momentum and the like stay: they are in most recipes, and rarely changed.
    """
    if isinstance(client, Defended):
        return replace(client, client=guess_at(client.client))  # type: ignore[type-var]
    if not isinstance(client, LocalTraining):
        return client
    order = client.order if isinstance(client.order, str) else "shuffled"
    return replace(client, lr=client.lr / 2, epochs=client.epochs + 1, order=order)
