"""LLD's text labels held against its JSON labels, and their own codes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.finding import Finding
from bloodfilm.audit.table import IGNORE, Table
from bloodfilm.core import LLD_SCHEMA
from bloodfilm.formats import lld
from bloodfilm.formats._images import walk
from bloodfilm.formats._lldcodes import CLASSES, NOT_APPLICABLE_TEXT, UNKNOWN_SIZE_TEXT
from bloodfilm.formats._lldtext import WIDTHS, folders

Rows = NDArray[np.float64]
CLOSE = 1.5  # pixels; text labels are rounded


def check_texts(root: Path, table: Table) -> Iterator[Finding]:
    """Check every text label below a root, and hold it against the table made from JSON."""
    by_stem: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(table.rows):
        path = Path(row.path)
        by_stem.setdefault((_subset_of(path), path.stem), []).append(number)
    for subset in lld.subsets(root):
        for folder in folders(subset.path):
            for place, names in walk(folder):
                for name in names:
                    if name.endswith(".txt") and name != "classes.txt":
                        twins = by_stem.get((subset.path.name, Path(name).stem), [])
                        yield from _check_file(place / name, table, twins)


def _subset_of(image: Path) -> str:
    """Return the folder above `Images`: the subset's name."""
    parts = [p.lower() for p in image.parts]
    return image.parts[parts.index("images") - 1] if "images" in parts else ""


def _check_file(path: Path, table: Table, twins: list[int]) -> Iterator[Finding]:
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        words = line.split()
        if not words:
            continue
        where = f"line {number + 1}"
        try:
            values = [float(w) for w in words]
        except ValueError:
            yield _fault("unreadable labels", path, where, "is not a row of numbers")
            continue
        if len(values) not in WIDTHS:
            widths = ", ".join(map(str, sorted(WIDTHS)))
            what = f"has {len(values)} columns, not {widths}"
            yield _fault("unreadable labels", path, where, what)
            continue
        yield from _codes(path, where, values)
        rows.append(values[:5])
    if not twins and table.rows:
        what = "no JSON label speaks of this field"
        yield Finding("labels differ", "warning", str(path), what, "find out which is complete")
    elif twins:
        yield from _against(path, np.array(rows).reshape(-1, 5), table, twins[0])


def _codes(path: Path, where: str, values: list[float]) -> Iterator[Finding]:
    if values[0] not in CLASSES:
        yield _fault("stray code", path, where, f"has class {values[0]:g}")
    columns = values[9:] if len(values) in (15, 16) else values[5:]
    names = LLD_SCHEMA.names[-len(columns) :] if columns else ()
    none = CLASSES.get(int(values[0])) == "none"
    for name, code in zip(names, columns, strict=True):
        known = {*range(len(LLD_SCHEMA[name].values)), NOT_APPLICABLE_TEXT, UNKNOWN_SIZE_TEXT}
        if code not in known and not none:
            yield _fault("stray code", path, where, f"has {name} {code:g}")


def _fault(kind: str, path: Path, where: str, what: str) -> Finding:
    return Finding(kind, "error", str(path), f"{where} {what}", "mend the line", 1.0, (where,))


def _against(path: Path, rows: Rows, table: Table, number: int) -> Iterator[Finding]:
    """Compare one text file with the JSON's boxes of the same field."""
    width, height = table.size[number]
    here = table.cells_of(number)
    if not np.isfinite([width, height]).all():
        return
    if len(rows) != here.stop - here.start:
        what = f"{len(rows)} cells here, {here.stop - here.start} in the JSON labels"
        hint = "find out which is right"
        yield Finding("labels differ", "warning", str(path), what, hint, 1.0)
    centres = rows[:, 1:3] * [width, height]
    box = table.box[here]
    theirs = box[:, :2] + box[:, 2:] / 2
    for place, (row, centre) in enumerate(zip(rows, centres, strict=True)):
        gap = np.abs(theirs - centre).max(axis=1, initial=0) if len(theirs) else np.zeros(0)
        near = np.flatnonzero(gap < CLOSE)
        name = CLASSES.get(int(row[0]), "?")
        classes = {table.class_of(int(here.start + k)) for k in near}
        mine = IGNORE if name == "none" else name
        if len(near) and mine not in classes:
            what = f"line {place + 1} is {name}, in the JSON labels {' and '.join(sorted(classes))}"
            hint = "let a morphologist decide"
            ident = (f"line {place + 1}",)
            yield Finding("labels differ", "error", str(path), what, hint, 1.0, ident)
