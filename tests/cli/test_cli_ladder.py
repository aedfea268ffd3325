import functools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import gradleak as gl
from gradleak.cli import main
from gradleak.cli.training import Training
from gradleak.threats import RUNGS

TINY = ("--model", "convnet", "--arg", "width=8", "--arg", "size=8", "--size", 8)
LOCAL = ("--lr", 0.05, "--epochs", 2, "--local-batch", 1)


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return call


def said(done) -> str:
    return " ".join(done.output.split())


def with_norm():
    """A small model with BatchNorm and dropout, and more numbers than two clients' pixels."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, 2, 1),
        torch.nn.BatchNorm2d(32),
        torch.nn.Sigmoid(),
        torch.nn.Dropout(0.1),
        torch.nn.Flatten(),
        torch.nn.Linear(512, 10),
    )


def test_a_ladder_prints_a_line_per_rung_the_verdict_and_its_report(run, tmp_path):
    done = run("ladder", *TINY, "-n", 2, *LOCAL, "--steps", 5)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for number, rung in enumerate(RUNGS, 1):
        assert sum(line.startswith(f"{number} {rung.name}") for line in lines) == 1
    assert "as above: the model has no BatchNorm" in said(done)
    written = json.loads((tmp_path / "ladder/ladder.json").read_text())
    assert lines[-2].endswith(written["verdict"])
    assert lines[-1] == "Open ladder/report.html"
    assert written["title"] == "convnet on faces, 2 of them at each of 2 clients"
    attacked = [step for step in written["steps"] if step["findings"]]
    assert [step["rung"] for step in attacked] == [
        "everything known",
        "no labels",
        "no order",
        "settings guessed",
        "clients summed",
    ]
    assert {len(step["findings"]["findings"]) for step in attacked} == {4}
    assert any("LocalSGD(epochs=2" in fact for fact in attacked[0]["findings"]["assumptions"])
    assert attacked[0]["findings"]["null"] == "the mean of 96 public pictures"
    assert "<img" in (tmp_path / "ladder/report.html").read_text()


def test_the_same_seed_gives_the_same_ladder_as_json(run, tmp_path):
    words = ("ladder", *TINY, "--steps", 2, "--clients", 1, "--json")
    facts = json.loads(run(*words).stdout)
    again = json.loads(run(*words).stdout)
    psnr = [[one["psnr"] for one in f["findings"]["findings"]] for f in facts["steps"] if f["findings"]]
    assert psnr == [
        [one["psnr"] for one in f["findings"]["findings"]] for f in again["steps"] if f["findings"]
    ]
    assert facts["written"] == ["ladder/report.html", "ladder/ladder.json", "ladder/pictures.png"]
    assert facts["steps"][-1]["skipped"].startswith("it takes the batches of 2 clients")


def test_a_model_in_train_mode_is_attacked_on_all_rungs(run):
    done = run(
        "ladder", "--model", "test_cli_ladder:with_norm", "--size", 8, "-n", 2, *LOCAL, "--steps", 2,
        "--attack", "gdl", "--trials", 2, "--together", 2, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    steps = json.loads(done.stdout)["steps"]
    assert [step["skipped"] for step in steps] == [""] * len(RUNGS)
    assert steps[0]["findings"]["trials"] == 2
    knew = ["the batch's statistics at every BatchNorm" in step["findings"]["assumptions"] for step in steps]
    assert knew == [True, True, False, False, False, False, False]


def test_labels_are_taken_modulo_the_classes_of_the_model(run):
    words = ("--first", 4, "--arg", "classes=3", "--steps", 1, "--json")
    facts = json.loads(run("ladder", *TINY, *words).stdout)
    assert [one["label"] for one in facts["steps"][0]["findings"]["findings"]] == [1, 2]


def test_pictures_of_ones_own_are_held_against_gray(run, tmp_path):
    faces, _ = gl.zoo.pictures("faces", size=8, n=2)
    (tmp_path / "mine").mkdir()
    for i, face in enumerate(faces):
        Image.fromarray((face.permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / f"mine/{i}.png")
    facts = json.loads(run("ladder", *TINY, "--data", "mine", "--steps", 1, "--json").stdout)
    assert facts["steps"][0]["findings"]["null"] == "mid-gray"
    few = run("ladder", *TINY, "--data", "mine", "-n", 2)
    assert few.exit_code == 2
    assert "expected 4 pictures from --first 0 on; mine holds 2" in " ".join(few.stderr.split())


def test_progress_names_the_rung(run):
    done = run("ladder", *TINY, "--steps", 60, "--clients", 1)
    assert "rung 1 of 7: everything known" in done.stderr
    assert "rung 4 of 7: no labels" in done.stderr
    assert "rung" not in run("ladder", *TINY, "--steps", 60, "--clients", 1, "--quiet").stderr


def test_no_answer_on_any_rung_is_exit_code_1(run):
    done = run("ladder", *TINY, "-n", 2, *LOCAL, "--attack", "r_gap")
    assert done.exit_code == 1, done.output
    assert "no answer" in said(done)


def test_an_interrupted_ladder_keeps_what_it_has(run, tmp_path, monkeypatch):
    attack = gl.attacks.ATTACKS["gdl"]()
    calls = []

    class Interrupted:
        name, citations, budget = "stopped", (), 10

        def iterate(self, obs, *, rng):
            calls.append(obs)
            for found in attack.iterate(obs, rng=rng):
                if len(calls) > 2:
                    raise KeyboardInterrupt
                yield found

    monkeypatch.setitem(gl.attacks.ATTACKS, "stopped", Interrupted)
    done = run("ladder", *TINY, "-n", 2, *LOCAL, "--attack", "stopped")
    assert done.exit_code == 130, done.output
    assert "interrupted" in done.stderr
    assert "not tried: the run was stopped before" in said(done)
    written = json.loads((tmp_path / "ladder/ladder.json").read_text())
    assert written["interrupted"]
    assert "This run was interrupted." in (tmp_path / "ladder/report.html").read_text()


def test_ctrl_c_ends_a_real_ladder(tmp_path):
    words = ["ladder", *map(str, TINY), "--clients", "1", "--steps", "3000"]
    running = subprocess.Popen(
        [sys.executable, "-m", "gradleak.cli", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Behind `nohup ... &` it would be inherited as ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in running.stderr:
        if "% of the budget" in line:
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "stopped early" in out
    assert (tmp_path / "ladder/report.html").exists()


WRONG = [
    (["--momentum", 0.9], "expected --lr beside --momentum"),
    (["--epochs", 2, "--local-batch", 1, "--adam"], "beside --epochs and --local-batch and --adam"),
    (["--lr", 0.1, "--local-batch", 9], "at most the client's 2 pictures; came 9"),
    (["--lr", 0.1, "--adam", "--momentum", 0.9], "leave one of the two away"),
    (["--lr", 0], "learning rate above 0"),
    (["--lr", "nan"], "learning rate above 0"),
    (["--lr", 0.1, "--momentum", 1], "expected momentum from 0 to below 1"),
    (["--attack", "gld"], "did you mean gdl"),
    (["--attack", "bias", "--trials", 2], "leave --trials away"),
    (["--attack", "dlg", "--steps", 9], "dlg has no number of steps to set"),
    (["--device", "meta"], "'meta' cannot be used"),
    (["--seed", -1], "expected a seed from 0"),
    (["--clients", 51], "100"),
    (["--size", 16], "cannot take a batch of shape"),
    (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    (["--out", "file"], "cannot write"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[s for _, s in WRONG])
def test_what_cannot_be_used_is_said_before_anything_is_attacked(run, tmp_path, words, says):
    (tmp_path / "file").write_text("mine")
    done = run("ladder", *TINY, "-n", 2, *words)
    assert done.exit_code == 2, done.output
    assert says.lower() in " ".join(done.stderr.lower().split())
    assert "rung" not in done.stdout
    assert not list((tmp_path / "ladder").glob("*"))


def test_one_picture_in_train_mode_is_refused_before_the_first_rung(run):
    """BatchNorm has nothing to take a variance of once each channel is a single number."""

    done = run("ladder", "--model", "test_cli_ladder:narrow", "--size", 8, "--steps", 2)
    assert done.exit_code == 2, done.output
    assert "rung" not in done.stdout
    assert "more than 1 value" in " ".join(done.stderr.split())


def narrow():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(192), torch.nn.Linear(192, 10))


def test_training_becomes_a_client():
    def client(**facts):
        known = {"epochs": None, "local_batch": None, "lr": None, "momentum": None, "adam": False}
        return Training(**known | facts).client(4)

    assert client() == gl.OneGradient()
    assert client(lr=0.1) == gl.LocalSGD(1, 4, 0.1)
    assert client(lr=0.1, epochs=3, local_batch=2, momentum=0.5) == gl.LocalSGD(3, 2, 0.1, momentum=0.5)
    assert client(lr=0.1, adam=True) == gl.LocalAdam(1, 4, 0.1)


def test_a_capture_of_local_training_is_attacked(run, monkeypatch):
    made = run("observe", *TINY, "-n", 2, *LOCAL, "--json")
    assert made.exit_code == 0, made.output
    assert any(fact.startswith("client LocalSGD(epochs=2, batch_size=1, lr=0.05") for fact in
               json.loads(made.stdout)["knows"])  # fmt: skip
    for build in (gl.attacks.gdl, gl.attacks.inverting_gradients):
        monkeypatch.setitem(gl.attacks.ATTACKS, build.__name__, functools.partial(build, steps=20))
    short = ("attack", "capture.safetensors", *TINY[:-2], "--json", "--attack")
    for name in ("gdl", "inverting_gradients"):
        done = run(*short, name)
        assert done.exit_code == 0, done.output
        facts = json.loads(done.stdout)
        assert facts["labels"] is not None
        assert ("decisions" in facts) == (name == "gdl")
    for name in ("bias", "r_gap", "exact_batch", "spear"):
        done = run(*short, name)
        facts = json.loads(done.stdout)
        assert (done.exit_code, facts["outcome"]) == (1, "not_applicable"), done.output
        assert "LocalSGD" in facts["reason"] or "one gradient" in facts["reason"], facts["reason"]


def test_an_order_that_was_learnt_is_told(run, monkeypatch):
    run("observe", *TINY, "-n", 3, "--lr", 0.5, "--local-batch", 1)
    monkeypatch.setitem(gl.attacks.ATTACKS, "gdl", lambda: gl.attacks.gdl(way="unrolled", steps=8))
    attack = ("attack", "capture.safetensors", *TINY[:-2], "--attack", "gdl")
    (order,) = json.loads(run(*attack, "--json").stdout)["order"]
    assert sorted(order) == [0, 1, 2]
    assert "order in local training [[" in run(*attack).stdout


def test_a_capture_in_train_mode_holds_what_was_revealed(run):
    words = ("observe", "--model", "test_cli_ladder:with_norm", "--size", 8, "-n", 2, "--train-mode", *LOCAL)
    assert run(*words, "--reveal", "labels, statistics,order").exit_code == 0
    seen = gl.load("capture.safetensors", with_norm())
    assert seen.labels is not None
    assert seen.statistics
    assert seen.client.knows_order
    assert seen.draws == ("3",)
    assert seen.model.training
    assert run(*words, "--reveal-labels", "--reveal", "labels").exit_code == 0
    seen = gl.load("capture.safetensors", with_norm())
    assert seen.labels is not None
    assert seen.statistics is None
    assert not seen.client.knows_order
    wrong = run(*words, "--reveal", "label")
    assert wrong.exit_code == 2
    assert "labels, statistics, order" in " ".join(wrong.stderr.split())


def test_help_teaches_with_an_example(run):
    told = " ".join(run("ladder", "--help").stdout.split())
    assert "gradleak ladder --model convnet --batch 4" in told
    assert "A rung is a server that no longer knows one thing" in told
    assert Path("ladder").exists() is False
