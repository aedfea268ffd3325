"""Three ways to meet an update: as one gradient, as one with a correction, and step by step."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Generator

from gradleak.attacks.base import Cost, Outcome, Reconstruction
from gradleak.attacks.gdl.defect import batch_of, without_defect
from gradleak.attacks.gdl.order import Blended, LearntOrder
from gradleak.attacks.matching import Adam, Given, Matching
from gradleak.observe import Client, LocalTraining, Observation
from gradleak.observe.drift import smooth_pixels
from gradleak.observe.task import attention_by_formula
from gradleak.randomness import spawn
from gradleak.trees import detached, norm, subtract

_SAME = 1e-2  # of an update, by which float32 may take two ways to one sum apart
_LARGEST = 1024  # shares of records in batches; beyond, an order is not learnt


def as_one_gradient(base: Matching, obs: Observation, rng: Generator) -> Iterator[Reconstruction]:
    yield from base.iterate(obs.plainest, rng=rng)


def corrected(
    base: Matching, gentle: Adam, rounds: int, client: LocalTraining, obs: Observation, rng: Generator
) -> Iterator[Reconstruction]:
    """As one gradient, less what local training adds to it at the pictures found so far."""
    first, *others = spawn(rng, rounds + 1)
    target = pseudo = obs.as_one_gradient()
    stage, own, before = base, first, Cost()
    while True:
        for found in stage.iterate(target, rng=own):
            told = dataclasses.replace(found, cost=_added(before, found.cost))
            if found.outcome is Outcome.RUNNING:
                yield told
        batch = batch_of(told)
        if not others or batch is None:
            break
        before, own = told.cost, others.pop(0)
        stage = dataclasses.replace(
            base,
            optimizer=gentle,
            evaluations=gentle.steps + 1,
            init=Given(obs.domain.to_pixels(batch[0])),
            trials=1,
        )
        target = dataclasses.replace(pseudo, update=without_defect(obs, client, pseudo.update, batch, own))
    yield _held_against_the_update(base, obs, told, client)


def unrolled(
    base: Matching, client: LocalTraining, obs: Observation, rng: Generator
) -> Iterator[Reconstruction]:
    """Through every local step; where the order of the records is not known and matters, it is learnt."""
    order = LearntOrder(client, obs.batch_size)
    if client.knows_order or len(order.sizes) == 1:
        yield from base.iterate(obs, rng=rng)
        return
    why_not = _not_learnt(obs, order)
    if why_not:
        said = (f"the order was not learnt, and records were taken as they come: {why_not}",)
        for found in base.iterate(obs, rng=rng):
            yield dataclasses.replace(found, decisions=said)
        return
    for found in base.iterate(dataclasses.replace(obs, client=order), rng=rng):
        if found.outcome is Outcome.RUNNING:
            yield dataclasses.replace(found, client=None)
    if not isinstance(found.client, Blended):
        yield found
        return
    whole = dataclasses.replace(client, order=order.order(found.client.shares))
    judged = _held_against_the_update(base, obs, found, whole)
    said = (
        f"order learnt: {found.score:.1e} of the update is missed with shared records, and "
        f"{judged.score:.1e} with whole ones",
    )
    yield dataclasses.replace(judged, decisions=said)


def _not_learnt(obs: Observation, order: LearntOrder) -> str:
    """Why shares of records cannot stand for whole ones here, or nothing."""
    if order.unknowns > _LARGEST:
        return f"it would take {order.unknowns:,} unknowns"
    x = obs.domain.from_pixels(smooth_pixels(obs.x_shape, Generator().manual_seed(0)).to(obs.like))
    y = torch.arange(obs.batch_size, device=x.device) % (obs.classes or 2)
    as_they_come = [[*range(obs.batch_size)]] * order.client.epochs
    whole = dataclasses.replace(order.client, order=as_they_come)
    with attention_by_formula():
        sent, blended = (
            detached(one(obs.task, obs.params, x, y)) for one in (whole, order.whole(as_they_come, x))
        )
    if float(norm(subtract(blended, sent))) <= _SAME * float(norm(sent)):
        return ""
    return (
        "learning it takes every record's share in every step, and this client mixes the records of a step, "
        "as BatchNorm in train mode or a loss that sums does"
    )


def _held_against_the_update(
    base: Matching, obs: Observation, found: Reconstruction, client: Client
) -> Reconstruction:
    """The same pictures, with the mismatch of a client that could really have sent the update."""
    batch = batch_of(found)
    if batch is None:
        return found
    with attention_by_formula():
        sent = client(obs.task, obs.params, *batch)
    score = float(base.objective(detached(sent), obs.update))
    explained = score <= base.tolerance
    stopped = Outcome.BUDGET if found.outcome is Outcome.CONVERGED else found.outcome
    return dataclasses.replace(
        found, score=score, outcome=Outcome.CONVERGED if explained else stopped, client=client
    )


def _added(a: Cost, b: Cost) -> Cost:
    return Cost(a.matching_gradients + b.matching_gradients, a.seconds + b.seconds, max(a.trials, b.trials))
