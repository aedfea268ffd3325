import json
import math
from xml.etree import ElementTree

import pytest

import gradleak as gl
from gradleak.audit.junit import junit
from gradleak.audit.limits import FAULTS, Limits, check, judge
from gradleak.audit.sarif import _RULES, sarif
from gradleak.cases import Store, Work
from gradleak.cases import run as run_cases
from gradleak.cases.case import KNOWS_NOT
from gradleak.cases.facts import facts_of
from gradleak.errors import InvalidInput
from hand_made_audit import BELOW, attack, broke, forecast, left, run


def broken(record, **limits):
    return [(one.way, one.limit) for one in check(record, Limits(**limits))]


def only(record, **limits):
    (one,) = check(record, Limits(**limits))
    return one


def test_the_worst_record_is_named_with_its_attack_its_rung_and_its_null():
    record = run(
        attack([12, 19.5], name="dlg"),
        attack([21.25, 20], name="gdl", rung=BELOW, attacker=KNOWS_NOT),
        attack([20, 15], name="ssras", seed=1),
    )
    one = only(record, max_psnr=18)
    assert (one.sample, one.attack, one.rung) == ("a", "gdl", BELOW)
    assert (one.value, one.bound, one.limit, one.way) == (21.25, 18.0, "max_psnr", "plain")
    assert str(one) == (
        "plain: a comes back at 21.25 dB (10.00 dB without the update; limit 18 dB; 2 of 2 records are above "
        "it), by gdl on the rung “no labels”, by a server that does not know the defense"
    )
    assert not broken(record, max_psnr=21.25)
    assert broken(record, max_psnr=21.24)


def test_a_guess_that_is_no_better_than_one_without_the_update_breaks_nothing():
    assert not broken(run(attack([19, 19], null=19.0)), max_psnr=18)
    assert broken(run(attack([19.1, 19], null=19.0)), max_psnr=18)
    fine = {"ssim": 0.6, "null_ssim": 0.6}
    assert not broken(run(attack([12, 12], **fine)), max_ssim=0.5)
    assert broken(run(attack([12, 12], **fine | {"null_ssim": 0.59})), max_ssim=0.5)
    assert not broken(run(attack([12, 12], rung=BELOW, labels=(0.25, 0.3))), max_label_accuracy=0.1)
    assert broken(run(attack([12, 12], rung=BELOW, labels=(0.5, 0.3))), max_label_accuracy=0.1)
    assert not broken(run(forecast([20, 20], null=20.0)), max_forecast=18)
    assert broken(run(forecast([20, 21], null=20.0)), max_forecast=18)


def test_a_guess_above_its_null_counts_even_where_a_higher_one_is_below_its_own():
    record = run(attack([30, 12], null=31.0), attack([20, 12], null=11.0, name="gdl"))
    assert only(record, max_psnr=18).value == 20


def test_an_exact_copy_is_called_one_and_what_cannot_be_scored_hides_nothing():
    record = run(attack([math.nan, math.inf]), attack([20, 12], name="gdl"))
    one = only(record, max_psnr=18)
    assert (one.value, one.sample) == (math.inf, "b")
    assert "b comes back as an exact copy (" in one.sentence
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["value"] == "inf"
    assert only(run(attack([math.nan, 12]), attack([20, 12], name="gdl")), max_psnr=18).value == 20
    assert judge(run(attack([math.nan, 12])), Limits(max_psnr=18))[0].value == 12


def test_the_share_of_records_that_leak():
    record = run(attack([17, 12]))
    one = only(record, max_leaked=0.49)
    assert (one.value, one.sample) == (0.5, "a")
    assert "1 of 2 records leak, 50% (limit 49%)" in one.sentence
    assert not broken(record, max_leaked=0.5)
    assert not broken(run(attack([15.9, 12])), max_leaked=0)


def test_labels_are_held_against_chance_and_only_where_they_are_secret():
    given = attack([12, 12], labels=(1.0, 0.2))
    found = attack([12, 12], rung=BELOW, labels=(0.5, 0.2), name="gdl")
    one = only(run(given, found), max_label_accuracy="random+0.25")
    assert (one.value, one.bound, one.attack, one.rung) == (0.5, pytest.approx(0.45), "gdl", BELOW)
    assert "50% of labels come back (20% by chance; limit 45%)" in one.sentence
    assert not broken(run(given, found), max_label_accuracy="random + 0.3")
    assert not broken(run(given, found), max_label_accuracy="0.5")
    assert broken(run(given, found), max_label_accuracy="random")
    assert broken(run(given), max_label_accuracy=1.0) == [("plain", "unanswered")]


def test_a_limit_that_is_met_to_rounding_holds():
    record = run(attack([12, 12], rung=BELOW, labels=(0.3, 0.1)))
    assert 0.1 + 0.2 != 0.3
    assert not broken(record, max_label_accuracy="random+0.2")
    assert not broken(run(attack([12, 12], rung=BELOW, labels=(0.1 + 0.2, 0.1))), max_label_accuracy=0.3)


def test_the_forecast_is_judged_without_any_attack():
    one = only(run(forecast([20, 40])), max_forecast=25)
    assert (one.value, one.sample, one.attack) == (40, "b", "")
    assert not broken(run(forecast([20, 40])), max_forecast=40)


def test_limits_hold_for_every_way_unless_some_are_meant():
    record = run(
        attack([30, 30], way="plain"), attack([12, 12], way="noisy"), attack([25, 12], way="fedavg"),
        ways=("plain", "noisy", "fedavg"),
    )  # fmt: skip
    assert broken(record, max_psnr=18) == [("plain", "max_psnr"), ("fedavg", "max_psnr")]
    assert broken(record, max_psnr=18, ways=("fedavg", "noisy")) == [("fedavg", "max_psnr")]
    assert not broken(record, max_psnr=18, ways=("noisy",))
    with pytest.raises(InvalidInput, match="among plain; noisy; fedavg; came 'nosy'; did you mean noisy"):
        broken(record, max_psnr=18, ways=("nosy",))


def test_a_run_that_says_too_little_does_not_pass():
    quiet, two = attack([12, 12]), ("plain", "noisy")
    both = (quiet, attack([12, 12], way="noisy"))
    killed = run(*both, ways=two, finished=False)
    assert broken(killed, max_psnr=18) == [("plain", "unfinished"), ("noisy", "unfinished")]
    stopped = run(*both, ways=two, finished=False, left=[left("interrupted", way="noisy")])
    assert broken(stopped, max_psnr=18) == [("noisy", "unfinished")]
    assert "1 case was not run: interrupted" in only(stopped, max_psnr=18).sentence
    failing = run(*both, broke("RuntimeError: no memory", way="noisy"), ways=two)
    assert broken(failing, max_psnr=18) == [("noisy", "failed")]
    assert (
        "idlg on noisy, batch 1, everything known: RuntimeError: no memory"
        in only(failing, max_psnr=18).sentence
    )
    silent = run(quiet, attack([None, None], way="noisy"), ways=two)
    assert broken(silent, max_psnr=18) == [("noisy", "unanswered")]
    assert only(run(attack([12, None])), max_psnr=18).sentence == "no guess for 1 of 2 records (b)"
    assert broken(run(quiet), max_psnr=18, max_ssim=0.5) == [("plain", "unanswered")]
    assert broken(run(quiet), max_forecast=18) == [("plain", "unanswered")]
    for record, fault in ((killed, "unfinished"), (failing, "failed"), (silent, "unanswered")):
        assert not broken(record, max_psnr=18, allow=(fault,))
        others = tuple(set(FAULTS) - {fault})
        assert broken(record, max_psnr=18, allow=others)


def test_what_is_spared_is_no_fault_but_labels_that_nobody_looked_for_are_unknown():
    record = run(attack([12, 12]), left=[left("nothing leaked above", spared=True)])
    assert not broken(record, max_psnr=18)
    one = only(record, max_label_accuracy=0.5)
    assert one.limit == "unanswered"
    assert "nobody came to labels" in one.sentence


def test_everything_that_was_asked_is_judged():
    record = run(attack([12, 12], rung=BELOW, labels=(0.5, 0.2)), forecast([9, 9]), ways=("plain",))
    limits = Limits(18, 0.5, 0.5, 0.5, 18, 30, allow=("unanswered",))
    judged = judge(record, limits)
    assert [one.limit for one in judged] == [*limits.asked, "unfinished", "failed"]
    assert [one.value is None for one in judged] == [False, True, False, False, False, True, False, False]
    assert all(one.holds for one in judged)
    with pytest.raises(InvalidInput, match="at least one limit"):
        judge(record, Limits())


WRONG = [
    ({"max_psnr": math.nan}, "decibels, such as 18; came nan"),
    ({"max_psnr": math.inf}, "decibels"),
    ({"max_psnr": "18"}, "decibels, such as 18; came '18'"),
    ({"max_psnr": True}, "came True"),
    ({"max_ssim": 1.5}, "from -1 to 1"),
    ({"max_leaked": -0.1}, "a share from 0 to 1"),
    ({"max_leaked": 2}, "a share from 0 to 1"),
    ({"max_label_accuracy": 20}, "or one above chance, such as random+0.2; came 20"),
    ({"max_label_accuracy": "random-0.2"}, "came 'random-0.2'"),
    ({"max_label_accuracy": "random+2"}, "came 'random+2'"),
    ({"max_label_accuracy": "chance"}, "came 'chance'"),
    ({"max_forecast": "random+0.2"}, "decibels"),
    ({"allow": ("unfinnished",)}, "came 'unfinnished'; did you mean unfinished?"),
]


@pytest.mark.parametrize(("facts", "says"), WRONG, ids=[f"{facts}" for facts, _ in WRONG])
def test_limits_that_are_none_are_refused(facts, says):
    with pytest.raises(InvalidInput) as raised:
        Limits(**facts)
    assert says in str(raised.value)


def test_a_real_audit_is_judged():
    x, y = gl.zoo.pictures("digits", size=8, n=1)
    noisy = gl.defenses.GaussianNoise(gl.OneGradient(), std=10.0)
    work = Work(
        model=gl.zoo.mlp(channels=1, size=8, sizes=(64, 16, 64), classes=10, seed=0),
        batches=[(x, y)],
        names=[["digit 1"]],
        ways={"plain": gl.OneGradient(), "noisy": noisy},
        attacks={"bias": gl.attacks.bias(), "dlg": gl.attacks.dlg(evaluations=20)},
        rungs=(BELOW,),
    )
    record = run_cases(work, Store(), facts_of(work, title="One digit"))
    found = check(record, Limits(max_psnr=18, max_label_accuracy="random+0.2", max_forecast=30))
    assert [(one.way, one.limit) for one in found if one.way == "plain"] == [
        ("plain", "max_psnr"), ("plain", "max_label_accuracy"), ("plain", "max_forecast"),
    ]  # fmt: skip
    assert (found[0].sample, found[0].attack) == ("digit 1", "bias")
    assert ("noisy", "max_psnr") not in [(one.way, one.limit) for one in found]
    assert ("noisy", "max_forecast") not in [(one.way, one.limit) for one in found]


# JUnit and SARIF.

STRANGE = "<b>\x00 \ud800 & \U0001f600"


def gated():
    record = run(
        attack([30, None], way=STRANGE), attack([12, 12], way="noisy"), ways=(STRANGE, "noisy"), title=STRANGE
    )
    return record, judge(record, Limits(max_psnr=18, max_ssim=0.4))


def test_junit_has_a_test_for_every_way_and_limit():
    record, judged = gated()
    root = ElementTree.fromstring(junit(record, judged))
    (suite,) = root
    tests = {(test.get("classname"), test.get("name")): [child.tag for child in test] for test in suite}
    strange = "<b>\ufffd \ufffd & \U0001f600"
    assert tests == {
        (strange, "max_psnr"): ["failure"],
        (strange, "max_ssim"): ["skipped"],
        (strange, "unfinished"): ["system-out"],
        (strange, "failed"): ["system-out"],
        (strange, "unanswered"): ["error"],
        ("noisy", "max_psnr"): ["system-out"],
        ("noisy", "max_ssim"): ["skipped"],
        ("noisy", "unfinished"): ["system-out"],
        ("noisy", "failed"): ["system-out"],
        ("noisy", "unanswered"): ["error"],
    }
    counts = {"tests": "10", "failures": "1", "errors": "2", "skipped": "2"}
    assert {name: suite.get(name) for name in counts} == counts
    assert suite.find(".//failure").get("message") == judged[0].sentence


def test_sarif_has_a_result_for_every_broken_limit_on_the_line_that_sets_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = tmp_path / "my plans" / "plan.toml"
    plan.parent.mkdir()
    plan.write_text('title = "x"\n\n[limits]\nmax_ssim = 0.4\nmax_psnr = 18\n')
    record, judged = gated()
    found = json.loads(sarif(record, judged, plan))
    assert found["version"] == "2.1.0"
    (tool_run,) = found["runs"]
    rules = tool_run["tool"]["driver"]["rules"]
    results = tool_run["results"]
    assert [one["ruleId"] for one in results] == ["max-psnr", "unanswered", "unanswered"]
    assert all(rules[one["ruleIndex"]]["id"] == one["ruleId"] for one in results)
    places = [one["locations"][0]["physicalLocation"] for one in results]
    assert {place["artifactLocation"]["uri"] for place in places} == {"my%20plans/plan.toml"}
    assert [place["region"]["startLine"] for place in places] == [5, 3, 3]
    assert results[0]["message"]["text"] == f"{judged[0]}."
    assert tool_run["invocations"] == [{"executionSuccessful": False}]
    hashes = [one["partialFingerprints"]["primaryLocationLineHash"] for one in results]
    assert len(set(hashes)) == 3
    again = run(attack([22, 12], way=STRANGE), ways=(STRANGE,))
    (later,) = json.loads(sarif(again, check(again, Limits(max_psnr=18)), plan))["runs"][0]["results"]
    assert later["partialFingerprints"]["primaryLocationLineHash"] == hashes[0]


def test_sarif_of_a_run_without_a_plan_names_its_folder(tmp_path):
    record = run(attack([30, 30]))
    found = json.loads(sarif(record, check(record, Limits(max_psnr=18)), tmp_path))
    place = found["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == tmp_path.as_uri()
    assert place["region"]["startLine"] == 1
    assert found["runs"][0]["invocations"] == [{"executionSuccessful": True}]


def test_every_limit_and_fault_has_a_rule():
    everything = Limits(18, 0.5, 0.5, 0.5, 18, 30)
    assert set(_RULES) == {*everything.asked, *FAULTS}
    for short, full, advice in _RULES.values():
        assert max(map(len, (short, full, advice))) <= 1024
