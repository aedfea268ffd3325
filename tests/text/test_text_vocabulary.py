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


def test_a_number_without_a_word_is_shown_as_it_is():
    assert text.Vocabulary((" a", " b")).text([0, 7, 1]) == "a 7 b"


def test_what_is_no_tokenizer_is_refused():
    with pytest.raises(InvalidInput, match="expected a tokenizer"):
        text.vocabulary({"a": 1})
