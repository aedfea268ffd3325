"""Texts from wherever they are, as numbers with the labels of a task."""

import pytest
import torch

from gradleak import zoo
from gradleak.errors import InvalidInput
from gradleak.sources.texts import Wanted, are_texts, read_texts, tokenizer_at

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


def read(folder, name, content, n=1, task="classification", **said):
    (folder / name).write_bytes(content.encode())
    return read_texts(name, Wanted(n, task, **said), tokenizer=zoo.tokenizer(), folder=folder)


def test_only_line_ends_separate_texts(tmp_path):
    found = read(tmp_path, "a.txt", "the soup\x0cis hot\u2028a dog\r\n\r\nthe child\n", 2, "causal")
    assert zoo.tokenizer().decode(found.ids[1]).startswith("[CLS] the child [SEP]")
    quoted = read(tmp_path, "a.csv", 'text,label\r\n"the soup\r\nneeds salt",a\r\na dog,b\r\n', 2)
    assert zoo.tokenizer().decode(quoted.ids[0]) == "[CLS] the soup needs salt [SEP]"
    lines = read(tmp_path, "a.jsonl", '{"text": "the soup\u2028a dog", "label": 1}\n')
    assert zoo.tokenizer().decode(lines.ids[0]) == "[CLS] the soup a dog [SEP]"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,text,label\nthe soup,a dog,x\n", "each once"),
        ("a.csv", "text,label\nthe soup, my son,food\n", "line 2 of a.csv has more"),
        ("a.csv", 'text,label\n"the soup,a\na dog,b\n', "cannot be read"),
        ("a.csv", "text,label\n" + "the soup " * 20_000 + ",a\n", "cannot be read"),
        ("a.csv", "text,label\nthe soup,\na dog,b\n", "expected a label for each"),
        ("a.csv", "text,label\nthe soup,123456789\n", "expected labels as classes"),
        ("a.jsonl", '{"text": 5, "label": 1}\n', "line 1 of a.jsonl"),
        ("a.jsonl", '{"text": null, "label": 1}\n', "line 1 of a.jsonl"),
        ("a.jsonl", "[" * 100_000, "line 1 of a.jsonl"),
        ("a.csv", "text,label\n\x01\x02,a\n", "text 1 of a.csv has fewer"),
    ],
)
def test_files_that_would_be_read_wrongly_are_refused(tmp_path, name, content, words):
    with pytest.raises(InvalidInput, match=words):
        read(tmp_path, name, content)


def test_a_private_text_is_not_repeated_in_what_is_refused(tmp_path):
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, "a.jsonl", '{"secret": "the child is not mine"}\n')
    assert "child" not in str(refused.value)


def test_a_text_of_one_word_cannot_be_masked(tmp_path):
    with pytest.raises(InvalidInput, match="two words"):
        read(tmp_path, "a.txt", "soup\n", task="masked")
    unknown = read(tmp_path, "b.txt", "zzz soup\n", task="masked")
    assert int((unknown.y >= 0).sum()) == 1


def test_classes_are_those_of_the_whole_file(tmp_path):
    table = "text,label\nthe soup,pet\na dog,food\nthe child,pet\n"
    first, last = (read(tmp_path, "a.csv", table, first=i) for i in (0, 2))
    assert first.y.tolist() == last.y.tolist() == [1]
    assert first.classes == last.classes == 2
    numbers = read(tmp_path, "b.csv", "text,label\nthe soup,0\na dog,7.0\n")
    assert (numbers.classes, numbers.y.tolist()) == (8, [0])


def test_the_models_own_names_say_which_output_a_label_is(tmp_path):
    table, outputs = "text,label\nthe soup,food\na dog,pet\n", {"pet": 0, "food": 1}
    assert read(tmp_path, "a.csv", table, 2, outputs=outputs).y.tolist() == [1, 0]
    with pytest.raises(InvalidInput, match="as the model calls its outputs"):
        read(tmp_path, "a.csv", table, 2, outputs={"pet": 0, "work": 1})
    assert read(tmp_path, "b.csv", "text,label\nthe soup,1\n", outputs=outputs).y.tolist() == [1]


def test_a_tokenizers_file_is_as_good_as_its_folder(tmp_path):
    zoo.tokenizer().save_pretrained(tmp_path)
    bare = tokenizer_at(tmp_path / "tokenizer.json")
    found = read_texts("sentences", Wanted(3, "masked"), tokenizer=bare)
    whole = read_texts("sentences", Wanted(3, "masked"), tokenizer=zoo.tokenizer())
    assert torch.equal(found.ids, whole.ids)
    assert found.pad == whole.pad == 0


def test_padding_stands_behind_texts():
    tokenizer = zoo.tokenizer()
    tokenizer.padding_side = "left"
    found = read_texts("sentences", Wanted(4, "causal"), tokenizer=tokenizer)
    assert not bool((found.ids[:, 0] == found.pad).any())


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


def test_a_tokenizer_that_knows_hardly_a_word_is_another_models(tmp_path):
    (tmp_path / "own.txt").write_text("zyxw vuts rqpo\nnmlk jihg\n")
    with pytest.raises(InvalidInput, match="does not know 100%"):
        read_texts("own.txt", Wanted(2, "causal"), tokenizer=zoo.tokenizer(), folder=tmp_path)
