"""Where the families of transformers keep what their first two layers compute with."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradleak.errors import UnsupportedLayer
from gradleak.observe import Observation
from gradleak.observe.uncertainty import Defended
from gradleak.text.adapters import Adapter
from gradleak.text.block import Block, Heard, Norm, cast_fields
from gradleak.trees import Tree

_EARLIER, _LATER = "lora_A", "lora_B"  # of an adapter's two matrices, as peft calls them
_OWN = 16 * torch.finfo(torch.float64).eps  # the rounding of what is computed here


@dataclass(frozen=True)
class Architecture:
    """Paths within the backbone, and within one of its blocks."""

    causal: bool
    words: str
    positions: str
    kinds: str | None  # token types, of which all words are taken to be the first
    blocks: str
    norm: str | None  # of the summed embeddings; None: a block norms what it reads itself
    readers: tuple[str, ...]  # query, key and value, or one layer for the three
    attended: str
    reading_norm: str  # before attention where a block norms what it reads, else after it
    expand: str
    activation: str
    contract: str
    last_norm: str  # before the feed-forward layers, or after them
    offset: bool = False  # whether positions are counted from behind the padding word


_BERT = Architecture(
    causal=False,
    words="embeddings.word_embeddings",
    positions="embeddings.position_embeddings",
    kinds="embeddings.token_type_embeddings",
    blocks="encoder.layer",
    norm="embeddings.LayerNorm",
    readers=("attention.self.query", "attention.self.key", "attention.self.value"),
    attended="attention.output.dense",
    reading_norm="attention.output.LayerNorm",
    expand="intermediate.dense",
    activation="intermediate.intermediate_act_fn",
    contract="output.dense",
    last_norm="output.LayerNorm",
)
_GPT2 = Architecture(
    causal=True,
    words="wte",
    positions="wpe",
    kinds=None,
    blocks="h",
    norm=None,
    readers=("attn.c_attn",),
    attended="attn.c_proj",
    reading_norm="ln_1",
    expand="mlp.c_fc",
    activation="mlp.act",
    contract="mlp.c_proj",
    last_norm="ln_2",
)
_ROBERTA = replace(_BERT, offset=True)
_DISTILBERT = replace(
    _BERT,
    kinds=None,
    blocks="transformer.layer",
    readers=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attended="attention.out_lin",
    reading_norm="sa_layer_norm",
    expand="ffn.lin1",
    activation="ffn.activation",
    contract="ffn.lin2",
    last_norm="output_layer_norm",
)
ARCHITECTURES: dict[str, Architecture] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "gpt2": _GPT2,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""By transformers' model_type. A further family of the same shape is one entry."""


@dataclass(frozen=True, eq=False)
class Sent:
    """What the update has of some layers that read the same."""

    blocks: list[Tensor]  # gradients, [rows, d] each
    deviations: list[Tensor]  # how far their entries are off; none without a defense
    adapters: list[Adapter]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What the span test needs of a model, in float64: tables, the first block, two layers' gradients."""

    causal: bool
    table: str  # the word table's name in the update
    position_table: str
    words: Tensor  # [V, d]
    positions: Tensor  # [P, d], with the token type added
    first: Norm  # from summed embeddings to what the first layer reads
    second: Norm | None  # from the first block's output to what the second layer reads; None: as it is
    block: Block
    sent: tuple[Sent, Sent]  # of the layers that read in the first two blocks
    between: Sent | None  # of the first block's own feed-forward layer; None: that is the second of ``sent``

    @property
    def midway(self) -> "Anatomy":
        """The same, with what the first block's feed-forward layers read for what the second block reads."""
        if self.between is None:
            return self
        block = replace(self.block, midway=True)
        return replace(self, block=block, second=None, sent=(self.sent[0], self.between), between=None)

    def streams(self, summed: Tensor) -> tuple[Tensor, Tensor]:
        """From the sums of embeddings: what runs through the first block, and what its attention reads."""
        read = self.first(summed)
        return (summed if self.block.norms_first else read), read

    def reads(self, output: Tensor) -> Tensor:
        """What the second layer reads of the first block's output."""
        return output if self.second is None else self.second(output)

    def hear(self, words: Tensor, positions: Tensor) -> Heard:
        return self.block.hear(*self.streams(self.words[words] + self.positions[positions]))

    def second_reading(self, texts: Tensor) -> Tensor:
        """What the second layer reads of whole texts [..., T], which have no padding."""
        positions = torch.arange(texts.shape[-1], device=texts.device).expand(texts.shape)
        return self.reads(self.block.whole(self.hear(texts, positions), self.causal))

    def made_up(self) -> tuple[Tensor, Tensor]:
        """What the two layers read of some random texts, the same every time."""
        draws = torch.Generator().manual_seed(0)
        shape = (8, min(16, len(self.positions)))
        texts = torch.randint(len(self.words), shape, generator=draws).to(self.words.device)
        summed = self.words[texts] + self.positions[: shape[1]]
        return self.streams(summed)[1], self.second_reading(texts)

    def rounding(self, dtype: torch.dtype) -> tuple[float, float]:
        """How far off what two layers read is, relative to its length, where a client computes in ``dtype``.

        Measured in float32, since what is computed here is itself rounded as float64 is.
        """
        pairs = zip(self.cast(torch.float32).made_up(), self.made_up(), strict=True)
        first, second = (float((rough.double() - exact).norm() / exact.norm()) for rough, exact in pairs)
        finer = torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
        return math.hypot(first * finer, _OWN), math.hypot(second * finer, _OWN)

    def cast(self, dtype: torch.dtype) -> "Anatomy":
        """The same in another precision."""
        cast: Anatomy = cast_fields(self, dtype)
        return cast


def anatomy(obs: Observation) -> Anatomy:
    """Raises ``UnsupportedLayer`` with the reason where the model is of another family."""
    network = getattr(obs.model, "network", None)
    kind = getattr(getattr(network, "config", None), "model_type", type(obs.model).__name__)
    if network is None or kind not in ARCHITECTURES:
        raise UnsupportedLayer(
            f"expected a model of the families {', '.join(ARCHITECTURES)}, wrapped by gradleak.text.wrap; "
            f"came {kind}"
        )
    return _Reader(obs, ARCHITECTURES[kind]).anatomy()


class _Reader:
    """Finds a family's parts; a linear layer is asked what it does, not how it is stored."""

    def __init__(self, obs: Observation, family: Architecture) -> None:
        self.obs, self.family = obs, family
        self.model = obs.task.model
        network: Any = self.model.network
        self.config = network.config
        self.backbone = f"network.{network.base_model_prefix}"
        self.like = obs.like.double()
        self.off = obs.uncertainty if isinstance(obs.client, Defended) else {}
        tensors = {**obs.constants, **obs.params}
        self.tensors = {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}

    def anatomy(self) -> Anatomy:
        family = self.family
        blocks = [f"{self.backbone}.{family.blocks}.{i}" for i in (0, 1)]
        words, positions = (f"{self.backbone}.{path}.weight" for path in (family.words, family.positions))
        if f"{blocks[1]}.{family.reading_norm}.weight" not in self.tensors:
            raise UnsupportedLayer("expected a model of two layers or more; the second tells sentences apart")
        inner = None if family.norm else self._norm(f"{blocks[1]}.{family.reading_norm}")
        first = f"{self.backbone}.{family.norm}" if family.norm else f"{blocks[0]}.{family.reading_norm}"
        return Anatomy(
            causal=family.causal,
            table=words,
            position_table=positions,
            words=self.tensors[words],
            positions=self._positions(positions),
            first=self._norm(first),
            second=inner,
            block=self._block(blocks[0]),
            sent=(self._sent(blocks[0], family.readers), self._sent(blocks[1], family.readers)),
            between=self._sent(blocks[0], (family.expand,)),
        )

    def _positions(self, name: str) -> Tensor:
        table = self.tensors[name]
        if self.family.offset:
            table = table[self.config.pad_token_id + 1 :]
        if self.family.kinds is not None:
            table = table + self.tensors[f"{self.backbone}.{self.family.kinds}.weight"][0]
        return table

    def _norm(self, path: str) -> Norm:
        module: Any = self.model.get_submodule(path)
        return Norm(self.tensors[f"{path}.weight"], self.tensors[f"{path}.bias"], module.eps)

    def _block(self, path: str) -> Block:
        family, d = self.family, self.config.hidden_size
        read = [self._linear(f"{path}.{reader}", d) for reader in family.readers]
        expand = self._linear(f"{path}.{family.expand}", d)
        return Block(
            read=(torch.cat([W for W, _ in read]), torch.cat([b for _, b in read])),
            attended=self._linear(f"{path}.{family.attended}", d),
            expand=expand,
            contract=self._linear(f"{path}.{family.contract}", len(expand[0])),
            activation=self.model.get_submodule(f"{path}.{family.activation}"),
            attention_norm=self._norm(f"{path}.{family.reading_norm}"),
            last_norm=self._norm(f"{path}.{family.last_norm}"),
            heads=self.config.num_attention_heads,
            norms_first=family.norm is None,
        )

    def _linear(self, path: str, width: int) -> tuple[Tensor, Tensor]:
        """W and b of what the layer computes, adapters included."""
        module = self.model.get_submodule(path)
        own = {n.removeprefix(f"{path}."): t for n, t in self.tensors.items() if n.startswith(f"{path}.")}
        with torch.no_grad():
            b = functional_call(module, own, (self.like.new_zeros(1, width),))
            W = functional_call(module, own, (torch.eye(width).to(self.like),)) - b
        return W.T, b[0]

    def _sent(self, block: str, layers: tuple[str, ...]) -> Sent:
        paths = [f"{block}.{layer}" for layer in layers]
        return Sent(self._rows(paths, self.obs.update), self._rows(paths, self.off), self._adapters(paths))

    def _rows(self, paths: list[str], of: Tree) -> list[Tensor]:
        """[rows, d] of each matrix: every row of a gradient is a sum of what was read, over the words."""
        d, found = self.config.hidden_size, []
        for path, name in _matrices(paths, of):
            rows = of[name].T if self._stored_transposed(path, name) else of[name]
            if rows.shape[1] == d and _LATER not in name:
                found.append(rows.double())
        return found

    def _adapters(self, paths: list[str]) -> list[Adapter]:
        update = self.obs.update
        names = [name for _, name in _matrices(paths, update) if _LATER in name]
        pairs = ((update[name].double(), self.tensors.get(name.replace(_LATER, _EARLIER))) for name in names)
        return [Adapter(rows, inner) for rows, inner in pairs if inner is not None]

    def _stored_transposed(self, path: str, name: str) -> bool:
        return name == f"{path}.weight" and not isinstance(self.model.get_submodule(path), nn.Linear)


def _matrices(paths: list[str], of: Tree) -> Iterator[tuple[str, str]]:
    """Each layer's path and the names of its matrices."""
    for path in paths:
        yield from ((path, name) for name in of if name.startswith(f"{path}.") and of[name].dim() == 2)
