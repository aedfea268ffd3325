"""text-attacks: four attacks beside what guesses score, on a small part of the table."""

import importlib
import json

import pytest
import torch

from gradleak import text, zoo
from gradleak.errors import InvalidInput
from gradleak.reproduce import TABLES

pytest.importorskip("transformers")

room = importlib.import_module("gradleak.reproduce.text_attacks")


def silent(what: str, share: float) -> None:
    assert what
    assert 0 <= share <= 1


@pytest.fixture
def short(monkeypatch):
    """One text of four words, two texts of three, and more than matching is run on."""
    settings = [room.Setting(1, 4), room.Setting(2, 3), room.Setting(5, 3)]
    monkeypatch.setattr(room, "SETTINGS", settings)
    monkeypatch.setattr(room, "_AMONG", 3)
    monkeypatch.setattr(room, "_POLISH", 5)
    monkeypatch.setattr(room, "_GRADIENTS", 45)
    monkeypatch.setattr(room, "_WIDTH", 64)


def test_each_attack_stands_beside_what_guesses_score(short):
    told = []
    table = TABLES["text-attacks"].make(1, (), lambda what, share: told.append(share))
    rows = {(row["attack"], row["texts per batch"]): row for row in table.to_dict()["rows"]}
    assert len(rows) == 3 * len(room.ATTACKS)
    for read in ("DLG", "DAGER", room.DECODER):
        row = rows[read, 1]
        assert (row["texts"], row["exact"], row["proven"], row["ROUGE-2"], row["in place"]) == (1, 1, 1, 1, 1)
        assert row["null of 2"] < 0.5
    assert all(rows[attack, 2]["gradients"] <= 45 for attack in ("DLG", "TAG", "LAMP"))
    assert rows[room.DECODER, 5]["exact"] == 5
    assert {rows[attack, 5]["ROUGE-1"] for attack in ("DLG", "TAG", "LAMP")} == {None}
    assert [row["paper"] for row in rows.values()][:5] == [None, None, None, "> 0.99", "> 0.99"]
    guesses = table.more[0].to_dict()["rows"]
    assert [row["guess"] for row in guesses] == list(room.GUESSES) * 3
    best = max(row["ROUGE-1"] for row in guesses[:2])
    assert rows["DAGER", 1]["null"] == best
    assert told == sorted(told)
    assert max(told) < 1
    json.dumps(table.to_dict())
    assert table.files["text-attacks.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("make", [text.dlg_text, text.tag, text.lamp])
def test_all_spend_the_same(make):
    assert make(**room._budget(make, 300)).budget == 300


def test_texts_are_cut_to_one_length_and_keep_their_ends():
    subject = room._subject()
    ids, y = subject.batch(range(3), 8)
    assert ids.shape == (3, 10)
    assert {row[0] for row in ids.tolist()} | {row[-1] for row in ids.tolist()} | {0} == subject.known
    assert y.tolist() == zoo.sentences(3)[1].tolist()
    longest, _ = subject.batch(range(1), 10**6)
    assert longest[0].tolist() == list(subject.texts[0])


def test_there_are_as_many_batches_as_sentences_for_them():
    subject = room._subject()
    assert room.Setting(16, 8).batches(subject, 3) == [range(16)]
    assert room.Setting(4, 8).batches(subject, 2) == [range(4), range(4, 8)]


def test_a_trained_model_is_taken_from_the_folder_that_is_named(monkeypatch, tmp_path, short):
    numbers = zoo.tokenizer()
    numbers.save_pretrained(tmp_path)
    trained = zoo.bert(vocabulary=len(numbers), layers=3, width=48, seed=5)
    trained.save_pretrained(tmp_path)
    monkeypatch.setenv(room.FOLDER, str(tmp_path))
    monkeypatch.setattr(room, "SETTINGS", [room.Setting(1, 4), room.Setting(2, 3)])
    subject = room._subject()
    table = text.wrap(trained).embeddings()
    assert torch.equal(subject.make(0).embeddings(), table)
    assert subject.gradients == 15
    rows = {(row[0], row[1]): row for row in TABLES["text-attacks"].make(1, (), silent).rows}
    assert rows["DAGER", 1][10] == 1  # exact
    assert rows["DLG", 2][3] == rows[room.DECODER, 1][3] == 0  # texts


def test_what_cannot_be_run_is_refused(monkeypatch, tmp_path):
    with pytest.raises(InvalidInput, match="Leave --data out"):
        TABLES["text-attacks"].make(1, ("faces",), silent)
    monkeypatch.setenv(room.FOLDER, str(tmp_path))
    with pytest.raises(InvalidInput, match=r"tokenizer\.json"):
        TABLES["text-attacks"].make(1, (), silent)
