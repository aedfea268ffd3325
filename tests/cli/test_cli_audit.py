import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from gradleak.cli import main

PLAN = """
title = "Small"
attacks = "bias"
ladder = "everything known"
[model]
build = "mlp"
arguments = {{ sizes = [64, 16] }}
[data]
source = "digits"
size = 8
batches = {batches}
[budget]
level = "quick"
"""


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text(PLAN.format(batches=2))
    return tmp_path / "plan.toml"


def _run(*args):
    return CliRunner().invoke(main, ["audit", *args])


def test_a_plan_becomes_a_report(plan):
    result = _run("plan.toml")
    assert result.exit_code == 0, result.output
    assert "2 of 2" in result.output
    assert {path.name for path in (plan.parent / "audit").glob("*.*")} >= {
        *("report.html", "report.md", "audit.json", "index.sqlite"),
    }
    assert "<img" in (plan.parent / "audit/report.html").read_text()


def test_every_event_is_a_line_of_json_and_the_last_is_the_report(plan):
    result = _run("plan.toml", "--json", "--no-pictures")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["what"] for line in lines[:-1]].count("done") == 4
    assert lines[-1]["what"] == "report"
    assert lines[-1]["finished"] is True
    assert lines[-1]["ways"][0]["leaked"] == 2
    assert "data:image" not in (plan.parent / "audit/report.html").read_text()
    again = _run("plan.toml", "--json")
    assert {json.loads(line)["what"] for line in again.stdout.splitlines()[:-1]} == {"kept"}


def test_quiet_says_the_result_alone(plan):
    assert _run("plan.toml", "--quiet").stderr == ""
    assert "cases" in _run("plan.toml", "--out", "other").stderr


@pytest.mark.parametrize("before", ["nothing", "finished", "another plan"])
def test_resume_begins_no_other_run(plan, before):
    if before == "finished":
        assert _run("plan.toml").exit_code == 0
    if before == "another plan":
        plan.write_text(PLAN.format(batches=2) + "seconds = 0.0001\n")
        _run("plan.toml")
        plan.write_text(PLAN.format(batches=1))
    result = _run("plan.toml", "--resume")
    assert result.exit_code == 2
    said = {"nothing": "it holds none", "finished": "is finished", "another plan": "of another plan"}
    assert said[before] in " ".join(result.output.split())


def test_an_unfinished_run_is_resumed(plan):
    plan.write_text(PLAN.format(batches=2) + "seconds = 0.0001\n")
    cut = _run("plan.toml")
    assert "cases were not run" in " ".join(cut.output.split())
    plan.write_text(PLAN.format(batches=2))
    result = _run("plan.toml", "--resume", "--workers", "2")
    assert result.exit_code == 0, result.output
    assert "2 of 2" in result.output


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_it_and_keeps_what_was_finished(plan, times):
    plan.write_text(PLAN.format(batches=60))
    process = subprocess.Popen(
        [sys.executable, "-m", "gradleak.cli", "audit", "plan.toml", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in a background job it is ignored
    )
    lines = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)
    if times == 2:
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    done = {json.loads(line)["case"]["group"] for line in lines}
    result = _run("plan.toml", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()[:-1]]
    kept = {event["case"]["group"] for event in events if event["what"] == "kept"}
    assert done <= kept
    assert json.loads(result.stdout.splitlines()[-1])["finished"]
    if times == 1:
        assert json.loads(rest.splitlines()[-1])["stopped"] == "interrupted"


def test_a_device_that_is_not_there_is_said_before_anything_is_run(plan):
    result = _run("plan.toml", "--device", "warp")
    assert result.exit_code == 2
    assert not (plan.parent / "audit").exists()
