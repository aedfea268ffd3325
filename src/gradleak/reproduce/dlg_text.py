"""DLG on a masked language model (Zhu et al. 2019): a sentence, every few iterations of the attack."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradleak import metrics, text
from gradleak.attacks.matching import SquaredError
from gradleak.errors import InvalidInput, NotInstalled
from gradleak.observe import Observation, observe
from gradleak.reproduce.table import Column, Table, Told, Value

_SENTENCES = (
    "the nurse wrote down the name of the child",
    "my sister sold her old piano to a friend",
    "we leave the hotel at six and take the bus",
    "his salary is too small for the new rent",
    "the letter with the contract came back on monday",
    "please keep the results of this test to yourself",
    "a tall man asked twice for the key",
    "the bank will close the account in may",
)
_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
_VOCABULARY = 1000
_AT = (0, 10, 20, 30, 50, 100, 200, 300)
_COLUMNS = (
    Column("objective"),
    Column("gradients", ".0f"),
    Column("sentences"),
    Column("words right", ".0%"),
    Column("ROUGE-L", ".2f"),
    Column("null", ".2f"),
    Column("exact"),
    Column("proven"),
)
_SHOWN = (Column("gradients", ".0f"), Column("the first sentence, each tensor in units of its size"))


def dlg_text(n: int, data: Sequence[str], tell: Told) -> Table:
    """Words right after 0, 10, 20, ... matching gradients, on ``n`` sentences with one word masked out."""
    if data:
        raise InvalidInput(
            f"dlg-text runs on sentences of its own; came {', '.join(data)}. Leave --data out."
        )
    n = min(n, len(_SENTENCES))
    rows: list[tuple[Value, ...]] = []
    shown: list[tuple[Value, ...]] = []
    for said, attack in _attacks().items():
        courses = []
        for i in range(n):
            tell(f"sentence {i + 1}, {said}", (len(rows) + i / n * len(_AT)) / (2 * len(_AT) + 1))
            courses.append(_course(attack, i))
        rows += [(said, at, n, *_marks([course[k] for course in courses])) for k, at in enumerate(_AT)]
        shown = shown or [(at, _words(found.tokens)) for at, found in zip(_AT, courses[0], strict=True)]
    ended = [text.dlg_text()(_case(i), rng=i) for i in range(n)]
    spent = statistics.median(found.cost.matching_gradients for found in ended)
    rows.append(("by tensor, words exchanged", spent, n, *_marks(ended)))
    return Table(
        "DLG on a masked language model, the masked word and its place known",
        _COLUMNS,
        tuple(rows),
        (
            "words right, ROUGE-L: means over the sentences, of the words that are neither masked out nor "
            "known to every server; null: ROUGE-L of random words. proven: the words' own update is the one "
            "that was sent, so that the attacker knows.",
            "gradients: matching gradients, of which a line search takes one or more in an iteration. The "
            "last row is gradleak's default, and its number the median.",
            "paper: with BERT's masked language model, sentences from the conference's page are shown after "
            "0, 10, 20 and 30 iterations, and read almost word for word by the last; recalled, without a "
            "figure.",
            "ours: sentences of our own and a vocabulary of 1,000 whole words, two layers of width 64 with "
            "random weights, masks of one word. squared error: the paper's, over all tensors at once.",
        ),
        more=(Table("What the attacker reads", _SHOWN, tuple(shown)),),
    )


def _attacks() -> dict[str, text.TextMatching]:
    """Without anything but the descent, watched every ten matching gradients."""
    found = {}
    for said, objective in (("by tensor", None), ("squared error", SquaredError())):
        attack = text.dlg_text(objective=objective, evaluations=_AT[-1], rounds=1, polish=0)
        watched = dataclasses.replace(attack.matching, report_every=10)
        found[said] = dataclasses.replace(attack, matching=watched)
    return found


def _course(attack: text.TextMatching, i: int) -> list[text.MatchedTexts]:
    """The words as they stand at each of ``_AT``; once they are proven, they stay."""
    obs = _case(i)
    start = dataclasses.replace(attack, matching=dataclasses.replace(attack.matching, evaluations=1))
    course = [start(obs, rng=i), *attack.iterate(obs, rng=i)]
    return [
        [found for found in course if found is course[0] or found.cost.matching_gradients <= at][-1]
        for at in _AT
    ]


def _marks(found: Sequence[text.MatchedTexts]) -> tuple[Value, ...]:
    known = range(len(_SPECIAL))
    scores = [
        metrics.score_text(one.sentences, _ids(i)[None], vocabulary=_VOCABULARY, without=known, rng=i)
        for i, one in enumerate(found)
    ]
    return (
        statistics.mean(float(one.tokens.mean()) for one in scores),
        statistics.mean(float(one.rouge_l.mean()) for one in scores),
        statistics.mean(float(one.random.rouge_l.mean()) for one in scores),
        sum(int(one.exact.sum()) for one in scores),
        sum(one.certified for one in found),
    )


def _case(i: int) -> Observation:
    """A model of its own for each sentence, which is in eval mode."""
    model, ids = _model(i), _ids(i)
    whole = torch.tensor([_numbers()[word] for word in _sentence(i)])
    y = torch.where(ids == _SPECIAL.index("[MASK]"), whole, -100)
    return observe(model, ids[None], y[None], loss=model.loss, reveal=("labels",))


def _sentence(i: int) -> list[str]:
    return ["[CLS]", *_SENTENCES[i].split(), "[SEP]"]


def _ids(i: int) -> Tensor:
    ids = torch.tensor([_numbers()[word] for word in _sentence(i)])
    ids[2 + i % 3] = _SPECIAL.index("[MASK]")
    return ids


def _numbers() -> dict[str, int]:
    words = sorted({word for sentence in _SENTENCES for word in sentence.split()})
    return {word: i for i, word in enumerate((*_SPECIAL, *words))}


def _words(tokens: Tensor | None) -> str:
    names = {i: word for word, i in _numbers().items()}
    row = [] if tokens is None else tokens[0].tolist()
    return " ".join(names.get(i, f"word{i}") for i in row)


def _model(seed: int) -> text.TextModel:
    try:
        from transformers import BertConfig, BertForMaskedLM
    except ImportError as error:
        raise NotInstalled(
            "models of words come from the package transformers, which is not installed. Run: pip install "
            "'gradleak[text]'"
        ) from error
    shape: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(
        vocab_size=_VOCABULARY, intermediate_size=256, max_position_embeddings=32, pad_token_id=0, **shape
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(config)
    return text.wrap(model, "masked").eval()
