"""Boxes without a nucleus, and nuclei without a box: a classical test, no model.

Whatever the stain, chromatin takes up more of the green light than a red cell does, and more of it
than of the red. So a place is like a nucleus by its green optical density over that of the red
cells, times how much greener it is than they are (within bounds, for reddish nuclei). Where red
cells are slate blue, and as dark as nuclei, the hue tells; where they are pale, the darkness does.
A red cell is 1. Where the line lies between the two follows from the boxes of the same patient and
microscope, most of which hold a nucleus.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.boxes import MIN_SIDE, at_cells
from bloodfilm.audit.cell_table import Table
from bloodfilm.audit.finding import Finding, Severity
from bloodfilm.audit.image_statistics import MAP_STEP, FieldStatistics, Survey

Floats = NDArray[np.float64]

MIN_RATIO, MAX_RATIO = 0.8, 1.5
MIN_TONE = 0.04  # optical density; below it, there is next to nothing on the glass
CORE = 0.8  # share of a box, per side, in which its nucleus is looked for
DARK_SHARE = 0.8  # quantile: a fifth of a box's core is at least this dark
LINE = 0.4
"""Where the line lies between a red cell (0) and the usual nucleus (1), on a log scale."""
CLEAR = 0.35  # log likeness: nuclei that stand out less than this from red cells tell nothing
ENOUGH_BOXES = 5
LEAST_AREA, MOST_AREA = 0.45, 4.0  # of a usual nucleus
LEAST_FILL = 0.55
EDGE = 2  # small pixels
MAYBE = 0.4


@dataclass(frozen=True, eq=False)
class Chromatin:
    """One field's nuclei: (h, w) likeness of every 4 x 4 px, (n,) of each box, the line."""

    likeness: Floats
    boxes: Floats
    line: float


def find_chromatin(found: Survey) -> dict[int, Chromatin]:
    """Return the fields in which nuclei can be told from red cells.

    Fields of a patient with too few boxes, or whose nuclei stand out too little, are not among
    them, nor is a field most of whose boxes would be wrong: there the test is.
    """
    told: dict[int, Chromatin] = {}
    for numbers in found.groups().values():
        tone = _usual_tone([found.looks[n] for n in numbers])
        group = {}
        for number in numbers:
            likeness = nucleus_likeness(found.looks[number], tone)
            boxes = found.table.box[found.table.cells_of(number)]
            group[number] = Chromatin(likeness, _inside(likeness, boxes), 0.0)
        values = np.concatenate([c.boxes[_counted(found.table, n)] for n, c in group.items()])
        values = values[np.isfinite(values)]
        if len(values) < ENOUGH_BOXES:
            continue
        usual = float(np.log(np.maximum(np.median(values), 1e-3)))
        if usual < CLEAR:
            continue
        line = float(np.exp(LINE * usual))
        for number, chromatin in group.items():
            counted = chromatin.boxes[_counted(found.table, number)]
            if len(counted) < 3 or (counted < line).mean() <= 0.5:
                told[number] = replace(chromatin, line=line)
    return told


def _usual_tone(looks: list[FieldStatistics]) -> Floats:
    """Return the red cells' optical density (3,): the median over fields that show whole ones."""
    showing = [look for look in looks if look.measurement.speaks] or looks
    return np.asarray(np.median([look.tone for look in showing], axis=0), dtype=np.float64)


def nucleus_likeness(look: FieldStatistics, tone: Floats) -> Floats:
    """Say how like a nucleus each 4 x 4 px is, (h, w); red cells are about 1, glass about 0."""
    red, green = (look.density[..., c] / (64 * max(float(tone[c]), MIN_TONE)) for c in (0, 1))
    ratio = np.clip(green / np.maximum(red, 0.05), MIN_RATIO, MAX_RATIO)
    return np.asarray(green * ratio, dtype=np.float64)


def _inside(likeness: Floats, boxes: Floats) -> Floats:
    """Return how like a nucleus the darkest fifth of each box's core is; NaN where it has none."""
    values = np.full(len(boxes), np.nan)
    height, width = likeness.shape
    for place, box in enumerate(boxes / MAP_STEP):
        if not np.isfinite(box).all():
            continue
        x, y, w, h = box
        dx, dy = w * (1 - CORE) / 2, h * (1 - CORE) / 2
        left, right = max(int(x + dx), 0), min(int(np.ceil(x + w - dx)), width)
        top, bottom = max(int(y + dy), 0), min(int(np.ceil(y + h - dy)), height)
        if right > left and bottom > top:
            values[place] = np.quantile(likeness[top:bottom, left:right], DARK_SHARE)
    return values


def holds_nucleus(chromatin: Chromatin, box: tuple[float, float, float, float]) -> bool:
    """Say whether something in a box, in pixels of the field, is as dark as a nucleus."""
    (value,) = _inside(chromatin.likeness, np.array([box], dtype=np.float64))
    return bool(value >= chromatin.line)


def _counted(table: Table, number: int) -> NDArray[np.bool_]:
    here = table.cells_of(number)
    return np.asarray(table.white[here] & ~table.ignored[here])


def no_nucleus(found: Survey, told: dict[int, Chromatin]) -> Iterator[Finding]:
    """Boxes of white cells in which nothing is as dark and as purple as a nucleus."""
    table = found.table
    for number, chromatin in sorted(told.items()):
        start, line = table.cells_of(number).start, chromatin.line
        below = np.flatnonzero((chromatin.boxes < line) & _counted(table, number))
        for place in below.tolist():
            cell, value = start + place, float(chromatin.boxes[place])
            if table.box[cell, 2:].min() < MIN_SIDE:
                continue
            # 0.6 at the line, 0.97 where it is no darker than a red cell.
            sure = float(np.clip(1 - 0.4 * np.log(max(value, 1.0)) / np.log(line), 0.6, 0.97))
            what = (
                f"nothing in this box of {table.class_of(cell)} is as dark as a nucleus "
                f"({value:.2f} times the red cells; nuclei here exceed {line:.2f})"
            )
            hint = "look at it: if it lies over a red cell or beside its cell, delete or move it"
            severity: Severity = "error" if sure >= 0.8 else "warning"
            yield at_cells(table, Finding("no nucleus", severity, "", what, hint, sure), (cell,))


def unmarked(found: Survey, told: dict[int, Chromatin]) -> Iterator[Finding]:
    """Dark blobs of a nucleus's size that no box covers; maybe white cells."""
    table = found.table
    for numbers in found.groups().values():
        masks = {n: _mask(told[n]) for n in numbers if n in told}
        areas = [a for n in masks for a in _box_areas(found, n, masks[n])]
        if len(areas) < ENOUGH_BOXES:
            continue
        usual = float(np.median(areas))
        for number, mask in sorted(masks.items()):
            boxes = table.box[table.cells_of(number)]
            for box in _blobs(mask, usual):
                if not _covered(box, boxes):
                    what = "something as dark and as large as a nucleus has no box"
                    hint = "look at it: box it, or mark it `none`"
                    path = table.rows[number].path
                    yield Finding(
                        "unmarked white cell", "info", path, what, hint, MAYBE, boxes=(box,)
                    )


def _mask(chromatin: Chromatin) -> NDArray[np.uint8]:
    dark = np.asarray(chromatin.likeness >= chromatin.line, dtype=np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.morphologyEx(dark, cv2.MORPH_OPEN, cross), dtype=np.uint8)


def _box_areas(found: Survey, number: int, mask: NDArray[np.uint8]) -> list[float]:
    """Return the dark area in each box of a white cell, in small pixels."""
    table = found.table
    here = table.cells_of(number)
    areas = []
    for cell in range(here.start, here.stop):
        if not table.white[cell] or table.ignored[cell] or not np.isfinite(table.box[cell]).all():
            continue
        x, y, w, h = np.maximum(table.box[cell] / MAP_STEP, 0)
        inside = mask[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))]
        if inside.any():
            areas.append(float(inside.sum()))
    return areas


def _blobs(mask: NDArray[np.uint8], usual: float) -> Iterator[tuple[float, float, float, float]]:
    """Yield boxes, in pixels of the field, around blobs of about the usual area, off the edge."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    height, width = mask.shape
    for x, y, w, h, area in stats[1:count].tolist():
        if not LEAST_AREA * usual <= area <= MOST_AREA * usual or area < LEAST_FILL * w * h:
            continue
        if min(x, y) < EDGE or x + w > width - EDGE or y + h > height - EDGE:
            continue
        yield tuple(float(v * MAP_STEP) for v in (x, y, w, h))  # type: ignore[misc]


def _covered(box: tuple[float, float, float, float], boxes: NDArray[np.float64]) -> bool:
    """Whether some box holds the blob's centre, or the blob holds some box's."""
    if not len(boxes):
        return False
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    inside = (
        (boxes[:, 0] <= x)
        & (x <= boxes[:, 0] + boxes[:, 2])
        & (boxes[:, 1] <= y)
        & (y <= boxes[:, 1] + boxes[:, 3])
    )
    cx, cy = boxes[:, 0] + boxes[:, 2] / 2, boxes[:, 1] + boxes[:, 3] / 2
    holds = (box[0] <= cx) & (cx <= box[0] + box[2]) & (box[1] <= cy) & (cy <= box[1] + box[3])
    return bool((inside | holds).any())
