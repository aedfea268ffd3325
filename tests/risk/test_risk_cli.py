import dataclasses
import json

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

import gradleak as gl
from gradleak.cli import heat, main
from gradleak.errors import InvalidInput
from gradleak.sources.defenses import defended

LENET = ("rank", "lenet", "--input", "3,8,8", "--arg", "size=8", "--arg", "classes=3")
DIGITS = ("--data", "digits", "--size", "8", "--arg", "channels=1", "--arg", "size=8")


def run(*words):
    done = CliRunner().invoke(main, ["risk", *words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_table_and_a_sentence():
    text = run(*LENET)
    assert text.split()[:4] == ["layer", "kind", "unknowns", "forward"]
    assert "conv3" in text
    assert "recoverable layer by layer" in text or "rank-deficient" in text


def test_json_with_advice_and_without_ranks():
    facts = json.loads(run(*LENET, "--counts", "--advice", "--json", "--batch", "2"))
    assert (facts["evidence"], facts["batch"]) == ("counts", 2)
    assert [layer["rank"] for layer in facts["layers"]] == [None] * len(facts["layers"])
    assert {"conv1", "conv2"} >= {change["layer"] for change in facts["advice"]} > set()


def test_advice_in_words():
    assert "Smallest changes" in run(*LENET, "--counts", "--advice")
    mlp = ("rank", "mlp", "--input", "3,8,8", "--arg", "size=8", "--advice")
    assert "No change of one layer" in run(*mlp)
    assert "not a chain" in run("rank", "resnet", "--input", "3,8,8", "--advice")


def test_a_shape_that_is_none_is_refused():
    done = CliRunner().invoke(main, ["risk", "rank", "lenet", "--input", "3x32"])
    assert done.exit_code == 2
    assert "like 3,32,32" in done.stderr


def refused(*words):
    done = CliRunner().invoke(main, ["risk", *words])
    assert done.exit_code == 2, done.output
    return " ".join(done.stderr.split())


def test_a_model_after_risk_means_the_forecast():
    text = run("lenet", *DIGITS, "-n", "2", "--client", "fedsgd")
    assert text.split()[:5] == ["sample", "predicted", "null", "label", "verdict"]
    rows = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert rows[3:10] == ["dB", "the", "conv1", "conv2", "conv3", "linear", "null"]
    assert "2 of 2 pictures can be recovered from this update" in text
    assert "\x1b" not in text
    assert "of 128 directions of the batch above the rounding of its numbers" in text


def test_options_may_come_before_the_model_and_predict_may_be_said():
    first = json.loads(run(*DIGITS, "lenet", "--noise", "1e-3", "--json"))
    second = json.loads(run("predict", "lenet", *DIGITS, "--noise", "1e-3", "--json"))
    assert first | {"seconds": 0} == second | {"seconds": 0}
    assert len(first["layers"]) == 4
    assert first["samples"][0]["verdict"].startswith("recoverable to about")


def test_local_training_needs_a_rate_and_one_gradient_takes_none():
    assert "expected --lr beside --client fedavg" in refused("lenet", *DIGITS, "--client", "fedavg")
    assert "take --client fedavg" in refused("lenet", *DIGITS, "--client", "fedsgd", "--lr", "0.1")
    facts = json.loads(run("lenet", *DIGITS, "--client", "fedavg", "--lr", "0.1", "--json", "--no-layers"))
    assert facts["client"].startswith("LocalSGD(epochs=1")
    assert facts["layers"] == []


def test_defenses_stand_around_each_other_in_the_order_in_which_they_were_said():
    said = ("mask:rate=0.5,rescaled=true", "gaussian:std=1e-3")
    expected = gl.defenses.GaussianNoise(
        gl.defenses.Mask(gl.OneGradient(), rate=0.5, rescaled=True), std=1e-3
    )
    assert defended(gl.OneGradient(), said) == expected
    assert defended(gl.OneGradient(), ()) == gl.OneGradient()
    plain = defended(gl.OneGradient(), ("low_precision",))
    assert plain == gl.defenses.LowPrecision()
    assert defended(gl.OneGradient(), ("low_precision: format=int8",)).format == "int8"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("gausian:std=1", "among clip, .*did you mean gaussian"),
        ("gaussian", "expected gaussian's std.*[Tt]akes std, a number"),
        ("gaussian:sdt=1", "no strength 'sdt'; did you mean std"),
        ("mask:foo=1", "rate, a number from 0 to below 1"),
        ("mask:rate=2", "expected rate as a number from 0 to below 1; came 2"),
        ("gaussian:std", "NAME=VALUE"),
        ("gaussian:client=1,std=1", "no strength 'client'"),
        ("mask:rate=0.5,kept=1", "no strength 'kept'"),
        ("", "expected a defense among"),
    ],
)
def test_defenses_that_are_none_are_refused(spec, says):
    with pytest.raises(InvalidInput, match=says):
        defended(gl.OneGradient(), (spec,))


def test_every_defense_can_be_named_and_says_what_it_takes():
    for name in gl.defenses.DEFENSES:
        with pytest.raises(InvalidInput, match="it takes"):
            defended(gl.OneGradient(), (f"{name}:nothing_like_this=1",))


def test_the_folder_is_tried_first_and_written_whole(tmp_path):
    folder = tmp_path / "risk"
    text = run("lenet", *DIGITS, "--noise", "1e-2", "--out", str(folder))
    assert text.strip().endswith(f"Open {folder / 'risk.html'}")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["risk.html", "risk.json", "risk.png", "risk.svg"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    (tmp_path / "file").write_text("")
    assert "expected a folder" in refused("lenet", *DIGITS, "--out", str(tmp_path / "file")).lower()


def forecast(n, **others):
    x, y = gl.zoo.pictures("digits", size=8, n=n)
    return gl.predict(gl.zoo.lenet(10, 1, 8, seed=0), x, y, noise=3e-3, **others)


def shown(found, *, width, terminal):
    console = Console(width=width, force_terminal=terminal, color_system="truecolor" if terminal else None)
    with console.capture() as captured:
        console.print(heat.heat_map(found, width))
    return captured.get()


def test_a_heat_map_says_the_same_with_and_without_colours():
    found = forecast(3)
    plain, coloured = (shown(found, width=100, terminal=terminal) for terminal in (False, True))
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    for i, one in enumerate(found.samples):
        cell = plain.splitlines()[1].split()[2 + found.order.index(i)]
        assert cell == f"{one.psnr:.0f}" + "*" * one.leaks


def test_a_narrow_terminal_shows_the_most_exposed():
    found = forecast(6)
    lines = shown(found, width=40, terminal=False).splitlines()
    columns = [int(number) - 1 for number in lines[0].split()[2:]]
    assert columns == found.order[: len(columns)]
    assert 1 <= len(columns) < 6
    assert max(map(len, lines)) <= 40
    assert "--json has all" in heat.legend(found, 40)
    assert "--json" not in heat.legend(found, 140)


def test_a_reason_is_said_once_with_those_that_it_holds_for():
    found = forecast(3)
    said = list(heat.reasons(found))
    assert len(said) == len(set(said))
    assert sum("directions of the batch" in line for line in said) == 1
    for i, one in enumerate(found.samples, start=1):
        for reason in one.reasons:
            (line,) = [line for line in said if line.endswith(reason)]
            assert line == reason or str(i) in line.partition(":")[0]


def open_forecast():
    """One of lenet's layers with an upper end, one with nothing, and one without a name."""
    found = forecast(1)
    bound, nothing, *others = found.layers
    rows = (
        dataclasses.replace(bound, at_most=True, psnr=torch.tensor([105.0])),
        dataclasses.replace(nothing, at_most=True, psnr=torch.tensor([float("nan")])),
        dataclasses.replace(others[0], path="3", kind="Conv2d"),
    )
    return dataclasses.replace(found, layers=rows)


def test_what_is_not_settled_has_no_star_and_is_explained():
    found = open_forecast()
    lines = shown(found, width=100, terminal=False).splitlines()
    assert [line.split()[-1] for line in lines[2:4]] == ["≤105", "?"]
    assert lines[4].startswith("3 (Conv2d) ")
    assert "≤ is at most, ? is unknown" in heat.legend(found, 100)
    assert "≤" not in heat.legend(forecast(1), 100)


def test_a_picture_of_another_size_than_the_model_s_is_told_of_size_and_arg(tmp_path, monkeypatch):
    lines = [
        "from torch import nn",
        "def build():",
        "    return nn.Sequential(nn.Flatten(), nn.Linear(512, 10))",
    ]
    (tmp_path / "net_of_512.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    text = refused("net_of_512:build", "--data", "digits", "--size", "8")
    assert "cannot take a batch" in text
    assert "--size and --channels" in text
    assert "--arg size=16" in text
