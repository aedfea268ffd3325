"""One call from a model, data and a protocol to a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradleak.attacks import Attack
from gradleak.attacks.kinks import kinked
from gradleak.audit.choice import (
    AUTO,
    FORECAST_STEPS,
    LEVELS,
    STARTS,
    attacks_for,
    ladder_for,
    require_attacks,
    require_rung,
    require_rungs,
)
from gradleak.audit.ways import ways_of
from gradleak.cases import Here, Pool, Runner, Store, Tell, Work, run
from gradleak.cases.done import Facts
from gradleak.cases.facts import facts_of
from gradleak.cases.on_ray import OnRay
from gradleak.cases.pictures import Pictures
from gradleak.cases.texts import Texts
from gradleak.errors import InvalidBatch, InvalidInput, InvalidModel
from gradleak.observe import Client, Loss, OneGradient, observe
from gradleak.observe.domain import Domain
from gradleak.observe.words import are_words
from gradleak.randomness import generator
from gradleak.sources.attacks import on_texts
from gradleak.sources.models import usable
from gradleak.text import TextModel, Vocabulary, vocabulary
from gradleak.threads import few_threads

if TYPE_CHECKING:
    from gradleak.report.audited import Report

Clients = Client | Mapping[str, Client]


def audit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    tokenizer: Any = None,
    client: Clients | None = None,
    defenses: Sequence[str | Sequence[str]] = (),
    attacks: str | Sequence[str | Attack] = "auto",
    budget: str = "standard",
    store: Path | str | None = None,
    batch: int | None = None,
    ladder: str | Sequence[str] = "all",
    together: int = 2,
    reference: Tensor | None = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    loss: Loss | None = None,
    starts: int | None = None,
    target: float | None = None,
    seconds: float | None = None,
    workers: int = 1,
    ray: str | None = None,
    device: str = "cpu",
    names: Sequence[str] | None = None,
    class_names: Mapping[int, str] | None = None,
    title: str = "An audit",
    seed: int = 0,
    tell: Tell = lambda event: None,
) -> "Report":
    """How much the records ``x``, ``y`` lose through the updates that ``client`` sends: predicted, attacked
    and reported.

    ``client`` is one, or several by name; each is tried bare and with every one of ``defenses`` around it,
    such as "gaussian:std=1e-3", or a list of such, the outermost last. ``batch`` records go into an update,
    and all of them unless said. ``budget`` is "quick", "standard" or "thorough"; attacks are named, as in
    "dlg:trials=4", or handed in. ``ladder`` is "all" that a server may know, "ends", or names of rungs.
    ``reference`` holds public records for the null. Texts are numbers of words [N, T], of a model that
    ``gradleak.text.wrap`` made; their ``tokenizer`` makes them readable.

    With a ``store``, a folder, every finished case is kept there, and the same call goes on where a killed
    one ended; without, nothing private is written anywhere. ``workers`` are processes, and ``ray`` is the
    address of a cluster. Ctrl-C ends the audit and keeps what was found.
    """
    size = _batch_size(x, y, batch)
    _check_numbers(starts=starts, target=target, seconds=seconds, together=together, seed=seed)
    _check_kinds(reference=reference, class_names=class_names, store=store, ray=ray)
    texts = are_words(x)
    if not texts:
        _check_range(x, normalization)
    kind = _texts(model, tokenizer, reference, normalization) if texts else Pictures(reference, normalization)
    loss = model.loss if loss is None and isinstance(model, TextModel) else loss
    usable(device)
    y = y if y.is_floating_point() else y.long()
    batches = [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]
    called = list(names) if names is not None else [f"record {i + 1}" for i in range(len(x))]
    if len(called) != len(x):
        raise InvalidInput(f"expected a name for each of {len(x)} records; came {len(called)}")
    if budget not in LEVELS:
        raise InvalidInput(f"expected budget as {', '.join(LEVELS)}; came {budget!r}")
    work = Work(
        model=model,
        batches=batches,
        names=[called[i : i + size] for i in range(0, len(x), size)],
        ways=ways_of(_named(client), [(one,) if isinstance(one, str) else tuple(one) for one in defenses]),
        attacks=_attacks(attacks, budget, model, batches[0], loss),
        kind=kind,
        loss=loss,
        together=together,
        starts=STARTS[budget] if starts is None else starts,
        target=target,
        thorough=budget == "thorough",
        forecast_steps=FORECAST_STEPS[budget],
        seed=seed,
        device=device,
    )
    words = (ladder,) if isinstance(ladder, str) else tuple(ladder)
    rungs = require_rungs(tuple(require_rung(word) for word in words))
    work = work.on(ladder_for(rungs, [work.skipped(way) for way in work.ways]))
    runner = runner_of(workers, ray)
    facts = facts_of(work, title=title, class_names=class_names)
    weights = sum(p.numel() for p in model.parameters())
    from gradleak.report.audited import Report  # draws and writes: slow to load, and only now of use

    with Store(None if store is None else Path(store)) as kept, few_threads(weights, torch.device(device)):
        return Report(run(work, kept, facts, runner=runner, seconds=seconds, tell=tell))


def runner_of(workers: int, ray: str | None) -> Runner:
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InvalidInput(f"expected workers as a whole number of 1 or more; came {workers!r}")
    if ray is not None:
        return OnRay(ray, workers)
    return Here() if workers == 1 else Pool(workers)


def _batch_size(x: Tensor, y: Tensor, batch: int | None) -> int:
    for what, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            raise InvalidBatch(f"expected {what} as a tensor; came {type(value).__name__}")
    if not len(x) or len(x) != len(y):
        raise InvalidBatch(f"expected as many labels as records, and one or more; came {len(x)} and {len(y)}")
    if batch is None:
        return len(x)
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1 or len(x) % batch:
        raise InvalidInput(
            f"expected batch as a whole number that divides the {len(x)} records; came {batch!r}"
        )
    return batch


def _check_numbers(
    *, starts: int | None, target: float | None, seconds: float | None, together: int, seed: int
) -> None:
    generator(seed)
    for name, least, value in (("starts", 1, starts), ("together", 2, together)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if value is not None and not whole:
            raise InvalidInput(f"expected {name} as a whole number of {least} or more; came {value!r}")
    for name, amount in (("target", target), ("seconds", seconds)):
        number = (
            isinstance(amount, int | float) and not isinstance(amount, bool) and 0 <= amount < float("inf")
        )
        if amount is not None and not number:
            raise InvalidInput(f"expected {name} as a finite number of 0 or more; came {amount!r}")


def _check_kinds(*, reference: object, class_names: object, store: object, ray: object) -> None:
    expected = (
        ("reference", reference, Tensor, "a tensor of public records"),
        ("class_names", class_names, Mapping, "names by label"),
        ("store", store, Path | str, "a folder"),
        ("ray", ray, str, "an address"),
    )
    for name, value, kind, said in expected:
        if value is not None and (not isinstance(value, kind) or value == ""):
            raise InvalidInput(f"expected {name} as {said}; came {value!r}")


def _check_range(x: Tensor, normalization: tuple[Sequence[float], Sequence[float]] | None) -> None:
    """Attacks look for pixels from 0 to 1, and so do the numbers that are said of them."""
    if not x.is_floating_point() or not bool(x.isfinite().all()):
        raise InvalidBatch("expected x as finite floating-point numbers; came others")
    pixels = Domain.of(normalization).to_pixels(x)
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise InvalidBatch(
            f"expected records from 0 to 1 once normalization=(mean, std) is taken off; came {low:.3g} to "
            f"{high:.3g}. Say the normalization that x went through, or scale x."
        )


_SLACK = 1e-3
_CALLED = {"OneGradient": "one gradient", "LocalSGD": "local SGD", "LocalAdam": "local Adam"}


def _named(client: Clients | None) -> Mapping[str, Client]:
    if isinstance(client, Mapping):
        if not client:
            raise InvalidInput("expected one client or more by name; came none")
        return client
    one = client if client is not None else OneGradient()
    kind = type(one).__name__
    return {_CALLED.get(kind, kind): one}


def _attacks(
    said: str | Sequence[str | Attack],
    level: str,
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    loss: Loss | None,
) -> dict[str, Attack]:
    words: list[str | Attack] = list(said) if isinstance(said, list | tuple) else [said]  # type: ignore[list-item]
    specs = [one for one in words if isinstance(one, str)]
    own = [one for one in words if not isinstance(one, str)]
    found: dict[str, Attack] = {}
    if specs or not own:
        require_attacks(tuple(specs))
        texts = are_words(batch[0])
        _require_attacks_on(specs, texts=texts)
        kinks = not texts and kinked(observe(model, *batch, loss=loss))
        found = attacks_for(specs, level, kinked=kinks, texts=texts)
    if not own:
        return found
    for attack in own:
        if not hasattr(attack, "iterate"):
            raise InvalidInput(f"expected an attack, such as gl.attacks.dlg(), or its name; came {attack!r}")
        name = attack.name
        while name in found:
            name += ", again"
        found[name] = attack
    return dict(sorted(found.items(), key=lambda item: item[1].budget))


def _require_attacks_on(specs: Sequence[str], *, texts: bool) -> None:
    """An attack on pictures finds no words, nor the other way round."""
    nouns = ("texts", "pictures") if texts else ("pictures", "texts")
    for spec in specs:
        if spec != AUTO and on_texts(spec) is not texts:
            raise InvalidInput(f"expected an attack on {nouns[0]}; '{spec}' is one on {nouns[1]}")


def _texts(model: nn.Module, tokenizer: Any, reference: Tensor | None, normalization: object) -> Texts:
    if not isinstance(model, TextModel):
        raise InvalidModel(
            "expected a model of words for x of whole numbers: gradleak.text.wrap(one_of_transformers, "
            f'task="classification"); came {type(model).__name__}'
        )
    if normalization is not None:
        raise InvalidInput("expected no normalization, which is for pictures; x are words")
    if tokenizer is not None:
        return Texts(vocabulary(tokenizer), reference)
    words = tuple(f" {i}" for i in range(len(model.embeddings())))
    return Texts(Vocabulary(words, () if model.pad is None else (model.pad,)), reference)


def run_plan(
    path: Path | str,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    retry: bool = False,
    workers: int = 1,
    ray: str | None = None,
    device: str = "cpu",
    tell: Tell = lambda event: None,
) -> "Report":
    """Run the audit that a file plans, and keep it in ``out``, or in the folder "audit".

    With ``resume``, an unfinished run of this very plan is expected there, and with ``retry``, cases that
    failed before are run again.
    """
    from gradleak.audit.building import work_of
    from gradleak.audit.plan import Plan
    from gradleak.report.audited import Report

    plan, folder = Plan.read(path), Path("audit" if out is None else out)
    runner = runner_of(workers, ray)
    work, class_names = work_of(plan, device=device)
    facts = facts_of(work, title=plan.title, class_names=class_names, plan=plan.as_facts())
    with Store(folder) as store:
        if resume:
            _require_unfinished(store, facts, folder, retry=retry)
        return Report(
            run(work, store, facts, runner=runner, seconds=plan.budget.seconds, retry=retry, tell=tell)
        )


def _require_unfinished(store: Store, facts: Facts, folder: Path, *, retry: bool) -> None:
    runs = store.runs()
    if not runs:
        raise InvalidInput(f"expected an unfinished audit in {folder}; it holds none. Leave --resume away.")
    number, last = runs[-1]
    if last["finished"] and not (retry and store.record().failed):
        raise InvalidInput(f"run {number} in {folder} is finished: nothing is left to resume.")
    if last["same"] != facts["same"]:
        raise InvalidInput(
            f"run {number} in {folder} is of another plan, model or data. Leave --resume away to begin "
            "anew; cases that still hold are kept."
        )
