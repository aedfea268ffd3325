"""The gate for people's own tests, by itself and as a pytest plugin in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gradleak as gl
from gradleak.errors import InvalidInput
from gradleak.testing import assert_no_leak
from hand_made_audit import attack, run

pytest_plugins = "pytester"

SOURCES = Path(gl.__file__).parent.parent
X, Y = torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)


@pytest.fixture
def audits(monkeypatch):
    """Audits that come to ``record``, and a list of how they were asked for."""
    asked = []

    def come_to(record):
        def audit(model, x, y, **said):
            asked.append(said)
            return SimpleNamespace(record=record, write=lambda folder: asked.append(folder))

        monkeypatch.setitem(sys.modules, "gradleak.audit.call", SimpleNamespace(audit=audit))
        return asked

    return come_to


def test_broken_limits_are_the_lines_of_the_error(audits):
    asked = audits(run(attack([30, 12])))
    with pytest.raises(AssertionError) as raised:
        assert_no_leak(None, X, Y, max_leaked=0.1)
    first, *lines = str(raised.value).splitlines()
    assert first == "2 limits are broken:"
    assert lines[0].startswith("  plain: a comes back at 30.00 dB (10.00 dB without the update; limit 18 dB")
    assert lines[1].startswith("  plain: 1 of 2 records leak, 50% (limit 10%)")
    assert len(lines) == 2
    assert asked == [{"budget": "quick"}]


def test_what_is_said_reaches_the_audit_and_what_passes_is_handed_back(audits):
    record = run(attack([30, 12]))
    asked = audits(record)
    client = gl.LocalSGD(1, 1, 0.1)
    found = assert_no_leak(None, X, Y, client=client, max_psnr=31, budget="standard", seed=3, report="no")
    assert found.record is record
    assert asked == [{"budget": "standard", "client": client, "seed": 3}]


def test_the_report_of_a_failed_audit_is_kept(audits, tmp_path):
    asked = audits(run(attack([30, 12])))
    with pytest.raises(AssertionError, match=r"The report is .*mine/report\.html"):
        assert_no_leak(None, X, Y, report=tmp_path / "mine")
    assert asked[1:] == [tmp_path / "mine"]


def test_wrong_limits_are_refused_before_the_audit(audits):
    asked = audits(run(attack([30, 12])))
    with pytest.raises(InvalidInput, match="a share from 0 to 1"):
        assert_no_leak(None, X, Y, max_leaked=3)
    assert asked == []


def test_a_real_audit_fails_on_a_leak_and_writes_its_report(tmp_path):
    x, y = gl.zoo.pictures("digits", size=8, n=1)
    model = gl.zoo.mlp(channels=1, size=8, sizes=(64, 16, 64), seed=0)
    short = {"attacks": ["bias"], "ladder": ["no labels"]}
    with pytest.raises(AssertionError, match=r"record 1 comes back .* by bias on the rung “no labels”"):
        assert_no_leak(model, x, y, report=tmp_path / "leaks", **short)
    assert (tmp_path / "leaks/report.html").is_file()
    noisy = gl.defenses.GaussianNoise(gl.OneGradient(), std=10.0)
    found = assert_no_leak(model, x, y, client=noisy, **short)
    assert found.record.median(found.record.ways[0].name) < 18


SUITE = """
import sys
from types import SimpleNamespace
import pytest
from hand_made_audit import attack, run

def audit(model, x, y, **said):
    def write(folder):
        folder.mkdir(parents=True)
        (folder / "report.html").write_text(repr(sorted(said.items())))
    return SimpleNamespace(record=run(attack([x, y])), write=write)

sys.modules["gradleak.audit.call"] = SimpleNamespace(audit=audit)

def test_safe(gradleak_audit):
    assert gradleak_audit(None, 12, 9).record.finished

@pytest.mark.parametrize("size", [3])
def test_leaky(gradleak_audit, size):
    gradleak_audit(None, 17, 9)
    with pytest.raises(AssertionError):
        gradleak_audit(None, 20, 9)
    gradleak_audit(None, 30, 9, budget="standard")
"""


def pytest_on(folder, *words):
    """In a process of its own, as a user runs it."""
    tests = Path(__file__).parent
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_gradleak", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (SOURCES, tests)))},
        capture_output=True,
        text=True,
    )


def test_the_plugin_fails_a_test_that_leaks_and_writes_its_reports(tmp_path):
    (tmp_path / "test_mine.py").write_text(SUITE)
    done = pytest_on(tmp_path, "--gradleak-report", "leaks", "--gradleak-budget", "thorough")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "plain: a comes back at 30.00 dB" in done.stdout
    assert "raise AssertionError" not in done.stdout  # the user's line is shown, and not ours
    reports = sorted(path.name for path in (tmp_path / "leaks").iterdir())
    assert reports == ["test_mine.py-test_leaky-3-2", "test_mine.py-test_leaky-3-3"]
    said = (tmp_path / "leaks" / reports[1] / "report.html").read_text()
    assert said == "[('budget', 'thorough')]"


def test_without_options_the_test_decides_and_nothing_is_written(pytester):
    pytester.makepyfile(SUITE.replace('budget="standard"', 'budget="standard", max_psnr=40'))
    done = pytester.runpytest_inprocess("-p", "pytest_gradleak", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=2)
    assert list(pytester.path.rglob("report.html")) == []


def test_who_audits_nothing_loads_nothing(tmp_path):
    """Gradleak loads torch, which takes seconds: the plugin must not load gradleak."""
    (tmp_path / "test_mine.py").write_text(
        "import sys\ndef test_none():\n    assert not {'torch', 'gradleak', 'numpy'} & set(sys.modules)\n"
    )
    done = pytest_on(tmp_path, "-p", "pytest_gradleak")
    assert done.returncode == 0, done.stdout
