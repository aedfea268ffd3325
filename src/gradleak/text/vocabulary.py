"""What the numbers of words stand for, so that texts can be read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gradleak.errors import InvalidInput


@dataclass(frozen=True)
class Vocabulary:
    """``words`` by their numbers, each with the space before it where there is one. ``special`` are those
    that nobody writes: padding, and what begins and ends each text.
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
        return "".join(self.words[i] if 0 <= i < len(self.words) else f" {i}" for i in ids)


def vocabulary(tokenizer: Any) -> Vocabulary:
    """That of a tokenizer of transformers, or of tokenizers."""
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special = tokenizer.all_special_ids
        unknown = tokenizer.unk_token_id
    elif hasattr(tokenizer, "id_to_token"):
        pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        added = tokenizer.get_added_tokens_decoder()
        special = [i for i, token in added.items() if token.special]
        unknown = next((i for i in special if pieces[i] in ("[UNK]", "<unk>")), None)
    else:
        raise InvalidInput(
            "expected a tokenizer of transformers, such as AutoTokenizer.from_pretrained(folder), or of "
            f"tokenizers; came {type(tokenizer).__name__}"
        )
    # What the tokenizer does not know stands for a word that somebody wrote.
    kept = tuple(sorted({i for i in special if i != unknown}))
    return Vocabulary(tuple(_shown(pieces)), kept)


def _shown(pieces: Sequence[str | None]) -> list[str]:
    """Pieces as the three common kinds of tokenizers write them: "##ing", "▁the" and "Ġthe"."""
    known = ["" if piece is None else piece for piece in pieces]
    for mark in ("▁", "Ġ"):
        if sum(piece.startswith(mark) for piece in known) > len(known) / 10:
            return [piece.replace(mark, " ").replace("Ċ", "\n") for piece in known]
    return [piece[2:] if piece.startswith("##") and len(piece) > 2 else f" {piece}" for piece in known]
