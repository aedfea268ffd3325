import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import gradleak as gl
from gradleak.cli import main


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return call


SMALL = ("--model", "mlp", "--arg", "activation=sigmoid", "--arg", "size=8", "--arg", "channels=1")


def test_observe_then_attack_by_the_words_of_the_help(run, tmp_path):
    made = run(
        "observe", *SMALL, "--data", "faces", "--size", 8, "--channels", 1, "--out", "c.safetensors", "--json"
    )
    # A face's label is its own index, and the model has ten classes: the first picture has label 0.
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["x_shape"] == [1, 1, 8, 8]
    done = run("attack", "c.safetensors", *SMALL, "--out", "out", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["outcome"], facts["labels"], facts["interrupted"]) == ("converged", [0], False)
    assert facts["mismatch"] <= 1e-9
    truth, _ = gl.zoo.pictures("faces", size=8, n=1, channels=1)
    from safetensors.torch import load_file

    assert float(gl.metrics.psnr(load_file("out/recovered.safetensors")["x"], truth)) > 35
    assert (tmp_path / "out/recovered-1.png").read_bytes()[:4] == b"\x89PNG"
    text = run("attack", "c.safetensors", *SMALL, "--attack", "idlg")
    assert "idlg: converged" in text.stdout
    assert "the attacker knew: model" in text.stdout


def test_demo_writes_its_report_and_prints_the_null_beside_each_picture(run, tmp_path, monkeypatch):
    short = gl.attacks.dlg
    monkeypatch.setattr(gl.attacks, "dlg", lambda: short(evaluations=40))
    done = run("demo", "--pictures", 2, "--quiet")
    assert done.exit_code == 0, done.output
    assert "a guess without" in done.stdout
    assert "null guess" in done.stdout
    page = (tmp_path / "demo/report.html").read_text()
    assert page.count("<img") >= 4
    found = json.loads((tmp_path / "demo/findings.json").read_text())
    assert (found["pictures"], len(found["findings"])) == (2, 2)
    as_json = json.loads(run("demo", "--pictures", 1, "--json").stdout)
    assert as_json["findings"][0]["matching_gradients"] == 40


def test_pictures_of_ones_own_become_a_capture(run, tmp_path):
    faces, _ = gl.zoo.pictures("faces", size=8, n=3, channels=1)
    for name, face in zip(("b/one", "a/two", "b/three"), faces, strict=True):
        path = tmp_path / "mine" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((face[0] * 255).round().byte().numpy()).save(path)
    more = ("--size", 8, "--channels", 1, "--reveal-labels", "--out", "c.safetensors")
    made = run("observe", *SMALL, "--data", "mine", "-n", 3, *more)
    assert made.exit_code == 0, made.output
    seen = gl.load("c.safetensors", gl.zoo.mlp(size=8, channels=1, activation="sigmoid"))
    assert seen.labels.tolist() == [0, 1, 1]  # classes are folders in alphabetical order
    x = ((faces * 255).round() / 255)[[1, 0, 2]]  # a/two, b/one, b/three
    model = gl.zoo.mlp(size=8, channels=1, activation="sigmoid")
    model.load_state_dict(dict(seen.params))
    again = gl.observe(model, x, torch.tensor([0, 1, 1]))
    for name in seen.update:
        torch.testing.assert_close(seen.update[name], again.update[name])
    (tmp_path / "mine/a/broken.png").write_bytes(b"no picture")
    broken = run("observe", *SMALL, "--data", "mine", "-n", 4, *more)
    assert broken.exit_code == 2
    assert "broken.png" in broken.stderr
    few = run("observe", *SMALL, "--data", "mine/b", "-n", 9, *more)
    assert "holds 2 pictures" in few.stderr


@pytest.mark.parametrize("what", ["attacks", "models", "data"])
def test_lists_name_everything_there_is(run, what):
    names = {"attacks": gl.attacks.ATTACKS, "models": gl.zoo.MODELS, "data": gl.zoo.PICTURES}[what]
    rows = json.loads(run("list", what, "--json").stdout)
    assert [row["name"] for row in rows] == list(names)
    assert all(len(row["what"]) > 10 for row in rows)
    text = run("list", what).stdout
    assert all(name in text for name in names)


def test_cite_prints_bibtex(run):
    assert run("cite", "dlg", "idlg").stdout.count("@") == 3
    assert set(json.loads(run("cite", "dlg", "--json").stdout)) == {"dlg", "lbfgs"}


@pytest.mark.parametrize("command", [[], ["demo"], ["attack"], ["observe"], ["list"], ["cite"]])
def test_every_command_explains_itself(run, command):
    done = run(*command, "--help")
    assert done.exit_code == 0
    assert len(done.stdout) > 200


def model_that_is_none():
    return "not a module"


def needs_an_argument(width):
    return torch.nn.Linear(width, width)


WRONG = [
    (["attack", "missing.safetensors", "--model", "lenet"], "missing.safetensors"),
    (["attack", "c.safetensors", "--model", "lenett"], "did you mean lenet"),
    (["attack", "c.safetensors", "--model", "no_such_module:build"], "cannot import no_such_module"),
    (["attack", "c.safetensors", "--model", "gradleak.zoo:nothing"], "has no 'nothing'"),
    (["attack", "c.safetensors", "--model", "gradleak.zoo:__doc__"], "is no callable"),
    (["attack", "c.safetensors", "--model", "test_cli:model_that_is_none"], "returned str"),
    (["attack", "c.safetensors", "--model", "test_cli:needs_an_argument"], "width"),
    (["attack", "c.safetensors", "--model", "lenet"], "another model"),
    (["attack", "c.safetensors", *SMALL, "--attack", "idgl"], "did you mean idlg"),
    (["attack", "c.safetensors", *SMALL, "--device", "cuda:77"], "cuda:77"),
    (["attack", "c.safetensors", *SMALL, "--arg", "size"], "NAME=VALUE"),
    (["attack", "c.safetensors", *SMALL, "--arg", "colour=red"], "colour"),
    (["attack", "c.safetensors", *SMALL, "--out", "c.safetensors/inside"], "cannot write"),
    (["observe", "--model", "lenet", "--data", "cats"], "faces"),
    (["observe", "--model", "lenet", "--first", "5000"], "100"),
    (["observe", "--model", "lenet", "--arg", "classes=0"], "classes"),
    (["observe", "--model", "lenet", "--arg", "classes=3", "--first", "9"], "labels from 0 to 2"),
    (["observe", "--model", "lenet", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    (["observe", "--model", "lenet", "--out", "c.safetensors/inside"], "cannot write"),
    (["demo", "--pictures", "1", "--out", "c.safetensors"], "cannot write"),
    (["cite", "dgl"], "dlg, idlg"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[f"{w[0]}: {s}" for w, s in WRONG])
def test_what_cannot_be_used_is_one_clear_paragraph_and_exit_code_2(run, words, says, monkeypatch):
    short = gl.attacks.dlg
    monkeypatch.setattr(gl.attacks, "dlg", lambda: short(evaluations=2))
    made = run("observe", *SMALL, "--size", 8, "--channels", 1, "--out", "c.safetensors")
    assert made.exit_code == 0, made.output
    before = sorted(Path().iterdir())
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert "error:" in done.stderr
    assert sorted(Path().iterdir()) == before


def test_debug_keeps_the_traceback(run):
    done = run("--debug", "cite", "dgl")
    assert isinstance(done.exception, gl.GradleakError)


def test_an_attack_that_cannot_be_run_exits_with_1_and_says_why(run):
    run("observe", *SMALL, "--size", 8, "--channels", 1, "-n", 2, "--out", "c.safetensors")
    done = run("attack", "c.safetensors", *SMALL, "--attack", "idlg")
    assert done.exit_code == 1
    assert "one record's label" in done.stdout


def test_ctrl_c_keeps_the_best_candidate_and_says_so(tmp_path):
    """A real process, a real signal, in the middle of a real attack."""
    command = [sys.executable, "-m", "gradleak.cli"]
    observe = [*command, "observe", "--model", "lenet", "--out", "c.safetensors"]
    subprocess.run(observe, cwd=tmp_path, check=True, capture_output=True)
    attack = [*command, "attack", "c.safetensors", "--model", "lenet", "--out", "out"]
    running = subprocess.Popen(
        attack, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    # Long enough to import and to reach its first candidates, far too short to end.
    for line in running.stderr:
        if "% of the budget" in line:
            break
    running.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = running.communicate(timeout=60)
    assert time.monotonic() - started < 60
    assert running.returncode == 130
    assert "interrupted" in err
    assert "dlg: running" in out
    assert (tmp_path / "out/recovered-1.png").exists()
