"""The names that a result of one model may hold: object types, classes, attributes, values."""

from collections.abc import Iterable, Iterator

from bloodfilm.core.errors import DataError
from bloodfilm.core.results.cell import CellResult
from bloodfilm.core.results.model import ModelInfo
from bloodfilm.core.taxonomy import BLAST

_SHOWN = 40


class Vocabulary:
    """Checks that cells use the names of their model only.

    Args:
        model: as the file records it.
    """

    def __init__(self, model: ModelInfo) -> None:
        self._types = frozenset(model.object_types)
        classes = frozenset(model.taxonomy.names)
        self._classes = classes | {BLAST} if BLAST in model.taxonomy else classes
        self._values = {a.name: frozenset(a.values) for a in model.schema.attributes}

    def check(self, cells: Iterable[CellResult]) -> None:
        """Check the cells of one field.

        Raises:
            DataError: names cell, key and name of the first that the model does not have.
        """
        for number, cell in enumerate(cells):
            for key, name, what in self._unknown(cell):
                raise DataError(f"cell {number}: {key}: the model has no {what} {name[:_SHOWN]!r}")

    def _unknown(self, cell: CellResult) -> Iterator[tuple[str, str, str]]:
        """Yield key, name and kind of every name that the model does not have."""
        if cell.object_type not in self._types:
            yield "object_type", cell.object_type, "object type"
        if cell.label not in self._classes:
            yield "class", cell.label, "class"
        for name in cell.probabilities.keys() - self._classes:
            yield "probabilities", name, "class"
        for name, attribute in cell.attributes.items():
            if name not in self._values:
                yield "attributes", name, "attribute"
                continue
            used = set(attribute.probabilities)
            if attribute.value is not None:
                used.add(attribute.value)
            for value in used - self._values[name]:
                yield name, value, "value"
