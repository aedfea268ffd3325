"""What a perturbation adds to the update: as it is given, or as the dice of a defense fall."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gradleak.defenses import GaussianNoise, LaplaceNoise
from gradleak.errors import InvalidInput
from gradleak.observe import Client, OneGradient, Trained
from gradleak.observe.checks import check_finite, check_fit
from gradleak.observe.jacobian import Jacobian
from gradleak.observe.uncertainty import Defended, undefended
from gradleak.trees import Tree, flatten, subtract

Perturbation = Tree | Callable[[Tree], Tree] | Defended


@dataclass(frozen=True, eq=False)
class Change:
    """One row for each throw of the dice, as rows of the Jacobian; ``of`` says in words what they are."""

    rows: Tensor  # [throws, rows]
    of: str


def white(perturbation: Perturbation | None) -> float | None:
    """The deviation of a defense that only adds independent noise, for which the mean is a closed form."""
    if not isinstance(perturbation, GaussianNoise | LaplaceNoise) or perturbation.dice is not None:
        return None
    return None if isinstance(perturbation.client, Defended) else perturbation.deviation


def change(found: Jacobian, perturbation: Perturbation, throws: int, rng: Generator) -> Change:
    """``throws`` rows for a defense that throws dice, and one for anything else."""
    if isinstance(perturbation, Defended):
        return _of_defense(found, perturbation, throws, rng)
    if callable(perturbation):
        came = perturbation({name: leaf.clone() for name, leaf in found.update.items()})
        check_fit("changed update's entries", came, found.update)
        check_finite(came)
        return Change(_row(found, came)[None], "the change that a function makes")
    if not isinstance(perturbation, Mapping):
        raise InvalidInput(
            "expected a perturbation as tensors by parameter name, as a function from the update to the "
            f"one that is sent, or as a defense; came {type(perturbation).__name__}"
        )
    check_fit("perturbation's entries", perturbation, found.update)
    check_finite(perturbation)
    moved = {name: leaf + perturbation[name].detach().to(leaf) for name, leaf in found.update.items()}
    return Change(_row(found, moved)[None], "one change, as given")


def _of_defense(found: Jacobian, defense: Defended, throws: int, rng: Generator) -> Change:
    client, own = found.obs.told_client, undefended(defense)  # type: ignore[arg-type]
    if own not in (OneGradient(), client):
        raise InvalidInput(
            f"expected a defense of the client whose update it changes, {client!r}; came one of {own!r}. "
            "Leave client out, or put the defense around no client."
        )
    named = type(defense).__name__
    rows: list[Tensor] = []
    while len(rows) < throws:
        thrown = defense.drawn(len(found.x), rng) if isinstance(defense, Trained) else defense
        # The order of records stays the Jacobian's: only the defense's own dice count.
        rows.append(_row(found, found.sent_by(_around(thrown, client))))
        if len(rows) == 2 and torch.equal(*rows):
            return Change(rows[0][None], f"what {named} does, which throws no dice")
    return Change(torch.stack(rows), f"the mean over {throws} throws of {named}'s dice")


def _around(defense: Defended | Client, client: Client) -> Client:
    return defense.around(_around(defense.client, client)) if isinstance(defense, Defended) else client


def _row(found: Jacobian, sent: Tree) -> Tensor:
    """What was sent less the update, weighted as the Jacobian's rows are."""
    update, weights = found.update, found.weights or {}
    tree = subtract({name: sent[name].detach().to(leaf) for name, leaf in update.items()}, update)
    return flatten({name: leaf * weights.get(name, 1.0) for name, leaf in tree.items()})
