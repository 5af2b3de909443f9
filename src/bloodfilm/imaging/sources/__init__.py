"""Images as sources of pixels: `open_source` makes one of a path, an array or a PIL image."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.errors import DataError
from bloodfilm.imaging.sources.array import ArraySource
from bloodfilm.imaging.sources.base import ImageSource, check_region, name_of, read_whole
from bloodfilm.imaging.sources.image_file import open_with_notes
from bloodfilm.imaging.sources.open_slide import is_slide, open_slide

ImageInput = str | os.PathLike[str] | NDArray[Any] | ImageSource | Any
"""What can be analysed; the last is a PIL image."""

__all__ = [
    "ArraySource",
    "ImageInput",
    "ImageSource",
    "check_region",
    "name_of",
    "open_source",
    "read_whole",
]


def open_source(image: ImageInput, name: str = "image") -> ImageSource:
    """Open whatever holds the pixels of a field or slide; a source comes back as it is.

    Args:
        image: a path, an array, a PIL image or a source.
        name: name in results of an image without a name.

    Raises:
        DataError: in one line, if it is none of these, or no image of a field.
    """
    if isinstance(image, str | os.PathLike) and is_slide(image):
        return open_slide(image)
    if isinstance(image, str | os.PathLike):
        opened = open_with_notes(image)
        return ArraySource(
            opened.pixels, os.fspath(image), opened.sha256, opened.pixel_size, opened.issues
        )
    if isinstance(image, np.ndarray):
        return ArraySource.from_pixels(image, name)
    if isinstance(image, ImageSource):
        return image
    if hasattr(image, "getbands") and hasattr(image, "convert"):
        return ArraySource.from_pixels(_of_pil(image), getattr(image, "filename", "") or name)
    raise DataError(
        f"{name}: {type(image).__name__} is no image; give a path, an array, a PIL image or an "
        "ImageSource"
    )


def _of_pil(image: Any) -> NDArray[Any]:
    """Return the pixels of a PIL image, upright: grey, RGB or RGBA, 8 or 16 bits or float."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("L", "RGB", "RGBA", "F") or upright.mode.startswith("I"):
        return np.asarray(upright)
    transparent = upright.mode in ("LA", "PA", "La") or "transparency" in upright.info
    return np.asarray(upright.convert("RGBA" if transparent else "RGB"))
