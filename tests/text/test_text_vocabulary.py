"""Numbers of words as texts that one can read."""

import pytest

from gradleak import text, zoo
from gradleak.errors import InvalidInput

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")


def test_whole_words_and_special_ones():
    tokenizer = zoo.tokenizer()
    known = text.vocabulary(tokenizer)
    ids = tokenizer("the soup needs salt", padding="max_length", max_length=9)["input_ids"]
    assert known.text(ids) == "the soup needs salt"
    assert tokenizer.unk_token_id not in known.special  # somebody wrote that word
    assert tokenizer.pad_token_id in known.special
    assert len(known) == len(tokenizer)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["play", "##ing", "cards", "[SEP]"], "playing cards"),
        (["▁play", "ing", "▁cards", "[SEP]"], "playing cards"),
        (["Ġplay", "ing", "Ġcards", "[SEP]"], "playing cards"),
    ],
)
def test_pieces_are_put_together_as_each_kind_of_tokenizer_writes_them(pieces, expected):
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="[SEP]")
    )
    made.add_special_tokens(["[SEP]"])
    known = text.vocabulary(made)
    assert known.text(range(4)) == expected
    assert known.special == (3,)


LETTERS = tokenizers.pre_tokenizers.ByteLevel.alphabet()


def of_bytes(texts):
    """As GPT-2's tokenizer: letters outside English are several bytes, and <|endoftext|> is all there is."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    end = "<|endoftext|>"
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, special_tokens=[end], initial_alphabet=sorted(LETTERS), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    said = {"eos_token": end, "bos_token": end, "unk_token": end, "pad_token": end}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **said)


def test_letters_of_several_bytes_come_together_again():
    tokenizer = of_bytes(["the nurse and the soup"])
    text_ = "Café 😀 naïve 日本 the nurse"
    ids = tokenizer(text_)["input_ids"]
    known = text.vocabulary(tokenizer)
    assert known.text(ids) == text_
    assert len(ids) > len(text_)
    half = next(i for i, word in enumerate(known.words) if word >= "\udc80")
    assert known.written([half]) == "\N{REPLACEMENT CHARACTER}"


def test_a_padding_word_that_is_also_the_unknown_one_is_special():
    tokenizer = of_bytes(["the soup"])
    assert text.vocabulary(tokenizer).special == (tokenizer.eos_token_id,)


def test_bytes_among_pieces_of_sentences():
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"▁caf": 0, "<0xC3>": 1, "<0xA9>": 2, "<unk>": 3}, unk_token="<unk>")
    )
    assert text.vocabulary(made).text([0, 1, 2]) == "café"


def test_special_words_that_a_file_names_are_special_without_a_role(tmp_path):
    zoo.tokenizer().save_pretrained(tmp_path)
    bare = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert bare.all_special_ids == []
    assert text.vocabulary(bare) == text.vocabulary(zoo.tokenizer())


def test_a_number_without_a_word_is_shown_as_it_is():
    assert text.Vocabulary((" a", " b")).text([0, 7, 1]) == "a 7 b"


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(InvalidInput, match="expected a tokenizer"):
        text.vocabulary({"a": 1})
