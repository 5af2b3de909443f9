"""Images embedded in the report: WebP as base64, sized by the number of fields, within a budget.

The budget is never exceeded: what no longer fits is left out, and the page says so.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.report.drawing import resized, true_size

Pixels = NDArray[np.uint8]

BUDGET = 30_000_000
# Share of the budget that may go into pictures of whole fields; cells get what is left.
_FIELD_SHARE = 0.6
# Up to this many fields (cells): longest side (side) in pixels.
_FIELD_SIDES = ((40, 1400), (150, 1000), (10**9, 720))
_CELL_SIDES = ((1500, 160), (10**9, 112))
# What an encoded cell of 112 or 160 px takes about; only decides whom to leave out.
_CELL_BYTES = {160: 6500, 112: 3800}


@dataclass
class ImageBudget:
    """Characters of base64 that may still be spent."""

    left: int

    def take(self, text: str) -> str | None:
        """Return the text and count it, or `None` if there is no room for it."""
        if len(text) > self.left:
            return None
        self.left -= len(text)
        return text


@dataclass(frozen=True)
class EmbeddedImage:
    """The images of one field as base64 WebP.

    Attributes:
        picture: of the whole field; `None` if it is missing.
        width, height: of `picture` in pixels (what it would have, if missing).
        crops: by the cell's index in the result; cells without an image are missing.
        why: why an image is missing; empty if none is.
    """

    picture: str | None
    width: int
    height: int
    crops: Mapping[int, str] = field(default_factory=dict)
    why: str = ""


def webp(image: Pixels, quality: int = 80) -> str:
    """Return an RGB image as base64 WebP."""
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    done, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise ValueError(f"an image of {image.shape} cannot be encoded as WebP")
    return base64.b64encode(data.tobytes()).decode("ascii")


class Embedder:
    """Makes the images of a report, field after field, within a budget.

    `window_um` is the side of the window that the classifier sees; every crop shows just that.
    """

    def __init__(self, fields: int, cells: int, window_um: float, budget: int = BUDGET) -> None:
        self.field_side = _step(_FIELD_SIDES, fields)
        self.cell_side = _step(_CELL_SIDES, cells)
        self.window_um = window_um
        self._fields = ImageBudget(int(budget * _FIELD_SHARE))
        self._cells = ImageBudget(budget - self._fields.left)
        self.room_for_cells = self._cells.left // _CELL_BYTES[self.cell_side]

    def take(self, result: FieldResult, wanted: set[int]) -> EmbeddedImage:
        """Return images of a field and of the wanted cells (by index), within the budget."""
        ratio = result.view.pixel_aspect_ratio
        size = true_size(result.image.width, result.image.height, ratio, self.field_side)
        fields_full = self._fields.left < 1
        if fields_full and not wanted:
            return EmbeddedImage(None, *size, why=_FULL)
        try:
            image = open_image(result.path)
        except (BloodfilmError, OSError, ValueError) as error:
            why = " ".join(str(error).split())
            return EmbeddedImage(None, *size, why=f"the picture could not be read again: {why}")
        if image.shape[:2] != (result.image.height, result.image.width):
            why = "the file has changed since the analysis: its size is another one"
            return EmbeddedImage(None, *size, why=why)
        picture = None if fields_full else self._fields.take(webp(resized(image, size)))
        if picture is None:
            self._fields.left = 0
        crops = self._crops(image, result, sorted(wanted))
        return EmbeddedImage(picture, *size, crops, "" if picture is not None else _FULL)

    def _crops(self, image: Pixels, result: FieldResult, wanted: list[int]) -> dict[int, str]:
        crops: dict[int, str] = {}
        if not wanted:
            return crops
        view = CanonicalView.from_record(result.view)
        centres = [_centre(result.cells[place]) for place in wanted]
        pictures = view.crops(image, centres, self.cell_side, self.window_um / self.cell_side)
        for place, crop in zip(wanted, pictures, strict=True):
            text = self._cells.take(webp(crop, 84))
            if text is not None:
                crops[place] = text
        return crops


_FULL = "left out: the pictures in this report had reached their limit"


def _centre(cell: CellResult) -> tuple[float, float]:
    x, y, w, h = cell.box
    return x + w / 2, y + h / 2


def _step(steps: tuple[tuple[int, int], ...], count: int) -> int:
    return next(side for most, side in steps if count <= most)
