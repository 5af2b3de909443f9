"""Pictures for people: fields with boxes drawn in, single cells, contact sheets; true to shape.

All images are uint8 RGB (H, W, 3). A squeezed field is stretched so that round cells are round.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from bloodfilm.evaluation.differential import is_nucleated
from bloodfilm.report.html.palette import ink

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Below this a stretch would only blur: measured squeezes of unsqueezed fields stray as much.
NO_SQUEEZE = 0.03
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DARK: Colour = (26, 22, 38)
_PAPER: Colour = (250, 249, 247)


def true_size(
    width: int, height: int, squeeze: float = 1.0, longest: int | None = None
) -> tuple[int, int]:
    """Return width and height that show a field unsqueezed, no side longer than `longest` px.

    `squeeze` is width / height of a round cell in the file. The shorter-scaled side is stretched,
    never the other shrunk, so no detail is lost before `longest` applies.
    """
    if not math.isfinite(squeeze) or squeeze <= 0 or abs(squeeze - 1) < NO_SQUEEZE:
        squeeze = 1.0
    wide, high = width * max(1.0, 1 / squeeze), height * max(1.0, squeeze)
    factor = 1.0 if longest is None else min(1.0, longest / max(wide, high))
    return max(1, round(wide * factor)), max(1, round(high * factor))


def resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the image at (width, height): area average where it shrinks, cubic where it grows."""
    if image.shape[1::-1] == size:
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)


def draw_field(
    image: Pixels,
    cells: Sequence[CellResult],
    *,
    squeeze: float = 1.0,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
    names: bool = True,
    longest: int | None = None,
) -> Pixels:
    """Return the field unsqueezed, with every cell boxed and nucleated ones named.

    Args:
        image: the field as it was opened.
        cells: what was found in it; boxes in pixels of `image`.
        squeeze: width / height of a round cell in `image`.
        taxonomy: tree of the names; decides colours and which names are undecided (dashed).
        names: whether to write the names.
        longest: most pixels of a side of the picture.
    """
    height, width = image.shape[:2]
    size = true_size(width, height, squeeze, longest)
    canvas = np.ascontiguousarray(resized(image, size)).copy()
    fx, fy = size[0] / width, size[1] / height
    line = max(1, round(max(size) / 600))
    nucleated = [c for c in cells if is_nucleated(c, taxonomy)]
    for cell in [c for c in cells if not is_nucleated(c, taxonomy)]:
        _box(canvas, _corners(cell, fx, fy), ink(cell.label, taxonomy).rgb, 1, False)
    for cell in nucleated:
        drawn = ink(cell.label, taxonomy)
        corners = _corners(cell, fx, fy)
        _box(canvas, corners, _DARK, line + 2, False)
        _box(canvas, corners, drawn.rgb, line, drawn.dashed)
    if names:
        for cell in nucleated:
            _name(canvas, cell.label, _corners(cell, fx, fy), max(0.4, max(size) / 2200))
    return canvas


def contact_sheet(
    crops: Sequence[Pixels], captions: Sequence[str], columns: int = 6, side: int = 128
) -> Pixels:
    """Return cell pictures side by side, each with its caption below (ASCII; `?` elsewhere).

    Raises:
        ValueError: if there are not as many captions as crops.
    """
    if len(crops) != len(captions):
        raise ValueError(f"{len(crops)} crops but {len(captions)} captions")
    columns = max(1, min(columns, len(crops)))
    rows = max(1, math.ceil(len(crops) / columns))
    gap, text = 8, 18
    sheet = np.empty(
        (rows * (side + text + gap) + gap, columns * (side + gap) + gap, 3), dtype=np.uint8
    )
    sheet[:] = _PAPER
    for place, (crop, caption) in enumerate(zip(crops, captions, strict=True)):
        row, column = divmod(place, columns)
        x, y = gap + column * (side + gap), gap + row * (side + text + gap)
        sheet[y : y + side, x : x + side] = resized(crop, (side, side))
        _caption(sheet, caption, (x, y + side + 13), side)
    return sheet


def _corners(cell: CellResult, fx: float, fy: float) -> tuple[int, int, int, int]:
    x, y, w, h = cell.box
    return round(x * fx), round(y * fy), round((x + w) * fx), round((y + h) * fy)


def _box(
    canvas: Pixels, corners: tuple[int, int, int, int], colour: Colour, line: int, dashed: bool
) -> None:
    left, top, right, bottom = corners
    if not dashed:
        # Upright edges need no smoothing, which would only pale thin lines.
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, line)
        return
    dash = max(4, 4 * line)
    for x in range(left, right, 2 * dash):
        end = min(x + dash, right)
        cv2.line(canvas, (x, top), (end, top), colour, line)
        cv2.line(canvas, (x, bottom), (end, bottom), colour, line)
    for y in range(top, bottom, 2 * dash):
        end = min(y + dash, bottom)
        cv2.line(canvas, (left, y), (left, end), colour, line)
        cv2.line(canvas, (right, y), (right, end), colour, line)


def _name(canvas: Pixels, label: str, corners: tuple[int, int, int, int], scale: float) -> None:
    """Write a name above its box, or below where there is no room, inside the picture."""
    text = _ascii(label)
    (wide, high), deep = cv2.getTextSize(text, _FONT, scale, 1)
    left, top, _, bottom = corners
    tall = high + deep + 4
    x = max(0, min(left, canvas.shape[1] - wide - 6))
    y = top - tall - 1 if top > tall else min(bottom + 2, canvas.shape[0] - tall - 1)
    # A plate, not an outline: how far letters stand apart may depend on their thickness.
    cv2.rectangle(canvas, (x, y), (x + wide + 5, y + tall), _DARK, cv2.FILLED)
    at = (x + 3, y + high + 2)
    cv2.putText(canvas, text, at, _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)


def _caption(sheet: Pixels, caption: str, origin: tuple[int, int], side: int) -> None:
    text, scale = _ascii(caption), 0.4
    wide = cv2.getTextSize(text, _FONT, scale, 1)[0][0]
    cv2.putText(
        sheet, text, origin, _FONT, scale * min(1.0, side / max(wide, 1)), _DARK, 1, cv2.LINE_AA
    )


def _ascii(text: str) -> str:
    """OpenCV's fonts know nothing else."""
    return text.encode("ascii", "replace").decode("ascii")
