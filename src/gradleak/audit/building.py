"""From a plan to an audit's work: the network, the records, the ways of training and the attacks."""

import copy
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from gradleak.attacks.kinks import kinked
from gradleak.audit.choice import FORECAST_STEPS, STARTS, ladder_for
from gradleak.audit.mistakes import Mistake
from gradleak.audit.plan import Plan
from gradleak.audit.planned import planned
from gradleak.cases.pictures import Pictures
from gradleak.cases.work import Work
from gradleak.errors import GradleakError
from gradleak.observe import Observation, observe
from gradleak.sources.models import build, builder, cause, load_weights, usable
from gradleak.sources.records import Records, Wanted, read


class Built(NamedTuple):
    """``class_names`` has those that the data's source knows."""

    work: Work
    class_names: Mapping[int, str]


def work_of(plan: Plan, device: str = "cpu") -> Built:
    """Reads and imports what the plan names; all that cannot be used is told at once."""
    usable(device)
    _importable(plan.where.folder)
    if plan.of_texts:
        from gradleak.audit.building_texts import work_of_texts

        work, class_names = work_of_texts(plan)
    else:
        work, class_names = _work_of_pictures(plan)
    work = replace(
        work,
        together=plan.together,
        starts=plan.budget.starts or STARTS[plan.budget.level],
        target=plan.budget.target,
        thorough=plan.budget.level == "thorough",
        forecast_steps=FORECAST_STEPS[plan.budget.level],
        seed=plan.seed,
        device=device,
    )
    return Built(work.on(ladder_for(plan.ladder, map(work.skipped, work.ways))), class_names)


def _work_of_pictures(plan: Plan) -> tuple[Work, Mapping[int, str]]:
    found: list[Mistake] = []
    records, model = None, None
    with plan.where.blamed("data", "source", on=found):
        records = _records(plan)
    with plan.where.blamed("model", "build", on=found):
        model = _model(plan, records)
    if model is not None and plan.model.weights is not None:
        with plan.where.blamed("model", "weights", on=found):
            load_weights(model, plan.where.folder / plan.model.weights)
    if found or records is None or model is None:
        raise plan.where.refusal(found)
    return _work(plan, model, records), records.class_names


def _records(plan: Plan) -> Records:
    data = plan.data
    wanted = Wanted(
        n=data.batches * data.records,
        first=data.first,
        size=data.size,
        channels=data.channels,
        domain=plan.domain,
        seed=plan.seed,
    )
    return read(data.source, wanted, folder=plan.where.folder)


def _model(plan: Plan, records: Records | None) -> nn.Module | None:
    """Fitted to the records; without them, only looked for."""
    if records is None:
        builder(plan.model.build or "")
        return None
    return build(plan.model.build or "", plan.model.arguments, plan.seed, fit=_fit(records))


def _fit(records: Records) -> dict[str, Any]:
    """What a builder is handed that takes it, and was not told otherwise."""
    fit: dict[str, Any] = {"channels": records.x.shape[1]}
    if records.x.dim() == 4 and records.x.shape[2] == records.x.shape[3]:
        fit["size"] = records.x.shape[-1]
    if records.classes > 1:
        fit["classes"] = records.classes
    return fit


def _work(plan: Plan, model: nn.Module, records: Records) -> Work:
    first = plan.data.records
    seen = _observed(plan, model, (records.x[:first], records.y[:first]))
    _require_labels(plan, records, seen.classes)
    kind = Pictures(records.public, plan.normalization)
    return planned(plan, model, (records.x, records.y, records.names), kind, kinked=kinked(seen))


def _observed(plan: Plan, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Observation:
    """One gradient, to see whether model and records fit each other."""
    x, y = batch
    try:
        return observe(copy.deepcopy(model).eval(), x, y * 0, normalization=plan.normalization)
    except GradleakError as error:
        words = str(error)
    except Exception as error:  # the model is someone else's code
        words = f"the model raised {cause(error)}"
    raise plan.where.refusal([Mistake(("model", "build"), words)])


def _require_labels(plan: Plan, records: Records, classes: int | None) -> None:
    """Each must be one of the model's outputs."""
    if classes is None:
        words = "expected a model that classifies, with logits [batch, classes]; came one with another output"
        raise plan.where.refusal([Mistake(("model", "build"), words)])
    low, high = int(records.y.min()), int(records.y.max())
    if high >= classes:
        words = (
            f"expected labels from 0 to {classes - 1}, since the model has {classes} outputs; came {low} to "
            f"{high}. Give the model more classes, or take other records"
        )
        raise plan.where.refusal([Mistake(("data", "source"), words)])


def _importable(folder: Path) -> None:
    """Code beside the plan is found from wherever the audit is started, and by its workers."""
    for place in ("", str(folder.resolve())):
        if place not in sys.path:
            sys.path.insert(0, place)
