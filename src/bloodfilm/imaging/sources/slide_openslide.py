"""Slides that OpenSlide reads: MRXS, SCN, BIF, VMS and others. OpenSlide is an optional package.

OpenSlide (LGPL-2.1) is neither part of this program nor needed by it; `pip install
'bloodfilm[slides]'` installs it beside.
"""

import threading
from typing import Any

import numpy as np

from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import DataError
from bloodfilm.core.optional import optional
from bloodfilm.imaging.headers import BrokenImageError
from bloodfilm.imaging.pixel_size import StatedSize
from bloodfilm.imaging.sources.array import rgb_over_white
from bloodfilm.imaging.sources.slide import (
    BlockSource,
    slide_pixel_size,
    usable_levels,
)

EXTRA = "bloodfilm[slides]"


class OpenSlideSource(BlockSource):
    """A slide that OpenSlide opens.

    An OpenSlide handle is of no use after an error, so it is opened anew, and the block of pixels
    that could not be read is shown as empty glass and recorded as damage.

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
            self._downsamples = [float(v) for v in self._slide.level_downsamples]
            properties = dict(self._slide.properties)
        except self._module.OpenSlideError as error:
            why = " ".join(str(error).split())[:160]
            raise DataError(
                f"{path}: OpenSlide does not read it ({why}); is every file of the slide there?"
            ) from None
        kept, _ = usable_levels(sizes)
        self._numbers = kept
        sides = [_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
        stated = [StatedSize(sides[0], sides[1], "properties", True)] if all(sides) else []
        size, issues = slide_pixel_size(stated)
        super().__init__(path, [sizes[n] for n in kept], size, issues)
        self.kind = f"{properties.get('openslide.vendor', 'OpenSlide')} slide"

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()
        self._cache.clear()

    def _read_block(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        downsample = self._downsamples[self._numbers[number]]
        corner = round(x * downsample), round(y * downsample)
        slide = self._slide
        try:
            rgba = slide.read_region(corner, self._numbers[number], (width, height))
            return rgb_over_white(np.asarray(rgba, dtype=np.uint8))
        except self._module.OpenSlideError as error:
            self._reopen(slide)
            raise BrokenImageError(" ".join(str(error).split())[:120]) from None

    def _reopen(self, failed: Any) -> None:
        with self._lock:
            if self._slide is failed:
                self._slide = self._module.OpenSlide(self._path)


def _number(text: str | None) -> float:
    try:
        return 0.0 if text is None else float(text)
    except ValueError:
        return 0.0
