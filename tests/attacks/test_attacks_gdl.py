"""General deep leakage: labels, what is open, and three ways to meet an update."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradleak as gl
from gradleak.attacks import Outcome
from gradleak.attacks.gdl import LearntOrder, defect
from gradleak.attacks.gdl.defect import without_defect
from gradleak.errors import InvalidInput
from gradleak.trees import norm, subtract

ORDER = [[2, 0, 3, 1], [0, 3, 1, 2]]


def net() -> nn.Module:
    return gl.zoo.convnet(classes=5, channels=1, size=8, width=8, seed=0)


def batch(n: int = 4) -> tuple[Tensor, Tensor]:
    x, _ = gl.zoo.pictures("faces", n=n, size=8, channels=1)
    return x, torch.tensor([3, 1, 1, 4, 0, 2, 2, 3])[:n]


def record(client: Any = None, **more: Any) -> gl.Observation:
    return gl.observe(net(), *batch(), client=client, **more)


def psnr(found: gl.Reconstruction) -> float:
    x, y = batch()
    return float(gl.metrics.score(found.x, found.y, x, y, classes=5).psnr.mean())  # type: ignore[arg-type]


def apart(a: Any, b: Any) -> float:
    return float(norm(subtract(a, b)) / norm(b))


# --- the order as an unknown


def learnt(sizes: int = 2) -> LearntOrder:
    return LearntOrder(gl.LocalSGD(2, sizes, 0.1), 4)


def test_shares_sum_to_one_over_batches_and_to_their_size_over_records() -> None:
    for size, sizes in ((2, [2, 2]), (3, [3, 1]), (1, [1, 1, 1, 1])):
        order = learnt(size)
        assert order.sizes == sizes
        start = order.start(4, torch.Generator().manual_seed(0))
        shares = order.shares(start, torch.tensor(1.0))
        assert shares.shape == (2, len(sizes), 4)
        torch.testing.assert_close(shares.sum(1), torch.ones(2, 4, dtype=torch.float64))
        torch.testing.assert_close(
            shares.sum(2), torch.tensor([sizes] * 2, dtype=torch.float64), atol=0.02, rtol=0
        )


def test_whole_shares_are_the_client_with_that_order() -> None:
    client = gl.LocalSGD(2, 2, 0.1, order=ORDER)
    seen = record(client)
    order = learnt()
    unknowns = torch.full((2, 2, 4), -20.0)
    for epoch, records in enumerate(ORDER):
        for place, one in enumerate(records):
            unknowns[epoch, place // 2, one] = 20.0
    blended, penalty = order.settled(unknowns.flatten(), torch.tensor(1.0))
    assert float(penalty) == 0
    assert apart(blended(seen.task, seen.params, *batch()), seen.update) < 1e-5
    found = order.order(blended.shares)
    assert [[set(e[:2]), set(e[2:])] for e in found] == [[set(e[:2]), set(e[2:])] for e in ORDER]
    even = order(seen.task, seen.params, *batch())
    assert apart(even, seen.update) > 1e-2


def test_the_order_is_held_while_the_pictures_take_shape() -> None:
    order = learnt()
    start = order.start(4, torch.Generator().manual_seed(0)).requires_grad_()
    for progress, moves in ((0.1, False), (0.5, True)):
        shares = order.settled(start, torch.tensor(progress))[0].shares
        slope = torch.autograd.grad(shares[0, 0, 0], start, allow_unused=True)[0]
        assert (slope is not None and bool(slope.any())) is moves


# --- the correction


def test_the_defect_is_nothing_for_one_step_and_grows_with_the_rate() -> None:
    def measured(client: gl.LocalSGD) -> float:
        return defect(record(client).to(torch.float64), batch()[0].double(), batch()[1])

    values = [measured(gl.LocalSGD(2, 2, lr)) for lr in (1e-4, 1e-2, 1e-1)]  # between them, kinks
    assert values == sorted(values)
    assert abs(measured(gl.LocalSGD(1, 4, 0.1))) < 1e-12
    assert values[-1] > 100 * values[0]


def test_at_the_true_pictures_the_correction_leaves_the_gradient_of_the_batch() -> None:
    client = gl.LocalSGD(2, 2, 0.05, order=ORDER)
    seen, one = record(client), record()
    pseudo = seen.as_one_gradient().update
    mended = without_defect(seen, client, pseudo, batch(), torch.Generator())
    assert apart(pseudo, one.update) > 1e-2
    assert apart(mended, one.update) < 1e-3
    unknown = dataclasses.replace(seen, client=gl.LocalSGD(2, 2, 0.05))
    guessed = without_defect(
        unknown, gl.LocalSGD(2, 2, 0.05), pseudo, batch(), torch.Generator().manual_seed(0)
    )
    assert apart(guessed, one.update) < 0.7 * apart(pseudo, one.update)


# --- the attack


def test_the_way_follows_from_the_measured_drift() -> None:
    said = {}
    for name, client in {
        "one": gl.LocalSGD(1, 4, 0.1),
        "small": gl.LocalSGD(2, 2, 1e-4),
        "large": gl.LocalSGD(2, 2, 0.1),
        "adam": gl.LocalAdam(2, 2, 1e-3),
        "sum": gl.Summed(2, gl.LocalSGD(2, 2, 0.1)),
        "plain sum": gl.Summed(2),
    }.items():
        found = gl.attacks.gdl(steps=3, determined=0.0)(record(client))
        said[name] = found.decisions[2]
    assert said["one"] == said["plain sum"] == "the update is one gradient"
    assert said["small"].startswith("corrected: on random pictures")
    assert said["large"].startswith("unrolled: on random pictures")
    assert said["adam"] == "unrolled: this client's update is no gradient"
    assert said["sum"] == "the update is a sum, and simulated as one"


def test_learning_the_order_beats_taking_the_update_for_one_gradient_where_steps_are_large() -> None:
    seen = record(gl.LocalSGD(2, 2, 0.3))
    plain = gl.attacks.gdl(way="corrected", rounds=0, steps=80)(seen)
    walked = gl.attacks.gdl(steps=80)(seen)
    assert walked.decisions[2].startswith("unrolled")
    assert psnr(walked) > psnr(plain) + 1
    assert isinstance(walked.client, gl.LocalSGD)
    assert walked.client.knows_order


def test_a_correction_helps_where_steps_are_small() -> None:
    seen = record(gl.LocalSGD(3, 4, 0.1))
    plain, mended = (gl.attacks.gdl(way="corrected", rounds=n, steps=100, tv=1e-4)(seen) for n in (0, 3))
    assert mended.score < 0.8 * plain.score
    assert mended.cost.matching_gradients > plain.cost.matching_gradients


def test_what_is_not_determined_is_said_and_not_painted() -> None:
    x, _ = gl.zoo.pictures("faces", n=8, size=24, channels=1)
    seen = gl.observe(gl.zoo.lenet(channels=1, size=24, seed=0), x, torch.arange(8) % 5)
    found = gl.attacks.gdl(steps=3)(seen)
    assert found.outcome is Outcome.NOT_APPLICABLE
    assert found.x is None
    assert "directions open" in found.reason
    tried = gl.attacks.gdl(steps=3, determined=0.0)(seen)
    assert tried.x is not None


def test_a_score_is_that_of_a_client_that_could_have_sent_the_update() -> None:
    seen = record(gl.LocalSGD(2, 2, 0.1))
    found = gl.attacks.gdl(steps=20)(seen)
    assert isinstance(found.client, gl.LocalSGD)
    assert found.x is not None
    assert found.y is not None
    sent = found.client(seen.task, seen.params, found.x, found.y)
    objective = gl.attacks.matching.Cosine()
    assert float(objective(sent, seen.update)) == pytest.approx(found.score, rel=1e-3)


def test_an_update_of_another_client_keeps_its_mismatch_and_is_not_called_converged() -> None:
    x, y = batch()
    truth = gl.observe(net(), x, y, client=gl.LocalSGD(2, 2, 0.05, order=ORDER))
    wrong = dataclasses.replace(
        truth, update={name: torch.randn_like(leaf) * leaf.norm() for name, leaf in truth.update.items()}
    )
    for seen in (wrong, dataclasses.replace(wrong, client=gl.OneGradient())):
        found = gl.attacks.gdl(steps=20, determined=0.0)(seen)
        assert found.outcome is not Outcome.CONVERGED
        assert found.score > 0.3


@pytest.mark.parametrize("term", ["tv", "clip", "stretch"])
def test_every_fidelity_term_changes_what_is_found_and_is_gone_at_zero(term: str) -> None:
    seen = record()
    without = gl.attacks.gdl(steps=15, **{"tv": 0.0, "clip": 0.0, "stretch": 0.0})(seen)
    zero = gl.attacks.gdl(steps=15, **{"tv": 0.0, "clip": 0.0, "stretch": 0.0, term: 0.0})(seen)
    strong = gl.attacks.gdl(steps=15, **{"tv": 0.0, "clip": 0.0, "stretch": 0.0, term: 10.0})(seen)
    assert without.x is not None
    assert torch.equal(without.x, zero.x)  # type: ignore[arg-type]
    # pixels are projected into [0, 1], where clip has nothing to say
    assert torch.equal(without.x, strong.x) is (term == "clip")  # type: ignore[arg-type]


def test_known_statistics_pull_the_pictures_towards_them() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 5)
    ).train()
    x, y = batch()
    seen = gl.observe(model, x, y, reveal=["statistics", "labels"])
    assert seen.statistics is not None

    def gap(weight: float) -> float:
        found = gl.attacks.gdl(steps=30, statistics=weight, determined=0.0)(seen)
        assert found.x is not None
        inputs = model[0](found.x).detach()
        return float((inputs.mean((0, 2, 3)) - seen.statistics["1.mean"]).norm())  # type: ignore[index]

    assert gap(10.0) < 0.5 * gap(0.0)


def test_bad_settings_are_refused() -> None:
    for wrong in ({"determined": 2.0}, {"way": "sideways"}, {"steps": 0}, {"lr": -1.0}):
        with pytest.raises(InvalidInput, match="expected"):
            gl.attacks.gdl(**wrong)  # type: ignore[arg-type]


def test_an_order_is_not_learnt_where_shares_of_records_are_none_of_the_clients_steps() -> None:
    normed = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)
    ).train()

    def summed(output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, y, reduction="sum")

    for model, loss in ((normed, None), (net(), summed)):
        seen = gl.observe(model, *batch(), client=gl.LocalSGD(2, 2, 0.1), loss=loss)
        found = gl.attacks.gdl(way="unrolled", steps=3, determined=0.0, labels=gl.labels.joint())(seen)
        assert found.decisions[-1].startswith("the order was not learnt, and records were taken as they come")
    plain = gl.attacks.gdl(way="unrolled", steps=3, determined=0.0)(record(gl.LocalSGD(2, 2, 0.1)))
    assert plain.decisions[-1].startswith("order learnt")
