"""The same federated run for each of several clients: same records, same batches, same first weights."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from gradleak.defenses.base import number
from gradleak.defenses.utility.accuracy import Course, Utility
from gradleak.defenses.utility.federated import Federation, sends_weights, whole
from gradleak.defenses.utility.run import Records, prepared
from gradleak.errors import InvalidInput
from gradleak.observe import Client, Loss, cross_entropy
from gradleak.observe.checks import require_function
from gradleak.observe.uncertainty import undefended
from gradleak.randomness import Rng, generator

Clients = Client | Sequence[Client] | Mapping[str, Client]
Progress = Callable[[str, float], object]
"""Told which client is being trained, and the share of all rounds that is done."""

BASELINE = "none"
_SEEDS = 2**62


def utility(
    model: nn.Module | Callable[[int], nn.Module],
    train: Records,
    test: Records,
    *,
    clients: Clients,
    participants: int = Federation.participants,
    per_round: int | None = Federation.per_round,
    rounds: int = Federation.rounds,
    batch_size: int | None = Federation.batch_size,
    lr: float = Federation.lr,
    momentum: float = Federation.momentum,
    alpha: float | None = None,
    loss: Loss | None = None,
    seeds: int = 3,
    evaluations: int = 10,
    rng: Rng = 0,
    progress: Progress | None = None,
) -> Utility:
    """What each client's update costs the accuracy of a network that is trained on such updates.

    ``model`` is trained in the modes in which its layers are and evaluated in eval mode; a function makes one
    for each seed, and is handed it. ``clients`` are named, and costs are those beside "none": where there is
    none, it is what the others are put around, and is trained too. Seeds differ in how the records are split
    and drawn, and all clients share them. ``participants`` to ``momentum`` are those of ``Federation``;
    ``alpha`` skews the participants' labels, see ``shares``. All clients have one ``lr``: what changes an
    update's size, as clipping does, is charged with that too. Test records that are crops or copies of
    trained ones would show memory, and no accuracy.

    The model and the global random state come back as they were.
    """
    named = _named(clients)
    federation = Federation(participants, per_round, rounds, batch_size, lr, momentum)
    whole("seeds", seeds)
    whole("evaluations", evaluations)
    if alpha is not None:
        number("alpha", alpha, 0, float("inf"), open_ends="[")
    if loss is not None:
        require_function("loss", loss)
    looks = tuple(sorted({max(1, federation.rounds * k // evaluations) for k in range(1, evaluations + 1)}))
    drawn = generator(rng)
    each = [int(torch.randint(_SEEDS, (), generator=drawn)) for _ in range(seeds)]
    null = 0.0
    found: dict[str, list[tuple[list[float], int | None]]] = {name: [] for name in named}
    for i, seed in enumerate(each):
        run = prepared(model, train, test, federation, alpha, loss or cross_entropy, seed)
        null = run.null
        for k, (name, client) in enumerate(named.items()):
            tell = _teller(progress, name, i * len(named) + k, seeds * len(named), federation.rounds)
            found[name].append(run.course(client, looks, tell))
    courses = {
        name: Course(
            repr(client),
            torch.tensor([accuracy for accuracy, _ in found[name]], dtype=torch.float64),
            tuple(diverged for _, diverged in found[name]),
        )
        for name, client in named.items()
    }
    return Utility(courses, BASELINE, looks, null, len(test[1]), federation, alpha)


def _named(clients: Clients) -> dict[str, Client]:
    """Clients by name, the baseline among them and first."""
    named = _by_name(clients)
    if not named:
        raise InvalidInput(
            "expected clients to compare, such as {'noise': GaussianNoise(std=1e-2)}; came none"
        )
    for client in named.values():
        require_function("client", client)
        sends_weights(client)
    if BASELINE in named:
        return {BASELINE: named[BASELINE], **named}
    bare = [undefended(client) for client in named.values()]
    if any(one != bare[0] for one in bare):
        raise InvalidInput(
            f"expected defenses of one and the same client, or a client named {BASELINE!r} to compare with; "
            f"came defenses of {', '.join(sorted(set(map(repr, bare))))}"
        )
    return {BASELINE: bare[0], **named}


def _by_name(clients: Clients) -> dict[str, Client]:
    if isinstance(clients, Mapping):
        return dict(clients)
    listed = list(clients) if isinstance(clients, Sequence) else [clients]
    named = {repr(one) if undefended(one) != one else BASELINE: one for one in listed}
    if len(named) < len(listed):
        raise InvalidInput(
            "expected each client once, and one without a defense at most; came "
            f"{', '.join(map(repr, listed))}. Name them: {{'name': client, ...}}."
        )
    return named


def _teller(
    progress: Progress | None, name: str, before: int, runs: int, rounds: int
) -> Callable[[int], None]:
    def tell(n: int) -> None:
        if progress is not None:
            progress(name, (before + n / rounds) / runs)

    return tell
