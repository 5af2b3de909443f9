"""Cells as columns: an index is read some row groups at a time, no object is made per cell."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Dataset, Domain, Field, Schema
from bloodfilm.core.cell_table import UNKNOWN, CellColumns, CellTable, FieldRow
from bloodfilm.formats.parquet.index import FieldHeader, IndexFields, naming_damage


def table_of(dataset: Dataset) -> CellTable:
    """Return a data set of any format as columns, read once."""
    rows: list[FieldRow] = []
    if isinstance(dataset.fields, IndexFields):
        rows = [_row_of_header(header) for header in dataset.fields.heads()]
        cells = cell_columns(dataset.fields, dataset.schema, ids=True)
    else:
        domains: dict[Domain, Domain] = {}

        def noted(item: Field) -> Field:
            rows.append(_row_of(item, domains.setdefault(item.domain, item.domain)))
            return item

        cells = CellColumns.from_fields(map(noted, dataset), dataset.schema)
    return CellTable(
        dataset.name,
        tuple(rows),
        cells,
        dataset.taxonomy,
        dataset.schema,
        dataset.issues,
        str(dataset.source or ""),
    )


def _row_of(item: Field, domain: Domain) -> FieldRow:
    return FieldRow(
        str(item.path),
        item.width,
        item.height,
        item.patient,
        item.split,
        item.diagnosis,
        domain,
        item.meta.get("field"),
        item.meta.get("photograph"),
        region=item.region,
    )


def _row_of_header(header: FieldHeader) -> FieldRow:
    known = header.origin
    return FieldRow(
        header.path,
        header.width,
        header.height,
        known["patient"],
        known["split"],
        known["diagnosis"],
        known["domain"],
        known["meta"].get("field"),
        known["meta"].get("photograph"),
        region=known["region"],
    )


def cell_columns(fields: IndexFields, schema: Schema, ids: bool = False) -> CellColumns:
    """Read the cells of all fields."""
    reader = _Reader(schema)
    for table in fields.tables(_LEAVES if ids else _LEAVES[:-1]):
        with naming_damage(fields.path):
            reader.add(table)
    return reader.columns()


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
