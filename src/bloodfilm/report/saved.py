"""Crops of cells and annotated fields as files, for programs and people without the report."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import OutputError
from bloodfilm.core.files import write_bytes
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.sources import ImageSource, read_whole
from bloodfilm.imaging.sources.slide import SlideSource
from bloodfilm.report.html.palette import cell_style
from bloodfilm.report.pictures import file_stem, jpeg, slide_crop

CROPS, IMAGES = "crops", "images"
CROP_SIDE = 224
SLIDE_SIDE = 4096
_QUALITY = 92


class CropWriter:
    """Writes each classified cell to `crops/CLASS/IMAGE-ID.jpg`; may be called by many threads.

    A crop is the window that the classifier sees, evenly lit and white-balanced.
    """

    def __init__(self, out: Path, classified: str, window_um: float) -> None:
        self._folder = out / CROPS
        self._classified = classified
        self._window_um = window_um

    def __call__(self, source: ImageSource, result: FieldResult) -> None:
        """Write the crops of a field."""
        cells = [cell for cell in result.cells if cell.object_type == self._classified]
        if not cells:
            return
        view = CanonicalView.from_record(result.view)
        for cell, crop in zip(cells, self._crops(source, view, cells), strict=True):
            name = f"{file_stem(result.path)}-{cell.id}.jpg"
            _write(self._folder / class_folder(cell.label) / name, crop)

    def _crops(
        self, source: ImageSource, view: CanonicalView, cells: Sequence[CellResult]
    ) -> Iterator[Image]:
        if isinstance(source, SlideSource):
            for cell in cells:
                yield slide_crop(source, view, cell, CROP_SIDE, self._window_um)
            return
        middles = [(c.box[0] + c.box[2] / 2, c.box[1] + c.box[3] / 2) for c in cells]
        yield from view.crops(read_whole(source), middles, CROP_SIDE, self._window_um / CROP_SIDE)


DARK = (22, 18, 28)
"""RGB of what is drawn around boxes and letters."""


class ImageWriter:
    """Writes each field with its cells drawn on it to `images/IMAGE-DIGEST.jpg`.

    Of a slide it is the overview, at most `SLIDE_SIDE` pixels wide and high.
    """

    def __init__(self, out: Path, classified: str, taxonomy: Taxonomy) -> None:
        self._folder = out / IMAGES
        self._classified = classified
        self._taxonomy = taxonomy

    def __call__(self, source: ImageSource, result: FieldResult) -> None:
        """Write one field."""
        slide = isinstance(source, SlideSource)
        drawn = (source.thumbnail(SLIDE_SIDE) if slide else read_whole(source)).copy()
        shrunk = drawn.shape[1] / result.image.width, drawn.shape[0] / result.image.height
        scale = max(drawn.shape[:2]) / 1600
        for cell in result.cells:
            if cell.object_type == self._classified:
                x, y, w, h = cell.box
                box = (x * shrunk[0], y * shrunk[1], w * shrunk[0], h * shrunk[1])
                shown = replace(cell, box=box)
                self._draw(drawn, shown, max(1, round(3 * scale)), max(0.4, 0.7 * scale))
        digest = result.image.sha256[:12]
        _write(self._folder / f"{file_stem(result.path)}-{digest}.jpg", drawn)

    def _draw(self, image: Image, cell: CellResult, thick: int, size: float) -> None:
        left, top, right, bottom = (round(v) for v in cell.xyxy)
        colour = cell_style(cell.label, self._taxonomy).rgb
        text = f"{cell.label} {cell.label_confidence:.2f}".encode("ascii", "replace").decode()
        for ink, width in ((DARK, thick + 2), (colour, thick)):
            cv2.rectangle(image, (left, top), (right, bottom), ink, width)
        below = top - 4 if top > 24 * size else bottom + round(24 * size)
        write_on(image, text, (left, below), size, max(1, thick // 2))


def write_on(image: Image, text: str, at: tuple[int, int], size: float, thick: int) -> None:
    """Write white text with a dark edge, shifted to the left where it would not fit.

    The edge is the text itself, moved: with another thickness OpenCV sets letters elsewhere.

    Args:
        image: (H, W, 3), written on.
        text: ASCII.
        at: left end of its base line.
        size: of the font, as OpenCV has it.
        thick: of the letters, px.
    """
    font = cv2.FONT_HERSHEY_SIMPLEX
    (length, _), _ = cv2.getTextSize(text, font, size, thick)
    x, y = max(2, min(at[0], image.shape[1] - length - 2)), at[1]
    for dx, dy in ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)):
        cv2.putText(image, text, (x + dx, y + dy), font, size, DARK, thick, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), font, size, (255, 255, 255), thick, cv2.LINE_AA)


def class_folder(label: str) -> str:
    """Return the name of a folder for a class, as `data convert --from folder` reads it back.

    >>> class_folder("band neutrophil"), class_folder("../x")
    ('band neutrophil', 'x')
    """
    return re.sub(r"[^\w ,()-]+", "-", label).strip("-. ") or "unnamed"


def _write(path: Path, image: Image) -> None:
    try:
        write_bytes(path, jpeg(np.ascontiguousarray(image), _QUALITY), sync=False)
    except OSError as error:
        why = (error.strerror or "writing failed").lower()
        raise OutputError(
            f"{path}: {why}; what is done is kept; correct that", ["resume"]
        ) from None
