"""What cells that a model left open are likely to be.

A cell is named as closely as the model is sure: most cells of an unfamiliar film are called *white
cell* and no more. Their probabilities say more: of a hundred such cells, how many are expected to
be blasts. Nothing here gives a cell a name; it says what the open ones would add to the counts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bloodfilm.core.results import CellResult, ModelInfo
from bloodfilm.core.taxonomy import Taxonomy


def likely_leaves(cell: CellResult, taxonomy: Taxonomy) -> dict[str, float]:
    """Return the probability of each class that a cell's name leaves open; together they are 1.

    Empty for a cell that is named by a class, where no probabilities were recorded, and where the
    model knows one class only of those that the name stands for: it cannot tell that one from the
    others.

    >>> from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
    >>> found = {"myeloblast": 0.6, "lymphoblast": 0.3, "lymphocyte": 0.1}
    >>> cell = CellResult((0, 0, 9, 9), 1.0, "nucleated cell", "blast", 0.9, found)
    >>> {n: round(p, 3) for n, p in likely_leaves(cell, DEFAULT_TAXONOMY).items()}
    {'myeloblast': 0.667, 'lymphoblast': 0.333}
    """
    if cell.label not in taxonomy or cell.label in taxonomy.leaves:
        return {}
    below = taxonomy.leaves_under(cell.label)
    found = {n: cell.probabilities[n] for n in below if cell.probabilities.get(n, 0.0) > 0}
    if len(found) < 2:
        return {}
    total = sum(found.values())
    return {name: p / total for name, p in found.items()}


def likeliest_leaf(cell: CellResult, taxonomy: Taxonomy) -> str | None:
    """Return the likeliest class that a cell's name leaves open; `None` where nothing is open."""
    found = likely_leaves(cell, taxonomy)
    return _likeliest(found) if found else None


def _likeliest(found: Mapping[str, float]) -> str:
    return max(found, key=lambda name: (found[name], name))


@dataclass(frozen=True, slots=True)
class LikeliestClass:
    """Open cells whose likeliest class is the same: how many, and how probable it is on average."""

    cells: int
    probability: float


@dataclass(frozen=True)
class OpenCells:
    """Cells that a model named by an inner node of its tree, or as a blast of no kind.

    Attributes:
        by_name: how many were given each such name.
        expected: by name, how many of its cells are expected to be of each class below it.
        likeliest: by class, the undecided cells whose likeliest class it is, the most frequent
            first; blasts whose lineage is open are not among them.
    """

    by_name: Mapping[str, int]
    expected: Mapping[str, Mapping[str, float]]
    likeliest: Mapping[str, LikeliestClass]

    @classmethod
    def of(cls, cells: Iterable[CellResult], model: ModelInfo, under: str = "") -> "OpenCells":
        """Gather the open ones among some cells.

        Args:
            cells: any cells; those of other object types are passed over.
            model: whose taxonomy the names are nodes of.
            under: only cells of this node or below it; all, if empty.
        """
        tree = model.taxonomy
        leaves = set(tree.leaves)
        names: Counter[str] = Counter()
        expected: dict[str, Counter[str]] = {}
        tops: dict[str, list[float]] = {}
        for cell in cells:
            name = cell.label
            if cell.object_type != model.classified or name in leaves or name not in tree:
                continue
            if under and not tree.is_under(name, under):
                continue
            names[name] += 1
            likely = likely_leaves(cell, tree)
            if likely:
                expected.setdefault(name, Counter()).update(likely)
            if likely and name not in tree.blasts:
                top = _likeliest(likely)
                tops.setdefault(top, []).append(likely[top])
        likeliest = {
            leaf: LikeliestClass(len(found), sum(found) / len(found))
            for leaf, found in sorted(tops.items(), key=lambda item: (-len(item[1]), item[0]))
        }
        ordered = {name: dict(sorted(found.items())) for name, found in sorted(expected.items())}
        return cls(dict(sorted(names.items())), ordered, likeliest)

    def expected_under(self, node: str, taxonomy: Taxonomy) -> float:
        """Return how many open cells are expected to be of a node, whatever name they have.

        Open cells without recorded probabilities count where their name is of the node.
        """
        total = 0.0
        for name, count in self.by_name.items():
            found = self.expected.get(name)
            if taxonomy.is_under(name, node):
                total += count
            elif found:
                total += taxonomy.sum_under(found, node)
        return total
