"""Boxes without a nucleus, and nuclei without a box: a classical test, no model.

How like a nucleus a place is (`survey.nucleus_likeness`) is measured against the red cells of its
own field; where the line lies between the two follows from the boxes of the same patient and
microscope, most of which hold a nucleus.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.boxes import MIN_SIDE, at_cells
from bloodfilm.audit.finding import Finding
from bloodfilm.audit.survey import MAP_STEP, Look, Survey

LINE = 0.4
"""Where the line lies between a red cell (0) and the usual nucleus (1), on a log scale."""
CLEAR = 0.35  # log likeness: nuclei that stand out less than this from red cells tell nothing
ENOUGH_BOXES = 5
ODD_TONE = 0.5  # log: a field whose red cells are this much unlike the patient's others
LEAST_AREA, MOST_AREA = 0.45, 4.0  # of a usual nucleus
LEAST_FILL = 0.55
EDGE = 2  # small pixels
MAYBE = 0.4


def nuclear_lines(found: Survey) -> dict[int, float]:
    """Return, per field, the likeness above which a place is taken for a nucleus.

    Fields of a patient with too few boxes, or whose nuclei stand out too little, have none.
    """
    lines: dict[int, float] = {}
    for numbers in found.groups().values():
        tones = np.array([np.log(_strength(found.looks[n])) for n in numbers])
        usual_tone = float(np.median(tones))
        sound = [n for n, t in zip(numbers, tones, strict=True) if abs(t - usual_tone) < ODD_TONE]
        values = np.concatenate([_judged(found, n) for n in sound] or [np.zeros(0)])
        if len(values) < ENOUGH_BOXES:
            continue
        usual = float(np.log(np.maximum(np.median(values), 1e-3)))
        if usual > CLEAR:
            lines |= dict.fromkeys(sound, float(np.exp(LINE * usual)))
    return lines


def _strength(look: Look) -> float:
    return float(max(np.linalg.norm(look.tone), 1e-3))


def _judged(found: Survey, number: int) -> NDArray[np.float64]:
    here = found.table.cells_of(number)
    values = found.looks[number].nuclear.astype(np.float64)
    counted = found.table.white[here] & ~found.table.ignored[here] & np.isfinite(values)
    return values[counted]


def no_nucleus(found: Survey, lines: dict[int, float]) -> Iterator[Finding]:
    """Boxes of white cells in which nothing is as dark and as purple as a nucleus."""
    table = found.table
    for number, line in sorted(lines.items()):
        here = table.cells_of(number)
        for place, value in enumerate(found.looks[number].nuclear.tolist()):
            cell = here.start + place
            if not (value < line and table.white[cell] and not table.ignored[cell]):
                continue
            if table.box[cell, 2:].min() < MIN_SIDE:
                continue
            # 0.6 at the line, 1 where it is no darker than a red cell.
            sure = float(np.clip(1 - 0.4 * np.log(max(value, 1.0)) / np.log(line), 0.6, 0.97))
            what = (
                f"nothing in this box of {table.class_of(cell)} is as dark as a nucleus "
                f"({value:.2g} times the red cells; nuclei here exceed {line:.2g})"
            )
            hint = "look at it: if it lies over a red cell or beside its cell, delete or move it"
            severity = "error" if sure >= 0.8 else "warning"
            finding = Finding(
                "no nucleus", "error" if severity == "error" else "warning", "", what, hint, sure
            )
            yield at_cells(table, finding, (cell,))


def unmarked(found: Survey, lines: dict[int, float]) -> Iterator[Finding]:
    """Dark blobs of a nucleus's size that no box covers; maybe white cells."""
    table = found.table
    for numbers in found.groups().values():
        masks = {n: _mask(found.looks[n], lines[n]) for n in numbers if n in lines}
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


def _mask(look: Look, line: float) -> NDArray[np.uint8]:
    least = 64 + 8 * np.log2(line)
    dark = np.asarray(look.likeness >= least, dtype=np.uint8)
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
    holds = (
        (box[0] <= cx) & (cx <= box[0] + box[2]) & (box[1] <= cy) & (cy <= box[1] + box[3])
    )
    return bool((inside | holds).any())
