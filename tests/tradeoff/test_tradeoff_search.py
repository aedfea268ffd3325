"""The search on its own: galloping, strengths, targets, and a tiny whole run that is stopped and goes on."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gradleak as gl
from gradleak.defenses import DPSGD, Clip, Federation, GaussianNoise, Mask, utility
from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.metrics import identified
from gradleak.observe import Client
from gradleak.report.frontier import page
from gradleak.tradeoff import (
    STRENGTHS,
    Curve,
    Leak,
    Setting,
    Store,
    Subject,
    Target,
    Tradeoff,
    Training,
    Yardstick,
    tradeoff,
)
from gradleak.tradeoff.search import weakest

BUILD = partial(gl.zoo.mlp, sizes=(64, 16))


def made(seed: int) -> torch.nn.Module:
    return BUILD(seed=seed)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return gl.zoo.pictures("digits", size=8, n=150)


@pytest.fixture(scope="module")
def subject(digits: tuple[Tensor, Tensor]) -> Subject:
    x, y = digits
    return Subject(made(0), [(x[:1], y[:1])], gallery=x[100:], reference=x[1:])


@pytest.fixture(scope="module")
def training(digits: tuple[Tensor, Tensor]) -> Training:
    x, y = digits
    short = Federation(participants=4, rounds=12, batch_size=1, lr=0.03)
    return Training(made, (x[50:], y[50:]), (x[:50], y[:50]), "some digits", federation=short, seeds=2)


def test_the_weakest_level_is_found_from_any_start_in_few_questions() -> None:
    for count in range(1, 18):
        for first in range(count + 1):
            for start in range(-1, count + 1):
                asked: list[int] = []

                def holds(i: int, first: int = first, asked: list[int] = asked) -> bool:
                    asked.append(i)
                    return i >= first

                assert weakest(count, start, holds) == (first if first < count else None)
                assert len(asked) == len(set(asked)) <= 9
                assert all(0 <= i < count for i in asked)
                if start == first < count:
                    assert len(asked) <= 2


def test_strengths_go_up_and_are_those_of_the_update(subject: Subject) -> None:
    update = subject.updates(gl.OneGradient())[0]
    entries = torch.cat([leaf.flatten() for leaf in update.values()])
    yard = Yardstick.of([update], 1)
    assert yard.rms == pytest.approx(float(entries.square().mean().sqrt()))
    assert yard.norm == pytest.approx(float(entries.norm()))
    assert yard.layers == ("linear1", "linear")
    settings = {name: one.settings(name, yard, gl.OneGradient()) for name, one in STRENGTHS.items()}
    for name, found in settings.items():
        levels = [one.level for one in found]
        assert sorted(levels, reverse=name == "clip") == levels, name
        assert len({one.words for one in found}) == len(found)
    at_one = next(one for one in settings["gaussian"] if one.level == 1)
    assert at_one.client == GaussianNoise(std=yard.rms)
    assert settings["clip"][0].client == Clip(norm=yard.norm)
    blurs = [
        next(one for one in settings[name] if one.level == 10).client.uncertainty({}, update, 1)
        for name in ("gaussian", "laplace")
    ]
    assert all(torch.allclose(blurs[0][name], blurs[1][name]) for name in update)
    private = next(one for one in settings["dpsgd"] if one.level == 10).client
    assert private.deviation(1) == pytest.approx(10 * yard.rms)
    assert settings["mixup"] == []
    assert [one.client.layers for one in settings["withhold"]] == [("linear1",)]


def test_all_defenses_of_the_library_can_be_searched() -> None:
    assert set(STRENGTHS) == set(gl.defenses.DEFENSES)


LEAK = Leak((12.0, 17.0), (0.1, 0.6), (True, False))


@pytest.mark.parametrize(
    ("target", "holds"),
    [
        (Target(psnr=17.1), True),
        (Target(psnr=17.0), False),
        (Target(ssim=0.61), True),
        (Target(ssim=0.6), False),
        (Target(identified=0.5), True),
        (Target(identified=0.4), False),
        (Target(psnr=18, ssim=0.5), False),
        (Target(psnr=18, ssim=0.7, identified=0.5), True),
    ],
)
def test_a_target_is_about_the_worst_picture_and_all_of_its_measures(target: Target, holds: bool) -> None:
    assert target.holds(LEAK) is holds


def test_the_better_attacker_is_better_picture_by_picture() -> None:
    other = Leak((13.0, 16.0), (0.2, 0.5), (False, True))
    assert LEAK.or_better(other).to_dict() | {} == Leak((13.0, 17.0), (0.2, 0.6), (True, True)).to_dict()
    assert Leak.from_dict(json.loads(json.dumps(LEAK.to_dict()))) == LEAK


def test_a_guess_identifies_whom_it_is_nearest_to() -> None:
    gallery, truth = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0]]).expand(4, 2)
    guess = torch.tensor([[0.3, 0.8], [0.2, 0.3], [torch.nan, 1.0], [0.0, 0.5]])  # the last one is a tie
    assert identified(guess, truth, gallery).tolist() == [True, False, False, False]
    with pytest.raises(InvalidBatch, match="expected a gallery"):
        identified(guess, truth, gallery[:0])


def test_what_is_kept_is_found_again_and_nothing_else(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute(value: int) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            calls.append(value)
            return {"value": value}

        return run

    first = Store(tmp_path)
    assert first.get({"a": 1}, compute(1)) == {"value": 1}
    assert first.get({"a": 2}, compute(2)) == {"value": 2}
    again = Store(tmp_path)
    assert again.get({"a": 1}, compute(3)) == {"value": 1}
    assert (again.found, again.computed, calls) == (1, 0, [1, 2])
    for file in tmp_path.iterdir():
        file.write_text(file.read_text()[:-9])  # a file that breaks off is worked out anew
    assert Store(tmp_path).get({"a": 1}, compute(4)) == {"value": 4}


def search(subject: Subject, training: Training, folder: Path, **settings: Any) -> tuple[Tradeoff, Store]:
    store = Store(folder)
    chosen = {"target": Target(psnr=18), "defenses": ("gaussian", "clip", "mixup"), **settings}
    return tradeoff(subject, training=training, store=store, **chosen), store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("points")


@pytest.fixture(scope="module")
def found(subject: Subject, training: Training, folder: Path) -> Tradeoff:
    return search(subject, training, folder)[0]


def test_the_chosen_strength_holds_and_the_one_below_it_does_not(found: Tradeoff) -> None:
    gaussian, clip, mixup = found.curves
    assert gaussian.chosen is not None
    assert gaussian.chosen.adaptive.worst < 18 <= found.bare.adaptive.worst
    below = gaussian.points[gaussian.points.index(gaussian.chosen) - 1]
    assert below.adaptive.worst >= 18
    assert float(gaussian.chosen.client.partition("std=")[2][:-1]) == pytest.approx(
        10 ** (1 / 3) * float(below.client.partition("std=")[2][:-1])
    )
    assert all(point.adaptive.worst >= point.naive.worst for curve in found.curves for point in curve.points)
    assert clip.chosen is None
    assert "even with 0.01 × the update" in clip.reason
    assert "only shortens an update" in clip.reason
    assert mixup.points == ()
    assert "a batch of one has nothing to blend" in mixup.reason


def test_costs_are_those_of_the_library_s_own_comparison(found: Tradeoff, training: Training) -> None:
    chosen = found.curves[0].chosen
    assert chosen is not None
    std = float(chosen.client.partition("std=")[2][:-1])
    own = utility(
        made, training.train, training.test, clients={"noise": GaussianNoise(std=std)},
        participants=4, rounds=12, batch_size=1, lr=0.03, seeds=2, evaluations=1,
    )  # fmt: skip
    assert chosen.cost(found.bare) == own.cost("noise")


def test_the_recommendation_says_the_setting_the_leak_the_null_and_the_price(found: Tradeoff) -> None:
    chosen = found.curves[0].chosen
    assert chosen is not None
    said = found.recommendation
    assert said.startswith(f"Gaussian noise ({chosen.words}) holds the best attacker we have at ")
    assert f"{chosen.adaptive.worst:.1f} dB" in said
    assert f"(a guess without the update: {found.null.worst:.1f})" in said
    assert "points of accuracy (95 %: " in said
    none = replace(found, curves=found.curves[1:])
    assert none.recommendation.startswith(
        "No defense that was searched holds the best attacker we have below 18"
    )
    least = min((point.adaptive for point in found.curves[1].points), key=lambda leak: leak.worst)
    assert f"still reaches {least.reached}" in none.recommendation
    needless = replace(found, target=Target(psnr=101))
    assert needless.recommendation.startswith("No defense is needed")
    cheap = replace(found.curves[0], title="Cheap", chosen=replace(chosen, course=found.bare.course))
    assert replace(found, curves=(*found.curves, cheap)).holding[0] is cheap
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_cost_is_as_high_as_it_may_be(found: Tradeoff) -> None:
    chosen, bare = found.curves[0].chosen, found.bare.course
    assert chosen is not None
    assert bare is not None

    def curve(title: str, *lost: float) -> Curve:
        accuracy = tuple(a - b for a, b in zip(bare.accuracy, lost, strict=True))
        priced = replace(chosen, course=replace(bare, accuracy=accuracy))
        return replace(found.curves[0], title=title, chosen=priced)

    sure, doubtful = curve("Sure", 0.020, 0.022), curve("Doubtful", 0.055, -0.045)
    both = replace(found, curves=(doubtful, sure))
    assert [one.title for one in both.holding] == ["Sure", "Doubtful"]
    assert "and costs 2.1 points of accuracy (95 %: 0.8 to 3.4)" in both.recommendation
    unpriced = replace(found.curves[0], title="Unpriced", chosen=replace(chosen, course=None))
    assert replace(found, curves=(unpriced, doubtful)).holding == (doubtful, unpriced)
    alone = replace(found, curves=(doubtful,)).recommendation
    assert "costs 0.5 points of accuracy" in alone
    assert "which these seeds cannot tell from none" in alone


def test_a_poor_picture_that_tells_whose_it_is_is_mentioned(found: Tradeoff) -> None:
    chosen = found.curves[0].chosen
    assert chosen is not None

    def said(*found_by_guess: bool) -> str:
        told = replace(chosen, adaptive=replace(chosen.adaptive, identified=found_by_guess))
        return replace(found, curves=(replace(found.curves[0], chosen=told),)).recommendation

    assert "Still, 1 of 1 guess tells which of 51 pictures was meant" in said(True)
    assert "Still," not in said(False)


def test_the_same_run_again_works_nothing_out(
    found: Tradeoff, subject: Subject, training: Training, folder: Path
) -> None:
    again, store = search(subject, training, folder)
    assert store.computed == 0
    assert store.found > 5
    assert again.to_dict() == found.to_dict()
    more, store = search(subject, training, folder, target=Target(psnr=20), defenses=("gaussian",))
    assert store.computed <= 8  # what is new beside it, and not the whole
    assert store.found >= 4
    assert more.target == Target(psnr=20)


def test_a_run_that_is_stopped_keeps_its_points_and_goes_on(
    found: Tradeoff, subject: Subject, training: Training, tmp_path: Path
) -> None:
    def stop(what: str, share: float) -> None:
        if what.startswith("training with clip"):
            raise KeyboardInterrupt

    stopped, first = search(subject, training, tmp_path, defenses=("clip", "mixup"), tell=stop)
    assert stopped.interrupted
    assert stopped.curves[0].points
    assert [curve.reason for curve in stopped.curves] == ["the run was stopped before"] * 2
    assert "stopped before all defenses were searched" in stopped.recommendation
    closed = tradeoff(
        subject, target=Target(psnr=18), training=training, store=Store(tmp_path, closed=True),
        defenses=("clip", "mixup"),
    )  # fmt: skip
    assert closed.interrupted
    done, second = search(subject, training, tmp_path, defenses=("clip",))
    assert second.found == first.computed
    assert first.computed + second.computed == len(list(tmp_path.iterdir()))
    assert done.to_dict()["defenses"] == [found.to_dict()["defenses"][1]]


def test_other_data_are_trained_on_at_the_same_relative_strength(
    training: Training, subject: Subject
) -> None:
    elsewhere = replace(training, own=False)
    clips = STRENGTHS["clip"].settings("clip", subject_yardstick(subject), gl.OneGradient())
    setting = next(one for one in clips if one.level == 0.1)
    there = elsewhere.alike(setting)
    assert isinstance(there.client, Clip)
    assert there.client.norm == pytest.approx(0.1 * elsewhere.yardstick.norm)
    assert elsewhere.yardstick.norm != subject_yardstick(subject).norm
    assert training.alike(setting) is setting
    assert elsewhere.alike(Setting("none", "no defense", 0.0, gl.OneGradient())).client == gl.OneGradient()


def test_a_server_makes_up_for_updates_that_are_shorter_or_longer_throughout(subject: Subject) -> None:
    yard = subject_yardstick(subject)
    update = subject.updates(gl.OneGradient())[0]
    entries = torch.cat([leaf.flatten() for leaf in update.values()])
    for name in ("clip", "sign"):
        for one in STRENGTHS[name].settings(name, yard, gl.OneGradient()):
            sent = torch.cat([leaf.flatten() for leaf in subject.updates(one.client)[0].values()])
            there = (
                float((entries != 0).double().mean().sqrt()) if name == "sign" else 1.0
            )  # some signs are 0
            assert float(one.rate * sent.norm() / entries.norm()) == pytest.approx(there, rel=1e-5)


def subject_yardstick(subject: Subject) -> Yardstick:
    return Yardstick.of(subject.updates(gl.OneGradient()), subject.records)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target": Target(psnr=5)}, "no defense can push an attacker below a guess without the update"),
        ({"target": Target(ssim=-0.9)}, "expected a target above an SSIM of"),
        ({"defenses": ("gausian",)}, "expected defenses among gaussian, laplace"),
    ],
)
def test_what_cannot_be_searched_is_said_at_once(
    subject: Subject, training: Training, tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        search(subject, training, tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInput, match="expected a target"):
        Target()


def test_what_is_held_only_by_failure_of_our_attacks_is_no_safety(found: Tradeoff) -> None:
    gaussian = found.curves[0]
    chosen = gaussian.chosen
    assert chosen is not None
    assert max(chosen.predicted) < 21  # attacks and prediction agree here
    assert found.trusted is gaussian
    lucky = replace(chosen, predicted=(99.0,))
    doubted = replace(gaussian, title="Lucky", chosen=replace(lucky, course=found.bare.course))
    both = replace(found, curves=(doubted, gaussian))
    assert both.holding == (gaussian, doubted)  # though the lucky one costs nothing
    assert both.headline.startswith("Gaussian noise")
    alone = replace(found, curves=(doubted,))
    assert alone.headline == "No defense is known to hold"
    assert "Lucky" in alone.recommendation
    assert "only by failure of our attacks" in alone.recommendation
    assert "60+ dB are predicted" in alone.recommendation
    bare = replace(found.bare, adaptive=found.null, naive=found.null)
    missed = replace(found, bare=bare, curves=())
    assert max(bare.predicted) > 21
    assert missed.headline == "No defense is known to hold"
    assert "No defense is needed" not in missed.recommendation
    assert "held only by failure of our attacks; predicted 60+ dB" in page(missed)


def test_a_level_is_sought_at_which_prediction_and_attack_agree(subject: Subject) -> None:
    poor, good = subject.null, replace(subject.null, psnr=(40.0,))

    class Scripted(Subject):
        """Attacks fail from the first level on, and the prediction falls below the target at the fourth."""

        def naive(self, client: Client, store: Store) -> Leak:
            return good if client == gl.OneGradient() else poor

        adaptive = naive

        def predicted(self, client: Client, store: Store) -> tuple[float, ...]:
            if client == gl.OneGradient() or not isinstance(client, Mask):
                return (60.0,)
            return (60.0,) if client.rate < 0.95 else (19.0,)

    told = Scripted(subject.model, subject.batches, subject.gallery, subject.reference)
    done = tradeoff(told, target=Target(psnr=18), defenses=("mask", "sign"))
    masked, signs = (curve.chosen for curve in done.curves)
    assert masked is not None
    assert masked.words == "95 % of the entries dropped"
    assert signs is not None
    assert signs.doubted(done.target)
    assert done.curves[1].reason.startswith("held only by failure of our attacks; 60+ dB")
    assert done.trusted is done.curves[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_target_is_a_number(value: float) -> None:
    for name in ("psnr", "ssim", "identified"):
        with pytest.raises(InvalidInput, match=f"expected the target for {name}"):
            Target(**{name: value})


def test_a_point_that_lacks_what_is_asked_for_is_worked_out_anew(tmp_path: Path) -> None:
    Store(tmp_path).get({"a": 1}, dict)
    assert Store(tmp_path).get({"a": 1}, lambda: {"psnr": 1}, ("psnr",)) == {"psnr": 1}
    assert Store(tmp_path).get({"a": 1}, dict, ("psnr",)) == {"psnr": 1}


def test_points_of_train_mode_are_not_those_of_eval_mode(subject: Subject) -> None:
    assert replace(subject, model=made(0).eval()).hash != replace(subject, model=made(0).train()).hash


def test_an_interval_beyond_all_accuracies_is_not_told(found: Tradeoff) -> None:
    chosen, bare = found.curves[0].chosen, found.bare.course
    assert chosen is not None
    assert bare is not None
    far = replace(bare, accuracy=(bare.accuracy[0], bare.accuracy[1] - 0.5))
    said = replace(
        found, curves=(replace(found.curves[0], chosen=replace(chosen, course=far)),)
    ).recommendation
    assert "costs 25.0 points of accuracy (too few seeds to say)" in said
    assert "95 %" not in said


def test_dp_sgd_says_what_it_promises(training: Training) -> None:
    pytest.importorskip("opacus")
    levels = STRENGTHS["dpsgd"].settings("dpsgd", training.yardstick, gl.OneGradient())
    assert training.promise(levels[0]) == "no promise at this strength"
    strong = replace(levels[0], client=DPSGD(clip=1.0, noise_multiplier=20.0))
    spent = gl.defenses.epsilon(20.0, 1 / 25, 12, 1e-5)  # 100 records, four participants, one record each
    assert training.promise(strong) == f"ε {spent:.2g} at δ 1e-05"
    assert training.promise(replace(levels[0], client=gl.OneGradient())) == ""
