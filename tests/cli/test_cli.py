import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import gradleak as gl
from gradleak.cli import main
from gradleak.cli.console import print_findings
from gradleak.examination import Finding, Findings
from gradleak.sources.pictures import pictures


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
    done = run("attack", "c.safetensors", *SMALL, "--attack", "dlg", "--out", "out", "--json")
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
    names = {
        "attacks": [*gl.attacks.ATTACKS, *gl.text.TEXT_ATTACKS],
        "models": [*gl.zoo.MODELS, *gl.zoo.TEXT_MODELS],
        "data": [*gl.zoo.PICTURES, "sentences"],
    }[what]
    rows = json.loads(run("list", what, "--json").stdout)
    assert [row["name"] for row in rows] == names
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


def raises():
    raise ValueError("no such [/width]")


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
    (["attack", "c.safetensors", "--model", "test_cli:raises"], "ValueError: no such [/width]"),
    (["attack", "c.safetensors", "--model", "cli_wrong_syntax:build"], "SyntaxError"),
    (["attack", "c.safetensors", "--model", "cli_fails_inside:build"], "AttributeError"),
    (["attack", "c.safetensors", "--model", ":build"], "cannot import a module without a name"),
    (["attack", "c.safetensors", "--model", ".a:b"], "cannot import .a"),
    (["attack", "c.safetensors", *SMALL, "--device", "meta"], "'meta' cannot be used"),
    (["attack", "c.safetensors", *SMALL, "--seed", 10**20], "a seed from 0"),
    (["attack", "c.safetensors", *SMALL, "--attack", "bias", "--trials", 2], "leave --trials away"),
    (["observe", "--model", "lenet", "--seed", 10**20], "a seed from 0"),
    (["observe", "--model", "lenet", "--arg", "seed=-1"], "seed must be"),
    (["observe", "--model", "lenet", "--out", "pipe"], "no regular file"),
    (["demo", "--pictures", "1", "--seed", 10**20], "seed must be at most"),
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
def test_what_cannot_be_used_is_one_clear_paragraph_and_exit_code_2(
    run, words, says, monkeypatch, tmp_path_factory
):
    short = gl.attacks.dlg
    monkeypatch.setattr(gl.attacks, "dlg", lambda: short(evaluations=2))
    made = run("observe", *SMALL, "--size", 8, "--channels", 1, "--out", "c.safetensors")
    assert made.exit_code == 0, made.output
    monkeypatch.syspath_prepend(tmp_path_factory.mktemp("models"))
    (Path(sys.path[0]) / "cli_wrong_syntax.py").write_text("def build(:\n")
    (Path(sys.path[0]) / "cli_fails_inside.py").write_text("import torch\ntorch.no_such_thing\n")
    os.mkfifo("pipe")  # never a real device: run as root, a mistake here would replace it
    before = {path for path in Path().iterdir() if words[0] != "demo" or path.name != "demo"}
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert "error:" in done.stderr
    assert {path for path in Path().iterdir() if path.name != "demo"} == before  # demo's folder stays empty
    assert not list(Path("demo").glob("*"))


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
    attack = [*command, "attack", "c.safetensors", "--model", "lenet", "--attack", "dlg", "--out", "out"]
    running = subprocess.Popen(
        attack,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Behind `nohup ... &` it would be inherited as ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
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


@dataclasses.dataclass
class Handing:
    """Stands in for an attack that ends as it is told."""

    found: gl.Reconstruction
    name: str = "handing"
    citations: tuple[str, ...] = ()
    budget: int = 0

    def iterate(self, obs, *, rng):
        yield self.found


@pytest.fixture
def hand(run, monkeypatch):
    """Capture a batch, and attack it with an attack that hands out a reconstruction made here."""

    def call(found, *words, capture=("--size", 8, "--channels", 1)):
        monkeypatch.setitem(gl.attacks.ATTACKS, "handing", lambda: Handing(found))
        made = run("observe", *SMALL, *capture, "--out", "c.safetensors")
        assert made.exit_code == 0, made.output
        return run("attack", "c.safetensors", *SMALL, "--attack", "handing", *words)

    return call


def found(n=1, outcome=gl.Outcome.CONVERGED, **more):
    known = {"x": torch.full((n, 1, 8, 8), 0.25), "y": torch.arange(n), "score": 1e-12}
    return gl.Reconstruction(outcome, **known | more)


def test_a_diverged_attack_exits_with_1_though_there_is_a_candidate(hand):
    assert hand(found(outcome=gl.Outcome.DIVERGED)).exit_code == 1
    assert hand(found(outcome=gl.Outcome.BUDGET)).exit_code == 0


def test_a_score_that_is_not_finite_and_labels_that_are_missing_can_be_said(hand):
    done = hand(found(score=math.inf, y=None, reason="rank 1"), "--out", "out")
    assert done.exit_code == 0, done.output
    assert "no finite mismatch; rank 1" in done.stdout
    assert "labels not recovered" in done.stdout
    from safetensors.torch import load_file

    assert set(load_file("out/recovered.safetensors")) == {"x"}


def test_the_decisions_of_a_router_are_told(hand):
    routed = found(decisions=("bias: not applicable", "dlg: converged"))
    assert hand(routed).stdout.startswith("bias: not applicable\ndlg: converged\n")
    assert json.loads(hand(routed, "--json").stdout)["decisions"] == [
        "bias: not applicable",
        "dlg: converged",
    ]
    assert "decisions" not in json.loads(hand(found(), "--json").stdout)


def test_the_router_is_the_default_where_there_is_one(run):
    expected = "ssras" if "ssras" in gl.attacks.ATTACKS else "dlg"
    assert f"[default: {expected}]" in " ".join(run("attack", "--help").stdout.split())


def test_closed_forms_are_called_without_trials(run):
    run("observe", *SMALL, "--size", 8, "--channels", 1, "--out", "c.safetensors")
    done = run("attack", "c.safetensors", *SMALL, "--attack", "bias", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["outcome"] == "converged"
    two = run("attack", "c.safetensors", *SMALL, "--attack", "dlg", "--trials", 2, "--json")
    assert json.loads(two.stdout)["trials"] == 2


def test_a_folder_shows_one_attack_and_leaves_other_files_alone(hand, tmp_path):
    def names():
        return sorted(path.name for path in (tmp_path / "out").iterdir())

    three = ("--size", 8, "--channels", 1, "-n", 3)
    hand(found(3), "--out", "out", capture=three)
    (tmp_path / "out/recovered-mine.txt").write_text("mine")
    assert names() == [
        *(f"recovered-{i}.png" for i in (1, 2, 3)),
        "recovered-mine.txt",
        "recovered.safetensors",
    ]
    hand(found(1), "--out", "out")
    assert names() == ["recovered-1.png", "recovered-mine.txt", "recovered.safetensors"]
    refused = found(outcome=gl.Outcome.NOT_APPLICABLE, x=None, y=None, reason="one record only")
    assert hand(refused, "--out", "out").exit_code == 1
    assert names() == ["recovered-mine.txt"]


def test_recovered_pictures_are_shown_as_pixels(run, monkeypatch):
    model = gl.zoo.mlp(size=8, channels=1, activation="sigmoid", seed=0)
    x, y = gl.zoo.pictures("faces", size=8, n=1, channels=1)
    gl.save(gl.observe(model, (x - 0.4) / 0.2, y, normalization=((0.4,), (0.2,))), "c.safetensors")
    shown = found(x=(x - 0.4) / 0.2, y=y)
    monkeypatch.setitem(gl.attacks.ATTACKS, "handing", lambda: Handing(shown))
    done = run("attack", "c.safetensors", *SMALL, "--attack", "handing", "--out", "out")
    assert done.exit_code == 0, done.output
    pixels = np.asarray(Image.open("out/recovered-1.png"))
    np.testing.assert_array_equal(pixels, (255 * x[0, 0]).round().byte().numpy())


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_torchs(run, threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - threads)
        run("--threads", threads, "cite", "dlg")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("data", "n"), [("faces", 2), ("photos", 2), ("photos", 6)])
def test_the_demos_null_knows_nothing_of_the_private_pictures(run, monkeypatch, data, n):
    short = gl.attacks.dlg
    monkeypatch.setattr(gl.attacks, "dlg", lambda: short(evaluations=1))
    told = json.loads(run("demo", "--data", data, "--pictures", n, "--json").stdout)
    x, labels = gl.zoo.pictures(data)
    others = x[~torch.isin(labels, labels[:n])]  # a face's label is its own, a crop's that of its photograph
    null = gl.metrics.mean_picture(others if len(others) else None, x[:n].shape)
    expected = gl.metrics.psnr(null, x[:n]).tolist()
    assert [one["null_psnr"] for one in told["findings"]] == pytest.approx(expected)
    assert told["null"] == (f"the mean of {len(others)} public pictures" if len(others) else "mid-gray")
    assert len(others) == {("faces", 2): 98, ("photos", 2): 40, ("photos", 6): 0}[data, n]


def test_reasons_are_printed_as_they_are(capsys):
    one = Finding(
        name="[bold]x.png", truth=torch.zeros(1, 4, 4), guess=None, null=torch.zeros(1, 4, 4),
        psnr=-math.inf, null_psnr=-math.inf, random_psnr=-math.inf, ssim=None, null_ssim=None, label=None,
        label_guess=None, score=math.inf, outcome="not_applicable", reason="no [/x] :smile:",
        matching_gradients=0, seconds=0.0,
    )  # fmt: skip
    print_findings(
        Findings(
            title="",
            model="",
            attack="dlg",
            assumptions=("[/y]",),
            findings=(one,),
            label_agreement=None,
            null_label_agreement=None,
            seed=0,
            trials=0,
            versions={},
            bibtex="",
        )
    )
    said = " ".join(capsys.readouterr().out.split())
    for text in ("[bold]x.png", "no [/x] :smile:", "[/y]", "null guess: mid-gray"):
        assert text in said
    assert "inf" not in said


def see_file(path, size, channels):
    return pictures(str(path), size=size, first=0, n=1, channels=channels)[0][0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_pictures_of_16_bits_keep_their_range(tmp_path, channels, ending):
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"g.{ending}")
    x = see_file(tmp_path / f"g.{ending}", 8, channels)
    torch.testing.assert_close(x, torch.from_numpy(ramp / 65535).float().expand(channels, 8, 8))


def test_pictures_are_turned_as_their_camera_was_held(tmp_path):
    rows = (np.indices((64, 64))[0] * 4).astype(np.uint8)
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(rows).save(tmp_path / "turned.jpg", exif=turned)
    x = see_file(tmp_path / "turned.jpg", 8, 1)[0]
    assert float(x.std(0).max()) < 0.02 < 0.2 < float(x.std(1).min())


def test_what_is_transparent_shows_white_and_not_what_lies_beneath(tmp_path):
    hidden = np.zeros((8, 8, 4), np.uint8)
    hidden[:4, :, 3] = 255
    Image.fromarray(hidden).save(tmp_path / "a.png")
    for channels in (1, 3):
        x = see_file(tmp_path / "a.png", 8, channels)
        assert (float(x[:, :4].max()), float(x[:, 4:].min())) == (0, 1)


def test_a_file_that_breaks_off_is_no_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    for ending in ("png", "jpg"):
        path = tmp_path / f"cut.{ending}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:-8])
        if ending == "jpg":
            path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(gl.errors.InvalidInput, match=f"cut.{ending} cannot be read"):
            see_file(path, 8, 3)


def test_values_of_no_stated_range_are_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(gl.errors.InvalidInput, match="no stated range"):
        see_file(tmp_path / "f.tiff", 8, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_behind_standard_output_is_one_sentence():
    command = [sys.executable, "-m", "gradleak.cli", "list", "data"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
