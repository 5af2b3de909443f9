"""The frame that boxes are given in: the size a label file states, and the picture's own."""

from collections.abc import Iterable
from dataclasses import dataclass

from bloodfilm.core import Region
from bloodfilm.core.polygons import Point

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Frame:
    """How positions in a label file lie in a picture.

    Attributes:
        size: of the picture, or the stated one where the picture is not there; `None` if neither
            is known.
        scale: what positions are multiplied by, across and down, to lie in the picture.
    """

    size: Size | None
    scale: tuple[float, float] = (1.0, 1.0)

    def box(self, box: Iterable[float]) -> tuple[float, float, float, float]:
        """Return a box (x, y, w, h) in the picture."""
        x, y, w, h = box
        across, down = self.scale
        return x * across, y * down, w * across, h * down

    def points(self, points: Iterable[Point]) -> tuple[Point, ...]:
        """Return points in the picture."""
        across, down = self.scale
        return tuple((x * across, y * down) for x, y in points)

    def region(self, region: Region) -> Region:
        """Return a region in the picture."""
        across, down = self.scale
        return region.transform([[across, 0, 0], [0, down, 0]]) if self.scaled else region

    @property
    def marked(self) -> Size | None:
        """The size in which the label file gives its positions, if known.

        >>> Frame((100, 50), (0.5, 0.5)).marked
        (200, 100)
        """
        if self.size is None:
            return None
        return round(self.size[0] / self.scale[0]), round(self.size[1] / self.scale[1])

    @property
    def scaled(self) -> bool:
        """Whether positions have to be scaled at all."""
        return self.scale != (1.0, 1.0)

    @property
    def width(self) -> int | None:
        """Width of the picture, if known."""
        return None if self.size is None else self.size[0]

    @property
    def height(self) -> int | None:
        """Height of the picture, if known."""
        return None if self.size is None else self.size[1]


def same_shape(stated: Size, actual: Size) -> bool:
    """Whether one size is the other scaled, but for the rounding of its sides to whole pixels.

    >>> same_shape((200, 100), (100, 50)), same_shape((200, 100), (100, 200))
    (True, False)
    """
    difference = abs(stated[0] * actual[1] - stated[1] * actual[0])
    return difference <= (sum(stated) + sum(actual)) / 2
