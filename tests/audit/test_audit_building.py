"""From a plan to the work: what is built, and what is told of models, weights and data that do not fit."""

import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import gradleak as gl
from gradleak.audit.building import work_of
from gradleak.audit.choice import attacks_for, ladder_for
from gradleak.audit.estimate import estimate
from gradleak.audit.plan import Plan
from gradleak.audit.starter import STARTER
from gradleak.cases import Store, run
from gradleak.cases.facts import facts_of
from gradleak.errors import InvalidInput, InvalidPlan

CODE = """
import torch
from torch import nn

def net(channels, size, classes, width=4):
    first, last = nn.Linear(channels * size * size, width), nn.Linear(width, classes)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), last)

def raises(): raise RuntimeError("no such layer")
def number(): return 3
def frozen(): return net(1, 8, 10).requires_grad_(False)
def regression(): return nn.Sequential(nn.Conv2d(1, 2, 3))
def stubborn():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)
        def forward(self, x):
            raise KeyError("not today")
    return Stubborn()
def infinite():
    model = net(1, 8, 10)
    nn.init.constant_(model[1].weight, float("nan"))
    return model
def records(): raise OSError("no disk")
def pairs(): return [(torch.rand(1, 8, 8), i % 3) for i in range(9)]
"""


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Plans beside code and files, read from elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (home / "planned_code.py").write_text(CODE)
    model = gl.zoo.mlp(10, 1, 8, sizes=(64, 16), seed=3)
    save_file(model.state_dict(), home / "good.safetensors")
    save_file(gl.zoo.mlp(10, 1, 8, sizes=(64, 17)).state_dict(), home / "wider.safetensors")
    save_file(gl.zoo.lenet(10, 1, 8).state_dict(), home / "lenet.safetensors")
    torch.save(model.state_dict(), home / "pickled.pt")
    (home / "text.safetensors").write_text("not at all")
    (home / "folder").mkdir()
    x = np.random.default_rng(0).random((6, 1, 8, 8)).astype(np.float32)
    np.savez(home / "data.npz", x=x, y=np.arange(6))
    np.savez(home / "twelve.npz", x=x, y=np.arange(6) + 7)
    np.savez(home / "flat.npz", x=x.reshape(6, 64), y=np.arange(6))
    np.savez(home / "objects.npz", x=np.array([pickle.dumps, 3], dtype=object), y=np.arange(2))

    def plan(text):
        (home / "plan.toml").write_text(text)
        return Plan.read(home / "plan.toml")

    yield plan
    sys.modules.pop("planned_code", None)


MLP = '[model]\nbuild = "mlp"\narguments = {sizes = [64, 16], classes = 10}\n'
DIGITS = '[data]\nsource = "digits"\nsize = 8\n'
CODED = '[model]\nbuild = "planned_code:{}"\n'


def test_files_beside_the_plan_are_found(at):
    work, names = work_of(
        at(f'{MLP}weights = "good.safetensors"\n[data]\nsource = "data.npz"\nbatches = 3\nrecords = 2\n')
    )
    expected = gl.zoo.mlp(10, 1, 8, sizes=(64, 16), seed=3)
    for mine, theirs in zip(work.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert [y.tolist() for _, y in work.batches] == [[0, 1], [2, 3], [4, 5]]
    assert work.names == [("record 1", "record 2"), ("record 3", "record 4"), ("record 5", "record 6")]
    assert work.kind.reference is None
    assert names == {}


def test_code_beside_the_plan_is_found_and_fitted(at):
    plan = at(
        CODED.format("net") + 'arguments = {width = 7, classes = 3}\n[data]\nsource = "planned_code:pairs"\n'
    )
    first, again = work_of(plan).work, work_of(plan).work
    assert first.model[1].weight.shape == (7, 64)
    assert first.model[-1].weight.shape == (3, 7)
    assert torch.equal(first.batches[0][0], again.batches[0][0])
    assert torch.equal(first.model[1].weight, again.model[1].weight)


def test_a_model_is_fitted_to_channels_size_and_classes(at):
    work = work_of(at(CODED.format("net") + '[data]\nsource = "data.npz"\n')).work
    assert [tuple(p.shape) for p in work.model.parameters()][::2] == [(4, 64), (6, 4)]
    coded = at(CODED.format("net") + '[data]\nsource = "planned_code:pairs"\n')
    with pytest.raises(InvalidPlan, match="missing 1 required positional argument: 'classes'"):
        work_of(coded)  # nine records were there, and two were asked for: who knows


def test_the_reference_shares_nothing_with_what_is_private(at):
    work, _ = work_of(at(f"{MLP}{DIGITS}batches = 2\nrecords = 3\nfirst = 4\n"))
    private = torch.cat([x for x, _ in work.batches])
    everything, _ = gl.zoo.pictures("digits", size=8)
    assert torch.equal(private, everything[4:10])
    assert torch.equal(work.kind.reference, everything[10:])


def test_what_the_budget_says_reaches_the_work(at):
    text = f"{MLP}{DIGITS}[budget]\nlevel = 'thorough'\nstarts = 2\ntarget = 20\n"
    work, _ = work_of(at(f"seed = 5\ntogether = 3\nladder = 'ends'\n{text}"))
    assert (work.seed, work.together, work.starts, work.target, work.thorough) == (5, 3, 2, 20.0, True)
    assert work_of(at(f"{MLP}{DIGITS}[budget]\nlevel = 'thorough'\n")).work.starts == 3
    capped = work_of(at(f"{MLP}{DIGITS}[budget]\nmatching_gradients = 50\n")).work
    assert all(attack.budget <= 50 for attack in capped.attacks.values())


def test_the_second_opinion_follows_the_kinks(at):
    smooth = work_of(at(CODED.format("net") + DIGITS)).work
    kinked = work_of(at(f"{MLP}{DIGITS}")).work
    assert list(smooth.attacks) == ["ssras", "dlg"]
    assert list(kinked.attacks) == ["ssras", "inverting_gradients"]


def test_attacks_go_from_cheap_to_dear():
    specs = ("dlg", "bias", "dlg:evaluations=10", "gdl")
    assert list(attacks_for(specs, "quick", kinked=True)) == ["bias", "dlg:evaluations=10", "gdl", "dlg"]
    quick, standard, thorough = (
        [attack.budget for attack in attacks_for(("auto",), level, kinked=False).values()]
        for level in ("quick", "standard", "thorough")
    )
    assert all(a < b < c for a, b, c in zip(quick, standard, thorough, strict=True))


def test_the_ends_are_those_of_every_way():
    rungs = ladder_for(("all",), [])
    one_gradient = {"train mode": "", "no statistics": "", "no order": "", "settings guessed": ""}
    alone = one_gradient | {"clients summed": ""}
    assert ladder_for(("ends",), [one_gradient]) == ("everything known", "clients summed")
    assert ladder_for(("ends",), [alone]) == ("everything known", "no labels")
    assert ladder_for(("ends",), [alone, {"clients summed": ""}]) == (
        "everything known", "no labels", "settings guessed"
    )  # fmt: skip
    assert ladder_for(("no labels", "train mode"), []) == ("train mode", "no labels")
    assert len(rungs) == 7


LENET = '[model]\nbuild = "lenet"\n'
FEW = "[budget]\nmatching_gradients = 3"

WRONG = [
    # weights
    (f'{MLP}weights = "gone.safetensors"\n{DIGITS}', 4, "model.weights", "there is no such file"),
    (f'{MLP}weights = "folder"\n{DIGITS}', 4, "model.weights", "it is a folder"),
    (f'{MLP}weights = "text.safetensors"\n{DIGITS}', 4, "model.weights", "expected weights as safetensors"),
    (f'{MLP}weights = "pickled.pt"\n{DIGITS}', 4, "model.weights", "safetensors.torch.save_model"),
    (f'{MLP}weights = "wider.safetensors"\n{DIGITS}', 4, "model.weights", "size mismatch"),
    (f'{MLP}weights = "lenet.safetensors"\n{DIGITS}', 4, "model.weights", "do not fit the model, Sequential"),
    # models
    (CODED.format("gone") + DIGITS, 2, "model.build", "planned_code has no 'gone'"),
    ('[model]\nbuild = "no_such_code:net"\n' + DIGITS, 2, "model.build", "cannot import no_such_code"),
    (CODED.format("raises") + DIGITS, 2, "model.build", "RuntimeError: no such layer"),
    (CODED.format("number") + DIGITS, 2, "model.build", "to return a torch.nn.Module; it returned int"),
    (CODED.format("frozen") + DIGITS, 2, "model.build", "none of its parameters needs a gradient"),
    (CODED.format("regression") + DIGITS, 2, "model.build", "expected logits"),
    (CODED.format("stubborn") + DIGITS, 2, "model.build", "KeyError"),
    (CODED.format("infinite") + DIGITS, 2, "model.build", "NaN"),
    ('[model]\nbuild = "mlp"\narguments = {widht = 3}\n' + DIGITS, 2, "model.build", "widht"),
    (f"{LENET}arguments = {{channels = 3}}\n{DIGITS}", 2, "model.build", "cannot take a batch"),
    # data
    (f'{MLP}[data]\nsource = "folder"', 5, "data.source", "a folder with pictures in it"),
    (f'{MLP}[data]\nsource = "gone"', 5, "data.source", "there is nothing at"),
    (f'{MLP}[data]\nsource = "data.npy"', 5, "data.source", "did you mean data.npz?"),
    (f'{MLP}[data]\nsource = "objects.npz"', 5, "data.source", "never unpickled"),
    (f'{MLP}[data]\nsource = "planned_code:records"', 5, "data.source", "OSError: no disk"),
    (f'{MLP}[data]\nsource = "data.npz"\nbatches = 7', 5, "data.source", "data.npz holds 6"),
    (f'{MLP}[data]\nsource = "twelve.npz"\nbatches = 6', 5, "data.source", "to 9.*came 7 to 12"),
    (f"{MLP}{DIGITS}first = 1796", 5, "data.source", "expected 2 records, from 1796 on; digits holds 1797"),
    (f'{LENET}[data]\nsource = "flat.npz"', 2, "model.build", "cannot take a batch"),
    # budget
    (f"attacks = 'dlg:trials=4'\n{MLP}{DIGITS}{FEW}", 9, "budget.matching_gradients", "expected 4"),
]


@pytest.mark.parametrize(("text", "line", "path", "words"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_what_cannot_be_built_is_told_with_its_place(at, text, line, path, words):
    plan = at(text)
    with pytest.raises(InvalidPlan) as caught:
        work_of(plan)
    assert re.search(rf"plan\.toml:{line}: {re.escape(path)}: .*{words}", str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


def test_mistakes_of_model_and_data_are_told_together(at):
    plan = at(CODED.format("gone") + '[data]\nsource = "gone"')
    with pytest.raises(InvalidPlan) as caught:
        work_of(plan)
    head, model, data = str(caught.value).splitlines()
    assert head == "2 mistakes:"
    assert "model.build" in model
    assert "data.source" in data


def test_a_device_that_is_not_there_is_told(at):
    with pytest.raises(InvalidInput, match="the device 'toaster'"):
        work_of(at(MLP + DIGITS), "toaster")


def test_the_estimate_is_what_is_spent_where_nothing_ends_early(at):
    """Attacks that cannot succeed: a few steps, against a server that is never enough."""
    text = f"attacks = ['inverting_gradients:steps=2', 'dlg:evaluations=3']\nladder = 'ends'\n{MLP}{DIGITS}"
    work, _ = work_of(at(text + "[budget]\nlevel = 'thorough'\nstarts = 1\n"))
    taken = estimate(work)
    record = run(work, Store(None), facts_of(work, title="small"))
    spent = sum(done.facts["matching_gradients"] for done in record.attacks)
    assert taken.cases == 2 + (2 + 1) * 2  # forecasts; two batches alone and once together, two attacks each
    assert len(record.attacks) == taken.cases - 2
    assert spent == taken.matching_gradients == (2 + 1) * (3 + 3)
    assert taken.seconds > 0


def test_the_five_minutes_lead_to_the_work_that_they_describe(at):
    """docs/audit.md: its model beside the starter's plan, of which three lines are edited."""
    page = (Path(__file__).parents[2] / "docs/audit.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    code = next(text for kind, text in blocks if kind == "python")
    (edits,) = [text for kind, text in blocks if kind == "toml"]
    home = at(f"{MLP}{DIGITS}").where.folder
    (home / "five_minutes_model.py").write_text(code)
    text = STARTER
    for key, value in re.findall(r"^(\w+) = (.*)$", edits, re.MULTILINE):
        said = value.replace("my_model:", "five_minutes_model:")
        text, times = re.subn(rf"^{key} = \S+", f"{key} = {said}", text, flags=re.MULTILINE)
        assert times == 1
    assert sum(a != b for a, b in zip(text.splitlines(), STARTER.splitlines(), strict=True)) == 3
    work, _ = work_of(at(text))
    printed = next(one for kind, one in blocks if kind == "text").splitlines()[1:]
    assert [line.split("  ")[0] for line in printed] == list(work.ways)
    assert [tuple(x.shape) for x, _ in work.batches] == [(1, 3, 16, 16)] * 2
    assert [len(p) for p in work.model.parameters()][-1] == gl.zoo.PICTURES["photos"].classes
    sys.modules.pop("five_minutes_model")
