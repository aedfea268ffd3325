"""What the gradients of embedding tables tell as they are: which words were used, where, and as labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.errors import MissingInformation
from gradleak.observe import Observation
from gradleak.text.architecture import anatomy
from gradleak.text.shares import places, standing_once

_SAMPLE = 1500  # rows from which the output's part of a tied table is learnt
_DENSE = 0.5  # of the rows: as many are non-zero only where the table is the head's too


@dataclass(frozen=True, eq=False)
class Order:
    """Where words stand: ``places`` [words, positions] is 1 where a word has but one position."""

    words: Tensor
    places: Tensor

    @property
    def once(self) -> Tensor:
        """The pairs [n, 2] of word and position of words that stand at one position of the batch."""
        alone = standing_once(self.places)
        return torch.stack((self.words[alone], self.places[alone].argmax(1)), 1)


def bag_of_words(obs: Observation) -> Tensor:
    """The set of words in the batch, in ascending order, without how often and in which text.

    The row of a word that no text has is exactly zero. Where the table is the head's too, the head's part
    lies in as few dimensions as there are predictions, and is taken out first.
    """
    rows = _table_rows(obs)
    if not is_tied(obs):
        used: Tensor = rows.norm(dim=1).nonzero().flatten()
        return used
    return _apart(_without_head(obs, rows).norm(dim=1))


def is_tied(obs: Observation) -> bool:
    """Whether most rows of the word embeddings have a gradient, as where the head shares the table."""
    rows = _table_rows(obs)
    return float((rows.norm(dim=1) > 0).double().mean()) > _DENSE


def label_words(obs: Observation) -> Tensor:
    """The words that were predicted: those whose bias has a negative gradient, Σ_t p_t − y_t."""
    count = len(_table_rows(obs, sent=False))
    biases = [leaf for leaf in obs.update.values() if leaf.shape == (count,) and bool(leaf.any())]
    if len(biases) != 1:
        raise MissingInformation(
            f"expected one bias for each of the {count:,} words in the update, as heads of masked language "
            f"models have; came {len(biases)}"
        )
    return (biases[0] < 0).nonzero().flatten()


def order_from_rows(obs: Observation) -> Order:
    """Where the words stand, since one vector goes into the rows of a word and of its position."""
    parts = anatomy(obs)
    _require(obs, parts.position_table)
    words = bag_of_words(obs)
    rows = _table_rows(obs).double()
    rows = _without_head(obs, rows) if is_tied(obs) else rows
    at = _position_rows(obs)[: longest_text(obs)]
    return Order(words, places(rows[words], at))


def longest_text(obs: Observation) -> int:
    """How many words the longest text has: positions behind it have no gradient."""
    used = _position_rows(obs).norm(dim=1).nonzero()
    return int(used.max()) + 1 if len(used) else 0


def _position_rows(obs: Observation) -> Tensor:
    parts = anatomy(obs)
    _require(obs, parts.position_table)
    rows = obs.update[parts.position_table].double()
    return rows[len(rows) - len(parts.positions) :]


def _table_rows(obs: Observation, sent: bool = True) -> Tensor:
    name = getattr(obs.model, "table", None)
    if name is None:
        raise MissingInformation("expected a model of words, wrapped by gradleak.text.wrap; came another")
    if sent:
        _require(obs, name)
    return obs.update[name] if sent else {**obs.constants, **obs.params}[name]


def _require(obs: Observation, name: str) -> None:
    if name not in obs.update:
        raise MissingInformation(
            f"expected the gradient of {name}; the update has none, since it is not trained. "
            "gradleak.text.dager() reads words without it."
        )


def _without_head(obs: Observation, rows: Tensor) -> Tensor:
    """Rows less what lies in the directions of the head's inputs.

    Rows of small norm are the head's alone, and span these directions.
    """
    exact, eps = rows.double(), torch.finfo(rows.dtype if rows.dtype != torch.float64 else obs.like.dtype).eps
    order = exact.norm(dim=1).argsort()
    clean = order[len(order) // 150 : len(order) // 2]
    clean = clean[:: max(1, len(clean) // _SAMPLE)]
    sample = torch.nn.functional.normalize(exact[clean], dim=1)
    _, s, V = torch.linalg.svd(sample, full_matrices=False)
    rank = int((s > s[0] * len(sample) ** 0.5 * eps).sum())
    if rank == exact.shape[1]:
        raise MissingInformation(
            f"the head's part of the word embeddings fills all {rank} dimensions: more predictions than "
            "that, or noise. gradleak.text.dager() reads words without it."
        )
    left: Tensor = exact - (exact @ V[:rank].T) @ V[:rank]
    return left


def _apart(sizes: Tensor) -> Tensor:
    """The large ones, above the widest gap on a logarithmic scale."""
    order = sizes.clamp_min(torch.finfo(sizes.dtype).tiny).log().sort(descending=True)
    half = order.values[: len(sizes) // 2]
    cut = int((half[:-1] - half[1:]).argmax()) + 1
    return order.indices[:cut].sort().values
