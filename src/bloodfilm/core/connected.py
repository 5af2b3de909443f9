"""Connected components of a graph given by its edges."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def connected_components(count: int, edges: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Return a number per node, (count,): that of the lowest node it is connected to.

    >>> connected_components(5, [(3, 1), (4, 3)]).tolist()
    [0, 1, 2, 1, 1]
    """
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, two in edges:
        a, b = sorted((root(one), root(two)))
        parent[b] = a
    return np.array([root(node) for node in range(count)], dtype=np.int64)
