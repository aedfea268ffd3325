"""The ladder: what each rung reveals, which rungs are left out, and what the verdict says."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.attacks import Cost, Outcome, Reconstruction
from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.observe import Observation
from gradleak.threats import RUNGS, Ladder, ladder


def batches(n: int = 2, records: int = 4) -> list[tuple[Tensor, Tensor]]:
    x, _ = gl.zoo.pictures("faces", n=n * records, size=8, channels=1)
    y = torch.arange(n * records) % 5
    return [(x[i : i + records], y[i : i + records]) for i in range(0, n * records, records)]


class Normed(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__(
            nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Dropout(0.3), nn.Linear(36, 5),
        )  # fmt: skip


@dataclasses.dataclass
class Watcher:
    """An attack that notes what it is shown, and hands back the picture that it was told to."""

    answers: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    shown: list[Observation] = dataclasses.field(default_factory=list)
    name: str = "watcher"
    citations: tuple[str, ...] = ()
    budget: int = 1

    def __call__(self, obs: Observation, *, rng: Any = 0) -> Reconstruction:
        self.shown.append(obs)
        x = self.answers.get(len(self.shown), torch.full(obs.x_shape, 0.5))
        return Reconstruction(Outcome.BUDGET, x=x, y=obs.labels, score=1.0, cost=Cost(1, 0.0, 1))

    def iterate(self, obs: Observation, *, rng: Any = 0) -> Iterator[Reconstruction]:
        yield self(obs, rng=rng)


def climbed(model: nn.Module, client: Any = None, n: int = 2, **more: Any) -> tuple[Ladder, Watcher]:
    watcher = Watcher()
    return ladder(model, batches(n), client=client, attack=watcher, **more), watcher


def test_every_rung_knows_less_than_the_one_above() -> None:
    client = gl.LocalSGD(2, 2, 0.05)
    found, watcher = climbed(Normed(), client)
    assert [step.rung.name for step in found.tried] == [rung.name for rung in RUNGS]
    first = watcher.shown[::2][:6]  # the first client's, on the rungs before the sum
    assert [any(m.training for m in obs.model.modules()) for obs in first] == [False, *[True] * 5]
    assert [obs.statistics is not None for obs in first] == [True, True, False, False, False, False]
    assert [obs.labels is not None for obs in first] == [True, True, True, False, False, False]
    assert [obs.client.order != "shuffled" for obs in first] == [True] * 4 + [False] * 2  # type: ignore[attr-defined]
    assert [(obs.client.lr, obs.client.epochs) for obs in first] == [(0.05, 2)] * 5 + [(0.025, 3)]  # type: ignore[attr-defined]
    last = watcher.shown[-1]
    assert last.batch_size == 8
    assert last.client == gl.Summed(2, gl.LocalSGD(3, 2, 0.025))
    train_mode = [obs.update["5.bias"] for obs in first[1:]]
    assert all(torch.equal(train_mode[0], other) for other in train_mode)  # the same client, less known of it
    assert not torch.equal(first[0].update["5.bias"], train_mode[0])


def test_rungs_that_change_nothing_are_left_out_and_say_why() -> None:
    plain = gl.zoo.mlp(sizes=(64, 8), classes=5, seed=0)
    found, _ = climbed(plain)
    assert {step.rung.name: step.skipped for step in found.steps if step.skipped} == {
        "train mode": "no layer of the model trains differently",
        "no statistics": "the model has no BatchNorm",
        "no order": "the client takes one gradient of the whole batch",
        "settings guessed": "one gradient has no settings to guess",
    }
    alone, _ = climbed(plain, gl.LocalSGD(1, 4, 0.1), n=1)
    skipped = {step.rung.name: step.skipped for step in alone.steps}
    assert skipped["no order"] == "every local step takes the whole batch"
    assert next(s for s in alone.steps if s.rung.name == "clients summed").left_out.startswith(
        "not tried: it"
    )
    assert skipped["clients summed"] == "it takes the batches of 2 clients, and 1 came"
    given, _ = climbed(plain, gl.LocalSGD(1, 2, 0.1, order="given"))
    assert "anybody knows" in next(step.skipped for step in given.steps if step.rung.name == "no order")


def verdict_where(*leaking: int) -> Ladder:
    """A ladder of three rungs (known, no labels, summed) on which the rungs with these numbers leak."""
    model = gl.zoo.mlp(sizes=(64, 8), classes=5, seed=0)
    truths = batches()
    calls = {1: [1, 2], 2: [3, 4], 3: [5]}
    whole = torch.cat([x for x, _ in truths])
    answers = {
        call: whole if rung == 3 else truths[i][0] for rung in leaking for i, call in enumerate(calls[rung])
    }
    return ladder(model, truths, attack=Watcher(answers))


def test_the_verdict_says_where_the_leak_ends() -> None:
    none = verdict_where()
    assert none.lowest is None
    assert none.verdict == "No picture leaks to watcher on 3 of 3 rungs."
    top = verdict_where(1)
    assert top.verdict == (
        "The last rung on which pictures leak to watcher is 'everything known', rung 1 of 7: 8 of 8 there. "
        "From 'no labels' on, none does."
    )
    bottom = verdict_where(1, 2, 3)
    assert bottom.verdict.endswith("8 of 8 there, which is what a production server sees.")
    odd = verdict_where(2)  # luck: a lower rung leaks where a higher one does not
    assert odd.lowest is not None
    assert odd.lowest.rung.name == "no labels"


def test_a_row_per_rung_and_plain_json() -> None:
    found = verdict_where(1)
    rows = found.rows()
    assert len(rows) == len(RUNGS)
    assert rows[0]["leaked"] == "8 of 8"
    assert rows[1]["note"] == "as above: no layer of the model trains differently"
    facts = found.to_dict()
    assert facts["lowest"] == "everything known"
    assert [step["findings"] is None for step in facts["steps"]] == [
        bool(step.skipped) for step in found.steps
    ]


def test_the_model_comes_back_as_it_was() -> None:
    model = Normed().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    climbed(model, gl.LocalSGD(2, 2, 0.05))
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_an_interruption_keeps_what_was_found() -> None:
    class Stopped(Watcher):
        def iterate(self, obs: Observation, *, rng: Any = 0) -> Iterator[Reconstruction]:
            if len(self.shown) == 3:
                raise KeyboardInterrupt
            yield self(obs, rng=rng)

    found = ladder(gl.zoo.mlp(sizes=(64, 8), classes=5, seed=0), batches(), attack=Stopped())
    assert found.interrupted
    assert found.verdict.endswith("The run was stopped early.")
    assert [step.findings is not None for step in found.steps] == [
        True,
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert found.steps[-1].skipped == "the run was stopped before"


def test_an_attack_that_cannot_be_run_is_no_proof() -> None:
    found = ladder(gl.zoo.convnet(channels=1, size=8, width=4, seed=0), batches(), attack=gl.attacks.bias())
    assert found.verdict == "bias gave no answer on any rung, which says nothing about a leak."


def test_a_matching_attack_climbs_too_where_every_client_has_an_order_of_its_own() -> None:
    attack = gl.attacks.inverting_gradients(steps=2)
    model = gl.zoo.mlp(sizes=(64, 8), classes=5, seed=0)
    found = ladder(model, batches(), attack=attack, client=gl.LocalSGD(2, 2, 0.05))
    assert [step.rung.name for step in found.tried if not step.answered] == []


def test_bad_input_is_refused() -> None:
    model = gl.zoo.mlp(sizes=(64, 8), classes=5, seed=0)
    with pytest.raises(InvalidBatch, match="at least one batch"):
        ladder(model, [])
    with pytest.raises(InvalidInput, match="two clients or more"):
        ladder(model, batches(), together=1)
    with pytest.raises(InvalidInput, match="expected a seed"):
        ladder(model, batches(), rng=torch.Generator())


def test_the_real_attack_on_a_real_ladder() -> None:
    """Everything known gives an MLP's pictures away, and the sum of two clients does no less."""
    model = gl.zoo.mlp(sizes=(64, 32), classes=10, seed=0)
    found = ladder(model, batches(2, 2), attack=gl.attacks.exact_batch())
    assert found.steps[0].leaked == 4
    assert found.lowest is not None
    assert found.lowest.rung.name == "clients summed"


def test_the_verdict_claims_no_more_than_was_tried() -> None:
    truths = batches()
    model = gl.zoo.mlp(sizes=(64, 8), classes=5, seed=0)
    everything = {1: truths[0][0], 2: truths[1][0]}
    top = ladder(model, truths, attack=Watcher(everything), rungs=RUNGS[:1])
    assert top.verdict.endswith("8 of 8 there, the last that was tried.")
    silent = ladder(model, truths, attack=gl.attacks.idlg(evaluations=1))  # for one record only
    assert silent.verdict == "idlg gave no answer on any rung, which says nothing about a leak."


@pytest.mark.parametrize(
    "wrong",
    [
        {"batches": torch.rand(2, 1, 8, 8)},
        {"batches": [torch.rand(2, 1, 8, 8)]},
        {"batches": [*batches(1, 3), *batches(1, 4)]},
        {"rungs": ()},
        {"rungs": ["a"]},
        {"attack": 3},
        {"client": gl.Summed(2)},
    ],
)
def test_what_makes_no_ladder_is_refused(wrong: dict[str, Any]) -> None:
    given = {"batches": batches()} | wrong
    with pytest.raises(InvalidInput, match="expected"):
        ladder(gl.zoo.mlp(sizes=(64, 8), classes=5, seed=0), **given)
