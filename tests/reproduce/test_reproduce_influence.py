import json
import math
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure
from test_reproduce_tables import room, silent
from torch import nn

import gradleak as gl
from gradleak.attacks import Outcome, Reconstruction
from gradleak.cli import main
from gradleak.reproduce.agreement import agreement, failures, strongest, why
from gradleak.reproduce.calibration import Point, pictures, points
from gradleak.reproduce.calibration_set import ATTACKERS, NETWORKS, SETTINGS
from gradleak.reproduce.scatter import _panel, scatter
from gradleak.trees import flatten, subtract

POINT = Point(
    family="LeNet",
    network="LeNet U(-0.5, 0.5)",
    data="faces",
    picture=0,
    defense="noise",
    level="1e-03",
    attack="DLG",
    prior=False,
    influence=1e-2,
    decibels=2e-2,
    reached=1e-2,
    gray=0.2,
    arrived=True,
    outcome=Outcome.STALLED,
    score=1e-6,
    gradients=100,
    seconds=0.5,
)


def by(name: str, *those):
    return next(one for one in those if one.name == name)


def settings(*names: str):
    return [next(s for s in SETTINGS if (s.defense, s.level) == tuple(name.split("; "))) for name in names]


def measured(network: str, *under: str, attackers=ATTACKERS[:2]) -> list[Point]:
    chosen = by(network, *NETWORKS)
    return list(
        points(1, ("digits",), silent, networks=[chosen], settings=settings(*under), attackers=attackers)
    )


def test_both_kinds_of_attackers_reach_what_is_predicted_of_them():
    found = measured("MLP, sigmoid", "noise; 1e-03", "noise; 1e-01", "masked, and noise; 0.3")
    dlg, most_probable = ([p for p in found if p.attack == name] for name in ("DLG", "MAP"))
    assert len(dlg) == len(most_probable) == 3
    assert all(p.arrived for p in found)
    for p in dlg:
        assert p.reached == pytest.approx(p.influence, rel=0.05)
    for p in most_probable:
        assert abs(math.log10(p.reached / p.decibels)) < 0.3
    assert dlg[1].influence > 30 * dlg[0].influence


def test_the_prediction_for_a_mask_is_the_least_squares_answer_on_the_kept_entries():
    """The slow twin writes the Jacobian down, leaves out the rows that were dropped, and solves."""
    (setting,) = settings("masked, and noise; 0.7")
    (p,) = measured("MLP, sigmoid", "masked, and noise; 0.7", attackers=ATTACKERS[:1])
    x, y = pictures("digits", 1)
    model = gl.zoo.mlp(10, sizes=(64, 64, 64), activation="sigmoid", seed=0).double()
    clear = gl.observe(model, x, y)
    size = float(flatten(clear.update).square().mean().sqrt())
    sent = flatten(gl.observe(model, x, y, client=setting.client(size), rng=0).update)
    columns = [
        torch.autograd.functional.jvp(lambda x: flatten(clear.simulate(x, y)), x, one.reshape(x.shape))[1]
        for one in torch.eye(x.numel()).double()
    ]
    j = torch.stack(columns, 1)
    kept = sent != 0
    change = sent - flatten(clear.update)
    expected = torch.linalg.lstsq(j[kept], change[kept, None]).solution.square().mean().sqrt()
    assert p.influence == pytest.approx(float(expected), rel=1e-6)
    assert 0.2 < float(kept.double().mean()) < 0.4


def test_a_defense_that_the_server_does_not_know_of_is_a_change_like_any_other():
    (setting,) = settings("pruned, unseen; 0.6")
    found = measured("MLP, sigmoid", "pruned, unseen; 0.6")
    assert [(p.attack, p.decibels) for p in found] == [("DLG", None)]
    x, y = pictures("digits", 1)
    model = gl.zoo.mlp(10, sizes=(64, 64, 64), activation="sigmoid", seed=0).double()
    clear = gl.observe(model, x, y)
    pruned = gl.observe(model, x, y, client=setting.client(1.0))
    lost = subtract(pruned.update, clear.update)
    expected = float(gl.risk.influence(model, x, y, perturbation=lost).rmse[0])
    assert found[0].influence == pytest.approx(expected, rel=1e-9)
    assert expected > 0


def test_an_attacker_arrives_where_it_explains_the_update_as_well_as_the_truth():
    dlg, most_probable, _ = ATTACKERS
    x, y = pictures("digits", 1)
    noise = gl.defenses.GaussianNoise(std=1e-3)
    obs = gl.observe(gl.zoo.lenet(10, 1, 8, seed=0).double(), x, y, client=noise, assumed=noise, rng=0)
    truth = float(dlg.objective(obs.simulate(x, y), obs.update))
    assert truth > 0
    for factor, expected in ((0.99, True), (1.01, False)):
        answer = Reconstruction(Outcome.BUDGET, x=x, score=factor * truth)
        assert dlg.arrived(answer, obs, x, y) is expected
        assert not most_probable.arrived(answer, obs, x, y)
    assert most_probable.arrived(Reconstruction(Outcome.CONVERGED, x=x), obs, x, y)


def test_the_smooth_networks_are_the_kinked_ones_but_for_their_activations():
    for family in ("ConvNet, ", "ResNet-8, "):
        smooth, kinked = (by(family + name, *NETWORKS).build(3, 16, 5) for name in ("softplus", "ReLU"))
        assert not any(isinstance(m, nn.ReLU) for m in smooth.modules())
        assert any(isinstance(m, nn.ReLU) for m in kinked.modules())
        twin = dict(kinked.named_parameters())
        assert all(torch.equal(p, twin[name]) for name, p in smooth.named_parameters())
        assert not torch.equal(smooth(torch.rand(1, 3, 16, 16)), kinked(torch.rand(1, 3, 16, 16)))


def test_pictures_are_small_and_as_many_as_asked():
    assert pictures("digits", 2)[0].shape == (2, 1, 8, 8)
    x, y = pictures("faces", 3)
    assert (x.shape, x.dtype, y.shape) == ((3, 1, 16, 16), torch.float64, (3,))
    torch.testing.assert_close(
        x[1, 0, 0, 0], gl.zoo.pictures("faces", size=32, n=2)[0][1, :, :2, :2].double().mean()
    )


def line(*pairs: tuple[float, float], **changes) -> list[Point]:
    return [replace(POINT, influence=a, decibels=None, reached=b, **changes) for a, b in pairs]


def test_agreement_is_of_logarithms_and_the_miss_in_decibels():
    together = line((1e-4, 2e-4), (1e-3, 2e-3), (1e-2, 2e-2))
    (row,) = agreement(together, "t", lambda p: p.family).to_dict()["rows"]
    assert (row["points"], row["predictor"]) == (3, "I2F")
    assert row["Pearson"] == pytest.approx(1)
    assert row["Spearman"] == pytest.approx(1)
    assert row["off, dB"] == pytest.approx(20 * math.log10(2))
    apart = line((1e-4, 1e-2), (1e-3, 1e-3), (1e-2, 1e-4))
    (row,) = agreement(apart, "t", lambda p: p.family).to_dict()["rows"]
    assert row["Pearson"] == pytest.approx(-1)
    assert row["arrived: off, dB"] == pytest.approx(40)


def test_agreement_tells_arrived_attacks_from_all_and_leaves_out_what_has_no_logarithm():
    good = line((1e-4, 1e-4), (1e-3, 1e-3), (1e-2, 1e-2))
    stuck = line((1e-5, 0.2), arrived=False)
    hidden = line((math.inf, 0.3), (0.0, 1e-15))
    (row,) = agreement([*good, *stuck, *hidden], "t", lambda p: p.family).to_dict()["rows"]
    assert (row["points"], row["arrived: points"]) == (4, 3)
    assert row["arrived: Spearman"] == pytest.approx(1)
    assert row["Spearman"] < 0
    other = replace(POINT, attack="MAP", prior=True)
    for every, expected in ((True, ["I2F", "decibels"] * 2), (False, ["I2F", "decibels"])):
        told = agreement([POINT, other], "t", lambda p: p.family, every=every).to_dict()["rows"]
        assert [row["predictor"] for row in told] == expected
    two = agreement(good[:2], "t", lambda p: p.level).to_dict()["rows"]
    assert two[0]["Pearson"] is None
    assert two[0]["off, dB"] == 0


def test_the_best_attack_is_held_against_the_better_prediction_of_its_update():
    """DLG is near in one update and MAP in the other two; each update counts once."""
    updates = ((1e-2, 3e-2, 2e-2, 0.2), (1e-1, 1e-3, 0.3, 2e-3), (1e-4, None, 2e-4, math.inf))
    found = [
        replace(POINT, picture=i, attack=attack, influence=first, decibels=second, reached=reached)
        for i, (first, second, dlg, most_probable) in enumerate(updates)
        for attack, reached in (("DLG", dlg), ("MAP", most_probable))
    ]
    (row,) = strongest(found).to_dict()["rows"]
    assert (row["of"], row["updates"]) == ("LeNet", 3)
    assert row["Pearson"] == pytest.approx(1)
    assert row["off, dB"] == pytest.approx(20 * math.log10(2))
    more = strongest([*found, replace(POINT, family="MLP", network="MLP")]).to_dict()["rows"]
    assert [r["updates"] for r in more] == [3, 1]
    hidden = replace(POINT, picture=3, influence=math.inf, decibels=None)
    assert strongest([*found, hidden]).to_dict()["rows"] == [row]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"reached": 1.2e-2}, None),
        ({"influence": 0.0, "arrived": False}, None),
        ({"influence": math.inf}, "bound: directions are hidden"),
        ({"reached": 0.2, "arrived": False}, "attack: stuck"),
        ({"reached": 0.2, "arrived": False, "outcome": Outcome.BUDGET}, "attack: its budget ends before the"),
        ({"influence": 0.5, "reached": 5.0}, "bound: worse than gray"),
        ({"reached": 5e-3, "outcome": Outcome.BUDGET}, "attack: its budget ends before faint"),
        ({"reached": 5e-3}, "bound: the update bends"),
        ({"prior": True}, "bound: the attack does better"),
        ({"prior": True, "arrived": False}, "bound: the attack does better"),
        ({"prior": True, "reached": 0.1, "arrived": False}, "attack: stuck"),
        ({"prior": True, "reached": 0.1}, "bound: another picture"),
        ({"prior": True, "reached": 2.1e-2}, None),
    ],
)
def test_every_miss_has_a_reason(changes, reason):
    found = why(replace(POINT, **changes))
    assert found is None if reason is None else found.startswith(reason)


def test_failures_are_counted_by_network_attack_and_reason():
    stuck = replace(POINT, reached=0.2, arrived=False)
    found = failures([POINT, stuck, replace(stuck, reached=0.1), replace(stuck, network="other")])
    rows = found.to_dict()["rows"]
    assert [(r["of"], r["points"], r["of so many"]) for r in rows] == [
        ("LeNet U(-0.5, 0.5)", 2, 3),
        ("other", 1, 1),
    ]
    assert rows[0]["reached"] == pytest.approx(0.15)
    assert rows[0]["predicted"] == pytest.approx(1e-2)


def test_attacks_that_did_not_arrive_are_hollow():
    axes = Figure().subplots()
    _panel(axes, [POINT, replace(POINT, reached=0.2, arrived=False)], ["LeNet"], "I2F")
    filled, hollow = axes.collections
    assert (len(filled.get_facecolors()), len(hollow.get_facecolors())) == (1, 0)
    assert hollow.get_offsets().tolist() == [[1e-2, 0.2]]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    png = scatter([POINT, replace(POINT, family="MLP", attack="MAP", decibels=None)])
    assert png.startswith(b"\x89PNG")


def test_the_command_writes_the_plot_and_every_point(monkeypatch, tmp_path):
    few = [POINT, replace(POINT, influence=1e-3, reached=2e-3), replace(POINT, influence=1.0, reached=0.5)]
    few.append(replace(POINT, influence=math.inf))
    monkeypatch.setattr(room("influence"), "points", lambda n, data, tell: iter(few))
    done = CliRunner().invoke(main, ["reproduce", "influence", "--out", str(tmp_path / "o"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "Where it fails, and why" in done.stdout
    told = json.loads((tmp_path / "o" / "influence.json").read_text(), parse_constant=pytest.fail)
    assert [row["of"] for row in told["rows"]] == ["LeNet"] * 2
    assert len(told["more"]) == 4
    held = json.loads((tmp_path / "o" / "influence-points.json").read_text(), parse_constant=pytest.fail)
    assert [one["influence"] for one in held] == [1e-2, 1e-3, 1.0, None]
    assert (tmp_path / "o" / "influence.png").read_bytes().startswith(b"\x89PNG")
