import importlib
import json
import math
from types import ModuleType, SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import gradleak as gl
from gradleak.attacks import Outcome, Reconstruction
from gradleak.cli import main
from gradleak.defenses import DEFENSES, Dropout, GaussianNoise, LaplaceNoise, LearntMask, Mask
from gradleak.references import REFERENCES, cite
from gradleak.reproduce import TABLES, defended
from gradleak.reproduce.defended import Reached, Victims, adaptive, cost, gray, naive
from gradleak.reproduce.masking import GRIDS, Grid, first, thresholds
from gradleak.reproduce.sample import BUNDLED, public, sample


def room(name: str) -> ModuleType:
    """The file of that name, which its function hides in the package."""
    return importlib.import_module(f"gradleak.reproduce.{name}")


dlg_defenses, dropout, masking = room("dlg_defenses"), room("dropout"), room("masking")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Faces of a seventh of the pixels, and training that is too short to learn anything."""
    monkeypatch.setitem(BUNDLED, "faces", 12)
    monkeypatch.setattr(defended, "_ROUNDS", 2)
    monkeypatch.setattr(defended, "_SEEDS", 2)


def silent(what: str, share: float) -> None:
    assert what
    assert 0 <= share <= 1


def rows(name: str, n: int) -> list[dict]:
    return TABLES[name].make(n, ("faces",), silent).to_dict()["rows"]


def test_both_readings_of_a_noise_are_what_they_say():
    found = {(s.defense, s.strength): s.client for s in dlg_defenses.SETTINGS}
    assert len(found) == len(dlg_defenses.SETTINGS) == 26
    for level in (1e-4, 1e-3, 1e-2, 1e-1):
        for kind, word in (("Gaussian noise", "std"), ("Laplace noise", "scale")):
            by_variance = found[kind, f"variance {level:.0e}"]
            assert by_variance.deviation**2 == pytest.approx(level)
            assert getattr(found[kind, f"{word} {level:.0e}"], word) == level
    assert all((s.said is None) == s.strength.startswith(("std", "scale")) for s in dlg_defenses.SETTINGS)


def test_noise_hides_a_picture_that_a_plain_gradient_gives_away(monkeypatch):
    pytest.importorskip("sklearn")
    none, strong = dlg_defenses.SETTINGS[0], dlg_defenses.SETTINGS[4]
    monkeypatch.setattr(dlg_defenses, "SETTINGS", (none, strong))
    told = TABLES["dlg-defenses"].make(1, ("faces",), silent).to_dict()
    (plain, noisy), (free, paid) = told["rows"], told["more"][0]["rows"]
    assert (plain["hides from"], plain["paper"]) == ("nobody", "leaks")
    assert plain["SSIM, told"] > 0.99
    assert plain["SSIM, DLG, not told"] > 0.9 > 0.3 > noisy["SSIM, DLG, not told"]
    assert noisy["strength"] == "variance 1e-01"
    assert plain["null SSIM"] == noisy["null SSIM"]
    assert 5 < plain["null PSNR"] < 30
    assert (free["defense"], free["cost"], free["paper"]) == ("none", None, "76.3 %")
    assert (paid["defense"], paid["paper"]) == ("Gaussian noise variance 1e-01", "1 % or less")
    assert free["on digits"] - paid["on digits"] == pytest.approx(paid["cost"])
    assert free["null"] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    ("untold", "told", "whom"),
    [(0.9, 0.9, "nobody"), (0.1, 0.9, "DLG alone"), (0.1, 0.1, "both"), (0.9, 0.1, "told alone")],
)
def test_a_defense_hides_from_those_whose_median_is_low(untold, told, whom):
    def reached(ssim: float) -> Reached:
        return Reached(torch.tensor([-1.0, ssim, 1.0]), torch.full((3,), 0.25))

    assert dlg_defenses.hides_from(reached(untold), reached(told)) == whom
    assert reached(untold).rmse == 0.5
    assert reached(untold).psnr == pytest.approx(20 * math.log10(2))


def test_the_first_place_that_hides_is_found_as_by_looking_at_all():
    for count in (1, 2, 5, 12):
        for at in range(count):
            asked: list[int] = []

            def hides(place: int, at: int = at, asked: list[int] = asked) -> bool:
                asked.append(place)
                return place >= at

            assert first(count, hides) == at
            assert len(asked) <= 2 + math.log2(count)
        assert first(count, lambda place: False) is None


def test_thresholds_are_each_attackers_own_and_say_what_the_other_reaches_there():
    def reached(fails_from: float):
        return lambda client: Reached(
            torch.tensor([0.1 if client.rate >= fails_from else 0.9]), torch.ones(1)
        )

    victims = SimpleNamespace(
        private=SimpleNamespace(name="some"),
        null=Reached(torch.tensor([0.2]), torch.ones(1)),
        untold=reached(0.1),
        told=reached(0.95),
    )
    grid = Grid("masking", (0.01, 0.1, 0.5, 0.9, 0.99), lambda rate: Mask(rate=rate), "")
    untold, told = thresholds(victims, grid)
    assert (untold.level, untold.hides, untold.untold, untold.told) == pytest.approx((0.1, True, 0.1, 0.9))
    assert (told.level, told.hides, told.untold, told.told) == pytest.approx((0.99, True, 0.1, 0.1))
    victims.told = reached(2.0)
    assert thresholds(victims, grid)[1].hides is False
    assert thresholds(victims, grid)[1].level == 0.99


def test_every_grid_goes_from_weak_to_strong():
    update = {"w": torch.randn(4000, generator=torch.Generator().manual_seed(0)) + 1}
    for grid in GRIDS:
        sent = [grid.make(level).drawn(1, torch.Generator().manual_seed(1)) for level in grid.levels]
        off = [
            float((client.sent(update, torch.Generator().manual_seed(2))["w"] - update["w"]).norm())
            for client in sent
        ]
        assert off == sorted(off), grid.name
        assert off[0] < off[-1]


def test_masking_fools_an_attacker_who_is_not_told_and_no_other(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(masking, "GRIDS", (Grid("masking", (0.5,), GRIDS[0].make, "near to none"),))
    untold, told = rows("masking", 1)
    assert (untold["hides from"], untold["from"]) == ("DLG, not told", "0.5")
    assert (told["hides from"], told["from"]) == ("told", "none, until 0.5")
    assert untold["SSIM, DLG, not told"] < 0.3 < 0.9 < untold["SSIM, told"]
    assert untold["SSIM, told"] == told["SSIM, told"]
    assert untold["paper's cost"] == "near to none"


def test_who_is_told_takes_what_explains_more(monkeypatch):
    obs = sample("faces", 1).cases()[0].obs
    for outcome, score in ((Outcome.CONVERGED, 0.9), (Outcome.STALLED, 1e-30)):
        mine = Reconstruction(outcome, x=torch.zeros(obs.x_shape), score=score)
        monkeypatch.setattr(defended, "router", lambda obs, mine=mine: mine)
        monkeypatch.setattr(defended, "_EVALUATIONS", 3)
        assert adaptive(obs) is mine
    worse = Reconstruction(Outcome.STALLED, x=torch.zeros(obs.x_shape), score=math.inf)
    monkeypatch.setattr(defended, "router", lambda obs: worse)
    assert adaptive(obs).cost.matching_gradients == 3


def test_fresh_masks_are_another_for_every_picture_and_the_same_for_the_same():
    one = sample("faces", 2)
    client = dropout.FreshMask(Dropout(rate=0.5))
    obs = gl.observe(one.lenet(0), one.x[:1], one.y[:1])

    def dropped(x: torch.Tensor) -> torch.Tensor:
        weight = client(obs.task, obs.params, x, one.y[:1])["linear.weight"]
        return (weight == 0).all(0)

    masks = [dropped(x) for x in (one.x[:1], one.x[:1], one.x[:1] + 1e-6, one.x[1:])]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[3])
    assert all(0.3 < float(mask.double().mean()) < 0.7 for mask in masks)


def test_who_learns_the_mask_does_not_look_at_it():
    victims, client = Victims.of("faces", 1), Dropout(rate=0.5)
    (case,) = victims.cases(client)
    looking = client.learnt(case.obs)
    assert looking.seen is not None
    assert dropout.learning(client, case.obs).client.seen is None


def test_dropout_stops_those_who_leave_it_out_and_not_those_who_read_the_mask_off(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(dropout, "_RATES", (0.5,))
    monkeypatch.setattr(dropout, "_EVALUATIONS", 240)
    found = {row["attacker"]: row for row in rows("dropout", 1)}
    assert len(found) == 6
    null = found["told"]["null RMSE"]
    assert found["told"]["at the end"] < 1e-3
    assert found["mask read off"]["at the end"] < null / 4
    assert found["mask read off"]["at the end"] < found["mask read off"]["RMSE at 20"]
    assert all(found[name]["at the end"] > null for name in ("eval mode", "fresh masks"))
    assert found["told"]["RMSE at 20"] is None
    assert found["eval mode"]["paper"] == "stays large"
    assert found["told"]["paper"] is None


def test_a_course_is_what_the_attack_had_by_then(monkeypatch):
    monkeypatch.setattr(dropout, "_EVALUATIONS", 60)
    monkeypatch.setattr(dropout, "_LOOKS", (20, 40))
    obs = sample("faces", 1).cases()[0].obs
    course = dropout.course(naive(60), obs)
    assert [one.cost.matching_gradients for one in course] == [20, 40, 60]
    stopped = dropout.course(gl.attacks.dlg(evaluations=60, tolerance=0.5), obs)
    assert stopped[0].outcome is stopped[-1].outcome is Outcome.CONVERGED


def test_victims_throw_the_same_dice_whoever_looks_and_null_is_the_mean_of_others():
    victims = Victims.of("faces", 2)
    client = GaussianNoise(std=0.1)
    mine, other = victims.cases(client), victims.cases(client, gl.OneGradient())
    for a, b in zip(mine, other, strict=True):
        assert torch.equal(a.obs.update["linear.weight"], b.obs.update["linear.weight"])
        assert (a.obs.client, b.obs.client) == (client, gl.OneGradient())
    shared = public("faces", 2)
    assert torch.equal(shared.x[0], sample("faces", 3).x[2])
    off = (shared.x.mean(0) - victims.private.x).square().mean((1, 2, 3))
    assert victims.null.all_mse.tolist() == pytest.approx(off.tolist())
    nothing = gray(Reconstruction(Outcome.NOT_APPLICABLE), victims.private.x[0])
    assert bool((nothing == 0.5).all())
    wild = Reconstruction(Outcome.BUDGET, x=torch.tensor([[math.nan, math.inf, -3.0, 0.25]]))
    assert gray(wild, torch.zeros(4)).tolist() == [0.5, 1.0, 0.0, 0.25]


def test_a_cost_has_half_its_interval_and_one_seed_has_none():
    pytest.importorskip("sklearn")
    spent = defended.accuracies({"noise": GaussianNoise(std=1.0)}, silent)
    right, lost, half = cost(spent, "noise")
    spread = spent.cost("noise")
    assert (lost, half) == pytest.approx((spread.mean, spread.high - spread.mean))
    assert right == pytest.approx(spent.courses["none"].final.mean - lost)
    assert cost(spent, "none")[1:] == (None, None)


def test_a_defense_is_cited_with_what_it_defends():
    for kind in DEFENSES.values():
        assert set(kind.references) <= set(REFERENCES)
    both = LaplaceNoise(Mask(rate=0.5), scale=0.1)
    assert both.citations == ("dlg", "masking")
    assert cite(both) == f"{REFERENCES['dlg']}\n\n{REFERENCES['masking']}"
    learnt = LearntMask(Dropout(rate=0.5), (1, 4))
    assert learnt.citations == ("dropout_inversion", "dropout")
    told = CliRunner().invoke(main, ["cite", "dpsgd", "prune", "dlg", "--json"]).stdout
    assert set(json.loads(told)) == {"dp_sgd", "dlg", "deep_gradient_compression", "lbfgs"}
