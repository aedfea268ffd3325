"""Known, joint, and the order in which inferred asks."""

import pytest
import torch
from torch import Tensor, nn

from gradleak import Observation, labels, observe, zoo
from gradleak.labels import LabelGuess, Unanswerable
from gradleak.labels.inferred import FirstThatAnswers


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def look(n: int = 1, *, reveal: tuple[str, ...] = (), dtype: torch.dtype = torch.float64) -> Observation:
    x, y = zoo.pictures("digits", size=8, n=n)
    return observe(zoo.mlp(10, 1, 8, seed=0).to(dtype), x, y, reveal=reveal)


def squares(output: Tensor, y: Tensor) -> Tensor:
    return (output.flatten(1).sum(1) - y).square().mean()


def without_logits() -> Observation:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    x, y = zoo.pictures("digits", size=8, n=2)
    return observe(model, x, y, loss=squares)


def test_the_room_shows_exactly_this() -> None:
    shown = {"LabelGuess", "LabelStrategy", "Presence", "Unanswerable", "wrong_sign_or_scale"}
    shown |= {"best", "combined", "factorized", "idlg", "inferred", "joint", "known", "presence"}
    shown |= {"row_minimum", "row_sum", "simulated", "zero_shot"}
    assert set(labels.__all__) == shown


def test_known_takes_what_is_revealed_and_nothing_else() -> None:
    answer = labels.known()(look(3, reveal=("labels",)), rng=rng())
    assert isinstance(answer, LabelGuess)
    assert answer.y is not None
    assert answer.y.tolist() == zoo.pictures("digits", n=3)[1].tolist()
    assert answer.certain
    answer = labels.known()(look(3), rng=rng())
    assert isinstance(answer, Unanswerable)
    assert "does not reveal" in answer.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_joint_starts_from_normal_logits_of_the_models_dtype(dtype: torch.dtype) -> None:
    answer = labels.joint()(look(4, dtype=dtype), rng=rng(5))
    assert isinstance(answer, LabelGuess)
    assert answer.y is None
    assert not answer.certain
    assert answer.logits is not None
    assert torch.equal(answer.logits, torch.randn(4, 10, generator=rng(5), dtype=dtype))


def test_joint_depends_on_its_generator_alone() -> None:
    obs, before = look(2), torch.get_rng_state()
    first, again, other = (labels.joint()(obs, rng=rng(seed)) for seed in (1, 1, 2))
    assert isinstance(first, LabelGuess)
    assert isinstance(again, LabelGuess)
    assert isinstance(other, LabelGuess)
    assert torch.equal(first.logits, again.logits)
    assert not torch.equal(first.logits, other.logits)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.device("meta"):
        elsewhere = labels.joint()(obs, rng=rng(1))
    assert isinstance(elsewhere, LabelGuess)
    assert torch.equal(first.logits, elsewhere.logits)


def test_joint_needs_logits() -> None:
    answer = labels.joint()(without_logits(), rng=rng())
    assert isinstance(answer, Unanswerable)
    assert "logits" in answer.reason


def test_inferred_prefers_what_is_surer() -> None:
    revealed = look(1, reveal=("labels",))
    wrong = (zoo.pictures("digits", n=1)[1] + 1) % 10
    lied = Observation(**{**vars(revealed), "labels": wrong})
    unreadable = zoo.mlp(10, 1, 8, seed=0).append(nn.Tanh())  # and so no linear head
    hidden = observe(unreadable, *zoo.pictures("digits", size=8, n=2))
    answers = [labels.inferred()(obs, rng=rng()) for obs in (lied, look(1), look(2), hidden)]
    known, signed, counted, joint = answers
    assert isinstance(counted, LabelGuess)
    assert counted.y is not None
    assert counted.y.tolist() == zoo.pictures("digits", n=2)[1].sort().values.tolist()
    assert isinstance(known, LabelGuess)
    assert isinstance(signed, LabelGuess)
    assert isinstance(joint, LabelGuess)
    assert known.y is not None
    assert known.y.tolist() == wrong.tolist()  # not the sign rule's
    assert signed.y is not None
    assert signed.y.tolist() == zoo.pictures("digits", n=1)[1].tolist()
    assert joint.y is None
    assert joint.logits is not None


def test_inferred_gives_every_reason_where_none_can_answer() -> None:
    answer = labels.inferred()(without_logits(), rng=rng())
    assert isinstance(answer, Unanswerable)
    asked = (labels.known(), labels.best(), labels.joint())
    reasons = [strategy(without_logits(), rng=rng()) for strategy in asked]
    assert answer.reason == "; ".join(r.reason for r in reasons if isinstance(r, Unanswerable))
    assert len({id(r) for r in reasons if isinstance(r, Unanswerable)}) == 3


def test_citations_are_those_of_the_strategies_each_once() -> None:
    assert labels.known().citations == ()
    assert labels.idlg().citations == ("idlg",)
    assert labels.joint().citations == ("dlg",)
    assert labels.inferred().citations == ("idlg", "gdl", "fedavg_leakage", "spear", "dlg")
    twice = FirstThatAnswers((labels.joint(), labels.idlg(), labels.joint()))
    assert twice.citations == ("dlg", "idlg")
