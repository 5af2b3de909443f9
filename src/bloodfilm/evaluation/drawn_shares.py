"""Shares of classes on a film as they may be: drawn from counts, errors and open cells."""

from collections.abc import Mapping, Sequence

import numpy as np

from bloodfilm.core.arrays import Floats
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.evaluation.confusion_correction import ClassConfusion, corrected_shares
from bloodfilm.evaluation.intervals import wilson_interval

DRAWS = 400
PRIOR = 0.5
OPEN_WEIGHT = 10.0
"""Independent cells that all open cells of a film weigh like: an assumption, and a cautious one."""


class DrawnShares:
    """Shares of nodes among white cells: as counted, and in draws of what they may be.

    `names` are classes, and names of open cells of which no probabilities are known.
    """

    def __init__(
        self,
        white: Mapping[str, int],
        taxonomy: Taxonomy,
        confusion: ClassConfusion | None,
        expected: Mapping[str, Mapping[str, float]],
        seed: int,
    ) -> None:
        self.white, self.taxonomy, self.total = white, taxonomy, sum(white.values())
        found = (
            None if confusion is None else corrected_shares(white, confusion, taxonomy, seed=seed)
        )
        self.corrected = found is not None
        rng = np.random.default_rng(seed)
        if found is not None and confusion is not None:
            # What the correction leaves open are the names that tell no measured classes apart.
            measured = confusion.of_classes(taxonomy)
            rest = {n: k for n, k in white.items() if measured.leaves_open(n, taxonomy)}
            parts = np.array([rest[n] for n in rest]) / max(1, sum(rest.values()))
            names = [*found.classes, *rest]
            point = np.append(found.shares, (1 - found.shares.sum()) * parts)
            left = 1 - found.draws.sum(axis=1, keepdims=True)
            draws = np.hstack([found.draws, left * parts])
        else:
            names = sorted(white)
            counts = np.array([white[n] for n in names], dtype=np.float64)
            spread = counts + PRIOR / max(1, len(counts))
            point = counts / max(1.0, self.total)
            draws = rng.dirichlet(spread, size=DRAWS) if len(counts) else np.zeros((DRAWS, 0))
        self._close(names, point, draws, expected, rng)

    def _close(
        self,
        names: Sequence[str],
        point: Floats,
        draws: Floats,
        expected: Mapping[str, Mapping[str, float]],
        rng: np.random.Generator,
    ) -> None:
        """Give the open cells to the classes that they may be of."""
        leaves = set(self.taxonomy.leaves)
        classes = sorted({*names, *(leaf for n in names for leaf in expected.get(n, ()))})
        places = {name: k for k, name in enumerate(classes)}
        self.names: Sequence[str] = classes
        self.open = tuple(n for n in names if n not in leaves and not expected.get(n))
        self.likely = any(expected.get(n) for n in names)
        self.point = np.zeros(len(classes))
        self.draws = np.zeros((DRAWS, len(classes)))
        for k, name in enumerate(names):
            found = expected.get(name)
            if not found:
                self.point[places[name]] += point[k]
                self.draws[:, places[name]] += draws[:, k]
                continue
            which = [places[leaf] for leaf in found]
            part = np.array([*found.values()])
            part /= part.sum()
            spread = np.maximum(part * min(OPEN_WEIGHT, self.white.get(name, 0)), 1e-3)
            self.point[which] += point[k] * part
            self.draws[:, which] += draws[:, [k]] * rng.dirichlet(spread, size=DRAWS)

    def count(self, nodes: Sequence[str]) -> int:
        """Return the cells that were named as one of some nodes, or below."""
        return sum(k for n, k in self.white.items() if self.is_one_of(n, nodes))

    def drawn(self, nodes: Sequence[str], *, most: bool = False) -> Floats:
        """Return the share of some nodes in every draw; at most, with open cells that may be."""
        which = [
            k
            for k, n in enumerate(self.names)
            if self.is_one_of(n, nodes) or (most and n in self.open and self._may_be(n, nodes))
        ]
        return np.asarray(self.draws[:, which].sum(axis=1))

    def share(self, nodes: Sequence[str]) -> tuple[float, float, float]:
        """Return the share of some nodes with its 95 % interval."""
        if not self.corrected and not self.likely:
            count = self.count(nodes)
            return count / max(1, self.total), *wilson_interval(count, self.total)
        which = [k for k, n in enumerate(self.names) if self.is_one_of(n, nodes)]
        low, high = np.percentile(self.drawn(nodes), [2.5, 97.5])
        return float(self.point[which].sum()), float(low), float(high)

    def _may_be(self, name: str, nodes: Sequence[str]) -> bool:
        """Whether a cell of a name may be of some nodes."""
        leaves = self.taxonomy.leaves_under(name) if name in self.taxonomy else ()
        return any(self.is_one_of(leaf, nodes) for leaf in leaves)

    def is_one_of(self, name: str, nodes: Sequence[str]) -> bool:
        """Whether a name is one of some nodes, or below one."""
        return any(
            name == node or (node in self.taxonomy and self.taxonomy.is_under(name, node))
            for node in nodes
        )
