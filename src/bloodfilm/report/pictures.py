"""Pictures of a report: each field and each of its classified cells, as JPEG files.

A field's pictures lie in a folder of their own, named by a digest of all they depend on, so that a
folder that is there is right. They are made while the field's pixels are in memory
(`PictureStore.write`, called by the workers of an analysis), or from the file (`complete`).
"""

import hashlib
import math
import re
import shutil
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import simplejpeg

from bloodfilm.core.arrays import Pixels
from bloodfilm.core.errors import BloodfilmError, OutputError
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.sources import ImageSource, open_source, read_whole
from bloodfilm.imaging.sources.slide import SlideSource
from bloodfilm.report.drawing import resized, true_size

FIELD_PICTURE = "field.jpg"
CELL_SIDE = 160
"""Side of a cell's picture, pixels."""
FIELD_SIDES = ((150, 1280), (600, 960), (10**9, 720))
"""Up to this many files: longest side of a field's picture, pixels."""
_FIELD_QUALITY, _CELL_QUALITY = 80, 85
_FOLDER = re.compile(r"[A-Za-z0-9_.-]{1,40}-[0-9a-f]{12}(\.part)?")
_STEM = 40


@dataclass(frozen=True, slots=True)
class FieldPicture:
    """The pictures of one field.

    Attributes:
        folder: its name in the store.
        width, height: of the field's picture, pixels; what it would have, if it is missing.
        missing: why there are no pictures; empty if there are.
    """

    folder: str
    width: int
    height: int
    missing: str = ""


def field_side(files: int) -> int:
    """Return the longest side of a field's picture in a report on so many files.

    >>> field_side(40), field_side(1000)
    (1280, 720)
    """
    return next(side for most, side in FIELD_SIDES if files <= most)


def cell_picture(place: int) -> str:
    """Return the file name of a cell's picture, by its index in the field's result."""
    return f"{place + 1}.jpg"


def file_stem(path: str) -> str:
    """Return the beginning of a file name for an image, in plain characters.

    >>> file_stem("film 7/field (3).png")
    'field-3'
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).stem)[:_STEM].strip("-") or "field"


def jpeg(image: Pixels, quality: int) -> bytes:
    """Return an RGB image as JPEG; the same bytes for the same pixels."""
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return bytes(data)


class PictureStore:
    """A folder of pictures, one folder per field; `write` may be called from several threads.

    Args:
        folder: where the pictures lie.
        classified: the object type whose cells are pictured.
        window_um: side of the window shown of a cell, micrometres: what the classifier sees.
        files: how many files the report is on.
    """

    def __init__(self, folder: Path, classified: str, window_um: float, files: int) -> None:
        self.folder = folder
        self._classified = classified
        self._window_um = window_um
        self._side = field_side(files)
        self._lock = threading.Lock()

    def describe(self, result: FieldResult, missing: str = "") -> FieldPicture:
        """Return where the pictures of a field are, or shall be."""
        size = self._size(result)
        return FieldPicture(self._name(result), *size, missing)

    def write(self, source: ImageSource, result: FieldResult) -> None:
        """Write the pictures of a field whose pixels are at hand, unless they are there.

        Raises:
            OutputError: if they cannot be written.
        """
        place = self.folder / self._name(result)
        if place.is_dir():
            return
        slide = isinstance(source, SlideSource)
        files = (
            self._of_slide(source, result) if slide else self._encode(read_whole(source), result)
        )
        part = place.with_name(f"{place.name}.part")
        try:
            with self._lock:
                self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            for name, data in files.items():
                (part / name).write_bytes(data)
            part.replace(place)
        except OSError as error:
            if place.is_dir():  # a file of the same bytes under the same name
                shutil.rmtree(part, ignore_errors=True)
                return
            why = (error.strerror or "writing failed").lower()
            raise OutputError(
                f"{error.filename or place}: {why}; what is done is kept; correct that", ["resume"]
            ) from None

    def complete(self, result: FieldResult) -> FieldPicture:
        """Return the pictures of a field, made from its file if they are not there."""
        if (self.folder / self._name(result)).is_dir():
            return self.describe(result)
        try:
            source = open_source(result.path)
        except (BloodfilmError, OSError, ValueError) as error:
            why = " ".join(str(error).split())
            return self.describe(result, f"the image could not be read again: {why}")
        try:
            if source.size != (result.image.width, result.image.height) or (
                result.image.sha256 and source.identity != result.image.sha256
            ):
                return self.describe(result, "the file has changed since the analysis")
            self.write(source, result)
        finally:
            source.close()
        return self.describe(result)

    def read(self, picture: FieldPicture, name: str) -> bytes | None:
        """Return the bytes of one picture; `None` if it is not there."""
        try:
            return (self.folder / picture.folder / name).read_bytes()
        except OSError:
            return None

    def _size(self, result: FieldResult) -> tuple[int, int]:
        image = result.image
        return true_size(image.width, image.height, result.view.pixel_aspect_ratio, self._side)

    def _name(self, result: FieldResult) -> str:
        boxes = [[round(v, 1) for v in c.box] for c in result.cells if self._shown(c)]
        view, settings = result.view.to_json(), (self._side, CELL_SIDE, self._window_um)
        text = f"{result.path}\n{result.image.sha256}\n{boxes}\n{view}\n{settings}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        return f"{file_stem(result.path)}-{digest}"

    def _shown(self, cell: CellResult) -> bool:
        return cell.object_type == self._classified

    def _of_slide(self, source: ImageSource, result: FieldResult) -> dict[str, bytes]:
        """Return the pictures of a slide: its overview, and its cells, read one by one."""
        size = self._size(result)
        overview = resized(source.thumbnail(max(size)), size)
        files = {FIELD_PICTURE: jpeg(overview, _FIELD_QUALITY)}
        view = CanonicalView.from_record(ViewRecord.from_json(result.view.to_json()))
        for place, cell in enumerate(result.cells):
            if self._shown(cell):
                crop = slide_crop(source, view, cell, CELL_SIDE, self._window_um)
                files[cell_picture(place)] = jpeg(crop, _CELL_QUALITY)
        return files

    def _encode(self, image: Pixels, result: FieldResult) -> dict[str, bytes]:
        shown = [(place, c) for place, c in enumerate(result.cells) if self._shown(c)]
        files = {FIELD_PICTURE: jpeg(resized(image, self._size(result)), _FIELD_QUALITY)}
        if shown:
            # As results in a file have them, so that a page made from those shows the same.
            view = CanonicalView.from_record(ViewRecord.from_json(result.view.to_json()))
            boxes = ([round(v, 1) for v in c.box] for _, c in shown)
            centres = [(x + w / 2, y + h / 2) for x, y, w, h in boxes]
            crops = view.crops(image, centres, CELL_SIDE, self._window_um / CELL_SIDE)
            for (place, _), crop in zip(shown, crops, strict=True):
                files[cell_picture(place)] = jpeg(crop, _CELL_QUALITY)
        return files


def slide_crop(
    source: ImageSource, view: CanonicalView, cell: CellResult, side: int, window_um: float
) -> Pixels:
    """Return the window around a cell of a slide, of which only that is read.

    Args:
        source: the slide.
        view: of it.
        cell: on it.
        side: of the picture, pixels.
        window_um: of the window, micrometres.
    """
    reach = [math.ceil(window_um / um / 2) + 2 for um in (view.um_per_px_x, view.um_per_px_y)]
    x, y, w, h = (round(v, 1) for v in cell.box)
    centre = x + w / 2, y + h / 2
    low = [max(0, int(c) - r) for c, r in zip(centre, reach, strict=True)]
    high = [min(n, int(c) + r + 1) for c, r, n in zip(centre, reach, source.size, strict=True)]
    width, height = high[0] - low[0], high[1] - low[1]
    part = source.read_region(low[0], low[1], width, height)
    local = replace(view, width=width, height=height)
    within = [(centre[0] - low[0], centre[1] - low[1])]
    (crop,) = local.crops(part, within, side, window_um / side)
    return np.asarray(crop, dtype=np.uint8)


def remove_pictures(folder: Path, but: Iterable[str] = ()) -> None:
    """Remove the pictures in a store of all fields `but` some: only folders named as it does."""
    kept = set(but)
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        drawn_before = _FOLDER.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
        if drawn_before and entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()  # if nothing is left
