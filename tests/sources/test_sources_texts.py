"""Texts from wherever they are, as numbers with the labels of a task."""

import pytest
import torch

from gradleak import zoo
from gradleak.errors import InvalidInput
from gradleak.sources.texts import Wanted, are_texts, read_texts

pytest.importorskip("transformers")

FILES = {
    "a.csv": 'text,label\n"the soup, my son",food\n\na dog,pet\nthe child,pet\n',
    "a.tsv": "label\ttext\nfood\tthe soup, my son\npet\ta dog\npet\tthe child\n",
    "a.jsonl": '{"text": "the soup, my son", "label": "food"}\n\n{"text": "a dog", "label": "pet"}\n'
    '{"text": "the child", "label": "pet"}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_tables_of_texts_and_labels_are_read_alike(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    found = read_texts(name, Wanted(3, "classification"), tokenizer=zoo.tokenizer(), folder=tmp_path)
    tokenizer = zoo.tokenizer()
    assert tokenizer.decode(found.ids[0]) == "[CLS] the soup , my son [SEP]"
    assert found.y.tolist() == [0, 1, 1]
    assert found.class_names == {0: "food", 1: "pet"}
    assert (found.classes, found.pad) == (2, 0)
    assert found.ids[1, 4:].tolist() == [0] * (found.ids.shape[1] - 4)


def test_labels_that_are_numbers_stay_these(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na dog,10\nthe child,2\n")
    found = read_texts("a.csv", Wanted(2, "classification"), tokenizer=zoo.tokenizer(), folder=tmp_path)
    assert found.y.tolist() == [10, 2]


def test_a_text_on_each_line_is_enough_for_language_models(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffthe soup\n\n  a dog  \nthe child\n")
    wanted = Wanted(2, "causal", first=1)
    found = read_texts("a.txt", wanted, tokenizer=zoo.tokenizer(), folder=tmp_path)
    assert zoo.tokenizer().decode(found.ids[0]) == "[CLS] a dog [SEP]"
    assert torch.equal(found.y, found.ids)
    assert found.names == ("text 2", "text 3")


def test_masks_hide_some_words_and_no_special_one_and_follow_from_the_seed():
    tokenizer = zoo.tokenizer()
    read = [read_texts("sentences", Wanted(8, "masked", seed=s), tokenizer=tokenizer) for s in (0, 0, 1)]
    first, again, other = read
    masked = first.ids == tokenizer.mask_token_id
    assert bool((masked == (first.y >= 0)).all())
    assert bool((masked.sum(1) >= 1).all())
    assert int(masked.sum(1).max()) <= 3
    assert not bool(torch.isin(first.y[masked], torch.tensor(tokenizer.all_special_ids)).any())
    assert torch.equal(first.ids, again.ids)
    assert not torch.equal(first.ids, other.ids)


def test_long_texts_are_cut_and_public_ones_are_nobodys():
    found = read_texts("sentences", Wanted(4, "causal", longest=6), tokenizer=zoo.tokenizer())
    assert found.ids.shape[1] == 6
    assert not set(zoo.public_sentences()) & set(zoo.sentences()[0])
    assert len(found.public) == len(zoo.public_sentences())


def test_what_are_texts():
    assert are_texts("sentences")
    assert are_texts("data/mail.TXT")
    assert not are_texts("faces")


def test_code_hands_over_texts(tmp_path, monkeypatch):
    (tmp_path / "own_texts.py").write_text(
        "def pairs(): return [('the soup', 1), ('a dog', 0)]\ndef wrong(): return [3]\n"
        "def raises(): raise OSError('gone')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = read_texts("own_texts:pairs", Wanted(2, "classification"), tokenizer=zoo.tokenizer())
    assert found.y.tolist() == [1, 0]
    with pytest.raises(InvalidInput, match="came int"):
        read_texts("own_texts:wrong", Wanted(1, "causal"), tokenizer=zoo.tokenizer())
    with pytest.raises(InvalidInput, match="gone"):
        read_texts("own_texts:raises", Wanted(1, "causal"), tokenizer=zoo.tokenizer())
