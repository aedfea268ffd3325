"""How likely each word is the nearest one, to an attacker who solves for embeddings: I2F where words are few.

The update answers to small changes of the embeddings as J does, and noise hides the rest. What it says of
one word is a precision L: a Schur complement of JᵀJ, with what is known of the other words. Of two words,
the true one is the nearer with a chance that ‖L^½ (e_v − e_w)‖ tells; of all of them, draws of the noise do.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from gradleak.observe import Observation
from gradleak.observe.jacobian import Jacobian
from gradleak.observe.uncertainty import weights
from gradleak.text.adapter import without_table
from gradleak.trees import Tree, flatten

DENSE = 2000
"""Unknown numbers up to which all are solved for together, which takes seconds to a minute."""
_DRAWS = 128  # of the noise, the same for every word and every strength
_SURE = 1e10  # the largest ratio of what is seen to what is known before: more is lost in rounding
_TURNS = 4  # in which words that are known help those that are not
_LEAST = 1e-3  # of a known word's ignorance that is kept, so that its own precision can be told
_NEAR = 24  # words that one is held against where all are too many


@dataclass(frozen=True, eq=False)
class Confusion:
    """[B, T]: the chance that the nearest word is the right one, NaN where it was not asked for.

    ``alone``: all other words were taken for known, and few words for rivals, which errs towards too much
    leakage. ``dimensions``: the directions of the batch that stand out of the noise.
    """

    right: Tensor
    dimensions: float | None
    alone: bool = False


def confusion(
    obs: Observation,
    ids: Tensor,
    y: Tensor,
    real: Tensor,
    *,
    deviation: Tree | None = None,
    named: Tensor | None = None,
    exact: bool | None = None,
    steps: int = 256,
    rng: Generator,
) -> Confusion:
    """``real`` [B, T] are the places with words, and ``named`` [B, T] how likely each word's row names it.

    ``deviation`` is that of each entry of the update, by default what the client says of it.
    """
    blurred = obs.uncertainty if deviation is None else deviation
    facts = _Facts.of(obs, ids, y, real, blurred, named, rng)
    dense = facts.columns.numel() <= DENSE if exact is None else exact
    return _together(facts) if dense else _each_alone(facts, steps)


@dataclass(frozen=True, eq=False)
class _Facts:
    """The whitened Jacobian, and the table in units of its own spread: e = mean + root z."""

    jacobian: Jacobian
    ids: Tensor
    real: Tensor  # [B, T]
    root: Tensor  # [d, k]
    table: Tensor  # z [V, k]
    choices: list[tuple[Tensor, Tensor]]  # sets of words, and by place [n] how likely each is the one to ask
    noise: Generator

    @classmethod
    def of(
        cls,
        obs: Observation,
        ids: Tensor,
        y: Tensor,
        real: Tensor,
        deviation: Tree,
        named: Tensor | None,
        rng: Generator,
    ) -> "_Facts":
        table = _table(obs).double()
        root, spread = _spread(table)
        facts = without_table(obs).to(torch.float64)
        jacobian = _scaled(obs, facts, ids, y, table[ids], deviation)
        words = torch.arange(len(table), device=ids.device)
        pad = getattr(obs.model, "pad", None)
        every = words if pad is None else words[words != pad]
        chance = torch.zeros_like(real, dtype=torch.float64) if named is None else named
        few = torch.unique(ids[real & (chance > 0.01)])
        asked = [(few, chance[real]), (every, 1 - chance[real])] if len(few) else [(every, 1 - chance[real])]
        return cls(jacobian, ids, real, root, spread, asked, rng)

    @property
    def columns(self) -> Tensor:
        """Those of J, that belong to words: [n, d]."""
        width = self.root.shape[0]
        every = torch.arange(self.real.numel() * width, device=self.real.device)
        return every.reshape(*self.real.shape, width)[self.real]

    @property
    def words(self) -> Tensor:
        return self.ids[self.real]

    def spread_out(self, right: Tensor) -> Tensor:
        whole = torch.full(self.real.shape, torch.nan, dtype=torch.float64, device=right.device)
        whole[self.real] = right
        return whole


def _table(obs: Observation) -> Tensor:
    name: str = obs.model.table  # type: ignore[assignment]  # a TextModel, as forecast makes sure
    return {**obs.constants, **obs.params}[name].detach()


def _spread(table: Tensor) -> tuple[Tensor, Tensor]:
    """The root [d, k] of the words' covariance, and the words [V, k] in its units."""
    moved = table - table.mean(0)
    values, vectors = torch.linalg.eigh(moved.T @ moved / len(table))
    some = values > 1e-12 * values[-1]
    scale = values[some].sqrt()
    return vectors[:, some] * scale, moved @ (vectors[:, some] / scale)


def _scaled(
    obs: Observation, facts: Observation, ids: Tensor, y: Tensor, x: Tensor, deviation: Tree
) -> Jacobian:
    """J in units of what hides each entry. A norm that is clipped is that of all entries, the table's too."""
    known = weights({name: d for name, d in deviation.items() if name in facts.update})
    bar = torch.finfo(obs.like.dtype).eps * _length(obs.update)
    still = [name for name in known if float(obs.update[name].norm()) <= bar]
    known.update({name: torch.zeros_like(known[name]) for name in still})  # as of keys' biases: rounding
    jacobian = Jacobian(facts, x, y, known)
    sent = obs.to(torch.float64).simulate(ids, y)
    mine = jacobian.update
    length = _length({name: sent[name] for name in mine}) / max(_length(mine), 1e-300)
    return replace(jacobian, weights={name: w * length for name, w in known.items()})


def _length(tree: Tree) -> float:
    return float(flatten(tree).detach().norm())


def _together(facts: _Facts) -> Confusion:
    """All words at once. Words that are known help the others, as in a descent that ends with words."""
    columns, n = facts.columns.flatten(), len(facts.words)
    gram = facts.jacobian.gram()[columns][:, columns]
    width, k = facts.root.shape
    gram = torch.einsum("di,ndme,ej->nimj", facts.root, gram.reshape(n, width, n, width), facts.root)
    values, vectors = torch.linalg.eigh(gram.reshape(n * k, n * k))
    rounding = float(values[-1]) * len(values) * torch.finfo(torch.float64).eps
    values = torch.where(values > rounding, values, 0.0).clamp_max(_SURE)
    gram = (vectors * values) @ vectors.T
    draws = torch.randn(_DRAWS, k, generator=facts.noise, dtype=torch.float64).to(gram)
    unknown = torch.ones(n, dtype=torch.float64, device=gram.device)
    right = torch.zeros_like(unknown)
    for _ in range(_TURNS):
        precision = _precisions(gram, unknown, k)
        right = torch.maximum(right, _nearest(facts, precision, draws))
        if bool((right > 1 - 1 / _DRAWS).all()):
            break
        unknown = (1 - right).clamp_min(_LEAST)
    return Confusion(facts.spread_out(right), float((values / (1 + values)).sum()))


def _precisions(gram: Tensor, unknown: Tensor, k: int) -> Tensor:
    """L [n, k, k] of each word, where a word is unknown to the share ``unknown`` of the table's variance."""
    n = len(unknown)
    q = unknown.sqrt().repeat_interleave(k)
    inner = gram * q * q[:, None] + torch.eye(n * k).to(gram)
    left = torch.cholesky_inverse(torch.linalg.cholesky(inner)).reshape(n, k, n, k)
    own = left[range(n), :, range(n)]
    values, vectors = torch.linalg.eigh((own + own.mT) / 2)
    seen = (1 / values.clamp(1e-15, 1) - 1) / unknown[:, None]
    precision: Tensor = (vectors * seen[:, None]) @ vectors.mT
    return precision


def _nearest(facts: _Facts, precision: Tensor, draws: Tensor) -> Tensor:
    """[n]: the share of draws in which no other word explains the update better."""
    found = torch.zeros(len(precision), dtype=torch.float64, device=draws.device)
    for i, (word, L) in enumerate(zip(facts.words.tolist(), precision, strict=True)):
        values, vectors = torch.linalg.eigh(L)
        half = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        for words, share in facts.choices:
            if float(share[i]) > 0:
                moved = (facts.table[words[words != word]] - facts.table[word]) @ half
                found[i] += share[i] * _beaten(moved @ draws.T, moved.square().sum(1))
    return found


def _beaten(noise: Tensor, squares: Tensor) -> Tensor:
    """The share of draws whose noise [rivals, draws] takes no rival nearer than the truth."""
    if not len(squares):
        return noise.new_ones(())
    share: Tensor = (noise < squares[:, None] / 2).all(0).double().mean()
    return share


def _each_alone(facts: _Facts, steps: int) -> Confusion:
    """Some words, each against those nearest to it, all others known."""
    right = torch.full((len(facts.words),), torch.nan, dtype=torch.float64, device=facts.ids.device)
    draws = torch.randn(_DRAWS, _NEAR, generator=facts.noise, dtype=torch.float64).to(facts.table)
    places = facts.real.nonzero()
    for i in _some(len(places), max(1, steps // _NEAR)):
        total = torch.zeros((), dtype=torch.float64, device=right.device)
        for words, share in facts.choices:
            if float(share[i]) > 0:
                total += share[i] * _alone(facts, places[i], words, draws)
        right[i] = total
    return Confusion(facts.spread_out(right), None, alone=True)


def _some(n: int, most: int) -> list[int]:
    """Evenly spread over the batch."""
    return sorted({int(i) for i in torch.linspace(0, n - 1, min(n, most)).round()})


def _alone(facts: _Facts, place: Tensor, words: Tensor, draws: Tensor) -> Tensor:
    text, at = place.tolist()
    moved = facts.table[words[words != facts.ids[text, at]]] - facts.table[facts.ids[text, at]]
    moved = moved[moved.norm(dim=1).argsort()[:_NEAR]]
    steps = facts.jacobian.x.new_zeros(len(moved), *facts.jacobian.x.shape)
    steps[:, text, at] = moved @ facts.root.T
    seen = facts.jacobian.times_all(steps)
    values, vectors = torch.linalg.eigh(seen @ seen.T)
    half = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return _beaten(half @ draws[:, : len(moved)].T, half.square().sum(1))
