import pytest
import torch

import gradleak as gl
from gradleak.cases import Store
from gradleak.errors import CannotWrite, InvalidBatch, InvalidInput


@pytest.fixture(scope="module")
def subject():
    model = gl.zoo.mlp(channels=1, size=8, sizes=(64, 16, 64), classes=10, seed=0)
    x, y = gl.zoo.pictures("digits", size=8, n=4)
    return model, x, y


def test_one_call_predicts_attacks_and_reports(subject, tmp_path, monkeypatch):
    model, x, y = subject
    monkeypatch.chdir(tmp_path)
    report = gl.audit(model, x, y, batch=1, budget="quick", ladder="ends", title="Digits")
    record = report.record
    assert record.finished
    assert [way.name for way in record.ways] == ["one gradient"]
    assert record.leaked("one gradient") == 4
    assert "one gradient" in report.verdict
    assert all(record.forecast("one gradient", i).value > 60 for i in range(4))
    assert not list(tmp_path.iterdir())  # nothing private is written unless it was asked for
    written = report.write(tmp_path / "out")
    assert {path.name for path in written} == {"report.html", "report.md", "audit.json"}


def test_clients_and_defenses_make_ways_and_the_attacker_who_knows_sees_more(subject):
    model, x, y = subject
    report = gl.audit(
        model,
        x[:1],
        y[:1],
        client={"sgd": gl.OneGradient(), "masked": gl.defenses.Mask(gl.OneGradient(), rate=0.5)},
        defenses=["clip:norm=0.01", ["mask:rate=0.3", "clip:norm=0.1"]],
        attacks=["bias", gl.attacks.dlg(evaluations=20)],
        ladder=["everything known"],
    )
    names = [way.name for way in report.record.ways]
    both = "mask:rate=0.3, clip:norm=0.1"
    assert names == [
        *("sgd", "sgd, clip:norm=0.01", f"sgd, {both}"),
        *("masked", "masked, clip:norm=0.01", f"masked, {both}"),
    ]
    clipped = report.record.ways[2]
    assert clipped.defenses == ("Mask", "Clip")


def test_the_same_call_on_a_folder_goes_on_where_it_ended(subject, tmp_path):
    model, x, y = subject
    asked = {"batch": 1, "attacks": "bias", "ladder": "everything known", "store": tmp_path}
    first, second = [], []
    cut = gl.audit(model, x, y, **asked, seconds=0.0, tell=first.append)
    assert not cut.record.finished
    done = gl.audit(model, x, y, **asked, tell=second.append)
    assert done.record.finished
    assert done.record.number == cut.record.number
    with Store(tmp_path), pytest.raises(CannotWrite, match="another audit is at work"):
        gl.audit(model, x, y, **asked)


def test_workers_find_the_same(subject):
    model, x, y = subject
    asked = {"batch": 1, "attacks": "bias", "ladder": "everything known"}
    alone, together = (gl.audit(model, x, y, **asked, workers=n).record for n in (1, 2))
    for i in range(4):
        assert alone.best("one gradient", i).row == together.best("one gradient", i).row


def test_the_attacker_in_an_audit_never_sees_the_batch(subject):
    """What an attack is handed holds no private tensor, on any rung, with or without a defense."""
    model, x, y = subject
    marked = x.clone()
    marked[..., 0, 0] = 0.123456
    seen = []

    class Watching:
        name, citations, budget = "watching", (), 1

        def __repr__(self):
            return "Watching()"

        def iterate(self, obs, *, rng=0):
            seen.append(obs)
            yield gl.Reconstruction(gl.Outcome.BUDGET, x=torch.rand(obs.x_shape), y=obs.labels, score=1.0)

        def __call__(self, obs, *, rng=0):
            return next(self.iterate(obs, rng=rng))

    gl.audit(model, marked, y, batch=2, attacks=[Watching()], defenses=["clip:norm=1"], budget="thorough")
    assert seen
    for obs in seen:
        held = [*obs.params.values(), *obs.update.values(), *obs.constants.values()]
        held += [] if obs.labels is None else [obs.labels.double()]
        assert not any(bool((tensor.double() - 0.123456).abs().min() < 1e-7) for tensor in held)
    assert any(obs.labels is None for obs in seen)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 3}, "divides the 4 records"),
        ({"batch": 0}, "divides the 4 records"),
        ({"budget": "endless"}, "quick, standard, thorough"),
        ({"attacks": "dlgg"}, "did you mean dlg"),
        ({"attacks": []}, "an empty list"),
        ({"attacks": [3]}, "expected an attack"),
        ({"client": {}}, "one client or more"),
        ({"defenses": ["gausian:std=1"]}, "did you mean gaussian"),
        ({"ladder": "no label"}, "did you mean no labels"),
        ({"names": ["one"]}, "a name for each of 4 records"),
        ({"workers": 0}, "workers as a whole number"),
        ({"y": torch.zeros(3, dtype=torch.long)}, "as many labels as records"),
        ({"x": [1, 2]}, "x as a tensor"),
        ({"x": torch.randn(4, 1, 8, 8)}, "records from 0 to 1"),
        ({"x": torch.full((4, 1, 8, 8), torch.nan)}, "finite"),
        ({"starts": 0}, "starts as a whole number of 1"),
        ({"together": 1}, "together as a whole number of 2"),
        ({"target": float("nan")}, "target as a finite number"),
        ({"seconds": "1"}, "seconds as a finite number"),
        ({"seed": 2**64}, "a seed from 0"),
        ({"device": "gpu"}, "cannot be used"),
        ({"store": ""}, "store as a folder"),
        ({"reference": "faces"}, "reference as a tensor"),
        ({"class_names": ["a"]}, "class_names as names by label"),
        (
            {"client": {"a": gl.OneGradient(), "a, sign": gl.OneGradient()}, "defenses": ["sign"]},
            "two are called",
        ),
    ],
)
def test_what_cannot_be_audited_is_said_before_anything_is_run(subject, change, said):
    model, x, y = subject
    given = {"x": x, "y": y} | change
    with pytest.raises((InvalidInput, InvalidBatch), match=said):
        gl.audit(model, given.pop("x"), given.pop("y"), **given)
