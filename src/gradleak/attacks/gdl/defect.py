"""How far local training is from one gradient, and what to take off where it is near."""

import dataclasses

import torch
from torch import Generator, Tensor

from gradleak.attacks.base import Reconstruction
from gradleak.errors import InvalidInput
from gradleak.observe import Client, LocalTraining, Observation, OneGradient
from gradleak.observe.task import attention_by_formula
from gradleak.trees import Tree, add, detached, dot, norm, scale, subtract

Batch = tuple[Tensor, Tensor]
_ORDERS = 4  # that a correction is averaged over, where the true one is not known


def defect(obs: Observation, x: Tensor, y: Tensor) -> float:
    """1 − cos between what local training sends for a batch and the gradient of that batch.

    On random pictures it says, before any attack, how far local training is from one gradient.
    """
    pseudo, gradient = as_gradient(obs, obs.client, x, y), as_gradient(obs, OneGradient(), x, y)
    return float(1 - dot(pseudo, gradient) / (norm(pseudo) * norm(gradient)))


def without_defect(
    obs: Observation, client: LocalTraining, pseudo: Tree, batch: Batch, rng: Generator
) -> Tree:
    """What the update would have been as one gradient, if this batch were the true one."""
    orders = 1 if client.knows_order else _ORDERS
    mean: Tree = {name: leaf * 0 for name, leaf in pseudo.items()}
    for _ in range(orders):
        one = as_gradient(obs, client.drawn(obs.batch_size, rng), *batch)
        mean = add(mean, scale(one, 1 / orders))
    return subtract(pseudo, subtract(mean, as_gradient(obs, OneGradient(), *batch)))


def as_gradient(obs: Observation, client: Client, x: Tensor, y: Tensor) -> Tree:
    """The gradient that one would take this client's update for."""
    with attention_by_formula():
        update = detached(client(obs.task, obs.params, x, y))
    if not all(bool(torch.isfinite(leaf).all()) for leaf in update.values()):
        raise InvalidInput(
            f"the client that the attacker assumes overflows on random pictures: {client!r}. Expected "
            "settings under which it trains: is its rate the one that was used?"
        )
    return dataclasses.replace(obs, update=update, client=client).gradient or update


def batch_of(found: Reconstruction) -> Batch | None:
    """The pictures and labels that were found, as a client takes them."""
    y = found.y if found.probabilities is None else found.probabilities
    return None if found.x is None or y is None else (found.x, y)
