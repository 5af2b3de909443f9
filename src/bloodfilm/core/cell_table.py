"""Fields and cells as columns: what works on a million cells works on these.

A million cells take some hundred megabytes, and a check of them a few array operations. Boxes are
as the label files have them: one may lie outside its image, or have no area.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import BoxArray, Floats
from bloodfilm.core.attributes import LLD_SCHEMA, Schema
from bloodfilm.core.domain import Domain
from bloodfilm.core.field import Box, Field
from bloodfilm.core.issues import Issue
from bloodfilm.core.polygons import Region
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, NUCLEATED, Taxonomy

UNKNOWN = -1
"""The code of an attribute or a class that nobody stated."""
IGNORE, UNNAMED = "(to ignore)", "(unnamed)"
"""Class names of a table for cells to ignore and for cells nobody named."""
PHYSICAL = "physical-"
"""Prefix of ids that name a physical cell: boxes of one such id show one cell."""
MIN_CELL_SIDE = 8.0
"""Pixels: a narrower or lower box shows too little of a cell to judge it."""


@dataclass(frozen=True, eq=False)
class CellColumns:
    """Cells in the order of their fields.

    Attributes:
        counts: (fields,) cells of each field.
        box: (m, 4) x, y, w, h in pixels; NaN where a cell has none.
        label: (m,) index into `names`, `UNKNOWN` for a cell nobody named.
        names: the classes.
        ignore: (m,) whether the cell is to be ignored.
        codes: (m, attributes of the schema) index of each value, `UNKNOWN` where it has none.
        ids: (m,) the annotations' identities, empty where there is none; of length 0 if they were
            not read.
    """

    counts: NDArray[np.int64]
    box: BoxArray
    label: NDArray[np.int16]
    names: tuple[str, ...]
    ignore: NDArray[np.bool_]
    codes: NDArray[np.int8]
    ids: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def field(self) -> NDArray[np.int32]:
        """(m,) number of each cell's field, never falling."""
        return np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(fields + 1,): cells of field k are starts[k] to starts[k + 1]."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

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

    @classmethod
    def from_fields(cls, fields: Iterable[Field], schema: Schema) -> "CellColumns":
        """Return the cells of fields, read once, in order."""
        builder = CellColumnsBuilder(schema)
        for item in fields:
            builder.begin_field()
            for cell in item.cells:
                builder.add(cell.box, cell.label, cell.attributes, cell.id, cell.ignore)
        return builder.columns()


@dataclass
class CellColumnsBuilder:
    """Collects cells, field by field."""

    schema: Schema
    _counts: list[int] = field(default_factory=list)
    _box: list[tuple[float, ...]] = field(default_factory=list)
    _label: list[int] = field(default_factory=list)
    _ignore: list[bool] = field(default_factory=list)
    _codes: list[tuple[int, ...]] = field(default_factory=list)
    _ids: list[str] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _coded: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = field(default_factory=dict)
    _chunks: list[tuple[NDArray[np.generic], ...]] = field(default_factory=list)

    def begin_field(self) -> None:
        """Begin a field; the cells that follow are in it."""
        if len(self._label) > 100_000:
            self._pack()
        self._counts.append(0)

    def add(
        self,
        box: Iterable[float] | None,
        label: str | None,
        attributes: Mapping[str, str] | None = None,
        id: str | None = None,
        ignore: bool = False,
    ) -> None:
        """Add one cell to the last field; values that the schema does not have are unknown."""
        self._counts[-1] += 1
        self._box.append((np.nan,) * 4 if box is None else tuple(box))
        number = UNKNOWN if label is None else self._names.setdefault(label, len(self._names))
        self._label.append(number)
        self._ignore.append(ignore)
        self._codes.append(self._codes_of(attributes or {}))
        self._ids.append("" if id is None else id)

    def _codes_of(self, attributes: Mapping[str, str]) -> tuple[int, ...]:
        key = tuple(attributes.items())
        if key not in self._coded:
            self._coded[key] = tuple(
                a.values.index(attributes[a.name])
                if attributes.get(a.name) in a.values
                else UNKNOWN
                for a in self.schema.attributes
            )
        return self._coded[key]

    def _pack(self) -> None:
        """Turn the lists into arrays: a million small tuples would take a gigabyte."""
        width = len(self.schema.attributes)
        self._chunks.append(
            (
                np.array(self._box, dtype=np.float64).reshape(-1, 4),
                np.array(self._label, dtype=np.int16),
                np.array(self._ignore, dtype=bool),
                np.array(self._codes, dtype=np.int8).reshape(-1, width),
                np.array(self._ids, dtype=object),
            )
        )
        for part in (self._box, self._label, self._ignore, self._codes, self._ids):
            part.clear()

    def columns(self) -> CellColumns:
        """Return what was collected."""
        self._pack()
        box, label, ignore, codes, ids = (
            np.concatenate(chunks) for chunks in zip(*self._chunks, strict=True)
        )
        counts = np.array(self._counts, dtype=np.int64)
        return CellColumns(counts, box, label, tuple(self._names), ignore, codes, ids)


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One image and what the data set states of it; `None` where it states nothing.

    Attributes:
        path: of the image (or of its label file, where only that is judged).
        width, height: in pixels.
        patient, split, diagnosis, domain: as in `Field`.
        number, photograph: of the field and of its photograph, as LLD's file names count them.
        region: where every cell is annotated.
        checked: whether its reader has looked for the image and reported a missing one.
        present: whether a checked image is on disk.
    """

    path: str
    width: int | None = None
    height: int | None = None
    patient: str | None = None
    split: str | None = None
    diagnosis: str | None = None
    domain: Domain = field(default_factory=Domain)
    number: str | None = None
    photograph: str | None = None
    region: Region = field(default_factory=Region.everything)
    checked: bool = False
    present: bool = True

    @property
    def is_on_disk(self) -> bool:
        """Whether the image is there to be opened."""
        return self.present and os.path.isfile(self.path)  # noqa: PTH113, never raises


@dataclass(frozen=True, eq=False)
class CellTable:
    """A data set as columns: its fields as rows, its cells side by side, field by field.

    Attributes:
        name: of the data set.
        rows: the fields, in order.
        cells: the cells, in the order of `rows`.
        taxonomy, schema, issues: as in `Dataset`.
        source: the file or folder it was read from.
    """

    name: str
    rows: tuple[FieldRow, ...]
    cells: CellColumns
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    schema: Schema = LLD_SCHEMA
    issues: tuple[Issue, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def field(self) -> NDArray[np.int32]:
        """(m,) number of each cell's field, never falling."""
        return self.cells.field

    @property
    def starts(self) -> NDArray[np.int64]:
        """(fields + 1,): cells of field k are starts[k] to starts[k + 1]."""
        return self.cells.starts

    @property
    def box(self) -> BoxArray:
        """(m, 4) x, y, w, h in pixels; NaN where a cell has none."""
        return self.cells.box

    @property
    def codes(self) -> NDArray[np.int8]:
        """(m, attributes) index of each attribute's value, `UNKNOWN` where unknown."""
        return self.cells.codes

    @property
    def ids(self) -> NDArray[np.object_]:
        """(m,) the annotations' identities."""
        return self.cells.ids

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(m,) whether a cell is to be ignored."""
        return self.cells.ignore

    @cached_property
    def _classes(self) -> tuple[NDArray[np.int16], tuple[str, ...]]:
        """The cells' classes, and the names of the classes that occur."""
        cells = self.cells
        names = (*cells.names, UNNAMED, IGNORE)
        label = np.where(cells.label < 0, len(cells.names), cells.label)
        label = np.where(cells.ignore, len(cells.names) + 1, label)
        occurring = np.flatnonzero(np.bincount(label, minlength=len(names)))
        place = np.zeros(len(names), np.int16)
        place[occurring] = np.arange(len(occurring))
        return place[label], tuple(names[i] for i in occurring.tolist())

    @property
    def label(self) -> NDArray[np.int16]:
        """(m,) index into `names`."""
        return self._classes[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The class names that occur, `IGNORE` and `UNNAMED` among them."""
        return self._classes[1]

    @cached_property
    def size(self) -> Floats:
        """(fields, 2) width and height, NaN where unknown."""
        listed = [(r.width or np.nan, r.height or np.nan) for r in self.rows]
        return np.array(listed, dtype=np.float64).reshape(-1, 2)

    @cached_property
    def white(self) -> NDArray[np.bool_]:
        """(m,) whether a cell is, or may be, a nucleated one that is to be found."""
        bare = [self._is_bare(name) for name in self.names]
        return ~np.array(bare, dtype=bool)[self.label] if self.names else np.zeros(0, bool)

    def _is_bare(self, name: str) -> bool:
        """Whether a class has no nucleus: red cells, platelets."""
        tree = self.taxonomy
        if name not in tree or NUCLEATED not in tree:
            return False
        return not (tree.is_under(name, NUCLEATED) or name in tree.path(NUCLEATED))

    def cells_of(self, number: int) -> slice:
        """Return where the cells of a field lie."""
        return slice(int(self.starts[number]), int(self.starts[number + 1]))

    def class_of(self, cell: int) -> str:
        """Return a cell's class name."""
        return self.names[int(self.label[cell])]

    def box_of(self, cell: int) -> Box:
        """Return a cell's box."""
        x, y, w, h = self.box[cell].tolist()
        return x, y, w, h


@dataclass
class CellTableBuilder:
    """Collects a table field by field."""

    name: str
    schema: Schema = LLD_SCHEMA
    taxonomy: Taxonomy = DEFAULT_TAXONOMY
    rows: list[FieldRow] = field(default_factory=list)
    cells: CellColumnsBuilder = field(init=False)

    def __post_init__(self) -> None:
        self.cells = CellColumnsBuilder(self.schema)

    def add_field(self, row: FieldRow) -> None:
        """Begin a field; the cells that follow are in it."""
        self.rows.append(row)
        self.cells.begin_field()

    def add_cell(
        self,
        box: Iterable[float] | None,
        label: str | None,
        attributes: Mapping[str, str] | None = None,
        id: str | None = None,
        ignore: bool = False,
    ) -> None:
        """Add one cell to the last field."""
        self.cells.add(box, label, attributes, id, ignore)

    def table(self, issues: Iterable[Issue] = (), source: str = "") -> CellTable:
        """Return what was collected."""
        return CellTable(
            self.name,
            tuple(self.rows),
            self.cells.columns(),
            self.taxonomy,
            self.schema,
            tuple(issues),
            source,
        )
