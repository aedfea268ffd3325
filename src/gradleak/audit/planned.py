"""A plan's records in batches, with the attacks on them: alike for pictures and for texts."""

from collections.abc import Sequence

from torch import Tensor, nn

from gradleak.audit.choice import attacks_for
from gradleak.audit.mistakes import Mistake
from gradleak.audit.plan import Plan
from gradleak.cases.kind import Kind
from gradleak.cases.work import Work
from gradleak.observe import Loss


def planned(
    plan: Plan,
    model: nn.Module,
    records: tuple[Tensor, Tensor, Sequence[str]],
    kind: Kind,
    *,
    loss: Loss | None = None,
    kinked: bool = False,
) -> Work:
    """``records`` are x, y and what one calls them; a network with kinks takes other attacks."""
    x, y, names = records
    each, budget = plan.data.records, plan.budget
    parts = [slice(start, start + each) for start in range(0, len(x), each)]
    found: list[Mistake] = []
    attacks = {}
    with plan.where.blamed("budget", "matching_gradients", on=found):
        attacks = attacks_for(
            plan.attacks, budget.level, kinked=kinked, texts=plan.of_texts, most=budget.matching_gradients
        )
    if found:
        raise plan.where.refusal(found)
    return Work(
        model=model,
        batches=[(x[part], y[part]) for part in parts],
        names=[names[part] for part in parts],
        ways=plan.ways,
        attacks=attacks,
        kind=kind,
        loss=loss,
    )
