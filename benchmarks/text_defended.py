"""Sentences read by a server that knows the client's defense: small random models, texts of random words."""

import json
from collections import Counter
from collections.abc import Callable

import click
import torch
import transformers
from torch import Tensor

import gradleak as gl
from benchmarks.text import _PAD as PAD
from gradleak import defenses, text
from gradleak.observe import Client

_WORDS = 1000
_COMMON = 8  # words that every third place has one of

DEFENSES: dict[str, Callable[[float], Client]] = {
    "none": lambda size: gl.OneGradient(),
    "clip": lambda size: defenses.Clip(norm=size),
    **{
        f"noise {share:g}": lambda size, share=share: defenses.GaussianNoise(std=share * size)
        for share in (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
    },
    "laplace 0.01": lambda size: defenses.LaplaceNoise(scale=0.01 * size),
    **{
        f"dpsgd {noise:g}": lambda size, noise=noise: defenses.DPSGD(clip=0.1, noise_multiplier=noise)
        for noise in (1e-5, 1e-4, 1e-2)
    },
    **{kind: lambda size, kind=kind: defenses.LowPrecision(format=kind) for kind in ("fp16", "bf16", "int8")},
    "int8 by chance": lambda size: defenses.LowPrecision(format="int8", stochastic=True),
    **{
        f"mask {rate}": lambda size, rate=rate: defenses.Mask(rate=rate) for rate in (0.3, 0.5, 0.7, 0.8, 0.9)
    },
    **{
        f"prune {share}": lambda size, share=share: defenses.Prune(fraction=share, per="layer")
        for share in (0.5, 0.7, 0.8, 0.9)
    },
    "sign": lambda size: defenses.Sign(),
}
"""From the root mean square of the whole update to the client."""


def encoder() -> text.TextModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    # So wide a start that words heed each other, as after training.
    config = transformers.BertConfig(vocab_size=_WORDS, initializer_range=0.15, **sizes)
    model = transformers.BertForSequenceClassification(config).eval()
    return text.wrap(model)


def decoder() -> text.TextModel:
    torch.manual_seed(0)
    shape = {"n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 32}
    config = transformers.GPT2Config(vocab_size=_WORDS, bos_token_id=1, eos_token_id=2, **shape)
    return text.wrap(transformers.GPT2LMHeadModel(config).eval(), "causal", pad=PAD)


def texts(count: int, seed: int) -> Tensor:
    """Eight to twelve words each."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.full((count, 12), PAD)
    for row in ids:
        length = int(torch.randint(8, 13, (), generator=rng))
        rare = torch.randint(3 + _COMMON, _WORDS, (length,), generator=rng)
        often = torch.randint(3, 3 + _COMMON, (length,), generator=rng)
        row[:length] = torch.where(torch.rand(length, generator=rng) < 1 / 3, often, rare)
        row[0], row[length - 1] = 1, 2
    return ids


def seen(model: text.TextModel, ids: Tensor, client: Client, seed: int) -> gl.Observation:
    y = text.words_as_labels(ids, PAD) if model.task == "causal" else torch.arange(len(ids)) % 2
    return gl.observe(model, ids, y, loss=model.loss, client=client, rng=seed)


def measured(model: text.TextModel, count: int, name: str, seed: int) -> Counter[str]:
    ids, last = texts(count, seed), model.task == "causal"
    plain = torch.cat([u.flatten() for u in seen(model, ids, gl.OneGradient(), seed).update.values()])
    found = text.dager()(seen(model, ids, DEFENSES[name](float(plain.square().mean().sqrt())), seed))
    truth = {tuple(row[row != PAD].tolist()) for row in ids}
    truth = {row[: len(row) - last] for row in truth}
    listed = {tuple(s.tolist()) for s in found.sentences}
    sure = {tuple(s.tolist()) for s, one in zip(found.sentences, found.certified, strict=True) if one}
    return Counter(
        {
            "exact": len(listed & truth),
            "certified": len(sure & truth),
            "false, certified": len(sure - truth),
            "of": len(truth),
            "refused": int(found.outcome is gl.Outcome.NOT_APPLICABLE),
            "seconds": found.cost.seconds,  # type: ignore[dict-item]
        }
    )


@click.command()
@click.option("--only", default="", help="Defenses whose name begins so; all without it.")
@click.option("--model", "kinds", multiple=True, default=("encoder", "decoder"), show_default=True)
@click.option("--batches", default=3, show_default=True, help="Batches of each case.")
@click.option(
    "--first", default=100, show_default=True, help="Their first seed; defaults saw those below 100."
)
def main(only: str, kinds: tuple[str, ...], batches: int, first: int) -> None:
    """One row of JSON for each model, size of batch and defense."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for kind in kinds:
        model = {"encoder": encoder, "decoder": decoder}[kind]()
        for count in (1, 3):
            for name in [name for name in DEFENSES if name.startswith(only)]:
                total: Counter[str] = Counter()
                for seed in range(first, first + batches):
                    total.update(measured(model, count, name, seed))
                print(json.dumps({"model": kind, "texts": count, "defense": name, **total}), flush=True)


if __name__ == "__main__":
    main()
