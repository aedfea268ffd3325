import json

from click.testing import CliRunner

from gradleak.cli import main

LENET = ("rank", "lenet", "--input", "3,8,8", "--arg", "size=8", "--arg", "classes=3")


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
