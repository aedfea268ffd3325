import csv
import json

import pytest
from click.testing import CliRunner

from gradleak.cli import main
from hand_made_audit import attack, broke, forecast, keep, left, run

BEFORE = run(attack([30, 12]), forecast([31, 13]), attack([20, 20], way="noisy"), ways=("plain", "noisy"))
AFTER = run(attack([16, 12]), broke("no memory"), title="After", number=2, model="Net, 13 parameters")


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    keep(tmp_path / "audit", BEFORE, AFTER)
    stopped = run(
        attack([9, 9]), finished=False, stopped="interrupted", left=[left("interrupted")], title="X"
    )
    keep(tmp_path / "other", stopped)
    return lambda *words: CliRunner().invoke(main, ["runs", *map(str, words)])


def test_runs_are_listed_with_how_they_ended(call):
    done = call("list", "audit", "other")
    assert done.exit_code == 0, done.output
    rows = [line.split()[:4] for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if "#" in row[0]] == ["audit#1", "audit#2", "other#1"]
    facts = json.loads(call("list", "audit", "other", "--json").stdout)
    assert [(one["run"], one["finished"], one["cases"], one["failed"], one["missing"]) for one in facts] == [
        ("audit#1", True, 3, 0, 0), ("audit#2", True, 2, 1, 0), ("other#1", False, 1, 0, 1),
    ]  # fmt: skip
    assert facts[2]["stopped"] == "interrupted"
    assert facts[0]["ways"] == ["plain", "noisy"]
    assert [one["run"] for one in json.loads(call("list", "--json").stdout)] == ["audit#1", "audit#2"]


def test_a_run_is_shown_by_number_folder_or_both(call):
    assert "Run 1: By hand" in call("show", 1).stdout
    assert "Run 2: After" in call("show", "audit").stdout
    assert "Run 1: X" in call("show", 1, "--folder", "other").stdout
    done = call("show", "audit#2")
    assert "failed: idlg on plain, batch 1, everything known: no memory" in done.stdout
    assert "1 case was not run: interrupted" in call("show", "other").stdout
    lines = call("show", 1).stdout.splitlines()
    (plain,) = [line.split() for line in lines if line.startswith("plain")]
    assert " ".join(plain) == "plain 1 of 2 21.0 dB 10.0 dB 22.0 dB - - everything known"
    assert json.loads(call("show", 1, "--json").stdout)["title"] == "By hand"


def test_a_diff_says_what_changed_by_way_and_by_record(call):
    done = call("diff", 1, 2)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:2] == ["From audit#1 (By hand)", "  to audit#2 (After)"]
    change = "7.0 dB less leak in the median of 2 records (0 more exposed, 1 less, 1 the same)"
    assert f"plain: {change}; 1 of 2 leaked, and now 1." in lines
    rows = [" ".join(line.split()) for line in lines if line[:2] in ("a ", "b ")]
    assert rows == ["a 30.0 dB 16.0 dB 10.0 dB 10.0 dB -14.0 dB", "b 12.0 dB 12.0 dB 10.0 dB 10.0 dB +0.0 dB"]
    assert "ways of training only in audit#1: noisy" in lines
    assert "note: the model differs: Net, 12 parameters, and now Net, 13 parameters" in lines


def test_a_diff_as_json_and_over_two_folders(call):
    facts = json.loads(call("diff", "audit#1", "other", "--json").stdout)
    assert facts["runs"] == ["audit#1", "other#1"]
    (way,) = facts["ways"]
    assert [one["by"] for one in way["records"]] == [-21, -3]
    assert way["median_by"] == -12
    assert facts["only_ways"] == [["noisy"], []]
    assert "the second run is not finished" in facts["notes"]


def test_of_many_records_those_that_changed_most_are_printed(call, tmp_path):
    names = [f"r{i}" for i in range(30)]
    first = run(attack([20.0] * 30), names=names)
    second = run(attack([20.0 + i for i in range(30)]), names=names, number=2)
    keep(tmp_path / "many", first, second)
    done = call("diff", "many#1", "many#2")
    shown = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("r") and "dB" in line]
    assert shown == [f"r{i}" for i in range(29, 9, -1)]
    assert "and 10 records that changed no more" in done.stdout


def test_runs_are_exported_as_csv_and_as_json(call, tmp_path):
    done = call("export", "audit", "other#1", "--csv", "all.csv")
    assert done.exit_code == 0, done.output
    table = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert [(row["folder"], row["run"], row["record"]) for row in table] == [
        *(("audit", "1", name) for name in "abab"),
        *(("audit", "2", name) for name in "abab"),
        *(("other", "1", name) for name in "ab"),
    ]
    assert (tmp_path / "all.csv").stat().st_mode & 0o777 == 0o600
    assert call("export", "audit", "other#1", "--csv", "-").stdout == (tmp_path / "all.csv").read_text()
    facts = json.loads(call("export", "audit#2", "--json").stdout)
    reached = [("dlg", 16), ("dlg", 12), ("idlg", None), ("idlg", None)]
    assert [(row["attack"], row["psnr"]) for row in facts] == reached
    assert len(json.loads(call("export", "--json").stdout)) == 8


WRONG = [
    (["show", "7"], "expected a run among 1, 2; came 7"),
    (["show", "nothing"], "expected a run as its number, a folder, or folder#number"),
    (["show", "nothing#1"], "nothing holds no index.sqlite"),
    (["diff", "1", "nothing"], "which is no folder"),
    (["list", "nothing"], "which is no folder"),
    (["export"], "expected one of --csv FILE and --json; came none"),
    (["export", "--csv", "x.csv", "--json"], "came both"),
    (["export", "--csv", "audit"], "cannot write"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_what_names_no_run_is_said(call, words, says):
    done = call(*words)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.stderr.split())


def test_nothing_is_written_into_a_folder_that_holds_no_audit(call, tmp_path):
    (tmp_path / "empty").mkdir()
    assert call("list", "empty").exit_code == 2
    assert list((tmp_path / "empty").iterdir()) == []
