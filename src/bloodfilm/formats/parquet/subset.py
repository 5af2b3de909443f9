"""Some fields of an index, perhaps in other splits, still read when they are asked for."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Field, Schema
from bloodfilm.core.cell_table import CellColumns
from bloodfilm.core.lazy_sequence import LazySequence
from bloodfilm.formats.parquet.columns import cell_columns
from bloodfilm.formats.parquet.index import FieldHeader, IndexFields

Keep = Callable[[FieldHeader], FieldHeader | None]


class ChosenFields(LazySequence[Field]):
    """The fields of an index with some numbers, in order.

    Args:
        source: where the fields are.
        numbers: (n,) rising.
        splits: (n,) of each, as an index into `names`; `None` leaves them as the index has them.
    """

    def __init__(
        self,
        source: IndexFields,
        numbers: NDArray[np.int64],
        splits: NDArray[np.int16] | None = None,
        names: tuple[str | None, ...] = (),
    ) -> None:
        self.source, self.numbers, self.splits, self.names = source, numbers, splits, names

    def __len__(self) -> int:
        return len(self.numbers)

    def item_at(self, place: int) -> Field:
        """Return the field at a place."""
        return self._placed(self.source[int(self.numbers[place])], place)

    def __iter__(self) -> Iterator[Field]:
        """Yield the fields in order, one row group in memory at a time."""
        place = 0
        for number, item in enumerate(self.source):
            if place < len(self) and number == self.numbers[place]:
                yield self._placed(item, place)
                place += 1

    def _placed(self, item: Field, place: int) -> Field:
        if self.splits is None:
            return item
        return replace(item, split=self.names[self.splits[place]])

    def heads(self) -> Iterator[FieldHeader]:
        """Yield what is said of each field, without its cells."""
        place = 0
        for number, head in enumerate(self.source.heads()):
            if place < len(self) and number == self.numbers[place]:
                if self.splits is not None:
                    head.origin["split"] = self.names[self.splits[place]]
                yield head
                place += 1

    def shards(self) -> NDArray[np.int32]:
        """Return the row group of each field, (n,)."""
        sizes = self.source.group_sizes()
        of_field = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        return np.asarray(of_field[self.numbers])

    def cells(self, schema: Schema) -> CellColumns:
        """Return the cells of these fields as arrays, without identities."""
        return cell_columns(self.source, schema).of_fields(self.numbers)


def choose(fields: IndexFields | ChosenFields, keep: Keep) -> ChosenFields:
    """Return the fields of which `keep` returns a head; its split takes the place of theirs."""
    names: dict[str | None, int] = {}
    places, splits = [], []
    for place, head in enumerate(fields.heads()):
        kept = keep(head)
        if kept is not None:
            places.append(place)
            splits.append(names.setdefault(kept.origin["split"], len(names)))
    numbers = np.array(places, dtype=np.int64)
    if isinstance(fields, ChosenFields):
        numbers, fields = fields.numbers[numbers], fields.source
    return ChosenFields(fields, numbers, np.array(splits, dtype=np.int16), tuple(names))
