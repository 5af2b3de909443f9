"""The cells of an index as arrays, read some row groups at a time: no object is made per cell."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Cell, Field, Schema

if TYPE_CHECKING:
    from bloodfilm.formats.parquet.index import IndexFields

GROUPS_AT_ONCE = 32
"""Row groups read together: some eight thousand fields."""
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class CellColumns:
    """Cells in the order of their fields.

    Attributes:
        counts: (fields,) cells of each field.
        box: (m, 4) x, y, w, h; NaN where a cell has none.
        label: (m,) index into `names`, `UNKNOWN` for a cell nobody named; names: the classes.
        ignore: (m,) whether to ignore it.
        codes: (m, attributes of the schema) index of each value, `UNKNOWN` where it has none.
        ids: (m,) identities, empty where there is none; of length 0 if they were not asked for.
    """

    counts: NDArray[np.int64]
    box: NDArray[np.float64]
    label: NDArray[np.int16]
    names: tuple[str, ...]
    ignore: NDArray[np.bool_]
    codes: NDArray[np.int8]
    ids: NDArray[np.object_]

    def of_fields(self, numbers: NDArray[np.int64]) -> "CellColumns":
        """Return the cells of some fields, given by their numbers, rising."""
        wanted = np.zeros(len(self.counts), bool)
        wanted[numbers] = True
        cells = np.repeat(wanted, self.counts)
        ids = self.ids[cells] if len(self.ids) else self.ids
        return CellColumns(
            self.counts[numbers],
            self.box[cells],
            self.label[cells],
            self.names,
            self.ignore[cells],
            self.codes[cells],
            ids,
        )


def cell_columns(fields: "IndexFields", schema: Schema, ids: bool = False) -> CellColumns:
    """Read the cells of all fields."""
    reader = _Reader(schema)
    for table in fields.tables(_LEAVES if ids else _LEAVES[:-1]):
        reader.add(table)
    return reader.columns()


def columns_of(fields: Iterable[Field], schema: Schema) -> CellColumns:
    """Return the cells of fields in memory as arrays, without identities."""
    cells: list[Cell] = []
    counts = []
    for item in fields:
        cells += item.cells
        counts.append(len(item.cells))
    names: dict[str, int] = {}
    label = [UNKNOWN if c.label is None else names.setdefault(c.label, len(names)) for c in cells]
    ranks = [(a.name, {v: i for i, v in enumerate(a.values)}) for a in schema.attributes]
    codes = [[of.get(c.attributes.get(n, ""), UNKNOWN) for n, of in ranks] for c in cells]
    return CellColumns(
        np.array(counts, dtype=np.int64),
        np.array([c.box or (np.nan,) * 4 for c in cells], dtype=np.float64).reshape(-1, 4),
        np.array(label, dtype=np.int16),
        tuple(names),
        np.array([c.ignore for c in cells], dtype=bool),
        np.array(codes, dtype=np.int8).reshape(-1, len(ranks)),
        np.zeros(0, object),
    )


_STRUCT = "cells.list.element."
_LEAVES = (
    *(_STRUCT + name for name in (*"xywh", "class", "ignore", "attributes")),
    _STRUCT + "id",
)


@dataclass
class _Reader:
    """Collects the columns of one table after another."""

    schema: Schema
    names: dict[str, int] = field(default_factory=dict)
    parts: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    def add(self, table: Any) -> None:
        """Take the cells of some fields."""
        listed = table.column("cells").combine_chunks()
        offsets = listed.offsets.to_numpy()
        cells = listed.values.slice(offsets[0], offsets[-1] - offsets[0])
        box = [cells.field(side).to_numpy(zero_copy_only=False) for side in "xywh"]
        known = {f.name for f in cells.type}
        ids: NDArray[Any] = np.zeros(0, object)
        if "id" in known:
            ids = cells.field("id").fill_null("").to_numpy(zero_copy_only=False)
        self.parts.append(
            (
                np.diff(offsets).astype(np.int64),
                np.stack(box, axis=1).astype(np.float64, copy=False),
                self._labels(cells.field("class")),
                cells.field("ignore").to_numpy(zero_copy_only=False).astype(bool),
                _codes(cells.field("attributes"), self.schema),
                ids,
            )
        )

    def _labels(self, column: Any) -> NDArray[np.int16]:
        coded = column.dictionary_encode()
        numbers = [self.names.setdefault(n, len(self.names)) for n in coded.dictionary.to_pylist()]
        return _looked_up(coded.indices, numbers, np.int16)

    def columns(self) -> CellColumns:
        """Join what was collected."""
        if not self.parts:
            empty = np.zeros((0, 4)), np.zeros(0, np.int16), np.zeros(0, bool)
            codes = np.zeros((0, len(self.schema.attributes)), np.int8)
            self.parts.append((np.zeros(0, np.int64), *empty, codes, np.zeros(0, object)))
        counts, box, label, ignore, codes, ids = (
            np.concatenate(p) for p in zip(*self.parts, strict=True)
        )
        return CellColumns(counts, box, label, tuple(self.names), ignore, codes, ids)


def _codes(column: Any, schema: Schema) -> NDArray[np.int8]:
    """Turn a column of (attribute, value) pairs into one code per attribute."""
    offsets = column.offsets.to_numpy()
    span = offsets[0], offsets[-1] - offsets[0]
    keys, values = (c.slice(*span).dictionary_encode() for c in (column.keys, column.items))
    place = {name: i for i, name in enumerate(schema.names)}
    which = _looked_up(keys.indices, [place.get(k, -1) for k in keys.dictionary.to_pylist()], int)
    words = values.dictionary.to_pylist()
    meaning = np.full((len(schema.attributes), max(len(words), 1)), UNKNOWN, np.int8)
    for row, attribute in enumerate(schema.attributes):
        for column_, word in enumerate(words):
            if word in attribute.values:
                meaning[row, column_] = attribute.values.index(word)
    codes = np.full((len(offsets) - 1, len(schema.attributes)), UNKNOWN, np.int8)
    cell = np.repeat(np.arange(len(codes)), np.diff(offsets))
    said = which >= 0
    value = values.indices.fill_null(0).to_numpy(zero_copy_only=False)
    codes[cell[said], which[said]] = meaning[which[said], value[said]]
    return codes


def _looked_up(indices: Any, numbers: list[int], kind: type) -> NDArray[Any]:
    """Return the number of each index, `UNKNOWN` where there is none."""
    table: NDArray[Any] = np.array([*numbers, UNKNOWN], dtype=kind)
    return table[indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)]
