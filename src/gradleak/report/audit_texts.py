"""An audit's texts: what was written, and what came back of it, with the differences marked."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from unicodedata import category

from torch import Tensor

from gradleak.cases import Record
from gradleak.cases.done import Best
from gradleak.text import Vocabulary

MISSING = " …"
"""In the place of words that did not come back."""


@dataclass(frozen=True)
class Span:
    """A run of words: ``wrong`` ones are another text's, and the others stand in the true one."""

    words: str
    wrong: bool = False


@dataclass(frozen=True)
class Passage:
    """A text in its place on the page; ``spans`` are empty where there is none."""

    what: str
    value: str
    alt: str
    spans: tuple[Span, ...]
    blank: str = "cannot be shown"


@dataclass(frozen=True)
class Passages:
    """``guesses`` by record and way of training."""

    record: Record
    guesses: dict[tuple[int, int], Best]
    side: int | None = None

    @classmethod
    def of(cls, record: Record, shown: list[int], best: list[dict[int, Best]]) -> "Passages":
        return cls(
            record, {(i, way): found[i] for way, found in enumerate(best) for i in shown if i in found}
        )

    def truth(self, i: int, words: str) -> Passage:
        ids = self._ids(self.record.contents.truth(i))
        return Passage("True", "", words, self._plain(ids))

    def null(self, i: int, value: str, words: str) -> Passage:
        return Passage("Null guess", value, words, self._compared(i, self.record.contents.null(i)))

    def guess(self, i: int, way: int, value: str, words: str) -> Passage:
        best = self.guesses.get((i, way))
        if best is None:
            return Passage("Recovered", value, words, (), "no guess")
        found = self.record.contents.guess(best.done.key, best.row.place)
        return Passage("Recovered", value, words, self._compared(i, found))

    def _compared(self, i: int, guess: Tensor | None) -> tuple[Span, ...]:
        true, mine = self._ids(self.record.contents.truth(i)), self._ids(guess)
        if not true or not mine:
            return ()
        return tuple(_marked(mine, true, self._vocabulary))

    def _plain(self, ids: list[int]) -> tuple[Span, ...]:
        return (Span(_printed(self._vocabulary.written(ids)).strip()),) if ids else ()

    def _ids(self, text: Tensor | None) -> list[int]:
        """Without special words, and without places that nothing was guessed for. A word that hides another
        one is shown.
        """
        words = [] if text is None else text.tolist()
        return [word for word in words if word >= 0 and word not in self._left_out]

    @cached_property
    def _left_out(self) -> frozenset[int]:
        known = self._vocabulary
        return frozenset(word for word in known.special if "mask" not in known.written([word]).lower())

    @property
    def _vocabulary(self) -> Vocabulary:
        return self.record.contents.vocabulary or Vocabulary(())


def _printed(words: str) -> str:
    """Without what is no letter, and what turns the direction of all that comes after it."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_no_letter(letter) else letter for letter in words)


def _is_no_letter(letter: str) -> bool:
    return letter in _TURNS or (category(letter) == "Cc" and letter not in "\n\t")


_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _marked(guess: list[int], truth: list[int], vocabulary: Vocabulary) -> Iterable[Span]:
    for what, _, _, first, end in SequenceMatcher(None, truth, guess, autojunk=False).get_opcodes():
        words = _printed(vocabulary.written(guess[first:end]))
        if what == "delete":
            yield Span(MISSING, wrong=True)
        else:
            yield Span(words, wrong=what != "equal")
