"""The depth of the taxonomy at which an evaluation tells cells apart."""

from dataclasses import dataclass

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.result import CellResult
from bloodfilm.core.taxonomy import Taxonomy

PRESETS: dict[str, tuple[str, ...]] = {
    "white-cell": ("white cell",),
    "detector": ("nucleated cell", "red cell", "platelet"),
    "three": ("white cell", "red cell", "platelet"),
}
"""Levels with a name of their own; `leaves` is one more, and any nodes can be listed."""


@dataclass(frozen=True)
class Level:
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
        """Say which classes an annotated cell may be of, and whether that is certain.

        A label at or below a class is of that class for certain. One above some classes
        ("white cell" where leaves are evaluated), or none at all, may be any of those below it.
        """
        if label is None:
            return self.classes, False
        for name in self.classes:
            if self.taxonomy.is_under(label, name):
                return (name,), True
        return tuple(c for c in self.classes if self.taxonomy.is_under(c, label)), False

    def of_result(self, cell: CellResult) -> tuple[str, float] | None:
        """Return the class a found cell counts for and its score, `None` if it is of no class.

        With leaf probabilities it is the class that holds most of them, and the score is the
        detector's times what the class holds. Without, the class its label lies under (for red
        cells and platelets, and in tables that carry no probabilities), with the detector's score.
        """
        if cell.probabilities:
            held = {name: self.held(cell, name) for name in self.classes}
            best = max(self.classes, key=lambda name: held[name])
            return (best, cell.score * held[best]) if held[best] > 0 else None
        for label in (cell.label, cell.kind):
            for name in self.classes:
                if label in self.taxonomy and self.taxonomy.is_under(label, name):
                    return name, cell.score
        return None

    def held(self, cell: CellResult, name: str) -> float:
        """Return the probability a cell's leaves put under a node."""
        total = sum(
            p
            for leaf, p in cell.probabilities.items()
            if leaf in self.taxonomy and self.taxonomy.is_under(leaf, name)
        )
        return min(1.0, total)


def parse_level(text: str, taxonomy: Taxonomy) -> Level:
    """Read a level: `white-cell`, `detector`, `three`, `leaves`, or nodes joined by commas.

    Raises:
        ConfigError: where a name is no node of the taxonomy.
    """
    if text == "leaves":
        return Level(text, taxonomy.leaves, taxonomy)
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
    return Level(text, tuple(dict.fromkeys(classes)), taxonomy)
