"""gradleak plan: a plan to begin with, what a plan would run, and its schema."""

import json
import sys

import pytest
from click.testing import CliRunner

from gradleak.audit.plan import Plan, schema
from gradleak.cli import main


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*words):
        return CliRunner().invoke(main, ["plan", *map(str, words)])

    return call


def said(done) -> str:
    return " ".join(done.output.split())


def test_a_new_plan_is_read_and_never_overwritten(run, tmp_path):
    assert run("init").output == "Wrote plan.toml. Run it: gradleak audit plan.toml\n"
    Plan.read(tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_text("mine")
    refused = run("init", "plan.toml")
    assert refused.exit_code == 2
    assert "is there already" in said(refused)
    assert (tmp_path / "plan.toml").read_text() == "mine"
    assert run("init", "--force").exit_code == 0
    Plan.read(tmp_path / "plan.toml")
    assert run("init", "made/new.toml").exit_code == 0
    Plan.read(tmp_path / "made" / "new.toml")
    assert run("init", tmp_path, "--force").exit_code == 2


def test_a_check_says_what_would_be_run(run):
    run("init")
    done = run("check", "plan.toml")
    assert done.exit_code == 0, done.output
    for words in ("My first audit", "2 batches, 2 records", "fedavg, gaussian:std=0.1", "clients summed"):
        assert words in said(done)
    assert "At most 44 cases" in said(done)
    facts = json.loads(run("check", "plan.toml", "--json").output)
    assert facts["cases"] == 44
    assert list(facts["ways"]) == [
        "fedsgd",
        "fedsgd, gaussian:std=0.1",
        "fedavg",
        "fedavg, gaussian:std=0.1",
    ]
    assert facts["ways"]["fedsgd"]["rungs"] == ["everything known", "clients summed"]


def test_a_check_of_a_wrong_plan_ends_with_its_sentences(run, tmp_path):
    (tmp_path / "plan.toml").write_text("sede = 1\n[model]\nbuild = 'lenett'\n[data]\nsource = 'digits'\n")
    done = run("check", "plan.toml")
    assert done.exit_code == 2
    assert "plan.toml:1: sede: there is no such key; did you mean seed?" in said(done)
    assert "plan.toml:3: model.build: expected module:callable" in said(done)


def test_the_schema_is_printed(run):
    assert json.loads(run("schema").output) == schema()
