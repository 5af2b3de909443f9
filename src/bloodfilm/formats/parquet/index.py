"""A columnar index of fields and cells in Parquet, for sets larger than memory.

One row a field, its cells a nested column. Fields are made when they are asked for, from the row
group they lie in; a few row groups are kept. Opening reads the file's footer and nothing else.
Needs pyarrow: `pip install 'bloodfilm[index]'`.
"""

import contextlib
import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from bloodfilm.core import (
    BloodfilmError,
    Cell,
    ConfigError,
    DataError,
    Dataset,
    Field,
    Region,
    Schema,
    Taxonomy,
)
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.dataset_codes import dataset_issue
from bloodfilm.core.files import regular_file
from bloodfilm.core.issues import Issue
from bloodfilm.core.json_text import loads
from bloodfilm.core.lazy_sequence import LazySequence
from bloodfilm.core.taxonomy import current_default
from bloodfilm.formats.native.records import issues_from_json, origin_from_json, origin_to_json
from bloodfilm.formats.parquet.seal import DamagedIndexError, Seal, seal
from bloodfilm.formats.parquet.unpacked import Unpacked
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.output import Losses, WriteOptions, finish, output_file, unique_names
from bloodfilm.formats.shared.parsing import peek
from bloodfilm.formats.shared.paths import relative

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
FILE_NAME = "index.parquet"
KEY = b"bloodfilm"
ROWS = 256
"""Fields a row group: small enough that one field at random costs little."""
KEPT_GROUPS = 8
GROUPS_AT_ONCE = 32
"""Row groups read together: some eight thousand fields."""
FREE_ITEMS, ITEMS_PER_BYTE = 100_000, 0.5
"""Fields, and cells, that an index may hold: so many, and so many more for each of its bytes.

Repeated values take next to no bytes: a small file can state thousands of millions of rows. Fields
of an honest index differ at least in their names, cells in their boxes.
"""
FREE_BYTES, GROWTH = 64 << 20, 50
"""Bytes that its columns may unpack to: so many, and so many times its size."""
PLAIN = ("image", "width", "height", "patient", "split", "diagnosis", "origin")
"""The columns that are not lists, in the file's order."""
LATER_COLUMNS = ("source_class", "outline")
"""Columns of a cell that the first files lack: its class where no taxonomy knows it, its shape."""
UNSEALED = "has no checksums, as older versions wrote it: damage may go unnoticed; write it anew"


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ConfigError(
            "a Parquet index needs pyarrow; run: pip install 'bloodfilm[index]'"
        ) from None
    return pyarrow


def recognises(path: Path) -> bool:
    """Whether it is a Parquet file."""
    return path.is_file() and peek(path, 4) == b"PAR1"


# ---- reading ---------------------------------------------------------------------------------


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Open an index; `Dataset.fields` makes its records when they are asked for.

    Boxes and images were checked when the index was written; they are not checked again.
    """
    path = Path(path)
    reading = ReadContext(path, **options)
    file, sealed = _open(path)
    try:
        header = loads((file.schema_arrow.metadata or {})[KEY])
        version = header["version"]
        if version == VERSION:
            taxonomy = options.get("taxonomy") or current_default(
                Taxonomy.from_json(header["taxonomy"])
            )
            schema = Schema.from_json(header["schema"])
            issues = tuple(issues_from_json(header))
            _check_columns(path, file.schema_arrow)
        if header.get("sealed") and sealed is None:
            raise DamagedIndexError(f"{path}: its checksums are lost; copy it again")
    except DamagedIndexError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, BloodfilmError):
        raise DataError(f"{path}: Parquet, but no bloodfilm index; write it anew") from None
    finally:
        file.close(force=True)
    if version != VERSION:
        raise DataError(f"{path}: index version {version!r}, not {VERSION}; update bloodfilm")
    fields = IndexFields(path, reading.images)
    if sealed is None:
        issues += (dataset_issue(codes.UNSEALED, f"{path}: {UNSEALED}", file=str(path)),)
    name, licence = str(header.get("name", path.stem)), header.get("licence")
    licence = None if licence is None else str(licence)
    return Dataset(name, fields, taxonomy, schema, licence, path, issues)


def _open(path: Path) -> tuple[Any, Seal | None]:
    """Open the Parquet file; return its checksums, too, if it has any."""
    pa = _pyarrow()
    try:
        source = pa.memory_map(str(regular_file(path)))
        sealed = Seal.of_file(source, path)
        file = pa.parquet.ParquetFile(source, page_checksum_verification=True)
        _check_growth(path, file.metadata, source.size())
        if sealed is not None:
            sealed.locate(_group_starts(file.metadata))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a whole Parquet file ({reason}); write it anew") from None
    return file, sealed


def _check_growth(path: Path, metadata: Any, size: int) -> None:
    """Raise if a file states more than its bytes can honestly hold."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    most = FREE_ITEMS + ITEMS_PER_BYTE * size
    items = max(
        metadata.num_rows,
        sum(max(g.column(n).num_values for n in range(g.num_columns)) for g in groups),
    )
    if items > most:
        raise DataError(
            f"{path}: states {items:,} fields or cells in {size:,} bytes, more than an index of "
            "that size holds; write it anew"
        )
    unpacked = sum(group.total_byte_size for group in groups)
    if unpacked > _most_unpacked(size):
        raise DataError(
            f"{path}: its {size:,} bytes unpack to {unpacked:,}, more than an index of that size "
            "holds; write it anew"
        )


def _most_unpacked(size: int) -> int:
    return FREE_BYTES + GROWTH * size


def _group_starts(metadata: Any) -> list[int]:
    """Return the first byte of each row group; its first column is what was written first."""
    firsts = (metadata.row_group(group).column(0) for group in range(metadata.num_row_groups))
    return [
        min(at for at in (c.dictionary_page_offset, c.data_page_offset) if at is not None)
        for c in firsts
    ]


@contextlib.contextmanager
def naming_damage(path: Path, group: int | None = None) -> Iterator[None]:
    """Turn whatever damaged columns or values raise into one line that names the file.

    Args:
        path: the index.
        group: the row group that is read, if it is known.
    """
    pa = _pyarrow()
    try:
        yield
    except MemoryError:
        raise
    except (
        pa.ArrowException,
        ArithmeticError,
        AttributeError,
        BloodfilmError,
        LookupError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        if isinstance(error, DamagedIndexError):
            raise
        place = "" if group is None else f"row group {group}: "
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DamagedIndexError(
            f"{path}: {place}the index is damaged ({reason}); write it anew"
        ) from None


def _check_columns(path: Path, found: "pa.Schema") -> None:
    """Raise if a column is missing or of another type than `write` gives it."""
    for column in _columns():
        place = found.get_field_index(column.name)
        if place < 0:
            raise DamagedIndexError(f"{path}: no column {column.name!r}; write the index anew")
        if not _same_type(found.field(place).type, column.type):
            kind = str(found.field(place).type)[:80]
            raise DamagedIndexError(
                f"{path}: column {column.name!r} is {kind}; write the index anew"
            )


def _same_type(found: Any, wanted: Any) -> bool:
    """Whether a column is of a type; cells may lack `LATER_COLUMNS`, and have others."""
    types = _pyarrow().types
    if types.is_list(wanted):
        return types.is_list(found) and _same_type(found.value_type, wanted.value_type)
    if not types.is_struct(wanted):
        return bool(found.equals(wanted))
    known = {field.name: field.type for field in found} if types.is_struct(found) else {}
    return all(
        known[field.name].equals(field.type) if field.name in known else field.name in LATER_COLUMNS
        for field in wanted
    )


class IndexFields(LazySequence[Field]):
    """The fields of an index file, made on access; safe to send to other processes."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path = path
        self.images = images
        self._connect()

    def _connect(self) -> None:
        self._file, self._seal = _open(self.path)
        self._folder = str(self.path.parent)
        meta = self._file.metadata
        self._unpacked = Unpacked(self.path, meta, _most_unpacked(self.path.stat().st_size))
        self._starts = [0]
        for group in range(meta.num_row_groups):
            self._starts.append(self._starts[-1] + meta.row_group(group).num_rows)
        self._groups: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "images": self.images}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.images = state["path"], state["images"]
        self._connect()

    def __len__(self) -> int:
        return self._starts[-1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def item_at(self, place: int) -> Field:
        """Return the field at a place."""
        group = self._group_of(place)
        with naming_damage(self.path, group):
            batch = self._group(group).slice(place - self._starts[group], 1)
            return next(self._fields(batch))

    def __iter__(self) -> Iterator[Field]:
        """Yield every field in order, one row group in memory at a time."""
        for group in range(len(self._starts) - 1):
            with naming_damage(self.path, group):
                fields = self._fields(self._read(group))
            while True:
                with naming_damage(self.path, group):
                    item = next(fields, None)
                if item is None:
                    break
                yield item

    def heads(self) -> Iterator["FieldHeader"]:
        """Yield what is said of every field, in order, without its cells, which are not read."""
        for table in self.tables(PLAIN):
            with naming_damage(self.path):
                heads = list(self._heads(table))
            yield from heads

    def tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield some columns of all fields in order, as Arrow tables of several row groups."""
        count = len(self._starts) - 1
        for first in range(0, count, GROUPS_AT_ONCE):
            groups = list(range(first, min(count, first + GROUPS_AT_ONCE)))
            self._verify(groups)
            with naming_damage(self.path):
                table = self._file.read_row_groups(groups, columns=list(columns), use_threads=False)
                table.validate(full=True)
            yield table

    def group_sizes(self) -> list[int]:
        """Return the number of fields in each row group."""
        return [b - a for a, b in pairwise(self._starts)]

    def _group_of(self, position: int) -> int:
        return bisect_right(self._starts, position) - 1

    def _group(self, group: int) -> Any:
        if group not in self._groups:
            self._groups[group] = self._read(group)
            if len(self._groups) > KEPT_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(group)
        return self._groups[group]

    def _verify(self, groups: Iterable[int]) -> None:
        for group in groups:
            if self._seal is not None:
                self._seal.verify(group)
            with naming_damage(self.path, group):
                self._unpacked.check(group)

    def _read(self, group: int) -> Any:
        self._verify([group])
        table = self._file.read_row_group(group, use_threads=False).combine_chunks()
        table.validate(full=True)  # before anything follows its offsets
        return table

    def _fields(self, table: Any) -> Iterator[Field]:
        """Yield the fields of a table, its columns turned into Python objects one at a time."""
        cells: Iterable[Sequence[Cell]] = ()
        if table.num_rows:
            cells = _lists(table.column("cells").chunk(0), _cells_of)
        for first, listed in zip(self._heads(table), cells, strict=True):
            yield Field(Path(first.path), first.width, first.height, tuple(listed), **first.origin)

    def _heads(self, table: Any) -> "Iterator[FieldHeader]":
        plain = [table.column(name).to_pylist() for name in PLAIN]
        for image, width, height, patient, split, diagnosis, origin in zip(*plain, strict=True):
            if not isinstance(image, str) or not image or "\0" in image:
                raise ValueError("a field has no image")
            if any(side is not None and side < 1 for side in (width, height)):
                raise ValueError(f"{image[:80]} is {width} x {height} px")
            known = origin_from_json(loads(origin) if origin else {})
            known |= {"patient": patient, "split": split, "diagnosis": diagnosis}
            yield FieldHeader(self._place(image), width, height, known)

    def _place(self, image: str) -> str:
        """Return where an image lies, given as seen from the index."""
        if self.images is not None:
            return str(_below(self.images, image))
        return os.path.normpath(image if image.startswith("/") else f"{self._folder}/{image}")


class FieldHeader(NamedTuple):
    """A field without its cells: its image, its size, and the other arguments of `Field`."""

    path: str
    width: int | None
    height: int | None
    origin: dict[str, Any]


def _below(folder: Path, name: str) -> Path:
    """Return where an image lies in a folder: as much of its path as is there, from the end."""
    parts = Path(name).parts
    tails = (folder.joinpath(*parts[start:]) for start in range(int(name[:1] == "/"), len(parts)))
    inside = (tail for tail in tails if ".." not in tail.parts[len(folder.parts) :])
    there = (tail for tail in inside if os.path.isfile(tail))  # noqa: PTH113, never raises
    return next(there, folder / parts[-1])


def _lists(array: Any, items_of: Callable[[Any], list[Any]]) -> list[list[Any]]:
    """Return a list column's rows, its items made all at once by `items_of`."""
    offsets = array.offsets.to_pylist()
    first, last = offsets[0], offsets[-1]
    items = items_of(array.values.slice(first, last - first))
    return [items[a - first : b - first] for a, b in pairwise(offsets)]


def _cells_of(structs: Any) -> list[Cell]:
    columns = [structs.field(name).to_pylist() for name in (*"xywh", "class", "ignore", "id")]
    attributes = _lists(structs.field("attributes"), _pairs_of)
    known = {field.name for field in structs.type}
    empty = [None] * len(attributes)
    own, outlines = (
        structs.field(name).to_pylist() if name in known else empty for name in LATER_COLUMNS
    )
    return [
        Cell(
            None if x is None else (x, y, w, h),
            label,
            dict(pairs),
            ignore,
            ident,
            source_label,
            None if outline is None else Region.from_json(loads(outline)),
        )
        for x, y, w, h, label, ignore, ident, pairs, source_label, outline in zip(
            *columns, attributes, own, outlines, strict=True
        )
    ]


def _pairs_of(structs: Any) -> list[tuple[str, str]]:
    keys, values = (structs.field(i).to_pylist() for i in (0, 1))
    return list(zip(keys, values, strict=True))


# ---- writing ---------------------------------------------------------------------------------


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Write a data set as an index (`*.parquet`, or index.parquet in a folder)."""
    losses = Losses()
    with output_file(Path(path), ".parquet", FILE_NAME, options) as (out, name):
        names: Iterable[str] | None = unique_names(dataset.fields) if out.images else None

        def rows() -> Iterator[dict[str, Any]]:
            places = iter(names) if names is not None else None
            for item in dataset:
                image = out.image(item.path, f"images/{next(places)}") if places else item.path
                yield _row(item, relative(image, out.root), losses)

        _write_rows(rows(), out.file(name), Header.of(dataset), ROWS)
    return finish(out, losses)


@dataclass(frozen=True)
class Header:
    """What an index says of the whole set."""

    name: str
    taxonomy: Taxonomy
    schema: Schema
    licence: str | None = None
    issues: tuple[Issue, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> "Header":
        """Take the header of a data set."""
        d = dataset
        issues = tuple(found for found in d.issues if found.code != codes.UNSEALED)
        return cls(d.name, d.taxonomy, d.schema, d.licence, issues)

    def to_bytes(self) -> bytes:
        """Return the header as it stands in the file's metadata."""
        content = {
            "version": VERSION,
            "sealed": True,
            "name": self.name,
            "taxonomy": self.taxonomy.to_json(),
            "schema": self.schema.to_json(),
            "licence": self.licence,
            "issues": [issue.to_json() for issue in self.issues],
        }
        return json.dumps(content).encode()


def write_fields(
    fields: Iterable[Field],
    path: Path,
    header: Header,
    *,
    overwrite: bool = False,
    rows: int = ROWS,
) -> list[Issue]:
    """Write fields as they come, `rows` at a time: neither here nor later are all in memory."""
    losses = Losses()
    with output_file(Path(path), ".parquet", FILE_NAME, {"overwrite": overwrite}) as (out, name):
        made = (_row(item, relative(item.path, out.root), losses) for item in fields)
        _write_rows(made, out.file(name), header, rows)
    return losses.issues()


def _write_rows(rows: Iterator[dict[str, Any]], file: Path, header: Header, size: int) -> None:
    pa = _pyarrow()
    schema = _columns().with_metadata({KEY: header.to_bytes()})
    with pa.parquet.ParquetWriter(
        file, schema, compression="zstd", write_page_checksum=True
    ) as writer:
        while batch := list(islice(rows, size)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema), row_group_size=size)
    source = pa.memory_map(str(file))
    seal(source, file, _group_starts(pa.parquet.read_metadata(file)))


def _columns() -> "pa.Schema":
    pa = _pyarrow()
    number, text = pa.float64(), pa.string()
    cell = [(side, number) for side in "xywh"] + [
        ("class", text),
        ("ignore", pa.bool_()),
        ("id", text),
        ("attributes", pa.map_(text, text)),
        *((name, text) for name in LATER_COLUMNS),
    ]
    return pa.schema(
        [
            ("image", text),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("patient", text),
            ("split", text),
            ("diagnosis", text),
            ("origin", text),
            ("cells", pa.list_(pa.struct(cell))),
        ]
    )


def _row(item: Field, image: str, losses: Losses) -> dict[str, Any]:
    origin = origin_to_json(item)
    row: dict[str, Any] = {"image": image, "width": item.width, "height": item.height}
    row |= {name: origin.pop(name, None) for name in ("patient", "split", "diagnosis")}
    row["origin"] = json.dumps(origin) if origin else None
    row["cells"] = [_cell_row(cell) for cell in losses.sound(item)]
    return row


def _cell_row(cell: Cell) -> dict[str, Any]:
    x, y, w, h = cell.box or (None, None, None, None)
    return {
        "x": x,
        "y": y,
        "w": w,
        "h": h,
        "class": cell.label,
        "ignore": cell.ignore,
        "id": cell.id,
        "attributes": list(cell.attributes.items()),
        "source_class": cell.source_label,
        "outline": None if cell.outline is None else json.dumps(cell.outline.to_json()),
    }
