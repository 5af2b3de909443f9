"""Where on a slide the film is thick, a monolayer, feathered; where glass, where pen marks are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

AREAS = ("glass", "thick", "transition", "monolayer", "feathered", "pen")
"""The areas of a slide; the index is their number in `Layout.area_of`."""
GLASS, THICK, TRANSITION, MONOLAYER, FEATHERED, PEN = range(6)

Rect = tuple[float, float, float, float]

LENGTHWISE = (0.05, 0.32, 0.42, 0.76, 0.93)
"""Where the film begins and its areas end, as shares of the slide's width."""
CROSSWISE = (0.08, 0.92)
PEN_MARKS = ((0.56, 0.16, 0.035, 0.22), (0.955, 0.35, 0.02, 0.3))
"""x, y, width, height of each, as shares of the slide: one on the monolayer, one on glass."""


@dataclass(frozen=True)
class Layout:
    """The areas of a slide of `width` x `height` um.

    The film lies along x, as it is spread: thick, then thinner, then the feathered edge.
    """

    width: float
    height: float

    def area_of(self, points: ArrayLike) -> NDArray[np.intp]:
        """Return the number of the area, in `AREAS`, that each point (n, 2), um, lies in.

        >>> [AREAS[i] for i in Layout(1000, 1000).area_of([(10, 10), (500, 500), (570, 200)])]
        ['glass', 'monolayer', 'pen']
        """
        p = np.asarray(points, dtype=np.float64).reshape(-1, 2) / [self.width, self.height]
        found = np.searchsorted(np.array(LENGTHWISE), p[:, 0], side="right")
        found[found == len(LENGTHWISE)] = GLASS
        outside = (p[:, 1] < CROSSWISE[0]) | (p[:, 1] >= CROSSWISE[1])
        found[outside] = GLASS
        for x, y, w, h in PEN_MARKS:
            inside = (p[:, 0] >= x) & (p[:, 0] < x + w) & (p[:, 1] >= y) & (p[:, 1] < y + h)
            found[inside] = PEN
        return np.asarray(found, dtype=np.intp)

    @property
    def pen_marks(self) -> tuple[Rect, ...]:
        """Rectangles x, y, width, height, um."""
        w, h = self.width, self.height
        return tuple((a * w, b * h, c * w, d * h) for a, b, c, d in PEN_MARKS)

    def rect_of(self, area: int) -> Rect:
        """Return the rectangle x, y, width, height, um, of an area of the film, without pens."""
        left, right = LENGTHWISE[area - 1], LENGTHWISE[area]
        top, low = CROSSWISE
        return (
            left * self.width,
            top * self.height,
            (right - left) * self.width,
            (low - top) * self.height,
        )
