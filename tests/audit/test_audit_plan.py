"""Plans: what they stand for, and a clear sentence with a place for everything that can be wrong."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from gradleak.audit.limits import Limits
from gradleak.audit.places import dotted, line_of, lines_of
from gradleak.audit.plan import Plan, schema
from gradleak.audit.starter import STARTER
from gradleak.defenses import Clip, GaussianNoise
from gradleak.errors import GradleakError, InvalidPlan
from gradleak.observe import LocalAdam, LocalSGD, OneGradient

MODEL = '[model]\nbuild = "mlp"\n'
DATA = '[data]\nsource = "digits"\n'
LEAST = MODEL + DATA


def at_top(text):
    return f"{text}\n{LEAST}"


def in_model(text):
    return f"{MODEL}{text}\n{DATA}"


def after(text):
    return f"{LEAST}{text}"


# What it says, its line, the dotted path, and words that the sentence must hold.
WRONG = [
    # no TOML, or none that holds together
    ("title = My audit", 1, "", "expected TOML"),
    ("", None, "model", "it is missing"),
    (after("[data]\nfirst = 1"), 5, "", "said twice"),
    (after('[clients.a]\nkind = "gradient"\n[clients.a]\nkind = "adam"'), 7, "", "said twice"),
    (at_top("seed = 1\nseed = 2"), 2, "", "said twice"),
    (at_top("x = " + "[" * 5000), None, "", "nested too deeply"),
    # tables that are missing, or no tables
    (DATA, None, "model", 'with build = "module:callable"'),
    (MODEL, None, "data", 'with source = "a/folder"'),
    ("[model]\n[data]\nsource = 'digits'", 1, "model", "expected one of build and pretrained"),
    (f"model = 'mlp'\n{DATA}", 1, "model", 'expected a table; came "mlp"'),
    (at_top("clients = 3"), 1, "clients", "expected a table; came 3"),
    (after("[clients]"), 5, "clients", "at least 1"),
    (at_top("clients.a = 'sgd'"), 1, "clients.a", 'expected a table; came "sgd"'),
    (at_top("budget = 'quick'"), 1, "budget", "expected a table"),
    # keys that do not exist, or not there
    (at_top("titel = 'x'"), 1, "titel", "did you mean title?"),
    (in_model("buidl = 'x'"), 3, "model.buidl", "did you mean build?"),
    (after("record = 3"), 5, "data.record", "did you mean records?"),
    (after("defenses = ['sign']"), 5, "data.defenses", "before the first [table]"),
    (at_top("batches = 3"), 1, "batches", "belongs to the table [data]"),
    (after("lr = 0.1"), 5, "data.lr", "belongs to the table [clients.NAME]"),
    (at_top("banana = 3"), 1, "banana", "expected title, seed,"),
    (after("[limits]\nmax_pnsr = 3"), 6, "limits.max_pnsr", "did you mean max_psnr?"),
    (after("[clients.'at night']\nspeed = 3"), 6, 'clients."at night".speed', "expected kind, lr,"),
    (in_model("arguments = 3"), 3, "model.arguments", "expected a table; came 3"),
    # wrong kinds of values
    (at_top("title = 3"), 1, "title", "expected text in quotes; came 3"),
    (at_top("title = ''"), 1, "title", "expected some text"),
    (at_top("seed = '7'"), 1, "seed", 'expected a whole number; came "7"'),
    (at_top("seed = true"), 1, "seed", "expected a whole number; came true"),
    (at_top("seed = -1"), 1, "seed", "expected 0 or more; came -1"),
    (at_top(f"seed = {2**63}"), 1, "seed", "expected a number below"),
    (at_top("seed = 1979-05-27"), 1, "seed", "came the date or time 1979-05-27"),
    (after("batches = 1.5"), 5, "data.batches", "expected a whole number; came 1.5"),
    (after("batches = 0"), 5, "data.batches", "expected 1 or more; came 0"),
    (after("batches = -3"), 5, "data.batches", "expected 1 or more; came -3"),
    (after("records = 0"), 5, "data.records", "expected 1 or more; came 0"),
    (after("records = 1000000"), 5, "data.records", "expected at most 4,096"),
    (after("first = -1"), 5, "data.first", "expected 0 or more"),
    (after("size = 2"), 5, "data.size", "expected 4 or more"),
    (after("channels = 2"), 5, "data.channels", "expected 1 or 3; came 2"),
    (f"{MODEL}[data]\nsource = ['digits']", 4, "data.source", "expected text in quotes; came a list of 1"),
    (f"{MODEL}[data]\nsource = ''", 4, "data.source", "expected some text"),
    (at_top("together = 1"), 1, "together", "expected 2 or more; came 1"),
    # normalization
    (after("normalization = 0.5"), 5, "data.normalization", "expected a table"),
    (after("normalization = {mean = [0.5]}"), 5, "data.normalization.std", "it is missing"),
    (after("normalization = {mean = [], std = []}"), 5, "data.normalization.mean", "at least 1"),
    (after("normalization = {mean = [0.5], std = [0.0]}"), 5, "data.normalization.std", "the latter above 0"),
    (after("normalization = {mean = [0.5, 0.5], std = [1.0]}"), 5, "data.normalization.std", "as many"),
    (after("normalization = {mean = [nan], std = [1]}"), 5, "data.normalization.mean[0]", "a finite number"),
    # the model's name
    (f"[model]\nbuild = 'lenett'\n{DATA}", 2, "model.build", "did you mean lenet?"),
    # clients
    (after("[clients.a]\nkind = 'sdg'"), 6, "clients.a.kind", "did you mean sgd?"),
    (after("[clients.a]\nkind = 'sgd'"), 5, "clients.a.lr", "expected lr, the local learning rate"),
    (after("[clients.a]\nkind = 'adam'\nlr = 0"), 7, "clients.a.lr", "expected a number above 0; came 0"),
    (after("[clients.a]\nkind = 'sgd'\nlr = inf"), 7, "clients.a.lr", "expected a finite number; came inf"),
    (after("[clients.a]\nlr = 0.1"), 6, "clients.a.lr", "sends one gradient"),
    (after("[clients.a]\nepochs = 2"), 6, "clients.a.epochs", "sends one gradient"),
    (after("[clients.a]\nkind = 'sgd'\nlr = 1\nepochs = -2"), 8, "clients.a.epochs", "expected 1 or more"),
    (after("[clients.a]\nkind = 'sgd'\nlr = 1\nbatch = 2"), 8, "clients.a.batch", "at most the 1 records"),
    (after("[clients.a]\nkind = 'sgd'\nlr = 1\nmomentum = 1"), 8, "clients.a.momentum", "number below 1"),
    (after("[clients.a]\nkind = 'adam'\nlr = 1\nmomentum = 0.9"), 8, "clients.a.momentum", "with kind"),
    (after("[clients.'']\nkind = 'gradient'"), 5, 'clients.""', "expected a name"),
    (
        after("[clients.a]\n[clients.'a, sign']\n").replace("[model]", "defenses = ['sign']\n[model]"),
        7,
        'clients."a, sign"',
        "no client with a defense has",
    ),
    # defenses
    (at_top("defenses = 'sign'"), 1, "defenses", 'expected a list; came "sign"'),
    (at_top("defenses = ['gausian:std=1']"), 1, "defenses[0]", "did you mean gaussian?"),
    (at_top("defenses = [\n'sign',\n'gaussian']"), 3, "defenses[1]", "gaussian's std"),
    (at_top("defenses = ['gaussian:std=-1']"), 1, "defenses[0]", "expected std as a number of 0 or more"),
    (at_top("defenses = ['mask:rate=2']"), 1, "defenses[0]", "expected rate"),
    (at_top("defenses = ['gaussian:dev=1']"), 1, "defenses[0]", "no strength 'dev'"),
    (at_top("defenses = [['sign', 3]]"), 1, "defenses[0]", "came a list of 2"),
    (at_top("defenses = [[]]"), 1, "defenses[0]", "came an empty list"),
    (at_top("defenses = ['none']"), 1, "defenses[0]", "Every client is tried without them"),
    (at_top("defenses = ['sign', 'sign']"), 1, "defenses[1]", "every defense once"),
    # attacks and the ladder
    (at_top("attacks = []"), 1, "attacks", "came an empty list"),
    (at_top("attacks = ['dlg', 3]"), 1, "attacks[1]", "expected text in quotes; came 3"),
    (at_top("attacks = 'dgl'"), 1, "attacks", "did you mean gdl?"),
    (at_top("attacks = ['dlg', 'dlg']"), 1, "attacks", "'dlg' twice"),
    (at_top("attacks = ['auto', 'dlg']"), 1, "attacks", '"auto" alone'),
    (at_top("attacks = ['dlg:trals=3']"), 1, "attacks[0]", "did you mean trials?"),
    (at_top("attacks = ['dlg:trials=-3']"), 1, "attacks[0]", "1 or more; came '-3'"),
    (at_top("attacks = ['dlg:trials']"), 1, "attacks[0]", "NAME=NUMBER"),
    (at_top("attacks = ['bias:steps=3']"), 1, "attacks[0]", "it has none to set"),
    (at_top("ladder = 'al'"), 1, "ladder", "did you mean all?"),
    (at_top("ladder = ['no label']"), 1, "ladder[0]", "did you mean no labels?"),
    (at_top("ladder = []"), 1, "ladder", "came an empty list"),
    (at_top("ladder = ['all', 'no labels']"), 1, "ladder", '"all" alone'),
    # budget and limits
    (after("[budget]\nlevel = 'quik'"), 6, "budget.level", "did you mean quick?"),
    (after("[budget]\nseconds = 0"), 6, "budget.seconds", "expected a number above 0"),
    (after("[budget]\nseconds = nan"), 6, "budget.seconds", "expected a finite number"),
    (after("[budget]\nmatching_gradients = -5"), 6, "budget.matching_gradients", "1 or more; came -5"),
    (after("[budget]\nstarts = 0"), 6, "budget.starts", "expected 1 or more"),
    (after("[budget]\ntarget = 9000.0"), 6, "budget.target", "expected at most 150"),
    (after("[limits]\nmax_psnr = inf"), 6, "limits.max_psnr", "finite number; came inf"),
    (after("[limits]\nmax_psnr = 'low'"), 6, "limits.max_psnr", 'expected a number; came "low"'),
    (after("[limits]\nmax_ssim = 2"), 6, "limits.max_ssim", "max_ssim"),
    (after("[limits]\nmax_leaked = 1.5"), 6, "limits.max_leaked", "max_leaked"),
    (after("[limits]\nmax_label_accuracy = nan"), 6, "limits.max_label_accuracy", "max_label_accuracy"),
    (after("[limits]\nmax_label_accuracy = 'chance+0.2'"), 6, "limits.max_label_accuracy", "random"),
    (after("[limits]\nmax_label_accuracy = [1]"), 6, "limits.max_label_accuracy", "came a list of 1"),
    (after("[limits]\nallow = ['everything']"), 6, "limits.allow", "unfinished"),
    (after("[limits]\nways = ['one gradent']"), 6, "limits.ways[0]", "did you mean one gradient?"),
]


@pytest.mark.parametrize(("text", "line", "path", "words"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_a_wrong_plan_is_told_with_its_place(text, line, path, words):
    with pytest.raises(InvalidPlan) as caught:
        Plan.parse(text, "some/plan.toml")
    place = "some/plan.toml" if line is None else f"some/plan.toml:{line}"
    said = [
        one for one in str(caught.value).splitlines() if one.startswith(f"{place}: {path and path + ': '}")
    ]
    assert said, caught.value
    assert any(words in one for one in said), caught.value
    assert "Error" not in said[0]
    assert said[0].endswith((".", "?"))


def test_there_are_enough_kinds():
    assert len(WRONG) >= 45
    assert len({words for *_, words in WRONG}) >= 45


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    text = "titel = 'x'\nseed = -1\n" + LEAST + "batches = 0\n[budget]\nlevel = 'quik'"
    with pytest.raises(InvalidPlan) as caught:
        Plan.parse(text)
    head, *said = str(caught.value).splitlines()
    assert head == "4 mistakes:"
    assert [int(one.split(":")[1]) for one in said] == [1, 2, 7, 9]


def test_files_that_are_no_plans(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.toml").write_bytes("title = 'Größe'".encode("latin-1"))
    for name, words in (
        ("folder", "Is a directory"),
        ("nothing.toml", "gradleak plan init"),
        ("latin.toml", "expected text in UTF-8; byte 11"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(InvalidPlan, match=re.escape(words)):
            Plan.read(tmp_path / name)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "plan.toml").write_text(LEAST)

    def refused(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_bytes", refused)
    with pytest.raises(InvalidPlan, match=r"cannot be read: Permission denied\."):
        Plan.read(tmp_path / "plan.toml")


def test_what_an_editor_of_windows_writes_is_read(tmp_path):
    text = f"seed = 3\n{LEAST}first = -1".replace("\n", "\r\n")
    (tmp_path / "plan.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.raises(InvalidPlan, match=r"plan\.toml:6: data\.first: expected 0 or more"):
        Plan.read(tmp_path / "plan.toml")


def test_the_least_plan_has_the_defaults():
    plan = Plan.parse(LEAST)
    assert (plan.seed, plan.attacks, plan.ladder, plan.together) == (0, ("auto",), ("all",), 2)
    assert (plan.data.batches, plan.data.records, plan.budget.level) == (2, 1, "standard")
    assert plan.ways == {"one gradient": OneGradient()}
    assert plan.limits == Limits()
    assert plan.as_facts() == {"model": {"build": "mlp"}, "data": {"source": "digits"}}


def test_ways_are_clients_with_and_without_defenses():
    plan = Plan.parse(
        at_top('defenses = ["gaussian:std=0.5", ["clip:norm=1", "gaussian:std=2"]]')
        + "records = 4\n"
        + '[clients.avg]\nkind = "sgd"\nlr = 0.1\nepochs = 3\nmomentum = 0.5\n'
        + '[clients.adam]\nkind = "adam"\nlr = 1\nbatch = 2\n'
    )
    avg, adam = LocalSGD(3, 4, 0.1, momentum=0.5), LocalAdam(1, 2, 1.0)
    assert plan.ways == {
        "avg": avg,
        "avg, gaussian:std=0.5": GaussianNoise(avg, std=0.5),
        "avg, clip:norm=1, gaussian:std=2": GaussianNoise(Clip(avg, norm=1.0), std=2.0),
        "adam": adam,
        "adam, gaussian:std=0.5": GaussianNoise(adam, std=0.5),
        "adam, clip:norm=1, gaussian:std=2": GaussianNoise(Clip(adam, norm=1.0), std=2.0),
    }


def test_limits_are_those_of_the_audit():
    said = "[limits]\nmax_psnr = 18\nmax_label_accuracy = 'random+0.2'\nways = ['one gradient']"
    limits = Plan.parse(after(said)).limits
    assert limits == Limits(max_psnr=18.0, max_label_accuracy="random+0.2", ways=("one gradient",))


def test_facts_are_plain_json_and_make_the_same_plan():
    plan = Plan.parse(at_top("defenses = ['sign', ['clip:norm=1', 'sign']]\nladder = 'ends'"))
    facts = json.loads(json.dumps(plan.as_facts()))
    assert Plan.model_validate(facts, strict=True).ways == plan.ways


TEXT = '''# a comment = 1
title = "a # in it" # [x]
"quoted key" = 1
a.b.c = 2
a.b.d = [1,
  2, # ] in a comment
  [3, "]"]]
long = """several
lines = "of it" """
raw = \'\'\'
x = 1
\'\'\'
inline = {p = 1, q = {r = 2}, "s t" = [1]}
date = 1979-05-27 07:32:00
[t.u]
k = 1
[t]
z = 1.5
[[many]]
n = 1
[many.deep]
w = 2
[[many]]
n = 2
[clients."at night"]
lr = 1e-3
'''


def test_everything_is_found_on_its_line():
    lines = lines_of(TEXT, tomllib.loads(TEXT))
    rows = TEXT.splitlines()
    said = {dotted(path): line for path, line in lines.items()}
    expected = {
        "title": 2, '"quoted key"': 3, "a.b.c": 4, "a.b.d": 5, "a.b.d[0]": 5, "a.b.d[1]": 6, "a.b.d[2][1]": 7,
        "long": 8, "raw": 10, "inline.q.r": 13, 'inline."s t"[0]': 13, "date": 14, "t.u.k": 16, "t": 17,
        "t.z": 18, "many[0].n": 20, "many[0].deep.w": 22, "many[1]": 23, "many[1].n": 24,
        'clients."at night"': 25, 'clients."at night".lr': 26,
    }  # fmt: skip
    assert {path: said[path] for path in expected} == expected
    assert rows[said["t.z"] - 1] == "z = 1.5"
    assert line_of(lines, ("t", "missing")) == 17
    assert line_of(lines, ("nowhere",)) is None


def test_a_wrong_line_is_never_said():
    other = {"title": "of another file"}
    assert lines_of(TEXT, other) == {}
    assert lines_of('a = "', {"a": ""}) == {}
    with pytest.raises(InvalidPlan, match=r"^plan\.toml: model: "):
        Plan.parse("seed = 1\n" + DATA)


def test_the_starter_is_a_plan_and_so_is_all_that_it_offers():
    plan = Plan.parse(STARTER)
    assert set(plan.ways) == {
        "fedsgd", "fedsgd, gaussian:std=0.1", "fedavg", "fedavg, gaussian:std=0.1"
    }  # fmt: skip
    offered = [line[2:] for line in STARTER.splitlines() if re.match(r"# \w+ +=", line)]
    assert len(offered) >= 12
    keys = [re.match(r"\w+", line)[0] for line in offered]
    lines = [line for line in STARTER.splitlines() if not re.match(rf"({'|'.join(keys)}) +=", line)]
    text = "\n".join(re.sub(r"^# (?=\w+ +=)", "", line) for line in lines)
    Plan.parse(text)
    known = tomllib.loads(text)
    assert {"seconds", "matching_gradients", "starts", "target", "level"} >= known["budget"].keys()


def test_the_schema_knows_every_key_and_the_names():
    said = json.dumps(schema())
    for word in ("matching_gradients", "max_label_accuracy", "gaussian", "inverting_gradients", "no labels"):
        assert word in said
    assert schema()["properties"].keys() >= {"model", "data", "clients", "limits", "ladder"}
    assert schema()["additionalProperties"] is False


def test_huge_and_odd_numbers_are_refused_as_the_rest():
    for value in ("1" + "0" * 400, "1e999", "-0.0"):
        with pytest.raises(GradleakError):
            Plan.parse(after(f"[clients.a]\nkind = 'sgd'\nlr = {value}"))


def test_the_plans_in_the_documentation_are_plans():
    pages = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    said = [
        text for page in pages for text in re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.M | re.S)
    ]
    assert len(said) >= 5
    for text in said:
        assert Plan.parse(text).ways


def test_every_key_is_documented_with_its_default():
    page = (Path(__file__).parents[2] / "docs/plan.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.M))
    parts = {**schema()["$defs"], "Plan": schema()}
    tables = {"ModelPart", "DataPart", "ClientPart", "BudgetPart", "LimitsPart", "Plan"}
    keys = {key: value for name in tables for key, value in parts[name]["properties"].items()}
    assert set(keys) - {"model", "data", "clients", "budget", "limits"} <= rows.keys()
    for key in ("title", "seed", "together", "batches", "records", "first", "kind", "level"):
        assert rows[key] == f"`{json.dumps(keys[key]['default'])}`", key
