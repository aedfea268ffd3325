"""dlg-text: sentences as the attack goes on, with the truth left to whoever made them."""

import importlib

import pytest

from gradleak.errors import InvalidInput
from gradleak.reproduce import TABLES

pytest.importorskip("transformers")


def test_sentences_come_out_as_the_attack_goes_on(monkeypatch):
    room = importlib.import_module("gradleak.reproduce.dlg_text")
    monkeypatch.setattr(room, "_AT", (0, 20, 60))
    monkeypatch.setattr(room, "_SENTENCES", ("the nurse asked for the key",))
    told = []
    table = TABLES["dlg-text"].make(1, (), lambda what, share: told.append(share))
    rows = table.to_dict()["rows"]
    assert [row["gradients"] for row in rows[:6]] == [0, 20, 60] * 2
    by_tensor, squared = ([row["ROUGE-L"] for row in some] for some in (rows[:3], rows[3:6]))
    assert by_tensor[0] < 0.3
    assert by_tensor[2] > max(squared) + 0.2
    assert rows[-1]["exact"] == rows[-1]["proven"] == 1
    assert rows[-1]["words right"] == 1
    assert len(table.more[0].rows) == 3
    assert "[MASK]" in table.more[0].rows[-1][1]
    assert told == sorted(told)
    assert max(told) < 1


def test_it_has_sentences_of_its_own():
    with pytest.raises(InvalidInput, match="Leave --data out"):
        TABLES["dlg-text"].make(1, ("faces",), lambda what, share: None)
