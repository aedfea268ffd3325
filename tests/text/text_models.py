"""Small random transformers, and texts of random words, for the tests of this folder."""

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers")

from gradleak import text  # noqa: E402

PAD, START, END = 0, 1, 2


def bert(
    task: str = "classification", *, words: int = 300, width: int = 96, **settings: object
) -> text.TextModel:
    torch.manual_seed(0)
    kind = {"classification": "BertForSequenceClassification", "masked": "BertForMaskedLM"}[task]
    config = transformers.BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=3,  # of the last one, only the first word is asked for
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=24,
        initializer_range=0.15,  # so that words heed each other, as after training
        **settings,
    )
    model = getattr(transformers, kind)(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):  # which is not trivial after training
            torch.nn.init.normal_(module.bias, std=0.1)
    return text.wrap(model, task)


def gpt2(*, words: int = 2000, width: int = 256, **settings: object) -> text.TextModel:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=words,
        n_embd=width,
        n_layer=2,
        n_head=4,
        n_positions=32,
        bos_token_id=START,
        eos_token_id=END,
        **settings,
    )
    return text.wrap(transformers.GPT2LMHeadModel(config).eval(), "causal", pad=PAD)


def texts(lengths: tuple[int, ...], words: int, seed: int = 0, common: int = 6) -> Tensor:
    """Padded texts [B, T] from START to END, in which every third word is one of a few common ones."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        rare = torch.randint(3 + common, words, (length,), generator=rng)
        often = torch.randint(3, 3 + common, (length,), generator=rng)
        chosen = torch.where(torch.rand(length, generator=rng) < 1 / 3, often, rare)
        chosen[0], chosen[-1] = START, END
        ids[row, :length] = chosen
    return ids


def sentences(ids: Tensor, less: int = 0) -> set[tuple[int, ...]]:
    """The texts without padding, and without their last ``less`` words."""
    return {tuple(row[row != PAD].tolist()[: int((row != PAD).sum()) - less]) for row in ids}
