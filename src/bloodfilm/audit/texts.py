"""LLD's text labels held against its JSON labels."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bloodfilm.audit.cell_table import IGNORE, Table
from bloodfilm.audit.finding import Finding
from bloodfilm.audit.labels import AnnotationSource
from bloodfilm.audit.textlabels import TextFile, text_files
from bloodfilm.formats.lld.codes import CLASSES
from bloodfilm.formats.lld.text import folders

CLOSE = 1.5  # pixels; text labels are rounded


def check_texts(source: AnnotationSource) -> Iterator[Finding]:
    """Check the text labels beside JSON labels, and hold them against these."""
    by_stem: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(source.table.rows):
        path = Path(row.path)
        by_stem.setdefault((_subset_of(path), path.stem), []).append(number)
    subsets = {loaded.subset.path: loaded.subset for loaded in source.files}
    for subset in subsets.values():
        for folder in folders(subset.path):
            for file in text_files(subset, folder):
                yield from file.faults
                twins = by_stem.get((subset.path.name, file.path.stem), [])
                if twins:
                    yield from _against(file, source.table, twins[0])
                else:
                    what = "no JSON label speaks of this field"
                    hint = "find out which is complete"
                    yield Finding("labels differ", "warning", str(file.path), what, hint)


def _subset_of(image: Path) -> str:
    """Return the folder above `Images`: the subset's name."""
    parts = [p.lower() for p in image.parts]
    return image.parts[parts.index("images") - 1] if "images" in parts else ""


def _against(file: TextFile, table: Table, number: int) -> Iterator[Finding]:
    """Compare one text file with the JSON's boxes of the same field."""
    path, rows = file.path, file.rows
    here = table.cells_of(number)
    if not file.patched and len(rows) != here.stop - here.start:
        what = f"{len(rows)} cells here, {here.stop - here.start} in the JSON labels"
        hint = "find out which is right"
        yield Finding("labels differ", "warning", str(path), what, hint, 1.0)
    box = table.box[here]
    theirs = box[:, :2] + box[:, 2:] / 2
    # A text label's size is its image's; that of a missing image is what the JSON labels state.
    stated = table.size[number]
    scale = stated / file.size if np.isfinite(stated).all() else np.ones(2)
    for row in rows:
        x, y, w, h = row.box
        centre = np.array([x + w / 2, y + h / 2]) * scale
        gap = np.abs(theirs - centre).max(axis=1, initial=0) if len(theirs) else np.zeros(0)
        near = np.flatnonzero(gap < CLOSE)
        name = CLASSES.get(row.class_id, "?")
        classes = {table.class_of(int(here.start + k)) for k in near}
        mine = IGNORE if name == "none" else name
        if len(near) and mine not in classes:
            what = f"{row.place} is {name}, in the JSON labels {' and '.join(sorted(classes))}"
            hint = "let a morphologist decide"
            ident = (row.place,)
            yield Finding("labels differ", "error", str(path), what, hint, 1.0, ident)
