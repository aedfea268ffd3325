"""Dropout before the classifier against DLG (Zheng 2021), and the attackers who get around it."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Generator, Tensor

from gradleak.attacks import Reconstruction
from gradleak.attacks.matching import Adam, Matching
from gradleak.defenses import Dropout
from gradleak.observe import Observation, OneGradient, Task
from gradleak.reproduce.defended import (
    NULL,
    TOLD,
    Victims,
    accuracies,
    adaptive,
    between,
    costs,
    naive,
)
from gradleak.reproduce.table import Column, Table, Told, Value
from gradleak.trees import Tree

_RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_EVALUATIONS = 500
_LOOKS = (20, 100, 300)
_TRAINING = 0.2  # of the time, about
_EVAL, _FRESH, _DESCENT = "eval mode", "fresh masks", "fresh, Adam"
_RECOVERED, _JOINT, _TOLD = "mask read off", "mask learnt", TOLD

_COLUMNS = (
    Column("data"),
    Column("rate", ".1f"),
    Column("attacker"),
    Column("pictures"),
    *(Column(f"RMSE at {at}", ".3f") for at in _LOOKS),
    Column("at the end", ".3f"),
    Column("null RMSE", ".3f"),
    Column("PSNR", ".1f"),
    Column("null PSNR", ".1f"),
    Column("paper"),
)
_PAPER = "stays large"
_NOTES = (
    f"{_EVAL}: a server that leaves dropout out. {_FRESH}: one whose own network throws a new mask at every "
    "evaluation, here by a hash of the picture that is asked about; its L-BFGS trusts differences of "
    "gradients that the dice have changed and soon stops, which Adam does not. "
    f"{_RECOVERED}: one that reads the mask off the columns of zeros in the classifier's gradient. "
    f"{_JOINT}: one that does not look at them, and learns the mask with the picture (after Scheliga et al. "
    "2022, who take cosine, total variation and Adam; here it is DLG's squared error and L-BFGS). "
    f"{_TOLD}: gradleak.attack, whose MAP reads the mask off, and the dlg that does where MAP fails.",
    f"All others are gradleak's dlg, with a line search, a gray start and at most {_EVALUATIONS} "
    "matching gradients. RMSE at: after so many; of pixels in [0, 1], of the best guess so far as the "
    "attacker scores it, which is clamped. One picture and one gradient each: in a batch, "
    "or over several steps, masks do not show whole.",
    NULL,
    "paper: its sets, its plots and most of its rates are not known to us. At rate 0.5 it finds no small "
    "RMSE after 5800 epochs. We do not know in which mode its attacker's network was, so that this stands "
    "beside both.",
)


@dataclass(frozen=True)
class FreshMask:
    """Dropout with another mask for every picture that is asked about, as a network in train mode throws it.

    A client is a pure function, so the dice are a hash of the picture's bytes: an attacker who never asks
    about the same picture twice sees new masks at every evaluation.
    """

    client: Dropout

    def __call__(self, task: Task, params: Tree, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        dice = zlib.crc32(x.detach().double().cpu().numpy().tobytes())
        return self.client.drawn(len(x), Generator().manual_seed(dice))(task, params, x, y)


def dropout(n: int, data: Sequence[str], tell: Told) -> Table:
    """The error of each attacker as it goes on, by the rate of dropout, and what that rate costs."""
    rows: list[tuple[Value, ...]] = []
    rates = {f"rate {rate:g}": Dropout(rate=rate) for rate in _RATES}
    spent = accuracies(rates, between(tell, 0, _TRAINING))
    for i, name in enumerate(data):
        victims = Victims.of(name, n)
        for k, (label, client) in enumerate(rates.items()):
            done = (i + k / len(rates)) / len(data)
            between(tell, _TRAINING, 1)(f"{label}, {name}", done)
            for attacker, courses in attacked(victims, client).items():
                reached = [victims.reached(found) for found in zip(*courses, strict=True)]
                rows.append(
                    (
                        name,
                        client.rate,
                        attacker,
                        n,
                        *(None if attacker == _TOLD else one.rmse for one in reached[:-1]),
                        reached[-1].rmse,
                        victims.null.rmse,
                        reached[-1].psnr,
                        victims.null.psnr,
                        _PAPER if client.rate == 0.5 and attacker in (_EVAL, _FRESH) else None,
                    )
                )
    title = "Dropout before the classifier, and who gets around it"
    return Table(title, _COLUMNS, tuple(rows), _NOTES, more=(costs(spent, {}),))


def attacked(victims: Victims, client: Dropout) -> dict[str, list[list[Reconstruction]]]:
    """By attacker, what it has after each number of matching gradients, and at the end, for each picture."""
    attack = naive(_EVALUATIONS)
    adam = replace(attack, optimizer=Adam(_EVALUATIONS))
    told, fresh = victims.cases(client), victims.cases(client, FreshMask(client))
    return {
        _EVAL: [course(attack, case.obs) for case in victims.cases(client, OneGradient())],
        _FRESH: [course(attack, case.obs) for case in fresh],
        _DESCENT: [course(adam, case.obs) for case in fresh],
        _RECOVERED: [course(attack, case.obs) for case in told],
        _JOINT: [course(attack, learning(client, case.obs)) for case in told],
        _TOLD: [[adaptive(case.obs)] * (len(_LOOKS) + 1) for case in told],
    }


def learning(client: Dropout, obs: Observation) -> Observation:
    """A server that learns the mask with the picture, and does not look at which columns are zero."""
    return replace(obs, client=replace(client.learnt(obs), seen=None))


def course(attack: Matching, obs: Observation) -> list[Reconstruction]:
    found = list(attack.iterate(obs, rng=0))  # every few matching gradients, and once more at the end
    return [found[min(at // attack.report_every, len(found)) - 1] for at in (*_LOOKS, _EVALUATIONS)]
