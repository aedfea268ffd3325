"""What the documentation says is run, resolved and compared."""

import contextlib
import inspect
import io
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import torch

import gradleak as gl
from gradleak.attacks.gdl import attack as gdl_attack
from gradleak.attacks.gdl import ways
from gradleak.cli import main
from gradleak.examination.findings import LEAK
from gradleak.observe.local import AT_ONCE
from gradleak.observe.observing import REVEALABLE

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted((*ROOT.glob("*.md"), *DOCS.glob("*.md")))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    return _BLOCK.findall(read(page))


def run(page: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """All python blocks as one script: its names, and what each block printed beside what the page says."""
    found, names = blocks(page), {"__name__": "docs"}
    printed = []
    for i, (language, code) in enumerate(found):
        if language != "python":
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"{page.name}, block {i + 1}", "exec"), names)
        following = found[i + 1] if i + 1 < len(found) else ("", "")
        printed.append((out.getvalue(), following[1] if following[0] == "text" else ""))
    return names, printed


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        yield tmp_path


def test_the_tutorial_runs_and_prints_what_it_says(elsewhere):
    names, printed = run(DOCS / "tutorial.md")
    for real, said in printed:
        assert real == said
    assert float(names["scores"].psnr) > 40
    assert names["scores"].null_psnr < 17
    assert float(names["scores"].psnr - names["scores"].random_psnr) > LEAK
    assert names["candidate"].score < 1e-4
    assert names["found"].score <= names["attack"].tolerance
    assert names["seen"].labels is None
    for one, (x, y) in zip(names["all_found"], names["truths"], strict=True):
        assert float(gl.metrics.psnr(one.x, x)) > 40
        assert one.y.tolist() == y.tolist()
    assert names["recovered"].outcome is gl.Outcome.CONVERGED
    assert float(names["batch_scores"].psnr.min()) > 80
    assert names["batch_scores"].label_agreement == 1
    assert names["findings"].median_psnr > 40
    assert float(names["scores_mine"].psnr) > 40
    assert float(gl.metrics.psnr(names["informed"].x, names["x"])) > 40
    assert names["naive"].score > 0.01
    assert names["back"].labels is None
    assert names["back"].client.order == "shuffled"  # what the server does not know
    assert names["found_local"].client.knows_order
    assert float(names["scores_local"].leak.min()) > 15
    assert names["found_rungs"].lowest.rung.name == "clients summed"
    assert all(one.leak > LEAK for step in names["found_rungs"].tried for one in step.findings.findings)
    names["net"].load_state_dict(names["sent"])
    gradient = gl.observe(names["net"], names["x"], names["y"]).update
    for name, leaf in names["mine"].update.items():  # (sent - received) / lr, to float32's rounding
        torch.testing.assert_close(leaf, gradient[name], rtol=1e-3, atol=1e-5)
    assert (elsewhere / "capture.safetensors").stat().st_mode & 0o777 == 0o600
    assert "http://" not in re.sub(r"xmlns=\S+", "", read(elsewhere / "audit/report.html"))


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="there is no README")
def test_the_readme_runs(elsewhere):
    names, _ = run(ROOT / "README.md")
    if "scores" in names:
        assert (names["scores"].leak > LEAK).all()
    if "local" in names:
        assert sorted(names["local"].y.tolist()) == sorted(names["classes"].tolist())


def test_a_low_mismatch_is_no_picture_where_the_network_is_relu():
    """docs/choose.md: L-BFGS stalls there, and the mismatch can be small and the picture wrong."""
    x, y = gl.zoo.pictures("faces", size=16, n=1)
    public, _ = gl.zoo.pictures("faces", size=16)
    seen = gl.observe(gl.zoo.convnet(size=16, width=8, seed=0), x, y)
    found = gl.attacks.dlg(evaluations=500)(seen, rng=0)
    scores = gl.metrics.score(found.x, found.y, x, y, classes=10, reference=public[50:])
    assert found.outcome is gl.Outcome.STALLED
    assert found.score < 0.02
    assert float(scores.leak) < LEAK


def test_what_choose_says_about_idlg():
    x, y = gl.zoo.pictures("faces", size=16, n=2)
    found = gl.attacks.idlg()(gl.observe(gl.zoo.lenet(10, 3, 16, seed=0), x, y), rng=0)
    assert found.outcome is gl.Outcome.NOT_APPLICABLE
    assert found.x is None
    assert found.reason


def test_the_budget_is_what_choose_says():
    x, y = gl.zoo.pictures("digits", size=8, n=1)
    seen = gl.observe(gl.zoo.mlp(10, 1, 8, sizes=(64, 8), seed=0), x, y)
    found = gl.attacks.inverting_gradients(steps=30, trials=2)(seen, rng=0)
    assert found.cost.matching_gradients == 2 * 31
    assert found.outcome is gl.Outcome.BUDGET


def test_the_numbers_worth_knowing_are_those_of_the_code():
    dlg, idlg, inverting = gl.attacks.dlg(), gl.attacks.idlg(), gl.attacks.inverting_gradients()
    (tv,) = inverting.priors
    said = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", read(DOCS / "internals.md"), re.MULTILINE))
    assert said["a leak, above the better null"] == f"{LEAK:g} dB"
    squared = said["tolerance of a match of `dlg` and `idlg`, squared"]
    assert {f"{one.tolerance:g}" for one in (dlg, idlg)} == {squared}
    assert f"{inverting.tolerance:g}" == said["tolerance of a match of `inverting_gradients`, as a cosine"]
    assert str(dlg.evaluations) == str(idlg.evaluations) == said["evaluations of `dlg` and `idlg`"]
    assert f"{inverting.optimizer.steps}" == said["steps of `inverting_gradients`"]
    assert f"{tv.weight:g} to {tv.final:g}" == said["its weight of total variation"]
    assert f"{dlg.optimizer.history}" == said["pairs that L-BFGS remembers"]
    assert f"{dlg.optimizer.evaluations}" == said["evaluations in one line search"]
    assert f"{dlg.report_every}" == said["rounds between two candidates"]
    assert str(gl.attacks.gdl().matching.optimizer.steps) == said["steps of `gdl`"]
    assert f"{gdl_attack._DEFECT:g}" == said["1 − cosine up to which `gdl` corrects a gradient"]
    assert str(ways._LARGEST) == said["shares of records in batches up to which an order is learnt"]
    assert str(AT_ONCE) == said["local steps whose graphs are kept side by side"]


@pytest.mark.parametrize("client", [gl.LocalSGD(1, 1, 0.1), gl.LocalSGD(2, 1, 0.1), gl.LocalAdam(1, 1, 0.01)])
def test_what_choose_says_about_weight_differences(client):
    x, y = gl.zoo.pictures("digits", size=8, n=1)
    seen = gl.observe(gl.zoo.mlp(10, 1, 8, sizes=(64, 32), seed=0), x, y, client=client, reveal=("labels",))
    single = isinstance(client, gl.LocalSGD) and client.epochs == 1
    for build in (gl.attacks.bias, gl.attacks.exact_batch, gl.attacks.r_gap, gl.attacks.spear):
        found = build()(seen, rng=0)
        assert (found.outcome is not gl.Outcome.NOT_APPLICABLE) == single
        assert single or "one gradient" in found.reason
    batches = gl.attacks.inverting_batches(evaluations=3)
    assert batches(seen, rng=0).outcome is gl.Outcome.NOT_APPLICABLE
    assert (batches(seen.plainest, rng=0).outcome is not gl.Outcome.NOT_APPLICABLE) == single
    for build in (gl.attacks.inverting_gradients, gl.attacks.gradinversion, gl.attacks.gdl):
        assert build(steps=2)(seen, rng=0).x is not None


def test_the_ladder_that_threats_describes_is_that_of_the_code():
    section = read(DOCS / "threats.md").split("## The ladder")[1]
    said = re.findall(r"^\| ([^|]+?) \| [^|]+ \| [^|]+ \|$", section, re.MULTILINE)
    assert said[1:] == [rung.name for rung in gl.threats.RUNGS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    for link in _LINK.findall(_BLOCK.sub("", read(page))):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        there = (page.parent / path) if path else page
        assert there.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", read(there), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], link


def command_lines(page: Path) -> list[str]:
    text = read(page)
    lines = [line.strip() for _, code in blocks(page) for line in code.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))
    found = [line for line in (*lines, *inline) if re.match(r"gradleak (?!\[)\S", line)]
    # A help page explains beside the command; where a shell sends the output is not the command's.
    return [re.split(r"\s{2,}| > ", line)[0] for line in found]


COMMANDS = sorted({(page.name, line) for page in PAGES for line in command_lines(page)})


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_command_lines_parse(page, line):
    tokens = [token for token in shlex.split(line, comments=True) if token != "..."][1:]
    # Contexts as a real call makes them: click remembers in a command how it was asked for help.
    group = click.Context(main, info_name="gradleak", **main.context_settings)
    _, rest, _ = main.make_parser(group).parse_args(tokens)
    if not rest:
        return
    name, *arguments = rest
    assert name in main.commands
    command, parent = main.commands[name], group
    if isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        parent = click.Context(command, info_name=name, parent=group)
        command, (name, *arguments) = command.commands[arguments[0]], arguments
    with contextlib.suppress(click.exceptions.Exit, click.MissingParameter), contextlib.redirect_stdout(None):
        # What is named alone may lack its arguments; an option that does not exist raises something else.
        command.make_context(name, arguments, parent=parent)


def test_a_command_line_that_does_not_exist_would_be_found():
    with pytest.raises(click.NoSuchOption):
        test_command_lines_parse("", "gradleak attack x --model lenet --no-such-thing")
    with pytest.raises(click.NoSuchOption):
        test_command_lines_parse("", "gradleak risk rank lenet --no-such-thing")
    assert len(COMMANDS) > 8


def test_the_help_pages_are_those_of_the_commands():
    script = runpy.run_path(str(DOCS / "update_cli.py"))
    page = read(DOCS / "cli.md")
    assert script["updated"](page) == page, "run python docs/update_cli.py"
    groups = {name: one for name, one in main.commands.items() if isinstance(one, click.Group)}
    nested = [f"{name} {one}" for name, group in groups.items() for one in group.commands]
    assert sorted(script["documented"](page)) == sorted(["", *main.commands, *nested])


def test_every_attack_and_model_is_described():
    guide, reference = read(DOCS / "choose.md"), read(DOCS / "reference.md")
    for name in (*gl.attacks.ATTACKS, *gl.zoo.MODELS):
        assert f"`{name}`" in guide, name
        assert re.search(rf"autofunction:: gradleak\.(attacks|zoo)\.{name}\n", reference), name


def test_every_label_strategy_and_reveal_is_described():
    guide, reference = read(DOCS / "choose.md"), read(DOCS / "reference.md")
    for name in gl.labels.__all__:
        assert f":: gradleak.labels.{name}\n" in reference or name == "LabelStrategy", name
        if not name[0].isupper():
            assert f"`{name}`" in guide, name
    assert all(f'`"{name}"`' in read(DOCS / "threats.md") for name in REVEALABLE)


def test_the_defaults_are_those_of_the_code():
    said = dict(re.findall(r"^\| `(\w+)` \| (`\w+=.*`) \|$", read(DOCS / "choose.md"), re.MULTILINE))
    for name, build in gl.attacks.ATTACKS.items():
        settings = inspect.signature(build).parameters.values()
        assert said[name] == ", ".join(f"`{one.name}={one.default!r}`" for one in settings), name


def test_every_outcome_and_error_is_described():
    said, errors = read(DOCS / "choose.md"), read(DOCS / "reference.md")
    assert all(re.search(rf"^{outcome.value}$", said, re.MULTILINE) for outcome in gl.Outcome)
    kinds = [name for name, e in vars(gl.errors).items() if isinstance(e, type)]
    assert [name for name in kinds if f"`{name}`" not in errors] == []


def test_every_public_name_has_its_reference():
    said = read(DOCS / "reference.md")
    elsewhere = {"__version__", "GradleakError"}
    names = {name for name in gl.__all__ if not inspect.ismodule(getattr(gl, name))} - elsewhere
    assert [name for name in names if f":: gradleak.{name}\n" not in said] == []


def test_the_citation_file_is_of_this_version():
    said = read(ROOT / "CITATION.cff")
    assert f"version: {gl.__version__}\n" in said
    assert "license: Apache-2.0\n" in said
