"""Losses of language models, which have one label for each word: -100 where none is asked for."""

import torch
from torch import Tensor

from gradleak.errors import InvalidBatch

IGNORED = -100  # as torch and transformers have it


def masked_words(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy over the words that were masked out; logits are [B, T, vocabulary], y is [B, T]."""
    _require_words(logits, y)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORED)


def next_words(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy of each word after the first, given those before; y is the words, [B, T]."""
    _require_words(logits, y)
    return masked_words(logits[:, :-1], y[:, 1:])


def words_as_labels(ids: Tensor, pad: int | None = None) -> Tensor:
    """The labels of ``next_words``: the words, without the padding after a sentence's end."""
    if pad is None:
        return ids.clone()
    return ids.masked_fill(ids == pad, IGNORED)


def _require_words(logits: Tensor, y: Tensor) -> None:
    if logits.dim() != 3 or y.shape != logits.shape[:2] or y.is_floating_point():
        raise InvalidBatch(
            f"expected a word for each position as the label, shape {list(logits.shape[:-1])} (-100: none); "
            f"came {y.dtype} of shape {list(y.shape)}"
        )
