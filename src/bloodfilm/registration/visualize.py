"""Images of registered pairs: source, target with transferred cells, and overlay."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Colour, Pixels
from bloodfilm.core.boxes import corner_pixels
from bloodfilm.core.field import Cell
from bloodfilm.core.files import write_bytes
from bloodfilm.imaging.discovery import mark_drawings
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.registration.transfer import TransferRecord

HEIGHT = 540
CAPTION = 46
BLUE, ORANGE, GREY, BLACK, WHITE = (
    (0, 90, 178),
    (213, 94, 0),
    (120, 120, 120),
    (20, 20, 20),
    (255, 255, 255),
)


def draw(record: TransferRecord, cells: Sequence[Cell], folder: Path) -> Path | None:
    """Write a PNG of one pair into a folder; return its path, or `None` without a source.

    Left: the source with its boxes; centre: the target with the transferred ones (orange: whole;
    grey: ignored); right: overlay of the target (cyan) and the source (red), grey where they agree.
    """
    if record.source is None:
        return None
    source, target = open_image(record.source), open_image(record.target)
    panels = [_boxed(source, cells, BLUE)]
    panels.append(_boxed(target, record.field.cells if record.field else (), ORANGE))
    if record.alignment.matrix is not None:
        panels.append(_overlay(source, target, record.alignment.matrix))
    sheet = _captioned(np.hstack([_fitted(p) for p in panels]), record)
    name = f"{record.source.stem}__{record.target.stem}.png"
    _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_bytes(folder / name, data.tobytes(), sync=False)
    mark_drawings(folder, (name,))
    return folder / name


def _boxed(image: Pixels, cells: Sequence[Cell], colour: Colour) -> Pixels:
    shown = image.copy()
    thick = max(1, round(max(image.shape[:2]) / 400))
    for cell in cells:
        if cell.box is None:
            continue
        corners = corner_pixels(cell.box, image.shape[1], image.shape[0])
        cv2.rectangle(shown, *corners, GREY if cell.ignore else colour, thick, cv2.LINE_AA)
    return shown


def _overlay(source: Pixels, target: Pixels, matrix: NDArray[np.float64]) -> Pixels:
    """Overlay: the source in the red channel, the target in green and blue."""
    size = target.shape[1], target.shape[0]
    shift = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
    index = shift @ np.vstack([matrix, [0, 0, 1]]) @ np.linalg.inv(shift)
    warped = cv2.warpAffine(_grey(source), index[:2], size, borderValue=WHITE)
    under = _grey(target)
    return np.ascontiguousarray(np.dstack([np.asarray(warped), under, under]))


def _grey(image: Pixels) -> Pixels:
    """Green channel with normalised white and black points, comparable across stains."""
    green = image[..., 1].astype(np.float32)
    low, high = np.percentile(green, [0.5, 90])
    return np.clip(255 * (green - low) / max(high - low, 1.0), 0, 255).astype(np.uint8)


def _fitted(panel: Pixels) -> Pixels:
    width = max(1, round(panel.shape[1] * HEIGHT / panel.shape[0]))
    resized = cv2.resize(panel, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.copyMakeBorder(resized, 0, 0, 0, 6, cv2.BORDER_CONSTANT, value=WHITE))


def _captioned(sheet: Pixels, record: TransferRecord) -> Pixels:
    alignment = record.alignment
    names = f"{record.source.name if record.source else '-'}  ->  {record.target.name}"
    verdict = f"{alignment.verdict}, confidence {alignment.confidence:.2f}: {alignment.reason}"
    framed = cv2.copyMakeBorder(sheet, CAPTION, 0, 0, 0, cv2.BORDER_CONSTANT, value=WHITE)
    colour = BLACK if alignment.aligned else ORANGE
    for line, text in enumerate((names, verdict)):
        origin = (6, 18 + 20 * line)
        # OpenCV's built-in fonts support ASCII only.
        plain = text.encode("ascii", "replace").decode()
        cv2.putText(framed, plain, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    return np.asarray(framed, dtype=np.uint8)
