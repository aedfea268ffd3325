"""Models of words: the numbers that they take, and the embeddings behind these, which can change a little."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gradleak.errors import InvalidBatch
from gradleak.trees import Tree


@runtime_checkable
class OfWords(Protocol):
    """A model that takes words by their numbers [B, T], or their embeddings [B, T, width] in their place.

    ``table`` names the parameter whose rows are the embeddings; ``gradleak.text.wrap`` makes one.
    """

    @property
    def table(self) -> str: ...


def are_words(x: object) -> bool:
    """Whether a batch is of words, which are numbers without an order."""
    return isinstance(x, Tensor) and x.dim() == 2 and holds_integers(x)


def holds_integers(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def continuous(model: nn.Module, tensors: Tree, x: Tensor) -> Tensor:
    """The batch as numbers that can change a little: pictures as they are, words as their embeddings."""
    if not are_words(x):
        return x.clone()
    if not isinstance(model, OfWords):
        raise InvalidBatch(
            f"expected pictures as a floating-point tensor with the batch first; came {x.dtype} of shape "
            f"{list(x.shape)}. For words, take a model of words: gradleak.text.wrap(one_of_transformers)."
        )
    table = tensors[model.table]
    if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < len(table):
        raise InvalidBatch(
            f"expected words from 0 to {len(table) - 1:,}, the rows of {model.table}; came "
            f"{int(x.min()):,} to {int(x.max()):,}. Was another tokenizer used?"
        )
    return table[x].clone()
