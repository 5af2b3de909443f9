"""DICOM whole-slide images, read by wsidicom (Apache-2.0), an optional package.

A slide is a folder of instances, one or more per level, or a single file.
"""

import threading
from pathlib import Path
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
    missing_levels,
    slide_pixel_size,
    usable_levels,
)
from bloodfilm.imaging.sources.slide_openslide import EXTRA


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


class DicomSlide(BlockSource):
    """A DICOM whole-slide image.

    Args:
        path: a folder of instances, or one file.

    Raises:
        MissingPackageError: without wsidicom.
        DataError: if there is no whole-slide image in it.
    """

    kind = "DICOM slide"

    def __init__(self, path: str) -> None:
        module: Any = optional("wsidicom", install=EXTRA, needed_by=path)
        self._lock = threading.Lock()
        try:
            self._slide: Any = module.WsiDicom.open(path)
            levels = list(self._slide.levels)
            sizes = [(int(v.size.width), int(v.size.height)) for v in levels]
            base = levels[0]
            numbers = [int(v.level) for v in levels]
            mpp = float(base.mpp.width), float(base.mpp.height)
        except Exception as error:  # wsidicom's, pydicom's and those of damaged values
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise DataError(
                f"{path}: no DICOM whole-slide image ({why}); give the folder with all files of "
                "one slide (VL Whole Slide Microscopy)"
            ) from None
        kept, _ = usable_levels(sizes)
        self._numbers = [numbers[n] for n in kept]
        size, issues = slide_pixel_size([StatedSize(*mpp, "PixelSpacing", True)])
        if numbers[0] != 0:
            message = "the level of full resolution is missing: the largest that is there is used"
            issues.append(issue(issue_codes.LEVELS_MISSING, message))
        issues += missing_levels([sizes[n] for n in kept])
        super().__init__(path, [sizes[n] for n in kept], size, issues)

    def close(self) -> None:
        """Close the files."""
        self._slide.close()
        self._cache.clear()

    def _read_block(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        place, size = (x, y), (width, height)
        try:
            with self._lock:
                seen = self._slide.read_region(place, self._numbers[number], size, as_array=True)
            return rgb_over_white(np.asarray(seen, dtype=np.uint8))
        except MemoryError:
            raise
        except Exception as error:  # of wsidicom, pydicom or a codec
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise BrokenImageError(why) from None
