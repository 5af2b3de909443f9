"""An image that is in memory already."""

import hashlib
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import DataError
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import PixelSize
from bloodfilm.imaging.resample import resize
from bloodfilm.imaging.sources.base import MAX_PIXELS, MIN_SIDE, check_region
from bloodfilm.imaging.sources.depth import to_8_bits


class ArraySource:
    """Pixels in memory, as an `ImageSource`.

    Args:
        pixels: uint8 RGB (H, W, 3). It is not copied; do not change it while it is in use.
        name: what results call the image.
        identity: SHA-256 of the file the pixels are of; that of the pixels, if left out.
        pixel_size: physical size of a pixel, if known.
        issues: what was decided when the pixels were decoded.

    >>> source = ArraySource(np.zeros((48, 64, 3), np.uint8))
    >>> source.size, source.read_region(8, 0, 32, 16, downsample=2).shape
    ((64, 48), (8, 16, 3))
    """

    def __init__(
        self,
        pixels: Image,
        name: str = "image",
        identity: str | None = None,
        pixel_size: PixelSize | None = None,
        issues: tuple[Issue, ...] = (),
    ) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"{name}: {pixels.dtype} {pixels.shape} is not uint8 RGB (H, W, 3)")
        self._pixels: Image | None = pixels
        self._name = name
        self._size = int(pixels.shape[1]), int(pixels.shape[0])
        self._identity = identity
        self._pixel_size = pixel_size
        self._issues = issues

    @classmethod
    def from_pixels(cls, array: NDArray[np.generic], name: str = "image") -> "ArraySource":
        """Bring any usual array to 8 bits and RGB.

        Args:
            array: grey (H, W) or (H, W, 1), RGB (H, W, 3) or RGBA (H, W, 4): integers of 8 or 16
                bits, or floating point from 0 to 1.
            name: what results and messages call it.

        Raises:
            DataError: in one line, for anything else.
        """
        array = np.asarray(array)
        _check(array, name)
        issues: list[Issue] = []
        return cls(rgb_over_white(to_8_bits(array, issues)), name, issues=tuple(issues))

    @property
    def name(self) -> str:
        """What results call the image."""
        return self._name

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self._size

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the file, or of size and pixels."""
        if self._identity is not None:
            return self._identity
        digest = hashlib.sha256("{} {}\n".format(*self._size).encode())
        digest.update(np.ascontiguousarray(self._open()).data)
        return digest.hexdigest()

    @property
    def pixel_size(self) -> PixelSize | None:
        """The physical size of a pixel, if known."""
        return self._pixel_size

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Decisions that were taken when the image was decoded."""
        return self._issues

    def read_region(
        self, x: int, y: int, width: int, height: int, downsample: float = 1.0
    ) -> Image:
        """Return the pixels of a region; at full resolution a view, not a copy."""
        check_region(self, (x, y, width, height), downsample)
        region = self._open()[y : y + height, x : x + width]
        if downsample == 1:
            return region
        sides = (max(1, round(n / downsample)) for n in (width, height))
        return resize(region, *sides)

    def thumbnail(self, size: int) -> Image:
        """Return the whole image, its longer side at most `size` pixels."""
        return self.read_region(0, 0, *self._size, downsample=max(1.0, max(self._size) / size))

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = None

    def _open(self) -> Image:
        if self._pixels is None:
            raise ValueError(f"{self._name}: is closed")
        return self._pixels


def rgb_over_white(eight: Image, premultiplied: bool = False) -> Image:
    """Return grey (H, W), (H, W, 1), RGB or RGBA pixels as RGB; transparency is laid over white.

    Args:
        eight: uint8.
        premultiplied: whether the colours of RGBA are multiplied by alpha already.
    """
    if eight.ndim == 2:
        eight = eight[..., None]
    if eight.shape[2] == 4:
        alpha = eight[..., 3:].astype(np.uint16)
        colours = eight[..., :3].astype(np.uint16)
        glass = (255 - alpha) * 255
        over = (
            (colours * 255 + glass + 127) // 255
            if premultiplied
            else (colours * alpha + glass + 127) // 255
        )
        eight = np.minimum(over, 255).astype(np.uint8)
    if eight.shape[2] == 1:
        eight = np.repeat(eight, 3, axis=2)
    return np.ascontiguousarray(eight)


def _check(array: NDArray[np.generic], name: str) -> None:
    """Raise `DataError` for what is no image of a field."""
    shape, kind = array.shape, array.dtype
    usual = "give (H, W), (H, W, 3) or (H, W, 4)"
    if array.ndim not in (2, 3):
        raise DataError(f"{name}: an array of shape {shape} is no image; {usual}")
    if array.ndim == 3 and shape[2] not in (1, 3, 4):
        first = shape[0] in (1, 3, 4)
        remedy = "move its first axis to the end: array.transpose(1, 2, 0)" if first else usual
        raise DataError(f"{name}: an array of shape {shape} has {shape[2]} channels; {remedy}")
    if kind.kind not in "uif":
        raise DataError(
            f"{name}: pixels of type {kind} cannot be read; give uint8, uint16 or floating point "
            "from 0 to 1"
        )
    height, width = shape[:2]
    if min(height, width) < MIN_SIDE:
        raise DataError(
            f"{name}: {width} x {height} pixels are too few for a field of cells; give at least "
            f"{MIN_SIDE} each way"
        )
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{name}: {width} x {height} pixels are more than the {MAX_PIXELS:,} allowed for one "
            "field; crop or reduce the image"
        )
    if kind.kind in "if" and kind != np.int8 and float(np.nanmin(array)) < 0:
        raise DataError(
            f"{name}: pixels down to {float(np.nanmin(array)):.3g}, but light is not negative; "
            "undo the normalisation, and give values from 0 to 1 or 0 to 255"
        )
