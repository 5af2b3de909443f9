"""The depth of the taxonomy at which an evaluation distinguishes cells."""

from dataclasses import dataclass
from functools import cached_property

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import NUCLEATED, PLATELET, RED_CELL, Taxonomy

PRESETS: dict[str, tuple[str, ...]] = {
    "white-cell": ("white cell",),
    "detector": (NUCLEATED, RED_CELL, PLATELET),
    "three": ("white cell", RED_CELL, PLATELET),
    "five": ("neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte"),
}
"""Levels with a name of their own; `leaves` is one more, and any nodes can be listed."""


@dataclass(frozen=True)
class ClassGranularity:
    """Classes to evaluate: nodes of the tree, none above another; what lies below is merged.

    Attributes:
        name: what the user called it.
        classes: the nodes, in order.
        taxonomy: their tree.
    """

    name: str
    classes: tuple[str, ...]
    taxonomy: Taxonomy

    def __post_init__(self) -> None:
        if not self.classes:
            raise ConfigError(f"level {self.name!r}: name one class or more")
        for one in self.classes:
            for other in self.classes:
                if one != other and self.taxonomy.is_under(one, other):
                    raise ConfigError(
                        f"level {self.name!r}: {one!r} lies under {other!r}; name only one of them"
                    )

    def of_truth(self, label: str | None) -> tuple[tuple[str, ...], bool]:
        """Return the possible classes of an annotated cell, and whether it is certain.

        A label at or below a class is of that class for certain. One above some classes
        ("white cell" where leaves are evaluated), or none at all, may be any of those below it.
        """
        if label is None:
            return self.classes, False
        if label in self._class_of:
            return (self._class_of[label],), True
        return tuple(c for c in self.classes if self.taxonomy.is_under(c, label)), False

    @cached_property
    def _class_of(self) -> dict[str, str]:
        """The class that each node at or below one belongs to."""
        return {
            node: name
            for name in self.classes
            for node in self.taxonomy.names
            if self.taxonomy.is_under(node, name)
        }

    def of_result(self, cell: CellResult) -> tuple[str, float] | None:
        """Return the class a found cell counts for and its score, `None` if it is of no class.

        With leaf probabilities it is the class that holds most of them, and the score is the
        detector's times what the class holds. Without, the class its label lies under (for red
        cells and platelets, and in tables that carry no probabilities), with the detector's score.
        """
        if cell.probabilities:
            held = dict.fromkeys(self.classes, 0.0)
            for leaf, p in cell.probabilities.items():
                if leaf in self._class_of:
                    held[self._class_of[leaf]] += p
            best = max(self.classes, key=lambda name: held[name])
            return (best, cell.confidence * min(1.0, held[best])) if held[best] > 0 else None
        for label in (cell.label, cell.object_type):
            if label in self._class_of:
                return self._class_of[label], cell.confidence
        return None


def parse_granularity(text: str, taxonomy: Taxonomy) -> ClassGranularity:
    """Read a level: `white-cell`, `detector`, `three`, `five`, `leaves`, or nodes and commas.

    Raises:
        ConfigError: if a name is not a node of the taxonomy.
    """
    if text == "leaves":
        return ClassGranularity(text, taxonomy.leaves, taxonomy)
    names = PRESETS.get(text) or tuple(part.strip() for part in text.split(",") if part.strip())
    classes: list[str] = []
    for name in names:
        found = taxonomy.find(name)
        if found is None:
            raise ConfigError(
                f"level {text!r}: no class {name!r}; use {', '.join(PRESETS)}, leaves, or classes "
                f"of the taxonomy joined by commas"
            )
        classes.append(found)
    return ClassGranularity(text, tuple(dict.fromkeys(classes)), taxonomy)
