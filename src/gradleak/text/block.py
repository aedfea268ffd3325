"""One block of a transformer, taken apart so that one word of a text can be exchanged at little cost."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


@dataclass(frozen=True, eq=False)
class Heard:
    """What attention has of words: where they stand in the stream, and their queries, keys and values."""

    stream: Tensor  # [..., d]
    query: Tensor  # [..., heads, d / heads], divided by the root of its size
    key: Tensor
    value: Tensor

    def __getitem__(self, index: Tensor | slice | list[int]) -> "Heard":
        return Heard(self.stream[index], self.query[index], self.key[index], self.value[index])


@dataclass(frozen=True, eq=False)
class Block:
    """Attention and the two feed-forward layers; each layer as (W, b), for x @ W.T + b."""

    read: tuple[Tensor, Tensor]  # query, key and value, one above the other
    attended: tuple[Tensor, Tensor]
    expand: tuple[Tensor, Tensor]
    contract: tuple[Tensor, Tensor]
    activation: nn.Module
    attention_norm: Norm
    last_norm: Norm
    heads: int
    norms_first: bool  # GPT-2 norms what a layer reads, BERT what it has written
    midway: bool = False  # whether its output is what its feed-forward layers read

    def hear(self, stream: Tensor, read: Tensor) -> Heard:
        W, b = self.read
        parts = (read @ W.T + b).chunk(3, dim=-1)
        query, key, value = (
            part.reshape(*part.shape[:-1], self.heads, part.shape[-1] // self.heads) for part in parts
        )
        return Heard(stream, query / query.shape[-1] ** 0.5, key, value)

    def end(self, stream: Tensor, context: Tensor) -> Tensor:
        """The block's output where attention has gathered ``context`` [..., heads, d / heads]."""
        stream = stream + _apply(self.attended, context.flatten(-2))
        read = self.last_norm(stream) if self.norms_first else self.attention_norm(stream)
        if self.midway:
            return read
        if self.norms_first:
            return stream + self._forward(read)
        return self.last_norm(read + self._forward(read))

    def _forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.activation(_apply(self.expand, x))
        return _apply(self.contract, hidden)

    def whole(self, heard: Heard, causal: bool = False) -> Tensor:
        """The outputs [..., T, d] of whole texts."""
        scores = torch.einsum("...thc,...shc->...hts", heard.query, heard.key)
        if causal:
            length = scores.shape[-1]
            scores = scores.masked_fill(~scores.new_ones(length, length).bool().tril(), -torch.inf)
        context = torch.einsum("...hts,...shc->...thc", scores.softmax(-1), heard.value)
        return self.end(heard.stream, context)

    def exchanged(self, text: Heard, one: Heard, at: Tensor) -> Tensor:
        """The output at position at[i] of the text [T] with word one[i] put there, for every i."""
        scores = torch.einsum("nhc,thc->nht", one.query, text.key)
        own = (one.query * one.key).sum(-1)
        place = at[:, None, None].expand(-1, self.heads, 1)
        weights = scores.scatter(2, place, own[..., None]).softmax(-1)
        context = torch.einsum("nht,thc->nhc", weights, text.value)
        context = context + weights.gather(2, place) * (one.value - text.value[at])
        return self.end(one.stream, context)

    def continued(self, keys: Tensor, values: Tensor, one: Heard) -> Tensor:
        """The outputs [N, words, d] of each word one[i] behind each of N texts, which may be empty."""
        scores = torch.einsum("whc,nthc->nwht", one.query, keys)
        own = (one.query * one.key).sum(-1).expand(len(keys), -1, -1)
        weights = torch.cat((scores, own[..., None]), -1).softmax(-1)
        context = torch.einsum("nwht,nthc->nwhc", weights[..., :-1], values)
        return self.end(one.stream, context + weights[..., -1:] * one.value)


def _apply(layer: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    return x @ layer[0].T + layer[1]


def cast_fields(value: Any, dtype: torch.dtype) -> Any:
    """Another precision for all tensors in a value of this file and in what it holds."""
    if isinstance(value, Tensor):
        return value.to(dtype)
    if isinstance(value, tuple | list):
        return type(value)(cast_fields(part, dtype) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: cast_fields(part, dtype) for name, part in parts.items()})
    return value
