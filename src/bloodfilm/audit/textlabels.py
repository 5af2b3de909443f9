"""LLD's text labels as they stand on disk, line by line, and the faults of the files themselves."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bloodfilm.audit.cell_table import IGNORE, UNNAMED, Builder, FieldRow
from bloodfilm.audit.finding import Finding
from bloodfilm.core import LLD_SCHEMA, DataError
from bloodfilm.formats import lld
from bloodfilm.formats.lld.codes import (
    CLASSES,
    attributes_from_text,
    is_none,
    not_applicable_text,
)
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.lld.text import (
    PATCH_ORDERS,
    PATCH_WIDTHS,
    USUAL_SIZE,
    WIDTHS,
    fitting_orders,
)
from bloodfilm.formats.shared.context import ReadContext
from bloodfilm.formats.shared.images import ImageIndex, image_size, walk
from bloodfilm.formats.shared.parsing import read_text
from bloodfilm.formats.shared.paths import split_of
from bloodfilm.formats.shared.yolo_rows import Row, parse_rows

NO_LABELS = frozenset({"classes.txt"})


@dataclass
class TextFile:
    """One text label file: its image, its lines, those of them that could be read.

    Attributes:
        faults: what is wrong with the file or with single lines.
    """

    path: Path
    image: Path
    split: str | None
    subset: lld.Subset
    size: tuple[int, int] = USUAL_SIZE
    lines: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    readable: bool = True

    @property
    def patched(self) -> list[Row]:
        """The lines that have a patch."""
        return [row for row in self.rows if 5 + len(row.rest) in PATCH_WIDTHS]

    @property
    def orders(self) -> tuple[str, ...]:
        """The patch orders that fit every line that has a patch."""
        return fitting_orders(self.patched, self.size)


def text_files(subset: lld.Subset, folder: Path) -> list[TextFile]:
    """Read every label file of a folder of text labels, such as `txt_labels/AttriDet`."""
    index = ImageIndex(subset.path)
    found = []
    for place, names in walk(folder):
        split = split_of(place.name)
        for name in names:
            if name.endswith(".txt") and name not in NO_LABELS:
                near = subset.path / "Images" / (split or "") / f"{Path(name).stem}.png"
                image = near if near.is_file() else index.find(near.name, near=near) or near
                found.append(_read(TextFile(place / name, image, split, subset)))
    _judge_orders(found)
    return found


def _read(file: TextFile) -> TextFile:
    if file.image.is_file():
        with contextlib.suppress(DataError):  # the check that opens it will say why
            file.size = image_size(file.image)
    reading = ReadContext(file.path)
    try:
        file.lines = read_text(file.path).splitlines()
    except DataError as error:
        what = str(error).removeprefix(f"{file.path}: ")
        file.faults.append(Finding("unreadable labels", "error", str(file.path), what, "mend it"))
        file.readable = False
        return file
    file.rows = parse_rows(reading, file.path, file.lines, file.size, WIDTHS)
    for problem in reading.problems:
        _, where, what = problem.split(": ", 2)
        file.faults.append(_fault("unreadable labels", file, where, what))
    for row in file.rows:
        file.faults += _codes(file, row)
    return file


def _codes(file: TextFile, row: Row) -> Iterator[Finding]:
    if row.class_id not in CLASSES:
        yield _fault("stray code", file, row.place, f"has class {row.class_id}")
    columns = row.rest[4:] if 5 + len(row.rest) in PATCH_WIDTHS else row.rest
    names = LLD_SCHEMA.names[-len(columns) :] if columns else ()
    for name, code in zip(names, columns, strict=True):
        if code not in {*range(len(LLD_SCHEMA[name].values)), *not_applicable_text(name)}:
            yield _fault("stray code", file, row.place, f"has {name} {code:g}")


def _fault(kind: str, file: TextFile, where: str, what: str) -> Finding:
    ident = (where,)
    return Finding(kind, "error", str(file.path), f"{where} {what}", "mend the line", 1.0, ident)


def _judge_orders(files: Sequence[TextFile]) -> None:
    """Add the findings on patches: files that fit no order, and files unlike most others."""
    patched = [file for file in files if file.patched]
    sure = [file.orders[0] for file in patched if len(file.orders) == 1]
    usual = max(PATCH_ORDERS, key=sure.count)
    for file in patched:
        path = str(file.path)
        if not file.orders:
            what = "box centres lie outside the patch whichever way its columns are read"
            hint = "correct the patch columns; the reader leaves the file out"
            file.faults.append(Finding("patch order", "error", path, what, hint, 1.0))
        elif usual not in file.orders:
            what = f"patch columns are {file.orders[0]}, in most files {usual}"
            hint = "write them like the others: `bloodfilm data fix` does"
            file.faults.append(Finding("patch order", "warning", path, what, hint, 0.98))


# ---- as a table ------------------------------------------------------------------------------


def add_files(builder: Builder, files: Sequence[TextFile], by_image: bool) -> None:
    """Add files and their lines, unmended, to a table; rows bear the image's path or the file's."""
    for file in files:
        parts = parse_name(file.image.name)
        present = file.image.is_file()
        builder.add(
            FieldRow(
                str(file.image if by_image else file.path),
                *file.size,
                parts.patient if parts else None,
                file.split,
                parts.diagnosis if parts else None,
                file.subset.domain,
                parts.field if parts else None,
                parts.photograph if parts else None,
                present,
                lld=True,
            )
        )
        for row in file.rows:
            name = CLASSES.get(row.class_id, UNNAMED)
            columns = row.rest[4:] if 5 + len(row.rest) in PATCH_WIDTHS else row.rest
            known, _ = attributes_from_text(columns, none=is_none(name))
            builder.cell(row.box, IGNORE if is_none(name) else name, known, row.place)
