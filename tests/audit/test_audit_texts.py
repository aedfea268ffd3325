"""Audits of texts: from a plan to sentences beside what came back of them, and to the gate."""

import json

import pytest
import torch
from click.testing import CliRunner

import gradleak as gl
from gradleak.audit.building import work_of
from gradleak.audit.call import audit, run_plan
from gradleak.audit.diff import diff
from gradleak.audit.limits import Limits, check
from gradleak.audit.plan import Plan
from gradleak.audit.rows import as_csv, rows
from gradleak.cases import Store
from gradleak.cli.main import main
from gradleak.errors import InvalidInput, InvalidModel, InvalidPlan
from gradleak.testing import assert_no_leak

pytest.importorskip("transformers")
processors = pytest.importorskip("tokenizers").processors

PLAN = """
ladder = "{ladder}"
attacks = {attacks}
[model]
build = "{build}"
task = "{task}"
arguments = {{ width = 64 }}
[data]
source = "sentences"
batches = {batches}
records = 2
"""


def plan(folder, more="", *, build="bert", task="classification", ladder="everything known", **said):
    said = {"attacks": '"dager"', "batches": 2} | said
    path = folder / "plan.toml"
    path.write_text(PLAN.format(build=build, task=task, ladder=ladder, **said) + more)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return folder, run_plan(plan(folder), out=folder / "audit")


def test_sentences_come_back_exactly_and_the_report_says_so(finished):
    _, report = finished
    record, way = report.record, "one gradient"
    assert record.scale.noun == "text"
    assert record.leaked(way) == 4
    assert record.worst(way) == record.median(way) == 100
    assert record.median_null(way) < 40
    texts, _ = gl.zoo.sentences(4)
    page = report.html()
    for text in texts:
        shown = text.replace(",", " ,")
        assert page.count(shown) == 2  # as it was written, and as it came back
    assert "<mark>" in page  # of the guess without the update
    assert "ROUGE-L in %" in page
    assert "4 of 4 records leak" in report.verdict
    json.dumps(report.to_dict(), allow_nan=False)


def test_no_private_word_is_in_what_leaves_texts_out(finished):
    _, report = finished
    texts, _ = gl.zoo.sentences(4)
    for said in (report.html(pictures=False), report.markdown(), json.dumps(report.to_dict())):
        assert not any(text.split(",")[0] in said for text in texts)
        assert "lump" not in said


def test_a_finished_run_is_read_again_without_model_and_tokenizer(finished):
    folder, report = finished
    with Store(folder / "audit", alone=False) as store:
        again = store.record()
        first, second = (one.contents for one in (report.record, again))
        assert second.vocabulary == first.vocabulary
        assert torch.equal(first.truth(3), second.truth(3))
        assert gl.report.audited.Report(again).html() == report.html()


def test_the_gate_knows_texts(finished, tmp_path):
    folder, report = finished
    (broken,) = check(report.record, Limits(max_rouge=30))
    assert broken.value == 100
    assert "comes back as an exact copy" in broken.sentence
    assert not check(report.record, Limits(max_rouge=100))
    (unsaid,) = check(report.record, Limits(max_psnr=18))
    assert unsaid.limit == "unanswered"
    assert "these are texts, which have no PSNR" in unsaid.sentence
    done = CliRunner().invoke(main, ["check", str(folder / "audit"), "--max-rouge", "30"])
    assert done.exit_code == 1, done.output


def test_rows_and_comparisons_are_in_the_units_of_texts(finished):
    _, report = finished
    table = rows(report.record)
    assert [row["rouge_l"] for row in table] == [100] * 4
    assert all(row["psnr"] is None and row["tokens"] == 100 for row in table)
    assert as_csv([{"folder": "x", **row} for row in table]).startswith("folder,run,")
    (way,) = diff(report.record, report.record).ways
    assert "the same leak" in way.sentence


def test_runs_of_pictures_and_of_texts_are_not_compared(finished):
    _, report = finished
    x, y = gl.zoo.pictures("digits", size=8, n=1)
    model = gl.zoo.mlp(channels=1, size=8, sizes=(64, 16), classes=10, seed=0)
    pictures = audit(model, x, y, attacks="bias", ladder="everything known")
    with pytest.raises(InvalidInput, match="texts and pictures"):
        diff(report.record, pictures.record)


@pytest.mark.parametrize(("build", "task"), [("gpt2", "causal"), ("bert", "masked")])
def test_labels_that_are_words_are_told_to_no_server(tmp_path, build, task):
    report = run_plan(plan(tmp_path, build=build, task=task, batches=1, ladder="all"), out=tmp_path / "audit")
    assert "no labels" in report.record.facts["skipped"]["one gradient"]
    for done in report.record.attacks:
        assert done.facts["labels_given"] is False
        assert not any("labels" in said for said in done.facts["assumptions"])
    assert report.record.median("one gradient", rung="everything known") > 90


def test_dropout_in_training_is_a_rung_of_its_own_on_which_dager_cannot_be_run(tmp_path):
    report = run_plan(plan(tmp_path, batches=1, ladder="all"), out=tmp_path / "audit")
    on = {one.case.rung: one for one in report.record.attacks}
    assert on["everything known"].outcome == "converged"
    assert on["train mode"].outcome == "not_applicable"
    assert "drew at random" in on["train mode"].reason


def test_a_server_with_the_labels_tells_descents_how_long_texts_are(tmp_path):
    attack = '"dlg_text:evaluations=3,rounds=1,polish=1"'
    report = run_plan(plan(tmp_path, batches=1, attacks=attack), out=tmp_path / "audit")
    (done,) = report.record.attacks
    assert any("how long each text is" in said for said in done.facts["assumptions"])
    assert 0 <= done.rows[0].value <= 100


def test_one_call_takes_ids_and_reads_them_with_their_tokenizer():
    tokenizer = gl.zoo.tokenizer()
    ids = tokenizer(list(gl.zoo.sentences(2)[0]), padding="longest", return_tensors="pt")["input_ids"]
    model = gl.text.wrap(gl.zoo.bert(vocabulary=len(tokenizer), width=64))
    said = {"attacks": "dager", "ladder": "everything known", "budget": "quick"}
    before = {name: leaf.clone() for name, leaf in model.state_dict().items()}
    report = audit(model, ids, torch.tensor([0, 1]), tokenizer=tokenizer, **said)
    assert report.record.leaked("one gradient") == 2
    assert "thank you for the flowers" in report.html()
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.state_dict().items())
    with pytest.raises(AssertionError, match="comes back as an exact copy"):
        assert_no_leak(model, ids, torch.tensor([0, 1]), **said)
    with pytest.raises(InvalidModel, match=r"gradleak\.text\.wrap"):
        audit(model.network, ids, torch.tensor([0, 1]))
    with pytest.raises(InvalidInput, match="'dlg' is one on pictures"):
        audit(model, ids, torch.tensor([0, 1]), attacks="dlg")
    with pytest.raises(InvalidInput, match="no normalization"):
        audit(model, ids, torch.tensor([0, 1]), normalization=((0.5,), (0.5,)))


def test_the_users_own_folder_file_and_tokenizer(tmp_path):
    tokenizer = gl.zoo.tokenizer()
    tokenizer.save_pretrained(tmp_path / "mine")
    gl.zoo.bert(vocabulary=len(tokenizer), width=64).save_pretrained(tmp_path / "mine")
    (tmp_path / "own.csv").write_text("text,label\nthe soup needs more salt,food\nmy boss pays me,work\n")
    (tmp_path / "plan.toml").write_text(
        'attacks = "dager"\nladder = "everything known"\n[model]\npretrained = "mine"\n'
        'task = "classification"\n[data]\nsource = "own.csv"\nbatches = 1\nrecords = 2\nlongest = 12\n'
    )
    work, names = work_of(Plan.read(tmp_path / "plan.toml"))
    assert names == {0: "food", 1: "work"}
    assert work.batches[0][1].tolist() == [0, 1]
    report = run_plan(tmp_path / "plan.toml", out=tmp_path / "audit")
    assert report.record.leaked("one gradient") == 2
    assert "my boss pays me" in report.html()


def of_folder(folder, source, *, task="classification", more="", records=2):
    (folder / "plan.toml").write_text(
        f'attacks = "dager"\nladder = "everything known"\n[model]\npretrained = "mine"\ntask = "{task}"\n'
        f'[data]\nsource = "{source}"\nbatches = 1\nrecords = {records}\n{more}'
    )
    return folder / "plan.toml"


def saved(folder, model, tokenizer=None):
    (tokenizer or gl.zoo.tokenizer()).save_pretrained(folder / "mine")
    model.save_pretrained(folder / "mine")


def test_a_trained_classifier_keeps_its_outputs_and_what_it_calls_them(tmp_path):
    model = gl.zoo.bert(classes=3, vocabulary=len(gl.zoo.tokenizer()), width=64)
    model.config.id2label = {0: "work", 1: "pet", 2: "food"}
    model.config.label2id = {"work": 0, "pet": 1, "food": 2}
    saved(tmp_path, model)
    (tmp_path / "own.csv").write_text("text,label\nthe soup needs more salt,food\na dog,pet\n")
    work, names = work_of(Plan.read(of_folder(tmp_path, "own.csv")))
    assert work.batches[0][1].tolist() == [2, 1]
    assert names == {1: "pet", 2: "food"}
    assert work.model.network.config.num_labels == 3
    assert torch.equal(work.model.network.classifier.weight, model.classifier.weight)


def test_a_head_that_was_not_trained_has_as_many_outputs_as_the_file_has_classes(tmp_path):
    saved(tmp_path, gl.zoo.bert(task="masked", vocabulary=len(gl.zoo.tokenizer()), width=64))
    (tmp_path / "own.csv").write_text("text,label\nthe soup,a\na dog,b\nthe child,c\n")
    work, _ = work_of(Plan.read(of_folder(tmp_path, "own.csv")))
    assert work.model.network.config.num_labels == 3


def test_neither_pickles_nor_code_are_read_from_a_folder(tmp_path):
    model = gl.zoo.bert(vocabulary=len(gl.zoo.tokenizer()), width=64)
    saved(tmp_path, model)
    (tmp_path / "mine" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "mine" / "pytorch_model.bin")
    with pytest.raises(InvalidPlan, match=r"no file named model\.safetensors"):
        work_of(Plan.read(of_folder(tmp_path, "sentences")))
    said = json.loads((tmp_path / "mine" / "tokenizer_config.json").read_text())
    said |= {"auto_map": {"AutoTokenizer": ["own.T", "own.T"]}, "tokenizer_class": "Own"}
    (tmp_path / "mine" / "tokenizer_config.json").write_text(json.dumps(said))
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "own.C"}, "model_type": "own"}
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InvalidPlan, match="custom code"):
        work_of(Plan.read(of_folder(tmp_path, "sentences")))
    assert not (tmp_path / "ran").exists()


def test_a_decoder_without_a_padding_word_classifies_texts_of_several_lengths(tmp_path):
    tokenizer = gl.zoo.tokenizer()
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    model = gl.zoo.gpt2(vocabulary=len(tokenizer), width=64)
    model.config.pad_token_id = None
    saved(tmp_path, model, tokenizer)
    work, _ = work_of(Plan.read(of_folder(tmp_path, "sentences")))
    assert work.model.pad == work.model.network.config.pad_token_id == tokenizer.eos_token_id


def test_a_decoder_proves_all_but_the_last_word_and_the_report_says_no_more(tmp_path):
    (tmp_path / "single_text.py").write_text("def one(): return ['the soup needs salt']\n")
    tokenizer = gl.zoo.tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
    saved(tmp_path, gl.zoo.gpt2(vocabulary=len(tokenizer), width=64), tokenizer)
    report = run_plan(
        of_folder(tmp_path, "single_text:one", task="causal", records=1), out=tmp_path / "audit"
    )
    (row,) = report.record.attacks[0].facts["rows"]
    assert row["certified"]
    assert not row["exact"]
    assert "knows that this is the text" not in report.html()
    assert "knows that these words are right" in report.html()


def test_a_text_that_is_there_twice_is_read_twice(tmp_path):
    (tmp_path / "own.csv").write_text("text,label\nthe soup needs salt,a\nthe soup needs salt,a\na dog,b\n")
    saved(tmp_path, gl.zoo.gpt2(vocabulary=len(gl.zoo.tokenizer()), width=64))
    report = run_plan(of_folder(tmp_path, "own.csv", records=2), out=tmp_path / "audit")
    assert report.record.leaked("one gradient") == 2


def test_a_forecast_is_no_worse_than_the_null_that_guesses_are_held_against(finished, tmp_path):
    head = 'defenses = ["gaussian:std=1000"]\n'
    path = plan(tmp_path, batches=1)
    path.write_text(head + path.read_text().replace("width = 64", "width = 16, layers = 2"))
    record = run_plan(path, out=tmp_path / "audit").record
    for i in (0, 1):
        found = record.forecast("one gradient, gaussian:std=1000", i)
        null = record.attacks[0].rows[i].null
        assert found.value == found.null == null
    assert found.null > 0


def test_masked_words_are_shown_as_such(tmp_path):
    report = run_plan(plan(tmp_path, task="masked", batches=1), out=tmp_path / "audit")
    assert report.html().count("thank you for [MASK]") >= 2  # as the model saw it, and as it came back


def test_control_characters_and_turns_of_direction_are_not_written(tmp_path):
    tokenizer = Changed()
    model = gl.text.wrap(gl.zoo.bert(vocabulary=len(tokenizer), width=64))
    ids = tokenizer(list(gl.zoo.sentences(1)[0]), return_tensors="pt")["input_ids"]
    said = {"attacks": "dager", "ladder": "everything known", "budget": "quick"}
    page = audit(model, ids, torch.tensor([0]), tokenizer=tokenizer, **said).html()
    assert "\N{REPLACEMENT CHARACTER}" in page
    assert not {"\x1b", "\u202e", "\x00"} & set(page)


class Changed:
    """The bundled tokenizer, with letters in its words that no page should hold."""

    def __init__(self):
        self.own = gl.zoo.tokenizer()

    def __getattr__(self, name):
        return getattr(self.own, name)

    def __len__(self):
        return len(self.own)

    def __call__(self, *args, **said):
        return self.own(*args, **said)

    def convert_ids_to_tokens(self, ids):
        return [f"\x1b\x00\u202e{piece}" for piece in self.own.convert_ids_to_tokens(ids)]


MODEL = '[model]\nbuild = "bert"\ntask = "classification"\n'
DATA = '[data]\nsource = "sentences"\n'
WRONG = [
    ('[model]\nbuild = "bert"\n' + DATA, "data.source: expected model.task"),
    ('[model]\nbuild = "bert"\ntask = "poetry"\n' + DATA, "model.task"),
    ('[model]\npretrained = "x"\n' + DATA, "beside pretrained"),
    ('[model]\nbuild = "bert"\npretrained = "x"\ntask = "masked"\n' + DATA, "came both"),
    ('[model]\npretrained = "nowhere"\ntask = "masked"\n' + DATA, "there is nothing at"),
    ('[model]\nbuild = "bert"\ntokenizer = "no.json"\ntask = "masked"\n' + DATA, "model.tokenizer"),
    ('[model]\nbuild = "bert"\ntokenizer = "bad.json"\ntask = "masked"\n' + DATA, "cannot be read"),
    ('[model]\nbuild = "gpt2"\ntask = "classification"\n' + DATA, "expected the task as one of causal"),
    ('[model]\nbuild = "lenet"\ntask = "causal"\n' + DATA, "model.tokenizer: expected the tokenizer"),
    (
        '[model]\nbuild = "bert"\ntask = "masked"\narguments = { vocabulary = 9 }\n' + DATA,
        "another tokenizer",
    ),
    ('attacks = "dlg"\n' + MODEL + DATA, "attacks: expected an attack on texts"),
    (MODEL + DATA + "size = 16\n", "data.size: expected no size"),
    (MODEL + DATA + "[limits]\nmax_psnr = 18\n", "limits.max_psnr: expected no max_psnr"),
    ('[model]\nbuild = "mlp"\n[data]\nsource = "digits"\nlongest = 9\n', "data.longest: expected no longest"),
    ('attacks = "dager"\n[model]\nbuild = "mlp"\n[data]\nsource = "digits"\n', "is one on texts"),
    (MODEL + DATA + "batches = 90\n", "holds 24"),
    (MODEL + '[data]\nsource = "plain.txt"\n', "expected a label for each text"),
    (MODEL + '[data]\nsource = "none.txt"\n', "there is no file at"),
    (MODEL + '[data]\nsource = "latin.txt"\n', "expected text in UTF-8"),
    (MODEL + '[data]\nsource = "table.csv"\n', "the column text"),
    (MODEL + '[data]\nsource = "lines.jsonl"\n', "line 2 of lines.jsonl"),
    (MODEL + '[data]\nsource = "many.csv"\nbatches = 1\n[model.arguments]\nclasses = 2\n', "model.build"),
]


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_plans_of_texts_are_told_with_their_place(tmp_path, text, words):
    (tmp_path / "plain.txt").write_text("one text\nanother\n")
    (tmp_path / "latin.txt").write_bytes("Straße\n".encode("latin-1"))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "lines.jsonl").write_text('{"text": "a", "label": 1}\n[1]\n')
    (tmp_path / "many.csv").write_text("text,label\nthe soup,7\n")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InvalidPlan) as refused:
        work_of(Plan.read(tmp_path / "plan.toml"))
    assert words in str(refused.value)


def test_the_demo_shows_sentences_side_by_side(tmp_path):
    done = CliRunner().invoke(main, ["demo", "--text", "--records", "2", "--quiet", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "recovered  the nurse found a lump" in done.output
    assert (tmp_path / "report.html").is_file()
