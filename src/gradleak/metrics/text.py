"""How close guessed texts come to the true ones, beside what a guess without the gradient scores."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import zip_longest

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gradleak.errors import InvalidBatch, InvalidInput
from gradleak.randomness import Rng, generator

Words = Sequence[int]
"""One text, as the numbers of its words."""

Texts = Sequence[Tensor] | Sequence[Words] | Tensor


def token_accuracy(guess: Words, truth: Words, without: Collection[int] = ()) -> float:
    """The share of positions with the right word, of the longer of the two.

    Positions where the truth has a word of ``without`` are not asked for, and still hold their place.
    """
    asked: list[tuple[int | None, int | None]] = [
        (a, b) for a, b in zip_longest(guess, truth) if (a if b is None else b) not in without
    ]
    return sum(a == b for a, b in asked) / max(len(asked), 1)


def bag_accuracy(guess: Words, truth: Words) -> float:
    """The words they share, with repeats and in any order, over the longer of the two."""
    return (Counter(guess) & Counter(truth)).total() / max(len(guess), len(truth), 1)


def rouge_n(guess: Words, truth: Words, n: int) -> float:
    """ROUGE-n's F: twice the runs of n words that both have, with repeats, over how many both have in all.

    Two texts too short for such a run score 1 where they are equal, else 0.
    """
    mine, true = (Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (guess, truth))
    if not mine and not true:
        return float(list(guess) == list(truth))
    return 2 * (mine & true).total() / (mine.total() + true.total())


def rouge_l(guess: Words, truth: Words) -> float:
    """ROUGE-L's F: twice the longest run of words, gaps allowed, that both have, over both lengths."""
    if not guess and not truth:
        return 1.0
    places, whole = _places(truth)
    open_ = whole  # a bit for each word of the truth that the longest run so far does not end a step on
    for word in guess:
        met = open_ & places.get(word, 0)
        open_ = ((open_ + met) | (open_ - met)) & whole
    return 2 * (len(truth) - open_.bit_count()) / (len(guess) + len(truth))


def edit_distance(guess: Words, truth: Words) -> int:
    """How many words must be put in, left out or exchanged to get from one to the other (Levenshtein)."""
    if not truth:
        return len(guess)
    places, whole = _places(truth)
    # Myers (1999): a column of the table as its steps down, of +1 in one number's bits and -1 in another's.
    up, down, edits = whole, 0, len(truth)
    for word in guess:
        met = places.get(word, 0)
        across = (((met & up) + up) ^ up) | met
        more, less = down | (~(across | up) & whole), up & across
        edits += (more >> (len(truth) - 1)) - (less >> (len(truth) - 1))
        more, less = ((more << 1) | 1) & whole, (less << 1) & whole
        up, down = less | (~(met | down | more) & whole), more & (met | down)
    return edits


def _places(text: Words) -> tuple[dict[int, int], int]:
    """Where each word stands, as bits of a number, and all of them: a table's row is one operation then."""
    places: dict[int, int] = {}
    for i, word in enumerate(text):
        places[word] = places.get(word, 0) | 1 << i
    return places, (1 << len(text)) - 1


@dataclass(frozen=True, eq=False)
class TextMarks:
    """Tensors are [B], in the order of the truth: shares from 0 to 1, and ``edits``, which count words."""

    tokens: Tensor
    bag: Tensor
    exact: Tensor
    rouge_1: Tensor
    rouge_2: Tensor
    rouge_l: Tensor
    edits: Tensor

    def to_dict(self) -> dict[str, object]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, eq=False)
class TextScores(TextMarks):
    """``pairing``: guess[pairing[i]] was compared with truth[i]; -1 where there was none left.

    ``random`` are the marks of random words, and ``frequent`` those of the most frequent words of public
    texts, None where there are none. Both are as long as the truth and paired as the guess was.
    """

    pairing: Tensor
    random: TextMarks
    frequent: TextMarks | None

    @property
    def leak(self) -> Tensor:
        """By how much each ROUGE-L lies above the better null; at or below 0 nothing was learnt."""
        null = self.random.rouge_l
        return self.rouge_l - (null if self.frequent is None else torch.maximum(null, self.frequent.rouge_l))


def pair_texts(guess: Sequence[Words], truth: Sequence[Words]) -> list[int]:
    """For each true text, which guess is its own, at the best sum of ROUGE-L; fewer edits break ties.

    -1 where there are fewer guesses than texts, but for a text that is there twice: whoever has guessed one
    has guessed the other. More guesses than texts are left over.
    """
    if not guess:
        return [-1] * len(truth)
    prices = [
        [1 - rouge_l(mine, true) + _EDIT * edit_distance(mine, true) for mine in guess] for true in truth
    ]
    rows, columns = linear_sum_assignment(prices)
    chosen = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    same = {tuple(truth[i]): column for i, column in sorted(chosen.items(), reverse=True)}
    return [chosen.get(i, same.get(tuple(true), -1)) for i, true in enumerate(truth)]


_EDIT = 1e-6  # too little to outweigh a difference of ROUGE-L


def score_text(
    guess: Texts,
    truth: Texts,
    *,
    vocabulary: int,
    public: Texts = (),
    without: Collection[int] = (),
    rng: Rng = 0,
) -> TextScores:
    """Pairs guessed texts with the true ones, and compares.

    Words in ``without`` are left out of all texts: padding, and what begins and ends each of them, which
    nobody has to guess. ``public`` are texts that are none of the true ones. ``rng`` draws the random null.
    """
    left_out = frozenset(without)
    true, mine = _texts("true", truth), _texts("guessed", guess)
    words = [word for word in range(vocabulary) if word not in left_out]
    _check(true, vocabulary, left_out)
    ranked = _by_frequency(public, left_out)
    pairing = pair_texts(_stripped(mine, left_out), _stripped(true, left_out))
    return TextScores(
        **_marks(mine, true, pairing, left_out).__dict__,
        pairing=torch.tensor(pairing),
        random=_null(true, left_out, _random(words, rng)),
        frequent=_null(true, left_out, partial(_ranked, ranked)) if ranked else None,
    )


def null_texts(
    truth: Texts, *, vocabulary: int, public: Texts = (), without: Collection[int] = (), rng: Rng = 0
) -> list[list[int]]:
    """A guess that never saw the update: the most frequent words of public texts, or else random ones."""
    left_out = frozenset(without)
    words = [word for word in range(vocabulary) if word not in left_out]
    ranked = _by_frequency(public, left_out)
    return _filled(
        _texts("true", truth), left_out, partial(_ranked, ranked) if ranked else _random(words, rng)
    )


def _by_frequency(public: Texts, left_out: frozenset[int]) -> list[int]:
    counted = Counter(word for text in _texts("public", public) for word in text).most_common()
    return [word for word, _ in counted if word not in left_out]


def _check(truth: Sequence[Words], vocabulary: int, left_out: frozenset[int]) -> None:
    lengths = [len(text) for text in _stripped(truth, left_out)]
    if not lengths or not min(lengths):
        raise InvalidBatch(f"expected a text, and a word in every true one; came lengths {lengths}")
    strange = sorted(
        {word for text in truth for word in text if word not in left_out} - set(range(vocabulary))
    )
    if strange:
        raise InvalidInput(
            f"expected words from 0 to {vocabulary - 1:,} in the true texts; came {strange[:5]}. "
            "Pass the size of the tokenizer's vocabulary, and padding as without=..."
        )


def _marks(
    guess: Sequence[Words], truth: Sequence[Words], pairing: Sequence[int], left_out: frozenset[int]
) -> TextMarks:
    whole = [(guess[g] if g >= 0 else [], true) for g, true in zip(pairing, truth, strict=True)]
    pairs = [tuple(_stripped(pair, left_out)) for pair in whole]

    def each(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return TextMarks(
        tokens=each([token_accuracy(mine, true, left_out) for mine, true in whole]),
        bag=each([bag_accuracy(mine, true) for mine, true in pairs]),
        exact=each([float(mine == true) for mine, true in pairs]),
        rouge_1=each([rouge_n(mine, true, 1) for mine, true in pairs]),
        rouge_2=each([rouge_n(mine, true, 2) for mine, true in pairs]),
        rouge_l=each([rouge_l(mine, true) for mine, true in pairs]),
        edits=each([edit_distance(mine, true) for mine, true in pairs]),
    )


def _null(
    truth: Sequence[Words], left_out: frozenset[int], draw: Callable[[int], Sequence[int]]
) -> TextMarks:
    """Of a guess at them, paired as the attack's was."""
    guess = _filled(truth, left_out, draw)
    pairing = pair_texts(_stripped(guess, left_out), _stripped(truth, left_out))
    return _marks(guess, truth, pairing, left_out)


def _filled(
    truth: Sequence[Words], left_out: frozenset[int], draw: Callable[[int], Sequence[int]]
) -> list[list[int]]:
    """The same texts, in which every word that is asked for is another one."""
    guess = []
    for text in truth:
        drawn = iter(draw(len(text)))
        guess.append([word if word in left_out else next(drawn) for word in text])
    return guess


def _random(words: Sequence[int], rng: Rng) -> Callable[[int], list[int]]:
    own = generator(rng)
    return lambda n: [words[i] for i in torch.randint(len(words), (n,), generator=own).tolist()]


def _ranked(words: Sequence[int], n: int) -> list[int]:
    """The most frequent first, and over again where there are too few."""
    return [words[i % len(words)] for i in range(n)]


def _stripped(texts: Sequence[Words], left_out: frozenset[int]) -> list[list[int]]:
    return [[word for word in text if word not in left_out] for text in texts]


def _texts(role: str, texts: Texts) -> list[list[int]]:
    rows: list[list[int]] = []
    for text in texts:
        row = text.tolist() if isinstance(text, Tensor) else list(text)
        if not isinstance(row, list) or not all(isinstance(word, int) for word in row):
            raise InvalidBatch(
                f"expected each of the {role} texts as a row of whole numbers, its words; came "
                f"{type(text).__name__} of something else. A batch is [B, T], or a list of rows."
            )
        rows.append(row)
    return rows


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return value.tolist()
    return value.to_dict() if isinstance(value, TextMarks) else value
