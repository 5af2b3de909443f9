"""Boxes without a nucleus, and nuclei without a box: a classical test, no model.

Whatever the stain, chromatin takes up more of the green light than a red cell does, and more of it
than of the red. So a place is like a nucleus by its green optical density over that of the red
cells, times how much greener it is than they are (within bounds, for reddish nuclei). Where red
cells are slate blue, and as dark as nuclei, the hue separates them; where they are pale, the
darkness does. A red cell is 1. Where the threshold between the two lies follows from the boxes of
the same patient and microscope, most of which hold a nucleus.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.image_statistics import MAP_STEP, FieldStatistics, Survey
from bloodfilm.core import Box
from bloodfilm.core.arrays import Bools, BoxArray, Floats
from bloodfilm.core.cell_table import MIN_CELL_SIDE, CellTable
from bloodfilm.core.findings import Finding, finding_at
from bloodfilm.core.issues import Issue, Severity

MIN_RATIO, MAX_RATIO = 0.8, 1.5
MIN_TONE = 0.04  # optical density; below it, there is next to nothing on the glass
CORE = 0.8  # share of a box, per side, in which its nucleus is looked for
DARK_SHARE = 0.8  # quantile: a fifth of a box's core is at least this dark
THRESHOLD = 0.4
"""Where it lies between a red cell (0) and the typical nucleus (1), on a log scale."""
MIN_LOG_LIKENESS = 0.35  # nuclei that stand out less than this from red cells decide nothing
ENOUGH_BOXES = 5
MIN_AREA, MAX_AREA = 0.45, 4.0  # of a typical nucleus
MIN_FILL = 0.55
EDGE = 2  # entries of the map
BLOB_CONFIDENCE = 0.4


@dataclass(frozen=True, eq=False)
class Chromatin:
    """One field's nuclei.

    Attributes:
        likeness: (h, w) of every 4 x 4 px: a red cell is about 1, glass about 0.
        boxes: (n,) likeness of each box of the field; NaN where it has none.
        threshold: from which likeness on a place is a nucleus.
    """

    likeness: Floats
    boxes: Floats
    threshold: float

    def holds_nucleus(self, box: Box) -> bool:
        """Whether something in a box, in pixels of the field, is as dark as a nucleus."""
        (value,) = box_likeness(self.likeness, np.array([box], dtype=np.float64))
        return bool(value >= self.threshold)


def find_chromatin(survey: Survey) -> dict[int, Chromatin]:
    """Return the fields in which nuclei can be distinguished from red cells, by number.

    Fields of a patient with too few boxes, or whose nuclei stand out too little, are not among
    them, nor is a field most of whose boxes would be wrong: there the test is.
    """
    found: dict[int, Chromatin] = {}
    for numbers in survey.groups().values():
        tone = _median_tone([survey.fields[n] for n in numbers])
        group = {}
        for number in numbers:
            likeness = nucleus_likeness(survey.fields[number], tone)
            boxes = survey.table.box[survey.table.cells_of(number)]
            group[number] = Chromatin(likeness, box_likeness(likeness, boxes), 0.0)
        values = np.concatenate([c.boxes[_counted(survey.table, n)] for n, c in group.items()])
        values = values[np.isfinite(values)]
        if len(values) < ENOUGH_BOXES:
            continue
        typical = float(np.log(np.maximum(np.median(values), 1e-3)))
        if typical < MIN_LOG_LIKENESS:
            continue
        threshold = float(np.exp(THRESHOLD * typical))
        for number, chromatin in group.items():
            counted = chromatin.boxes[_counted(survey.table, number)]
            if len(counted) < 3 or (counted < threshold).mean() <= 0.5:
                found[number] = replace(chromatin, threshold=threshold)
    return found


def _median_tone(fields: list[FieldStatistics]) -> Floats:
    """Return the red cells' optical density (3,): the median over fields that show whole ones."""
    showing = [field for field in fields if field.measurement.is_measurable] or fields
    return np.asarray(np.median([field.tone for field in showing], axis=0), dtype=np.float64)


def nucleus_likeness(field: FieldStatistics, tone: Floats) -> Floats:
    """Return how like a nucleus each 4 x 4 px is, (h, w); red cells are about 1, glass about 0."""
    red, green = (field.density[..., c] / (64 * max(float(tone[c]), MIN_TONE)) for c in (0, 1))
    ratio = np.clip(green / np.maximum(red, 0.05), MIN_RATIO, MAX_RATIO)
    return np.asarray(green * ratio, dtype=np.float64)


def box_likeness(likeness: Floats, boxes: BoxArray) -> Floats:
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


def _counted(table: CellTable, number: int) -> Bools:
    here = table.cells_of(number)
    return np.asarray(table.white[here] & ~table.ignored[here])


def no_nucleus(survey: Survey, chromatin: Mapping[int, Chromatin]) -> Iterator[Finding]:
    """Boxes of white cells in which nothing is as dark and as purple as a nucleus."""
    table = survey.table
    for number, seen in sorted(chromatin.items()):
        start, threshold = table.cells_of(number).start, seen.threshold
        below = np.flatnonzero((seen.boxes < threshold) & _counted(table, number))
        for place in below.tolist():
            cell, value = start + place, float(seen.boxes[place])
            if table.box[cell, 2:].min() < MIN_CELL_SIDE:
                continue
            # 0.6 at the threshold, 0.97 where it is no darker than a red cell.
            share = np.log(max(value, 1.0)) / np.log(threshold)
            confidence = float(np.clip(1 - 0.4 * share, 0.6, 0.97))
            severity: Severity = "error" if confidence >= 0.8 else "warning"
            message = (
                f"nothing in this box of {table.class_of(cell)} is as dark as a nucleus "
                f"({value:.2f} times the red cells; nuclei here exceed {threshold:.2f})"
            )
            data = {"darkness": round(value, 3), "threshold": round(threshold, 3)}
            advice = "look at it: if it lies over a red cell or beside its cell, delete or move it"
            issue = Issue("no-nucleus", severity, message, data)
            yield finding_at(table, (cell,), issue, advice, confidence)


def unmarked(survey: Survey, chromatin: Mapping[int, Chromatin]) -> Iterator[Finding]:
    """Dark blobs of a nucleus's size that no box covers; maybe white cells."""
    table = survey.table
    for numbers in survey.groups().values():
        masks = {n: _mask(chromatin[n]) for n in numbers if n in chromatin}
        areas = [a for n in masks for a in _box_areas(table, n, masks[n])]
        if len(areas) < ENOUGH_BOXES:
            continue
        typical = float(np.median(areas))
        for number, mask in sorted(masks.items()):
            boxes = table.box[table.cells_of(number)]
            for box in _blobs(mask, typical):
                if not _covered(box, boxes):
                    yield Finding(
                        "unmarked-white-cell",
                        "info",
                        "something as dark and as large as a nucleus has no box",
                        {"found_by": "darkness"},
                        file=table.rows[number].path,
                        advice="look at it: box it, or mark it `none`",
                        confidence=BLOB_CONFIDENCE,
                        boxes=(box,),
                    )


def _mask(chromatin: Chromatin) -> NDArray[np.uint8]:
    dark = np.asarray(chromatin.likeness >= chromatin.threshold, dtype=np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(cv2.morphologyEx(dark, cv2.MORPH_OPEN, cross), dtype=np.uint8)


def _box_areas(table: CellTable, number: int, mask: NDArray[np.uint8]) -> list[float]:
    """Return the dark area in each box of a white cell, in entries of the map."""
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


def _blobs(mask: NDArray[np.uint8], typical: float) -> Iterator[Box]:
    """Yield boxes, in pixels of the field, around blobs of about the typical area, off the edge."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    height, width = mask.shape
    for x, y, w, h, area in stats[1:count].tolist():
        if not MIN_AREA * typical <= area <= MAX_AREA * typical or area < MIN_FILL * w * h:
            continue
        if min(x, y) < EDGE or x + w > width - EDGE or y + h > height - EDGE:
            continue
        yield tuple(float(v * MAP_STEP) for v in (x, y, w, h))  # type: ignore[misc]


def _covered(box: Box, boxes: BoxArray) -> bool:
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
