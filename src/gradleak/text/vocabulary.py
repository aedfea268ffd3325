"""What the numbers of words stand for, so that texts can be read."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gradleak.errors import InvalidInput


@dataclass(frozen=True)
class Vocabulary:
    """``words`` by their numbers, each with the space before it where there is one. ``special`` are those
    that nobody writes: padding, and what begins and ends each text. Bytes that are no letter alone stand
    among the words as Python's surrogates.
    """

    words: tuple[str, ...]
    special: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.words)

    def text(self, ids: Iterable[int]) -> str:
        """As one would read it, without special words."""
        return self.written(int(word) for word in ids if int(word) not in self.special).strip()

    def written(self, ids: Iterable[int]) -> str:
        """Numbers as words, with the space before the first; a number without a word is shown as it is."""
        words = "".join(self.words[i] if 0 <= i < len(self.words) else f" {i}" for i in ids)
        return words.encode("utf-8", _SPLIT).decode("utf-8", "replace")


_SPLIT = "surrogateescape"  # how parts of a letter are kept


def vocabulary(tokenizer: Any) -> Vocabulary:
    """That of a tokenizer of transformers, or of tokenizers."""
    special = special_words(tokenizer)
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    else:
        pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return Vocabulary(tuple(_shown(pieces)), special)


def special_words(tokenizer: Any) -> tuple[int, ...]:
    """Those that nobody writes."""
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        added = tokenizer.added_tokens_decoder
        named = {getattr(tokenizer, f"{role}_token_id") for role in _ROLES}
        found, unknown = {*tokenizer.all_special_ids}, tokenizer.unk_token_id
    elif hasattr(tokenizer, "id_to_token"):
        added = tokenizer.get_added_tokens_decoder()
        found, named, unknown = set(), set(), None
    else:
        raise InvalidInput(
            "expected a tokenizer of transformers, such as AutoTokenizer.from_pretrained(folder), or of "
            f"tokenizers; came {type(tokenizer).__name__}"
        )
    found |= {i for i, token in added.items() if token.special}
    unknowns = {unknown, *(i for i, token in added.items() if token.content in _UNKNOWN)}
    # What the tokenizer does not know stands for a word that somebody wrote; GPT-2 ends texts with it too.
    return tuple(sorted((found - unknowns) | (named - {None})))


_ROLES = ("pad", "bos", "eos", "cls", "sep", "mask")
_UNKNOWN = ("[UNK]", "<unk>")


def _shown(pieces: Sequence[str | None]) -> list[str]:
    """Pieces as the three common kinds of tokenizers write them: "##ing", "▁the" and "Ġthe"."""
    known = ["" if piece is None else piece for piece in pieces]
    if set(_BYTES) <= set(known) or _share("Ġ", known) > _MANY:
        return [_of_bytes(piece) for piece in known]
    if _share("▁", known) > _MANY:
        return [_byte(piece) or piece.replace("▁", " ") for piece in known]
    return [piece[2:] if piece.startswith("##") and len(piece) > 2 else f" {piece}" for piece in known]


_MANY = 0.02  # of all pieces
_PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))
_HIDDEN = tuple(byte for byte in range(256) if byte not in _PRINTED)
_BYTES = {chr(byte): byte for byte in _PRINTED} | {chr(256 + i): byte for i, byte in enumerate(_HIDDEN)}
"""GPT-2 writes each byte as a letter that can be printed: its own, or one from 256 on."""


def _share(mark: str, pieces: Sequence[str]) -> float:
    return sum(piece.startswith(mark) for piece in pieces) / max(len(pieces), 1)


def _of_bytes(piece: str) -> str:
    """Special words were not written as bytes."""
    if not set(piece) <= set(_BYTES):
        return piece
    return bytes(_BYTES[letter] for letter in piece).decode("utf-8", _SPLIT)


def _byte(piece: str) -> str:
    """Of "<0xE9>", which stands for a byte where a letter is unknown."""
    found = re.fullmatch("<0x([0-9A-F]{2})>", piece)
    return "" if found is None else bytes([int(found[1], 16)]).decode("utf-8", _SPLIT)
