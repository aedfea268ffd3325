"""A small audit for tests: real cases of about 10 ms each."""

import torch
from torch import nn

import gradleak as gl
from gradleak.cases import Work
from gradleak.cases.facts import facts_of

TITLE = "A small audit"


def small_work(*, records=3, per=1, ways=None, attacks=None, **more):
    x, y = gl.zoo.pictures("digits", size=8, n=records * per)
    first = range(0, records * per, per)
    return Work(
        model=gl.zoo.mlp(channels=1, size=8, sizes=(64, 16, 64), classes=10, seed=0),
        batches=[(x[i : i + per], y[i : i + per]) for i in first],
        names=[[f"digit {i + j + 1}" for j in range(per)] for i in first],
        ways=ways or {"fedsgd": gl.OneGradient()},
        attacks=attacks or {"bias": gl.attacks.bias(), "dlg": gl.attacks.dlg(evaluations=40)},
        **more,
    )


def facts(work, title=TITLE):
    return facts_of(work, title=title)


def figures(record):
    """All that must be the same however, and wherever, a run was done."""
    return {
        (str(done.case), done.case.attacker, done.key): [
            (row.value, row.beside, row.label_guess, row.guessed) for row in done.rows
        ]
        or [(one.value, one.verdict) for one in done.expected]
        or done.error
        for done in record.done
    }


class Fussy(nn.Module):
    """A network that cannot take three records at once, and gives no numbers for bright ones."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        if len(x) == 3:
            raise RuntimeError("<script>three are too many</script>")
        return self.inner(torch.where(x > 3, torch.nan, x))
