"""All annotations of a data set as columns: what the checks that need no pixels run on.

A million cells take some hundred megabytes and every check a few array operations. Nothing is
mended here: a box may lie outside its image, as the label file has it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import (
    DEFAULT_TAXONOMY,
    LLD_SCHEMA,
    Dataset,
    Domain,
    Schema,
    Taxonomy,
)
from bloodfilm.formats.parquet.columns import cell_columns
from bloodfilm.formats.parquet.index import FieldHeader, IndexFields

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Text = str | None
IGNORE = "(to ignore)"
UNNAMED = "(unnamed)"
UNKNOWN = -1
PHYSICAL = "physical-"
"""How an id begins that names a physical cell: boxes of one such id show one cell."""


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One image and what is said of it; `None` is "nobody said"."""

    path: str
    width: int | None = None
    height: int | None = None
    patient: Text = None
    split: Text = None
    diagnosis: Text = None
    domain: Domain = field(default_factory=Domain)
    number: Text = None
    photograph: Text = None
    present: bool = True
    labelled: bool = True
    lld: bool = False


@dataclass(frozen=True, eq=False)
class Table:
    """Fields as rows, cells as columns, cells of one field side by side.

    Attributes:
        name: of the data set.
        rows: the fields, in order.
        field: (m,) number of each cell's field, never falling.
        box: (m, 4) x, y, w, h in pixels; NaN where a cell has none.
        label: (m,) index into `names`.
        names: class names; `IGNORE` and `UNNAMED` among them.
        codes: (m, attributes) index of each attribute's value, `UNKNOWN` where unknown.
        ids: (m,) the annotations' identities.
    """

    name: str
    rows: tuple[FieldRow, ...]
    field: Ints
    box: Floats
    label: NDArray[np.int16]
    names: tuple[str, ...]
    codes: NDArray[np.int8]
    ids: NDArray[np.object_]
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    schema: Schema = LLD_SCHEMA
    problems: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.field)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(fields + 1,): cells of field k are starts[k] to starts[k + 1]."""
        return np.searchsorted(self.field, np.arange(len(self.rows) + 1)).astype(np.int64)

    @cached_property
    def size(self) -> Floats:
        """(fields, 2) width and height, NaN where unknown."""
        listed = [(r.width or np.nan, r.height or np.nan) for r in self.rows]
        return np.array(listed, dtype=np.float64).reshape(-1, 2)

    @cached_property
    def white(self) -> NDArray[np.bool_]:
        """(m,) whether a cell is, or may be, a nucleated one that is to be found."""
        bare = [self._bare(name) for name in self.names]
        return ~np.array(bare, dtype=bool)[self.label] if self.names else np.zeros(0, bool)

    @cached_property
    def ignored(self) -> NDArray[np.bool_]:
        """(m,) whether a cell is to be ignored."""
        listed = [name == IGNORE for name in self.names]
        return np.array(listed, dtype=bool)[self.label] if self.names else np.zeros(0, bool)

    def _bare(self, name: str) -> bool:
        tree = self.taxonomy
        if name not in tree or "nucleated cell" not in tree:
            return False
        return not (tree.is_under(name, "nucleated cell") or name in tree.path("nucleated cell"))

    def cells_of(self, number: int) -> slice:
        """Return where the cells of a field lie."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))

    def class_of(self, cell: int) -> str:
        """Return a cell's class name."""
        return self.names[int(self.label[cell])]

    def box_of(self, cell: int) -> tuple[float, float, float, float]:
        """Return a cell's box."""
        x, y, w, h = self.box[cell].tolist()
        return x, y, w, h


@dataclass
class Builder:
    """Collects a table field by field."""

    name: str
    schema: Schema = LLD_SCHEMA
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    rows: list[FieldRow] = field(default_factory=list)
    _field: list[int] = field(default_factory=list)
    _box: list[tuple[float, ...]] = field(default_factory=list)
    _label: list[int] = field(default_factory=list)
    _codes: list[tuple[int, ...]] = field(default_factory=list)
    _ids: list[str] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _known: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = field(default_factory=dict)
    _chunks: list[tuple[NDArray[np.generic], ...]] = field(default_factory=list)

    def add(self, row: FieldRow) -> None:
        """Begin a field; the cells that follow are in it."""
        if len(self._field) > 100_000:
            self._pack()
        self.rows.append(row)

    def cell(
        self,
        box: Iterable[float] | None,
        label: str,
        attributes: Mapping[str, str] | None = None,
        ident: str | None = None,
    ) -> None:
        """Add one cell to the last field."""
        self._field.append(len(self.rows) - 1)
        self._box.append((np.nan,) * 4 if box is None else tuple(box))
        self._label.append(self._names.setdefault(label, len(self._names)))
        self._codes.append(self._coded(attributes or {}))
        self._ids.append("" if ident is None else ident)

    def _coded(self, attributes: Mapping[str, str]) -> tuple[int, ...]:
        key = tuple(attributes.items())
        if key not in self._known:
            self._known[key] = tuple(
                a.values.index(attributes[a.name])
                if attributes.get(a.name) in a.values
                else UNKNOWN
                for a in self.schema.attributes
            )
        return self._known[key]

    def _pack(self) -> None:
        """Turn the lists into arrays: a million small tuples would take a gigabyte."""
        width = len(self.schema.attributes)
        self._chunks.append(
            (
                np.array(self._field, dtype=np.int32),
                np.array(self._box, dtype=np.float64).reshape(-1, 4),
                np.array(self._label, dtype=np.int16),
                np.array(self._codes, dtype=np.int8).reshape(-1, width),
                np.array(self._ids, dtype=object),
            )
        )
        for part in (self._field, self._box, self._label, self._codes, self._ids):
            part.clear()

    def table(self, problems: Iterable[str] = (), source: str = "") -> Table:
        """Return what was collected."""
        self._pack()
        number, box, label, codes, ids = (
            np.concatenate(c) for c in zip(*self._chunks, strict=True)
        )
        return Table(
            self.name,
            tuple(self.rows),
            number,
            box,
            label,
            tuple(self._names),
            codes,
            ids,
            self.taxonomy,
            self.schema,
            tuple(problems),
            source,
        )


def table_of(dataset: Dataset) -> Table:
    """Return the columns of a data set, read once, field by field; an index is read by column."""
    if isinstance(dataset.fields, IndexFields):
        return _of_index(dataset, dataset.fields)
    builder = Builder(dataset.name, dataset.schema, dataset.taxonomy)
    domains: dict[Domain, Domain] = {}
    for item in dataset:
        builder.add(
            FieldRow(
                str(item.path),
                item.width,
                item.height,
                item.patient,
                item.split,
                item.diagnosis,
                domains.setdefault(item.domain, item.domain),
                item.meta.get("field"),
                item.meta.get("photograph"),
                labelled=not item.region.is_nothing,
            )
        )
        for cell in item.cells:
            name = IGNORE if cell.ignore else cell.label or UNNAMED
            builder.cell(cell.box, name, cell.attributes, cell.id)
    return builder.table(dataset.problems, str(dataset.source or ""))


def _of_index(dataset: Dataset, fields: IndexFields) -> Table:
    """Return the columns of an index without making an object for any cell."""
    rows = tuple(_row_of(head) for head in fields.heads())
    cells = cell_columns(fields, dataset.schema, ids=True)
    names = (*cells.names, UNNAMED, IGNORE)
    label = np.where(cells.label < 0, len(cells.names), cells.label)
    label = np.where(cells.ignore, len(cells.names) + 1, label)
    occurring = np.flatnonzero(np.bincount(label, minlength=len(names)))
    place = np.zeros(len(names), np.int16)
    place[occurring] = np.arange(len(occurring))
    return Table(
        dataset.name,
        rows,
        np.repeat(np.arange(len(rows), dtype=np.int32), cells.counts),
        cells.box,
        place[label],
        tuple(names[i] for i in occurring.tolist()),
        cells.codes,
        cells.ids,
        dataset.taxonomy,
        dataset.schema,
        dataset.problems,
        str(dataset.source or ""),
    )


def _row_of(head: FieldHeader) -> FieldRow:
    known = head.origin
    return FieldRow(
        head.path,
        head.width,
        head.height,
        known["patient"],
        known["split"],
        known["diagnosis"],
        known["domain"],
        known["meta"].get("field"),
        known["meta"].get("photograph"),
        labelled=not known["region"].is_nothing,
    )
