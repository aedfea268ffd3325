import importlib
import json
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

import gradleak as gl
from gradleak.attacks import Outcome, Reconstruction
from gradleak.attacks.matching.optimizers import Space
from gradleak.cli import main
from gradleak.errors import InvalidInput, NotInstalled
from gradleak.reproduce import TABLES, Column, Table
from gradleak.reproduce.measure import MEASURED, error, measured, recovered
from gradleak.reproduce.published import Distance, UnitSteps
from gradleak.reproduce.sample import BUNDLED, DATA, Sample, batches, mixed, sample


def room(name: str) -> ModuleType:
    """The file of that name, which its function hides in the package."""
    return importlib.import_module(f"gradleak.reproduce.{name}")


@pytest.fixture
def small(monkeypatch):
    """Faces of a quarter of the pixels, where what is tested does not depend on them."""
    monkeypatch.setitem(BUNDLED, "faces", 16)


def silent(what: str, share: float) -> None:
    assert what
    assert 0 <= share <= 1


def test_unit_steps_are_those_of_torch():
    """The slow twin is torch.optim.LBFGS at its defaults, on a function with more steps than memory."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(60, 40, dtype=torch.float64, generator=rng)
    b = torch.randn(60, dtype=torch.float64, generator=rng)
    start = torch.full((40,), 0.3, dtype=torch.float64)
    points = []

    def value(x):
        return (a @ x.tanh() - b).square().sum()

    x = start.clone().requires_grad_()
    theirs = torch.optim.LBFGS([x], history_size=7, max_iter=60, max_eval=1000, tolerance_change=0)

    def closure():
        theirs.zero_grad()
        loss = value(x)
        loss.backward()
        points.append(x.detach().clone())
        return loss

    theirs.step(closure)
    descent = UnitSteps(history=7).descend(start, Space(40), rng)
    point, ended, checked = next(descent), None, 0
    for expected in points:
        checked += 1
        torch.testing.assert_close(point, expected, rtol=0, atol=1e-10)
        asked = point.clone().requires_grad_()
        loss = value(asked)
        (slope,) = torch.autograd.grad(loss, asked)
        try:
            point = descent.send((loss.item(), slope))
        except StopIteration as stop:
            ended = stop.value
            break
    assert ended is Outcome.STALLED
    assert checked > 30


def test_unit_steps_can_leave_the_finite_numbers_and_say_so():
    descent = UnitSteps().descend(torch.ones(2), Space(2), torch.Generator())
    next(descent)
    with pytest.raises(StopIteration) as stop:
        descent.send((float("inf"), torch.ones(2)))
    assert stop.value.value is Outcome.DIVERGED
    with pytest.raises(InvalidInput):
        next(UnitSteps().descend(torch.ones(2), Space(2, project=torch.abs), torch.Generator()))


def test_the_distance_is_not_divided():
    one, other = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([4.0, 6.0])}
    assert float(Distance()(one, other)) == 25


def test_a_batch_is_scored_in_its_best_order_and_no_picture_as_gray():
    one = sample("faces", 3)
    case = one.case([0, 2], seed=0)
    turned = Reconstruction(Outcome.BUDGET, x=case.x.flip(0) + 1e-3)
    assert error(turned, case) == pytest.approx(1e-6, rel=0.1)
    assert recovered(turned, case)
    assert not recovered(Reconstruction(Outcome.BUDGET, x=case.x[[0, 0]]), case)
    nothing = Reconstruction(Outcome.NOT_APPLICABLE)
    assert error(nothing, case) == pytest.approx(float((case.x - 0.5).square().mean()), rel=1e-5)
    assert not recovered(nothing, case)


def test_measured_fills_its_columns_and_tells_the_good_from_the_bad(small):
    cases = sample("faces", 1).cases()
    names = [column.name for column in MEASURED]
    bad = dict(zip(names, measured(gl.attacks.dlg(evaluations=1), cases), strict=True))
    assert (bad["pictures"], bad["recovered"], bad["gradients"], bad["±"]) == (1, 0, 1, None)
    good = dict(zip(names, measured(gl.attacks.idlg(evaluations=900, tolerance=1e-8), cases), strict=True))
    assert good["recovered"] == 1
    assert good["MSE"] < 1e-3 < bad["MSE"]


def test_samples_are_the_sets_own_and_say_what_they_lack(monkeypatch, tmp_path):
    one = sample("faces", 12)
    assert torch.equal(one.x, gl.zoo.pictures("faces", size=32, n=12)[0])
    assert one.y.tolist() == [*range(10), 0, 1]
    cases = one.cases()
    assert all(torch.equal(case.x[0], one.x[i]) for i, case in enumerate(cases))
    assert not torch.equal(*(case.obs.params["linear.weight"] for case in cases[:2]))
    assert all(case.obs.labels is None for case in cases)
    monkeypatch.setenv("GRADLEAK_DATA", str(tmp_path))
    with pytest.raises(NotInstalled, match="gradleak fetch mnist"):
        sample("mnist", 3)
    for name, n in (("faces", 101), ("svhn", 1)):
        with pytest.raises(InvalidInput):
            sample(name, n)


def test_mixed_takes_sets_in_turn_and_wants_colour():
    both = mixed(3, ("faces", "photos"))
    assert [tuple(x.shape) for x in both] == [(1, 3, 32, 32)] * 3
    assert torch.equal(both[1][0], sample("photos", 1).x[0])
    pytest.importorskip("sklearn")
    with pytest.raises(InvalidInput, match="colour"):
        mixed(2, ("digits",))


def test_batches_differ_in_labels_and_share_no_picture():
    one = Sample("some", torch.rand(8, 1, 4, 4), torch.tensor([0, 0, 1, 1, 2, 2, 0, 3]))
    assert batches(one, 2, 3) == [[0, 2], [1, 3], [4, 6]]
    assert batches(one, 1, 2) == [[0], [1]]
    with pytest.raises(InvalidInput, match="different labels"):
        batches(one, 3, 3)


def test_a_table_holds_its_columns():
    columns = (Column("a"), Column("b", ".1f"))
    table = Table("t", columns, (("x", 1.25), (None, 2)), ("note",))
    assert table.to_dict() == {
        "title": "t",
        "rows": [{"a": "x", "b": 1.25}, {"a": None, "b": 2}],
        "notes": ["note"],
    }
    assert [columns[1].show(value) for value in (1.25, None, "word", 3)] == ["1.2", "-", "word", "3.0"]
    with pytest.raises(InvalidInput, match="2 values"):
        Table("t", columns, (("x",),))


def rows(name: str, n: int) -> list[dict]:
    return TABLES[name].make(n, ("faces",), silent).to_dict()["rows"]


def test_idlg_reads_labels_that_a_cut_short_dlg_does_not(monkeypatch):
    monkeypatch.setattr(room("idlg_labels"), "_EVALUATIONS", 3)
    found = {row["method"]: row for row in rows("idlg-labels", 10)}
    assert found["iDLG"]["share"] == 1
    assert found["iDLG"]["gradients"] == 0
    assert found["null: the commonest label"]["share"] == 0.1
    assert found["DLG, searched"]["gradients"] == 3
    assert found["DLG, as published"]["share"] < 1


def test_a_batch_of_one_comes_back_and_a_budget_is_kept(monkeypatch, small):
    monkeypatch.setattr(room("dlg_batch"), "_EVALUATIONS", 600)
    monkeypatch.setattr(room("dlg_batch"), "_PAPER", {1: "270"})
    (row,) = rows("dlg-batch", 1)
    assert (row["recovered"], row["labels right"], row["paper"]) == (1, 1, "270")
    assert 20 <= row["gradients"] <= 600


def test_the_start_is_what_differs_between_the_rows_of_cpl(monkeypatch):
    monkeypatch.setattr(room("cpl_init"), "_EVALUATIONS", 2)
    found = rows("cpl-init", 1)
    assert len({row["PSNR"] for row in found if row["search"] == "strong Wolfe"}) == 6
    assert [row["recovered"] for row in found] == [0] * 12
    assert [row["gradients"] for row in found] == [None] * 12


def test_blending_changes_what_comes_after_the_warm_up_alone(monkeypatch, small):
    monkeypatch.setattr(room("feedback_blending"), "_EVALUATIONS", {"faces": 20})
    monkeypatch.setattr(room("feedback_blending"), "_LEAKED", {"faces": 1e9})
    found = rows("feedback-blending", 3)
    assert len(found) == 9
    assert {(row["leaked"], row["gradients"], row["of random"]) for row in found} == {(3, 1, 0)}


def test_the_command_knows_every_table_and_every_set():
    (name, n, data) = main.commands["reproduce"].params[:3]
    assert list(name.type.choices) == list(TABLES)
    assert sorted(data.type.choices) == sorted(DATA)
    assert set(BUNDLED) < set(DATA)
    help_ = " ".join((main.commands["reproduce"].help or "").split())
    assert all(f"{one} {paper.summary}" in help_ for one, paper in TABLES.items())
    assert all(set(paper.data) <= set(DATA) for paper in TABLES.values())
    assert n.type.min == 1


def test_the_command_prints_a_table_or_its_json(monkeypatch):
    monkeypatch.setattr(room("idlg_labels"), "_EVALUATIONS", 2)
    words = ["reproduce", "idlg-labels", "--data", "faces", "--pictures", "2"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "100.0%" in done.stdout
    assert "iDLG on faces" in done.stderr
    told = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert [row["pictures"] for row in told["rows"]] == [2] * 4
    assert told["notes"]


def test_gdl_counts_repeats_and_rules_of_distinct_labels_cannot(monkeypatch, small):
    monkeypatch.setattr(room("gdl_labels"), "_SIZES", (4, 16))
    monkeypatch.setattr(room("gdl_labels"), "_EPOCHS", 1)
    found = rows("gdl-labels", 2)
    assert [(row["client"], row["K"]) for row in found] == [
        ("FedSGD", 4),
        ("FedSGD", 16),
        ("FedAvg", 4),
        ("FedAvg", 16),
    ] * 2
    first, many = found[:2]
    assert (first["GDL"], first["GDL exact"], many["GDL exact"]) == (1, 2, 2)
    assert first["null random"] < first["row minima"] <= 1
    assert many["row sums"] is None
    assert 0 < many["null flat"] < 1


def test_a_wrong_label_costs_more_than_nothing(monkeypatch, small):
    monkeypatch.setattr(room("gdl_images"), "_STEPS", 60)
    right, wrong, equal = rows("gdl-images", 1)
    assert right["PSNR"] > wrong["PSNR"] + 1
    assert right["pictures"] == 4
    assert equal["truth to the batch's mean"] != right["truth to the batch's mean"]
    one = Sample("some", torch.rand(9, 1, 4, 4), torch.tensor([3, 3, 3, 3, 3, 3, 3, 3, 1]))
    assert room("gdl_images")._of_one_class(one, 5) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_every_term_of_gradinversion_is_a_row_that_differs(monkeypatch, small):
    for name, value in (("_STEPS", 8), ("_TRIALS", 2), ("_EPOCHS", 1), ("_TRAINED_ON", 64)):
        monkeypatch.setattr(room("gradinversion"), name, value)
    found = rows("gradinversion-ablation", 1)
    assert [row["paper"] for row in found if row["paper"]] == [
        "10.75", "12.52", "12.06", "12.93", "10.75", "12.52"
    ]  # fmt: skip
    assert len(found) == 16
    assert len({row["mismatch"] for row in found}) >= 11
    assert [row["terms"] for row in found if row["against the row it is held to"] is None] == [
        "gradient alone", "all", "gradient alone", "all"
    ]  # fmt: skip


def test_training_teaches_and_comes_back_still(small):
    training = room("training")
    private, public = training.pools("faces", 60, 40)
    assert (len(private), len(public)) == (50, 40)
    assert torch.equal(public.x, sample("faces", 100).x[50:90])
    model = gl.zoo.convnet(10, 3, 16, width=8, seed=0)
    before, state = training.accuracy(model, public), torch.get_rng_state()
    training.train(model, public, 30)
    assert training.accuracy(model, public) > before + 0.3
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())


def digit_rows(name: str, n: int) -> list[dict]:
    return TABLES[name].make(n, ("digits",), silent).to_dict()["rows"]


def test_directions_of_one_length_do_unlike_things_to_the_attack():
    most, middle, least = digit_rows("influence-directions", 2)
    assert most["reached"] > 2 * middle["reached"] > 4 * least["reached"]
    assert max(row["off, median %"] for row in (most, middle, least)) < 5


def test_unfairness_and_initialisation_are_measured():
    assert all(row["spread dB"] > 0 for row in digit_rows("influence-fairness", 4))
    found = {row["scheme"]: row for row in digit_rows("influence-initialization", 1)}
    assert found["xavier_uniform"]["dB at noise 1e-3"] < found["uniform"]["dB at noise 1e-3"] - 10
