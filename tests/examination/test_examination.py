import dataclasses
import json
import math

import pytest
import torch

import gradleak as gl
from gradleak.examination import examine
from gradleak.examination.findings import LEAK, decibels

FACES, _ = gl.zoo.pictures("faces", size=8, n=40, channels=1)


def batch(i, b=1):
    return FACES[i : i + b].double(), torch.tensor([(i + k) % 6 for k in range(b)])


def see(i, b=1, **more):
    model = gl.zoo.mlp(sizes=(64, 48), classes=6, activation="sigmoid", seed=i).double()
    return gl.observe(model, *batch(i, b), **more)


def look(observations, truths, attack=None, **more):
    attack = attack or gl.attacks.dlg(evaluations=700)
    return examine(observations, truths, attack, title="faces", reference=FACES[20:], **more)


def test_a_leak_is_found_and_stands_beside_its_nulls():
    findings = look([see(0), see(1)], [batch(0), batch(1)])
    assert (findings.leaked, findings.label_agreement) == (2, 1.0)
    assert 0 < findings.null_label_agreement < 0.5
    for i, one in enumerate(findings.findings):
        guess = one.guess[None].double()
        truth = FACES[i : i + 1].double()
        assert one.psnr == pytest.approx(float(gl.metrics.psnr(guess, truth)))
        mean = FACES[20:].double().mean(0, keepdim=True)
        assert one.null_psnr == pytest.approx(float(gl.metrics.psnr(mean, truth)))
        assert torch.equal(one.truth, truth[0])
        assert one.leak == pytest.approx(one.psnr - max(one.null_psnr, one.random_psnr))
        assert one.leak > LEAK
    assert f"2 of 2 pictures leaked: dlg reaches {findings.median_psnr:.1f} dB" in findings.verdict
    assert f"{findings.median_null_psnr:.1f} dB" in findings.verdict


def test_an_attack_that_finds_nothing_is_not_called_a_leak():
    findings = look([see(0)], [batch(0)], gl.attacks.dlg(evaluations=1))
    assert (findings.leaked, findings.findings[0].leaked) == (0, False)
    assert findings.verdict.startswith("No picture leaked")


def test_pictures_of_a_batch_are_paired_before_they_are_compared():
    x, y = batch(0, 3)
    seen = see(0, 3, reveal=("labels",))

    class Shuffled:
        """Stands in for an attack: the truth itself, in another order."""

        name, budget, citations = "shuffled", 1, ()

        def iterate(self, obs, *, rng):
            yield gl.Reconstruction(gl.Outcome.CONVERGED, x=x[[2, 0, 1]], y=y[[2, 0, 1]], score=0.0)

    findings = look([seen], [(x, y)], Shuffled())
    assert [one.psnr for one in findings.findings] == [math.inf] * 3
    assert [one.label_guess for one in findings.findings] == y.tolist()
    assert json.loads(json.dumps(findings.to_dict(), allow_nan=False))["findings"][0]["psnr"] == "inf"


def test_normalised_data_are_compared_as_pixels():
    x, y = batch(0)
    normalization = ((0.4,), (0.2,))
    seen = gl.observe(
        gl.zoo.mlp(sizes=(64, 48), classes=6, activation="sigmoid", seed=0).double(),
        (x - 0.4) / 0.2,
        y,
        normalization=normalization,
    )
    findings = look([seen], [((x - 0.4) / 0.2, y)])
    assert findings.findings[0].psnr > 35
    torch.testing.assert_close(findings.findings[0].truth, x[0])


def test_what_cannot_be_attacked_is_said_and_compared_with_nothing():
    findings = look([see(0, 2)], [batch(0, 2)], gl.attacks.idlg())
    assert "cannot be run here" in findings.verdict
    assert [one.guess for one in findings.findings] == [None, None]
    assert findings.leaked == 0


def test_ctrl_c_keeps_what_there_is():
    calls = []

    def stop(found, share):
        calls.append(share)
        if len(calls) == 2:
            raise KeyboardInterrupt

    findings = look([see(0)], [batch(0)], gl.attacks.dlg(tolerance=0), progress=stop)
    assert findings.interrupted
    assert findings.findings[0].outcome == "running"
    assert findings.findings[0].matching_gradients == 40
    assert calls == sorted(calls)

    def at_once(self, records, *, rng):
        raise KeyboardInterrupt
        yield

    attack = gl.attacks.dlg()
    broken = type("Broken", (type(attack),), {"iterate_together": at_once})(name="dlg")
    nothing = look([see(0)], [batch(0)], broken)
    assert "stopped before" in nothing.verdict


def test_the_truth_is_not_opened_before_the_attack_has_ended():
    ended = []

    class Sealed(torch.Tensor):
        @classmethod
        def __torch_function__(cls, f, types, args=(), kwargs=None):
            if not ended:
                raise AssertionError(f"{f.__name__} read the truth during the attack")
            return super().__torch_function__(f, types, args, kwargs or {})

    x, y = batch(0)
    attack = gl.attacks.dlg(evaluations=50)

    class Watched(type(attack)):
        def iterate_together(self, records, *, rng=0):
            yield from super().iterate_together(records, rng=rng)
            ended.append(True)

    fields = {f.name: getattr(attack, f.name) for f in dataclasses.fields(attack)}
    findings = look([see(0)], [(x.as_subclass(Sealed), y)], Watched(**fields))
    assert ended
    assert findings.findings[0].psnr > 0


def test_decibels_read_well_at_the_ends():
    assert decibels(math.inf) == "an exact copy"
    assert decibels(-math.inf) == "no picture"
    assert decibels(12.34) == "12.3 dB"


class Handing:
    """Stands in for an attack: hands out what it was given, record by record."""

    name, budget, citations = "handing", 1, ()

    def __init__(self, *found, stop=False):
        self.found, self.stop = list(found), stop

    def iterate(self, obs, *, rng):
        yield self.found.pop(0)
        if self.stop:
            raise KeyboardInterrupt


def hand(x, y=None, outcome=gl.Outcome.CONVERGED, **more):
    return gl.Reconstruction(outcome, x=x, y=y, score=0.0, **more)


REFUSED = gl.Reconstruction(gl.Outcome.NOT_APPLICABLE, reason="one record only")


def test_what_was_not_attacked_spoils_no_median_and_is_said():
    (x, y), (close, _) = batch(0), batch(1)
    exact, near = hand(x, y), hand(close + 0.01, y)
    one = look([see(0), see(1)], [batch(0), batch(1)], Handing(exact, REFUSED))
    assert one.median_psnr == math.inf
    assert one.verdict.startswith("1 of 2 pictures leaked: handing reaches an exact copy in the median")
    assert one.verdict.endswith("; 1 of 2 was not attacked.")
    assert one.to_dict()["scored"] == 1
    two = look([see(0), see(1)], [batch(0), batch(1)], Handing(REFUSED, near))
    assert two.median_psnr == pytest.approx(two.findings[1].psnr)
    assert two.median_null_psnr == pytest.approx(two.findings[1].best_null_psnr)
    gray = hand(torch.full_like(x, 0.5))
    none = look([see(0), see(1)], [batch(0), batch(1)], Handing(gray, REFUSED))
    assert none.verdict.startswith("No attacked picture leaked")


def test_an_end_without_any_guess_is_no_verdict_on_the_pictures():
    lost = gl.Reconstruction(gl.Outcome.DIVERGED, reason="the loss is not finite")
    findings = look([see(0), see(1)], [batch(0), batch(1)], Handing(lost, REFUSED))
    said = "The attack handing ended without a guess: the loss is not finite, one record only."
    assert findings.verdict == said
    assert json.loads(json.dumps(findings.to_dict(), allow_nan=False))["median_psnr"] == "-inf"


def test_an_interrupted_run_says_so_in_its_verdict():
    x, _ = batch(0)
    gray = hand(torch.full_like(x, 0.5))
    findings = look([see(0), see(1)], [batch(0), batch(1)], Handing(gray, stop=True))
    assert findings.verdict.endswith("; 1 of 2 was not attacked; the run was stopped early.")
    assert findings.to_dict()["verdict"] == findings.verdict


def test_a_guess_is_looked_at_as_a_person_would_and_stands_at_its_own_place():
    """Clamped, without NaN, and each beside the truth that it was paired with."""
    x, y = batch(0, 3)
    wild = x.clone()
    wild[0, 0, :4] = math.nan
    wild[1, 0, 0] = 40.0
    wild[2, 0, 0] = -math.inf
    order = [2, 0, 1]
    findings = look([see(0, 3)], [(x, y)], Handing(hand(wild[order], y[order])))
    shown = torch.stack([one.guess for one in findings.findings])
    expected = wild.nan_to_num(nan=0.5, posinf=1, neginf=0).clamp(0, 1)
    torch.testing.assert_close(shown, expected)
    for one, truth, guess in zip(findings.findings, x, expected, strict=True):
        assert one.psnr == pytest.approx(float(gl.metrics.psnr(guess[None], truth[None])))
        assert one.psnr > 5


def test_leak_means_the_same_here_and_in_the_scores():
    x, y = batch(0, 3)
    guess = (x + 0.03).clamp(0, 1)
    findings = look([see(0, 3)], [(x, y)], Handing(hand(guess, y)))
    reference = FACES[20:].double()
    scores = gl.metrics.score(guess, y, x, y, classes=6, reference=reference)
    assert [one.leak for one in findings.findings] == pytest.approx(scores.leak.tolist())
    dark = torch.zeros_like(x)
    black = gl.metrics.score(dark + 0.3, y, dark, y, classes=6, reference=torch.ones_like(reference))
    (one, *_) = examine(
        [see(0, 3)],
        [(dark, y)],
        Handing(hand(dark + 0.3, y)),
        title="dark",
        reference=torch.ones_like(reference),
    ).findings
    assert one.random_psnr > one.null_psnr
    assert one.leak == pytest.approx(float(black.leak[0]))


def test_whole_labels_under_a_loss_of_ones_own_are_left_unscored():
    def count(outputs, y):
        return (outputs.mean(1) - y).square().mean()

    x, y = batch(4)
    model = gl.zoo.mlp(sizes=(64, 48), classes=6, activation="sigmoid", seed=0).double()
    seen = dataclasses.replace(gl.observe(model, x, y, loss=count, reveal=("labels",)), classes=None)
    findings = look([seen], [(x, y)], Handing(hand(x, y)))
    assert findings.label_agreement is None
    assert findings.findings[0].psnr == math.inf


def test_the_null_is_named():
    x, y = batch(0)
    assert look([see(0)], [(x, y)], Handing(hand(x, y))).null == "the mean of 20 public pictures"
    without = examine([see(0)], [(x, y)], Handing(hand(x, y)), title="gray")
    assert without.to_dict()["null"] == "mid-gray"
