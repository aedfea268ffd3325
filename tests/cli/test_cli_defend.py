import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import gradleak as gl
from gradleak.cli import main
from gradleak.errors import InvalidInput
from gradleak.observe import Client
from gradleak.sources.defenses import defended

QUICK = ("--pictures", 1, "--rounds", 3, "--participants", 2, "--seeds", 2)
Run = Callable[..., Result]


def small(classes: int, channels: int, size: int, hidden: int = 8) -> torch.nn.Module:
    """A smooth network that is told what it has to fit."""
    return gl.zoo.mlp(classes, sizes=(channels * size**2, hidden), activation="tanh")


def for_digits_alone() -> object:
    return gl.zoo.mlp(10, sizes=(256, 8), activation="tanh")


def dropping(classes: int, channels: int, size: int) -> torch.nn.Module:
    """Handed out in train mode, as torch does."""
    return torch.nn.Sequential(small(classes, channels, size), torch.nn.Dropout(0.5))


SMALL = "test_cli_defend:small"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Result:
        return CliRunner().invoke(main, ["defend", *map(str, words)])

    return call


def said(text: str) -> str:
    return " ".join(text.split())


def test_a_search_prints_a_line_per_defense_the_recommendation_and_its_report(
    run: Run, tmp_path: Path
) -> None:
    words = (SMALL, *QUICK, "--defense", "gaussian", "--defense", "clip", "--workers", 1)
    done = run(*words)
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "defend/defend.json").read_text())
    lines = done.stdout.splitlines()
    assert lines[-2] == written["recommendation"]
    assert lines[-1] == "Open defend/report.html"
    assert sum(line.startswith(("None ", "Gaussian noise ", "Clipping ")) for line in lines) >= 3
    holds = written["defenses"][0]["holds"]
    assert holds["adaptive"]["worst"] < 18
    assert written["defenses"][1]["holds"] is None
    assert "1198 to train on, 599 held out, 2 seeds, 2 participants" in said(done.stdout)
    assert "attacking gaussian" in done.stderr
    assert {path.name for path in (tmp_path / "defend").iterdir()} == {
        "report.html", "frontier.png", "frontier.svg", "defend.json", "points",
    }  # fmt: skip

    page, points = (
        (tmp_path / "defend/report.html").read_text(),
        len(list((tmp_path / "defend/points").iterdir())),
    )
    again = run(*words, "--json")
    assert f"{points} points" not in again.stderr  # JSON is calm
    assert again.stderr == ""
    assert json.loads(again.stdout) == written | {
        "written": [
            f"defend/{name}" for name in ("report.html", "frontier.png", "frontier.svg", "defend.json")
        ]
    }
    assert (tmp_path / "defend/report.html").read_text() == page
    assert len(list((tmp_path / "defend/points").iterdir())) == points

    more = run(SMALL, *QUICK, "--rounds", 2, "--defense", "clip", "--quiet")
    assert more.stderr == ""
    added = len(list((tmp_path / "defend/points").iterdir())) - points
    assert added == 3  # accuracies without a defense and with two; what was attacked is known


def test_pictures_without_classes_are_priced_on_digits_by_a_network_of_the_same_kind(run: Run) -> None:
    done = run(SMALL, *QUICK, "--data", "faces", "--defense", "clip", "--workers", 1, "--json")
    assert done.exit_code == 1, done.output  # nothing that was searched holds
    facts = json.loads(done.stdout)
    assert facts["accuracy_measured_on"].startswith("Measured on digits, with a network of the same kind")
    assert facts["without_defense"]["accuracy"] is not None
    assert facts["recommendation"].startswith("No defense that was searched holds")
    other = run(
        "test_cli_defend:for_digits_alone", *QUICK, "--data", "faces", "--defense", "clip", "--workers", 1
    )
    assert "no accuracy was measured: faces cannot be learnt" in said(other.stdout)


def test_a_network_is_attacked_in_eval_mode_unless_told_otherwise(run: Run) -> None:
    """Dropout behind the logits changes the update, and in eval mode leaves it as it is without."""
    words = (
        "test_cli_defend:dropping",
        *QUICK,
        "--rounds",
        1,
        "--defense",
        "mixup",
        "--workers",
        1,
        "--json",
    )
    plain = json.loads(run(*words).stdout)["update"]["norm"]
    other = json.loads(run(*words, "--train-mode").stdout)["update"]["norm"]
    small = json.loads(run(SMALL, *words[1:]).stdout)["update"]["norm"]
    assert plain == small != other


def test_two_processes_find_what_one_finds(run: Run, tmp_path: Path) -> None:
    words = (SMALL, *QUICK, "--defense", "mixup", "--defense", "sign")
    run(*words, "--workers", 2, "--out", "two")
    run(*words, "--workers", 1, "--out", "one")
    assert json.loads((tmp_path / "two/defend.json").read_text()) == json.loads(
        (tmp_path / "one/defend.json").read_text()
    )


def test_a_search_that_is_stopped_says_so_and_the_same_command_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradleak.tradeoff import Training

    words = (SMALL, *QUICK, "--defense", "clip", "--workers", 1)
    course = Training.course

    def stopping(self, setting, store, tell):  # type: ignore[no-untyped-def]
        if setting.defense == "clip":
            raise KeyboardInterrupt
        return course(self, setting, store, tell)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "course", stopping)
        done = run(*words)
    assert done.exit_code == 130, done.output
    assert "the same command goes on where this one stopped" in said(done.stderr)
    assert "This run was interrupted." in (tmp_path / "defend/report.html").read_text()
    kept = len(list((tmp_path / "defend/points").iterdir()))
    done = run(*words)
    assert f"{kept} points from before" in said(done.stderr)
    assert not json.loads((tmp_path / "defend/defend.json").read_text())["interrupted"]


WRONG = [
    (("--defense", "gausian"), "expected defenses among gaussian, laplace"),
    (("--defense", "gaussian:std=1"), "its strength is what is searched"),
    (("--max-psnr", 5), "no defense can push an attacker below a guess without the update"),
    (("--participants", 2000), "came 1,198"),
    (("--pictures", 1797), "expected more than 1797 pictures"),
    (("--batch", 600, "--pictures", 1), "expected train records for 10 participants"),
    (("--data", "nowhere"), "nowhere"),
    (("--data", "mine"), "mine has 1"),
    (("--lr", 0), "expected lr as a number above 0"),
    (("--out", "file"), "cannot write"),
    (("--max-psnr", "nan"), "expected the target for psnr as a finite number"),
    (("--max-psnr", "inf"), "expected the target for psnr as a finite number"),
    (("--max-ssim", "nan"), "expected the target for ssim as a number from -1 to 1"),
    (("--max-identified", "nan"), "expected the target for identified as a number from 0 to 1"),
    (("--seed", "99999999999999999999999"), "99999999999999999999999 is not in the range"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[says for _, says in WRONG])
def test_what_cannot_be_used_is_said_before_anything_is_attacked(
    run: Run, tmp_path: Path, words: tuple[object, ...], says: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "mine/one.png")
    done = run(SMALL, *words)
    assert done.exit_code == 2, done.output
    assert says.lower() in said(done.stderr).lower()
    assert "attacking" not in done.stderr


def test_strengths_are_read_as_what_they_are() -> None:
    def one(spec: str) -> Client:
        return defended(gl.OneGradient(), (spec,))

    assert one("mask:rate=0.5,rescaled=yes") == gl.defenses.Mask(rate=0.5, rescaled=True)
    assert one("mask:rate=0.5,rescaled=False") == gl.defenses.Mask(rate=0.5)
    assert one("withhold:layers=0+fc.weight") == gl.defenses.Withhold(layers=("0", "fc.weight"))
    assert one("withhold:layers=1") == gl.defenses.Withhold(layers="1")
    assert one("dropout:rate=0.5,layer=1") == gl.defenses.Dropout(rate=0.5, layer="1")
    assert one("soteria:fraction=0.5,layer=none") == gl.defenses.Soteria(fraction=0.5)
    for spec, says in (
        ("mask:rate=0.5,rescaled=nope", "expected rescaled as true, yes, false or no; came 'nope'"),
        ("gaussian:std=1,std=2", "expected std once; came '1' and '2'"),
        ("gaussian:std=1_0", "expected std as a number; came '1_0'"),
    ):
        with pytest.raises(InvalidInput, match=says):
            one(spec)
