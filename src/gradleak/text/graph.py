"""Which pairs of word and position a first layer can tell apart: a question about a graph."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor


@dataclass(frozen=True)
class Aliases:
    """Words and positions are nodes, and the pairs that were read are edges.

    x = g (c_w + c_p) / s_wp + b. Along a path in the graph, the c of all nodes between cancel. In a forest
    the edges are independent. With a cycle anywhere, b is in their span too, and with it every pair of a
    word and a position that a path joins: the first layer cannot tell these from those that were read.
    """

    words: int
    positions: int
    edges: int
    components: int
    passing: int  # pairs that the first layer lets pass, the edges among them

    @property
    def rank(self) -> int:
        """Of the first layer's gradient."""
        free = self.words + self.positions - self.components
        return self.edges if self.edges == free else free + 1


def aliases(pairs: Tensor) -> Aliases:
    """The graph of pairs [n, 2] of word and position, of which none is listed twice."""
    word, w = np.unique(pairs[:, 0].cpu().numpy(), return_inverse=True)
    place, p = np.unique(pairs[:, 1].cpu().numpy(), return_inverse=True)
    size = len(word) + len(place)
    graph = coo_array((np.ones(len(w)), (w, len(word) + p)), shape=(size, size))
    count, member = connected_components(graph, directed=False)
    forest = len(w) == size - count
    joined = sum(
        int((member[: len(word)] == i).sum() * (member[len(word) :] == i).sum()) for i in range(count)
    )
    return Aliases(len(word), len(place), len(w), count, len(w) if forest else joined)
