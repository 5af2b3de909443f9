"""LLD's text labels compared with its JSON labels."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bloodfilm.core.cell_table import IGNORE, CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.formats.lld.codes import is_none
from bloodfilm.formats.lld.raw_text import TextLabels, class_of

CLOSE = 1.5  # pixels; text labels are rounded
Places = dict[tuple[Path, str], int]
"""(subset folder, stem of an image) -> number of its row among those of the JSON labels."""


def compare_with_json(
    file: TextLabels, table: CellTable, places: Mapping[tuple[Path, str], int]
) -> Iterator[Finding]:
    """Yield where a text label file and the JSON labels of the same field do not agree."""
    number = places.get((file.subset.path, file.path.stem))
    if number is None:
        yield Finding(
            "labels-differ",
            "warning",
            "the JSON labels do not list this field",
            file=str(file.path),
            advice="find out which is complete",
        )
        return
    cells = table.cells_of(number)
    in_json = cells.stop - cells.start
    if not file.patched and len(file.rows) != in_json:
        yield Finding(
            "labels-differ",
            "warning",
            f"{len(file.rows)} cells here, {in_json} in the JSON labels",
            {"cells": len(file.rows), "cells_in_json": in_json},
            file=str(file.path),
            advice="find out which is right",
        )
    yield from _compare_classes(file, table, number)


def _compare_classes(file: TextLabels, table: CellTable, number: int) -> Iterator[Finding]:
    cells = table.cells_of(number)
    box = table.box[cells]
    centres = box[:, :2] + box[:, 2:] / 2
    # A text label's size is its image's; that of a missing image is what the JSON labels state.
    stated = table.size[number]
    scale = stated / file.size if np.isfinite(stated).all() else np.ones(2)
    for row in file.rows:
        x, y, w, h = row.box
        centre = np.array([x + w / 2, y + h / 2]) * scale
        gap = np.abs(centres - centre).max(axis=1, initial=0) if len(centres) else np.zeros(0)
        near = np.flatnonzero(gap < CLOSE)
        name = class_of(row) or "?"
        classes = sorted({table.class_of(int(cells.start + k)) for k in near})
        if len(near) and (IGNORE if is_none(name) else name) not in classes:
            yield Finding(
                "labels-differ",
                "error",
                f"{row.place} is {name}, in the JSON labels {' and '.join(classes)}",
                {"class": name, "classes_in_json": classes},
                file=str(file.path),
                advice="let a morphologist decide",
                annotations=(row.place,),
            )
