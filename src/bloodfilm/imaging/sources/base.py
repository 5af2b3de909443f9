"""What an analysis and training read pixels through: a photograph, an array, later a slide."""

import os
from typing import Protocol, runtime_checkable

from bloodfilm.core.arrays import Image
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import PixelSize

MAX_PIXELS = 100_000_000
"""Of one field; more is refused before it is decoded."""
MIN_SIDE = 32


@runtime_checkable
class ImageSource(Protocol):
    """An image that is read by region.

    Coordinates and sizes are in pixels of the full resolution. A source may be read from several
    threads at a time.
    """

    @property
    def name(self) -> str:
        """What results call the image: a file's path as the user named it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""

    @property
    def identity(self) -> str:
        """SHA-256 of the file's bytes, of an array's pixels."""

    @property
    def pixel_size(self) -> PixelSize | None:
        """The physical size of a pixel according to the image's metadata, if they state it."""

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Decisions that were taken when the image was decoded."""

    def read_region(
        self, x: int, y: int, width: int, height: int, downsample: float = 1.0
    ) -> Image:
        """Return the pixels of a region, uint8 RGB (height / downsample, width / downsample, 3).

        Args:
            x, y: top left corner.
            width, height: of the region, which lies inside the image.
            downsample: pixels of the full resolution per pixel returned, at least 1.

        Raises:
            ValueError: if the region is empty or not inside the image.
            DataError: if the pixels cannot be read.
        """

    def thumbnail(self, size: int) -> Image:
        """Return the whole image, its longer side at most `size` pixels."""

    def close(self) -> None:
        """Free what the source holds; it cannot be read afterwards."""


def check_region(
    source: ImageSource, region: tuple[int, int, int, int], downsample: float = 1.0
) -> None:
    """Raise ValueError if a region (x, y, width, height) is empty or not inside the image."""
    x, y, width, height = region
    whole = source.size
    inside = 0 <= x < x + width <= whole[0] and 0 <= y < y + height <= whole[1]
    if not inside or downsample < 1:
        raise ValueError(
            f"{source.name}: region {region} at downsample {downsample:g} is not inside the image "
            f"of {whole[0]} x {whole[1]} px"
        )


def read_whole(source: ImageSource) -> Image:
    """Return all pixels at full resolution, uint8 RGB (H, W, 3)."""
    return source.read_region(0, 0, *source.size)


def name_of(image: object, number: int) -> str:
    """Return what results call the image of that number: its path, where it has one."""
    if isinstance(image, ImageSource):
        return image.name
    if isinstance(image, str | os.PathLike):
        return str(os.fspath(image))
    return f"image {number}"
