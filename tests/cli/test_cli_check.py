import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from gradleak.audit.limits import FAULTS, Limits
from gradleak.audit.plan import Plan
from gradleak.cases import Event
from gradleak.cli import main
from hand_made_audit import attack, keep, left, run

PLAN = '[model]\nbuild = "lenet"\n[data]\nsource = "faces"\n[limits]\nmax_psnr = 18\nmax_leaked = 1\n'
LEAKS = run(attack([30, 12]), attack([12, 12], way="noisy"), ways=("plain", "noisy"))


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["check", *map(str, words)])


@pytest.fixture
def audits(monkeypatch, tmp_path):
    """A plan whose audit finds ``record``, and a list of how it was asked for."""
    (tmp_path / "plan.toml").write_text(PLAN)
    asked = []

    def come_to(record):
        def run_plan(path, *, tell, **said):
            asked.append((str(path), said))
            tell(Event("said", words="a worker [bold]died[/]"))
            tell(Event("done", words="converged"))
            return SimpleNamespace(record=record)

        monkeypatch.setitem(sys.modules, "gradleak.audit.call", SimpleNamespace(run_plan=run_plan))
        return asked

    return come_to


def test_a_line_for_every_broken_limit_and_exit_code_1(call, tmp_path):
    keep(tmp_path / "audit", LEAKS)
    done = call("audit", "--max-psnr", 18, "--max-leaked", 0)
    assert done.exit_code == 1, done.output
    first, second = done.stdout.splitlines()
    assert first.startswith(
        "plain: a comes back at 30.00 dB (10.00 dB without the update; limit 18 dB; 1 of 2"
    )
    assert second.startswith("plain: 1 of 2 records leak, 50% (limit 0%)")


def test_all_limits_kept_is_exit_code_0(call, tmp_path):
    keep(tmp_path / "audit", LEAKS)
    done = call("audit", "--max-psnr", 18, "--way", "noisy")
    assert (done.exit_code, done.stdout) == (0, "All limits hold (max_psnr) under “noisy”.\n")
    assert call("audit", "--max-psnr", 30).exit_code == 0


def test_another_run_of_the_folder_is_judged_where_it_is_named(call, tmp_path):
    keep(tmp_path / "audit", LEAKS, run(attack([12, 12]), number=2))
    assert call("audit", "--max-psnr", 18).exit_code == 0
    assert call("audit#1", "--max-psnr", 18).exit_code == 1
    assert call("audit#2", "--max-psnr", 18).exit_code == 0


def test_limits_of_the_plan_hold_unless_others_are_said(call, tmp_path):
    keep(tmp_path / "audit", run(attack([30, 12]), plan={"limits": {"max_psnr": 18, "allow": ["failed"]}}))
    assert call("audit").exit_code == 1
    assert call("audit", "--max-psnr", 31).exit_code == 0
    done = call("audit", "--max-leaked", 0.5)
    assert len(done.stdout.splitlines()) == 1  # the other limit of the plan still holds


def test_an_unfinished_run_does_not_pass_unless_it_may(call, tmp_path):
    keep(tmp_path / "audit", run(attack([12, 12]), finished=False, left=[left("interrupted")]))
    done = call("audit", "--max-psnr", 18)
    assert (done.exit_code, done.stdout) == (1, "plain: 1 case was not run: interrupted\n")
    assert call("audit", "--max-psnr", 18, "--allow", "unfinished").exit_code == 0


def test_what_may_go_without_an_answer_is_said_to_the_person(call, tmp_path):
    keep(tmp_path / "audit", run(attack([12, 12])))
    words = ("audit", "--max-psnr", 18, "--max-ssim", 0.5)
    assert call(*words).exit_code == 1
    done = call(*words, "--allow", "unanswered")
    assert done.exit_code == 0
    assert "not judged: max_ssim, plain: no attack came to a guess that has an SSIM" in done.stderr


def test_json_junit_and_sarif_say_the_same(call, tmp_path):
    keep(tmp_path / "audit", LEAKS)
    done = call("audit", "--max-psnr", 18, "--json", "--junit", "out/j.xml", "--sarif", "out/s.sarif")
    assert done.exit_code == 1, done.output
    facts = json.loads(done.stdout)
    assert (facts["holds"], facts["run"], facts["finished"]) == (False, 1, True)
    (one,) = facts["broken"]
    assert (one["way"], one["limit"], one["value"], one["sample"]) == ("plain", "max_psnr", 30, "a")
    assert len(facts["judged"]) == 8
    suite = ElementTree.parse(tmp_path / "out/j.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("8", "1")
    (result,) = json.loads((tmp_path / "out/s.sarif").read_text())["runs"][0]["results"]
    assert result["message"]["text"] == f"plain: {one['sentence']}."
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "audit"
    assert (tmp_path / "out/s.sarif").stat().st_mode & 0o777 == 0o600


def test_a_plan_is_audited_first(call, audits, tmp_path):
    asked = audits(LEAKS)
    done = call("plan.toml", "--out", "mine", "--workers", 3, "--sarif", "s.sarif")
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith("plain: a comes back at 30.00 dB")
    ((path, said),) = asked
    assert (path, str(said["out"]), said["workers"]) == ("plan.toml", "mine", 3)
    (result,) = json.loads((tmp_path / "s.sarif").read_text())["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("plan.toml", 6)
    assert "a worker [bold]died[/]" in done.stderr
    assert "converged" not in done.stderr
    assert "died" not in call("plan.toml", "--quiet").stderr


def test_limits_are_read_before_the_audit_is_run(call, audits):
    asked = audits(LEAKS)
    assert call("plan.toml", "--max-label-accuracy", "chance").exit_code == 2
    assert call("plan.toml", "--max-leaked", 2).exit_code == 2
    done = call("plan.toml", "--way", "one gradent")
    assert done.exit_code == 2
    assert "did you mean one gradient" in " ".join(done.stderr.split())
    assert asked == []


def test_an_interrupted_audit_ends_as_interrupted(call, audits):
    audits(run(attack([12, 12]), finished=False, stopped="interrupted", left=[left("interrupted")]))
    done = call("plan.toml")
    assert done.exit_code == 130
    assert "1 case was not run: interrupted" in done.stdout


def test_the_plan_of_the_documentation_has_limits_that_hold_for_what_it_says():
    page = (Path(__file__).parents[2] / "docs/gate.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    plan = Plan.parse(text)
    meant = ("phones, gaussian:std=0.1",)
    assert plan.limits == Limits(max_psnr=18, max_label_accuracy="random+0.2", ways=meant)
    for name in (*Limits(1, 1, 1, 1, 1, 1).asked, *FAULTS):
        assert f"| `{name}` |" in page


WRONG = [
    (["audit"], "expected at least one limit, here or in the plan's [limits]"),
    (["audit", "--max-psnr", "nan"], "expected max_psnr as decibels"),
    (["audit", "--max-psnr", "loud"], "not a valid float"),
    (["audit", "--max-psnr", "18", "--way", "nosy"], "did you mean noisy?"),
    (["audit", "--max-psnr", "18", "--allow", "leaks"], "'leaks' is not one of"),
    (["audit#7", "--max-psnr", "18"], "expected a run among 1; came 7"),
    (["nothing#1", "--max-psnr", "18"], "expected the folder of an audit"),
    (["empty", "--max-psnr", "18"], "expected the folder of an audit"),
    (["nothing.toml", "--max-psnr", "18"], "expected a plan, a TOML file"),
    (["broken.toml", "--max-psnr", "18"], "expected TOML"),
    (["audit", "--max-psnr", "99", "--junit", "empty"], "cannot write"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_bad_input_is_exit_code_2(call, tmp_path, words, says):
    keep(tmp_path / "audit", LEAKS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.toml").write_text("title = ")
    done = call(*words)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.stderr.split())
    assert not done.stdout
