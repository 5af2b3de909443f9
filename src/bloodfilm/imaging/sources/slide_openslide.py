"""Slides that OpenSlide reads: MRXS, SCN, BIF, VMS and others. OpenSlide is an optional package.

OpenSlide (LGPL-2.1) is neither part of this program nor needed by it; `pip install
'bloodfilm[slides]'` installs it beside.
"""

import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.optional import optional
from bloodfilm.imaging.headers import BrokenImageError
from bloodfilm.imaging.pixel_size import StatedSize
from bloodfilm.imaging.sources.array import rgb_over_white
from bloodfilm.imaging.sources.slide import (
    BlockSource,
    colour_profile,
    missing_levels,
    slide_pixel_size,
    usable_levels,
)

EXTRA = "bloodfilm[slides]"


class OpenSlideSource(BlockSource):
    """A slide that OpenSlide opens.

    Positions are those within the scanned part (`openslide.bounds-x` and the like), as in QuPath;
    what was not scanned is transparent, and shown as empty glass. An OpenSlide handle is of no use
    after an error, so it is opened anew, and the block of pixels that could not be read is shown as
    empty glass and recorded as damage.

    Raises:
        MissingPackageError: without openslide-python and its library.
        DataError: if OpenSlide does not read the file.
    """

    def __init__(self, path: str) -> None:
        self._module: Any = optional("openslide", install=EXTRA, needed_by=path)
        self._lock = threading.Lock()
        try:
            self._slide: Any = self._module.OpenSlide(path)
            sizes = [(int(w), int(h)) for w, h in self._slide.level_dimensions]
            downsamples = [float(v) for v in self._slide.level_downsamples]
            properties = dict(self._slide.properties)
        except self._module.OpenSlideError as error:
            why = " ".join(str(error).split())[:160]
            raise DataError(
                f"{path}: OpenSlide does not read it ({why}); is every file of the slide there?"
            ) from None
        self._numbers, _ = usable_levels(sizes)
        self._downsamples = [downsamples[n] for n in self._numbers]
        sides = [_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
        stated = [StatedSize(sides[0], sides[1], "properties", True)] if all(sides) else []
        size, issues = slide_pixel_size(stated)
        self._corner, whole = _scanned(properties, sizes[0])
        if whole != sizes[0]:
            message = (
                f"of {sizes[0][0]} x {sizes[0][1]} px the scanned part is used, {whole[0]} x "
                f"{whole[1]} px at {self._corner[0]}, {self._corner[1]}; positions count from there"
            )
            facts = {"corner": list(self._corner), "size": list(whole), "of": list(sizes[0])}
            issues.append(issue(issue_codes.SLIDE_BOUNDS, message, **facts))
        if _number(properties.get("openslide.icc-size")) > 0:
            issues.append(colour_profile())
        levels = [(max(1, int(whole[0] / v)), max(1, int(whole[1] / v))) for v in self._downsamples]
        issues += missing_levels(levels)
        super().__init__(path, levels, size, issues, self._downsamples)
        self.kind = f"{properties.get('openslide.vendor', 'OpenSlide')} slide"

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()
        self._cache.clear()

    def _read_block(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        slide = self._slide
        try:
            return self._read(slide, number, (x, y), (width, height))
        except self._module.OpenSlideError:
            pass
        # The handle fails from now on, whoever uses it, and may have failed for another's block.
        with self._lock:
            fresh = self._module.OpenSlide(self._path)
            try:
                found = self._read(fresh, number, (x, y), (width, height))
            except self._module.OpenSlideError as error:
                fresh.close()
                if self._slide is slide:
                    self._slide = self._module.OpenSlide(self._path)
                raise BrokenImageError(" ".join(str(error).split())[:120]) from None
            self._slide = fresh
            return found

    def _read(
        self, slide: Any, number: int, place: tuple[int, int], size: tuple[int, int]
    ) -> Image:
        downsample = self._downsamples[number]
        corner = tuple(c + round(p * downsample) for c, p in zip(self._corner, place, strict=True))
        rgba = slide.read_region(corner, self._numbers[number], size)
        return rgb_over_white(np.asarray(rgba, dtype=np.uint8))


def _scanned(
    properties: Mapping[str, str], size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return corner and size of the part of level 0 that was scanned, inside the slide."""
    x, y, w, h = (
        int(_number(properties.get(f"openslide.bounds-{name}")))
        for name in ("x", "y", "width", "height")
    )
    x, y = max(x, 0), max(y, 0)
    w, h = min(w, size[0] - x), min(h, size[1] - y)
    return ((x, y), (w, h)) if min(w, h) > 0 else ((0, 0), size)


def _number(text: str | None) -> float:
    try:
        value = 0.0 if text is None else float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
