"""DLG, TAG, LAMP and DAGER on the same sentences, over how many there are and over how long they are."""

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradleak import metrics, text, zoo
from gradleak.errors import InvalidInput
from gradleak.observe import Observation, observe
from gradleak.reproduce.table import Column, Table, Told, Value
from gradleak.reproduce.text_curves import Mean, curves

FOLDER = "GRADLEAK_TEXT_MODEL"
"""The variable of the environment that names the folder of a trained BERT, in the place of random weights."""

_BATCHES = (1, 2, 4, 8, 16)
_WORDS = (4, 8, 12)
_AMONG = 8  # words in each text of a batch
_WIDTH = 192  # more than words in the largest batch, beyond which DAGER reads nothing
DECODER = "DAGER, decoder"
_GRADIENTS = 300
_POLISH = 100

_COLUMNS = (
    Column("attack"),
    Column("texts per batch"),
    Column("words"),
    Column("texts"),
    Column("ROUGE-1", ".2f"),
    Column("null", ".2f"),
    Column("ROUGE-2", ".2f"),
    Column("null of 2", ".2f"),
    Column("in place", ".0%"),
    Column("null in place", ".0%"),
    Column("exact"),
    Column("proven"),
    Column("gradients", ".0f"),
    Column("seconds", ".1f"),
    Column("paper"),
)
_NULLS = (
    Column("texts per batch"),
    Column("words"),
    Column("guess"),
    Column("ROUGE-1", ".2f"),
    Column("ROUGE-2", ".2f"),
    Column("in place", ".0%"),
)


@dataclass(frozen=True)
class Subject:
    """A model, and sentences as it takes them: each begins and ends with a word that every server knows.

    ``matched`` and ``most`` are the largest batches that attacks by matching and DAGER are run on.
    ``decoder`` takes the same words; None where there is none.
    """

    said: str
    make: Callable[[int], text.TextModel]
    texts: tuple[tuple[int, ...], ...]
    y: Tensor
    public: tuple[tuple[int, ...], ...]
    vocabulary: int
    matched: int
    most: int
    gradients: int
    decoder: Callable[[int], text.TextModel] | None = None

    @property
    def known(self) -> frozenset[int]:
        return frozenset((0, self.texts[0][0], self.texts[0][-1]))

    @cached_property
    def fluency(self) -> text.Bigrams:
        return text.bigrams(map(torch.tensor, self.public), self.vocabulary)

    def batch(self, which: range, words: int) -> tuple[Tensor, Tensor]:
        """Texts cut to as many words as are asked for, and as the shortest of them has."""
        chosen = [self.texts[i] for i in which]
        words = min(words, *(len(one) - 2 for one in chosen))
        ids = torch.tensor([(*one[: words + 1], one[-1]) for one in chosen])
        return ids, self.y[list(which)]


@dataclass(frozen=True)
class Setting:
    """One column of the two sweeps: how many texts, and how long."""

    texts: int
    words: int

    def batches(self, subject: Subject, n: int) -> list[range]:
        """As many different batches as there are sentences for, ``n`` at most."""
        count = min(n, len(subject.texts) // self.texts)
        return [range(i * self.texts, (i + 1) * self.texts) for i in range(count)]


SETTINGS = (
    *(Setting(1, words) for words in _WORDS),
    *(Setting(size, _AMONG) for size in _BATCHES if size > 1),
)


def text_attacks(n: int, data: Sequence[str], tell: Told) -> Table:
    """Four attacks on ``n`` batches of each size, and on ``n`` sentences of each length."""
    if data:
        raise InvalidInput(
            f"text-attacks runs on sentences of its own; came {', '.join(data)}. Leave --data out."
        )
    subject = _subject()
    rows: list[tuple[Value, ...]] = []
    nulls: list[tuple[Value, ...]] = []
    means: list[Mean] = []
    for k, setting in enumerate(SETTINGS):
        for j, attack in enumerate(ATTACKS):
            at = f"{attack}, {setting.words} words, batches of {setting.texts}"
            tell(at, (k + j / len(ATTACKS)) / len(SETTINGS))
            scores = [_score(attack, subject, which, setting) for which in _runs(attack, subject, setting, n)]
            rows.append((attack, setting.texts, setting.words, *_row(scores), PAPERS.get(attack)))
            if scores:
                means.append(Mean(attack, setting.texts, setting.words, *_rouge_1(scores)))
        nulls += _nulls(setting, scores)
    return Table(
        "Texts from one gradient, by four attacks",
        _COLUMNS,
        tuple(rows),
        _notes(subject),
        more=(Table("What guesses score that never saw the update", _NULLS, tuple(nulls)),),
        files={"text-attacks.png": curves(means, _AMONG)},
    )


def _dager(subject: Subject, ids: Tensor) -> Any:
    return text.dager(tries=3)


def _by_matching(make: Callable[..., text.TextMatching], subject: Subject, ids: Tensor) -> Any:
    """With the first and the last word of each text told, as DAGER finds them out."""
    given = torch.full_like(ids, -1)
    given[:, [0, -1]] = ids[:, [0, -1]]
    more: dict[str, Any] = {"fluency": subject.fluency} if make is text.lamp else {}
    return make(given=given, polish=_POLISH, **_budget(make, subject.gradients), **more)


def _budget(make: Callable[..., text.TextMatching], gradients: int) -> dict[str, int]:
    """The same for all; LAMP spends 28 % of it on other orders of the words, between four runs."""
    if make is text.dlg_text:
        return {"evaluations": gradients, "rounds": 1}
    if make is text.tag:
        return {"steps": gradients - 1}
    tried = gradients // 15
    steps = gradients - 4 * (1 + tried)
    return {"steps": steps, "every": -(-steps // 4), "tried": tried}


ATTACKS: dict[str, Callable[[Subject, Tensor], Any]] = {
    "DLG": partial(_by_matching, text.dlg_text),
    "TAG": partial(_by_matching, text.tag),
    "LAMP": partial(_by_matching, text.lamp),
    "DAGER": _dager,
    DECODER: _dager,
}
PAPERS = {"DAGER": "> 0.99", DECODER: "> 0.99"}


@dataclass(frozen=True, eq=False)
class Score:
    """One batch, against the truth; ``proven`` counts sentences that the attacker knows to be right."""

    marks: metrics.TextScores
    proven: int
    gradients: int
    seconds: float


def _runs(attack: str, subject: Subject, setting: Setting, n: int) -> list[range]:
    most = subject.most if attack in PAPERS else subject.matched
    if attack == DECODER and subject.decoder is None:
        return []
    return setting.batches(subject, n) if setting.texts <= most else []


def _score(attack: str, subject: Subject, which: range, setting: Setting) -> Score:
    """Seeds and networks are a batch's own."""
    seed = which.start
    obs, ids = _seen(subject, which, setting, decoder=attack == DECODER)
    found = ATTACKS[attack](subject, ids)(obs, rng=seed)
    marks = metrics.score_text(
        found.sentences,
        ids,
        vocabulary=subject.vocabulary,
        public=subject.public,
        without=subject.known,
        rng=seed,
    )
    sure = found.certified
    proven = sum(sure) if isinstance(sure, tuple) else len(ids) * sure
    return Score(marks, proven, found.cost.matching_gradients, found.cost.seconds)


def _seen(subject: Subject, which: range, setting: Setting, decoder: bool) -> tuple[Observation, Tensor]:
    """What the server holds, the label told where it is a class, and the truth."""
    ids, y = subject.batch(which, setting.words)
    if not decoder or subject.decoder is None:
        model = subject.make(which.start)
        return observe(model, ids, y, loss=model.loss, reveal=("labels",)), ids
    model = subject.decoder(which.start)
    return observe(model, ids, text.words_as_labels(ids, model.pad), loss=model.loss), ids


def _row(scores: Sequence[Score]) -> tuple[Value, ...]:
    """Means over all texts, beside the better of both nulls; medians of what it took."""
    if not scores:
        return (0, *(None,) * 10)
    marks = [one.marks for one in scores]
    pairs = [
        value
        for name in ("rouge_1", "rouge_2", "tokens")
        for value in (_mean(marks, name), max(_mean(_guesses(marks, guess), name) for guess in GUESSES))
    ]
    return (
        sum(len(one.exact) for one in marks),
        *pairs,
        sum(int(one.exact.sum()) for one in marks),
        sum(one.proven for one in scores),
        statistics.median(one.gradients for one in scores),
        statistics.median(one.seconds for one in scores),
    )


GUESSES = {"random words": "random", "most frequent public words": "frequent"}


def _guesses(marks: Sequence[metrics.TextScores], guess: str) -> list[metrics.TextMarks]:
    return [getattr(one, GUESSES[guess]) for one in marks]


def _mean(marks: Sequence[metrics.TextMarks], name: str) -> float:
    return float(torch.cat([getattr(one, name) for one in marks]).mean())


def _rouge_1(scores: Sequence[Score]) -> tuple[float, float]:
    marks = [one.marks for one in scores]
    null = max(_mean(_guesses(marks, guess), "rouge_1") for guess in GUESSES)
    return _mean(marks, "rouge_1"), null


def _nulls(setting: Setting, scores: Sequence[Score]) -> list[tuple[Value, ...]]:
    """They are the same for all attacks, except that guesses are paired with the truth anew."""
    marks = [one.marks for one in scores]
    return [
        (
            setting.texts,
            setting.words,
            guess,
            *(_mean(_guesses(marks, guess), name) for name in ("rouge_1", "rouge_2", "tokens")),
        )
        for guess in GUESSES
        if marks
    ]


def _notes(subject: Subject) -> tuple[str, ...]:
    larger = f"By matching, batches of more than {subject.matched} are not run" + (
        "" if subject.most >= _BATCHES[-1] else f", and by DAGER of more than {subject.most}"
    )
    return (
        "ROUGE, in place: means over the texts, without the words that begin and end every text. null: the "
        "better of random words and of the most frequent ones of public texts; the second table has both. "
        "proven: sentences that the attacker knows to be right. gradients, seconds: medians over batches.",
        f"DLG, TAG and LAMP are gradleak's, told the label, with {subject.gradients} matching gradients at "
        f"most and {_POLISH} words exchanged after; the papers take up to 2,500. LAMP's language model is "
        f"the pairs of words in twelve public sentences. {larger}: a row without figures was not run.",
        "DAGER reads classifiers, whose texts it must guess whole, and, in rows of their own, decoders of "
        "the same size, whose labels are the words.",
        "paper: DAGER's ROUGE-1 and ROUGE-2, batches up to 128, recalled. DLG prints no such figure; those "
        "of TAG and LAMP are not printed here, since they could not be read again.",
        "data and model differ from the papers', whose texts since TAG are those of CoLA, SST-2 and Rotten "
        f"Tomatoes: {subject.said}. Sentences are cut to so many words, or whole where they are shorter. "
        "ROUGE on other sentences and models is not comparable.",
    )


def _subject() -> Subject:
    folder = os.environ.get(FOLDER)
    return _trained(Path(folder)) if folder else _random()


def _random() -> Subject:
    numbers = zoo.tokenizer()
    sentences, y = zoo.sentences()
    return Subject(
        f"our own sentences of whole words, and three layers of width {_WIDTH} with random weights, other "
        f"ones for each batch. {FOLDER}=folder takes a trained BERT instead",
        lambda seed: text.wrap(zoo.bert(layers=3, width=_WIDTH, seed=seed)),
        tuple(tuple(numbers(one)["input_ids"]) for one in sentences),
        y,
        tuple(tuple(numbers(one)["input_ids"]) for one in zoo.public_sentences()),
        512,
        matched=4,
        most=16,
        gradients=_GRADIENTS,
        decoder=lambda seed: text.wrap(zoo.gpt2(layers=3, width=_WIDTH, seed=seed), "causal"),
    )


def _trained(folder: Path) -> Subject:
    """A BERT with a tokenizer.json, as folders of transformers are; larger batches would take hours."""
    if not (folder / "tokenizer.json").is_file():
        raise InvalidInput(
            f"expected ${FOLDER} as a folder with a BERT's config.json, weights and tokenizer.json; came "
            f"{folder}"
        )
    sentences, y = zoo.sentences()
    zoo.tokenizer()  # says what to install where transformers is missing
    from tokenizers import Tokenizer
    from transformers import BertForSequenceClassification

    numbers = Tokenizer.from_file(str(folder / "tokenizer.json"))
    numbers.no_padding()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = BertForSequenceClassification.from_pretrained(folder, local_files_only=True)
    model = text.wrap(network)  # in eval mode, as it comes
    return Subject(
        f"our own sentences in word pieces, and the weights of {folder.name} with one random head",
        lambda seed: model,
        tuple(tuple(numbers.encode(one).ids) for one in sentences),
        y,
        tuple(tuple(numbers.encode(one).ids) for one in zoo.public_sentences()),
        numbers.get_vocab_size(),
        matched=1,
        most=4,
        gradients=_GRADIENTS // 3,
    )
