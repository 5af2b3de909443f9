"""Outlines of masks: pixels that somebody painted, as polygons.

Runs of pixels are never spread out over the size that a file states: a mask is held on the grid of
the rows and columns at which something changes, so that its memory follows what was drawn.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import DataError, Region
from bloodfilm.formats.shared.shapes import DrawnShape, one_ring

MAX_GRID = 1 << 24
"""Cells of the grid on which a mask is held."""
MAX_PARTS = 10_000
"""Parts and holes that a mask may have; noise has more."""
MAX_SIDE = 1 << 24
"""Pixels of a side that a file may state for a mask."""
GRID_PER_FILE = 100_000_000
GRID_PER_BYTE = 100
"""Cells of the grids of all masks of one file: so many, or so many for each of its bytes."""
_OPAQUE = 128


class MaskBudget:
    """What the masks of one file may cost to be outlined, in cells of their grids.

    Eight kilobytes of runs can draw a mask of 16 million cells. Masks that people draw need fewer
    than `GRID_PER_BYTE`: one of 300 x 300 pixels has runs of a kilobyte.
    """

    def __init__(self, size: int = 0) -> None:
        self.left = max(GRID_PER_FILE, GRID_PER_BYTE * size)

    @classmethod
    def of_file(cls, path: Path) -> "MaskBudget":
        """Return the budget of a label file by its size."""
        try:
            return cls(path.stat().st_size)
        except OSError:
            return cls()

    def spend(self, cells: int) -> None:
        """Take what one mask costs; `DataError` if that is more than is left."""
        if cells > self.left:
            raise DataError("more pixels than the masks of a file of that size may have")
        self.left -= cells


def mask_outline(mask: NDArray[np.bool_], left: float = 0.0, top: float = 0.0) -> Region:
    """Return the outline of a mask (H, W): a polygon a connected part, holes joined by slits.

    Args:
        mask: which pixels belong to it.
        left, top: position of its upper left corner in the picture, in pixels.

    The polygons run a quarter of a pixel inside the pixels' outer edges, so that their mask is the
    one given, pixel by pixel.
    """
    height, width = mask.shape
    return _outline(mask, np.arange(width + 1) + left, np.arange(height + 1) + top)


def _outline(mask: NDArray[np.bool_], xs: NDArray[Any], ys: NDArray[Any]) -> Region:
    """Return the outline of a mask (H, W) whose columns and rows end at `xs` and `ys`."""
    height, width = mask.shape
    doubled = np.zeros((2 * height + 2, 2 * width + 2), np.uint8)
    for y in (1, 2):
        for x in (1, 2):
            doubled[y : 2 * height + y : 2, x : 2 * width + x : 2] = mask
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) > MAX_PARTS:
        raise DataError(f"more than {MAX_PARTS:,} parts")
    parents = [] if hierarchy is None else [int(row[3]) for row in hierarchy[0]]
    rings = [_ring(contour.reshape(-1, 2) - 1, xs, ys) for contour in contours]
    holes: dict[int, list[list[tuple[float, float]]]] = defaultdict(list)
    for ring, parent in zip(rings, parents, strict=True):
        holes[parent].append(ring)  # those of parent -1 are no holes, and not asked for
    outer = (number for number, parent in enumerate(parents) if parent < 0)
    return Region(tuple(one_ring((rings[number], *holes[number])) for number in outer))


def _ring(halves: NDArray[Any], xs: NDArray[Any], ys: NDArray[Any]) -> list[tuple[float, float]]:
    """Return positions of a grid's half cells (n, 2), a quarter of a pixel inside the cells."""
    cell, second = np.divmod(halves, 2)
    inset = np.where(second, -0.25, 0.25)
    x = xs[cell[:, 0] + second[:, 0]] + inset[:, 0]
    y = ys[cell[:, 1] + second[:, 1]] + inset[:, 1]
    return list(zip(x.tolist(), y.tolist(), strict=True))


def drawn_runs(
    counts: Sequence[int],
    size: tuple[int, int],
    *,
    by_column: bool = False,
    budget: MaskBudget | None = None,
) -> DrawnShape:
    """Return what runs of pixels, out and in by turns, draw: its box and its outline.

    Args:
        counts: lengths of the runs; the first is outside.
        size: width and height of the mask, in pixels.
        by_column: whether they run down the columns, as in COCO, instead of along the rows.
        budget: of the file that they come from.

    Raises:
        DataError: if they do not fill the mask, or draw nothing, or noise, or if the budget is
            spent.

    >>> drawn_runs([1, 2, 1], (4, 1)).box
    (1.0, 0.0, 2.0, 1.0)
    """
    width, height = size
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise DataError("a size that no picture has")
    if any(n < 0 for n in counts) or sum(counts) != width * height:
        raise DataError("runs that do not fill its size")
    places = np.cumsum(np.array(counts, np.int64))
    starts, ends = places[:-1:2], places[1::2]
    drawn = starts < ends
    starts, ends = starts[drawn], ends[drawn]
    if not len(starts):
        raise DataError("no pixel")
    grid, ys, xs = _grid(starts, ends, height if by_column else width, budget or MaskBudget())
    if by_column:
        grid, ys, xs = np.ascontiguousarray(grid.T), xs, ys
    box = float(xs[0]), float(ys[0]), float(xs[-1] - xs[0]), float(ys[-1] - ys[0])
    return DrawnShape(box, _outline(grid, xs, ys))


def _grid(
    starts: NDArray[np.int64], ends: NDArray[np.int64], length: int, budget: MaskBudget
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Return the mask of runs along lines of a length, and where its rows and columns end.

    A run is up to three rectangles: the rest of its first line, whole lines, part of its last one.
    """
    first, start = np.divmod(starts, length)
    last, end = np.divmod(ends - 1, length)
    end = end + 1
    whole = np.full_like(first, length)
    nothing = np.zeros_like(first)
    one = first == last
    parts = [
        (first, first + 1, start, np.where(one, end, whole)),
        (first + 1, np.where(one, first + 1, last), nothing, whole),
        (np.where(one, last + 1, last), last + 1, nothing, end),
    ]
    top, bottom, left, right = (np.concatenate([p[i] for p in parts]) for i in range(4))
    real = top < bottom
    top, bottom, left, right = top[real], bottom[real], left[real], right[real]
    ys, xs = np.unique(np.concatenate([top, bottom])), np.unique(np.concatenate([left, right]))
    if len(ys) * len(xs) > MAX_GRID:
        raise DataError(f"more than {MAX_GRID:,} pixels at which it changes")
    budget.spend(len(ys) * len(xs))
    # What begins and ends at each corner, added up along both sides, is 1 inside and 0 outside.
    changes = np.zeros((len(ys), len(xs)), np.int8)
    for across, sign in ((left, 1), (right, -1)):
        columns = np.searchsorted(xs, across)
        np.add.at(changes, (np.searchsorted(ys, top), columns), np.int8(sign))
        np.add.at(changes, (np.searchsorted(ys, bottom), columns), np.int8(-sign))
    np.cumsum(changes, 0, np.int8, changes)
    np.cumsum(changes, 1, np.int8, changes)
    return changes[:-1, :-1] > 0, ys, xs


# ---- packed runs -----------------------------------------------------------------------------


def unpack_coco(text: str) -> list[int]:
    """Return the run lengths that COCO packs as text: six bits a character, most as differences.

    Raises:
        DataError: if the text is not such.

    >>> unpack_coco("42001")
    [4, 2, 0, 2, 1]
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DataError("counts that cannot be unpacked")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError("counts that cannot be unpacked")
    return counts


def unpack_brush(values: Sequence[int], size: tuple[int, int]) -> list[int]:
    """Return the run lengths, along rows, of a mask that Label Studio's brush painted.

    It packs the bytes of an RGBA picture: their number (32 bits), the bits of a value less one
    (5) and of four lengths less one (4 each), then runs: 1 and a value that repeats, or 0 and
    values, after which of the lengths (2) and how many less one. A pixel is painted if it is more
    opaque than not.

    Args:
        values: the bytes of the packed picture.
        size: width and height of the picture, in pixels.

    Raises:
        DataError: if they are not such a picture, or one of another size.
    """
    try:
        bits = _Bits(bytes(values))
    except (TypeError, ValueError):
        raise DataError("counts that cannot be unpacked") from None
    total = bits.take(32)
    if bits.take(5) != 7:
        raise DataError("values that are not bytes")
    if total != 4 * size[0] * size[1]:
        raise DataError("runs that do not fill its size")
    lengths = [bits.take(4) + 1 for _ in range(4)]
    marks: list[tuple[bool, int]] = []
    done = 0
    while done < total:
        repeated = bits.take(1)
        count = bits.take(lengths[bits.take(2)]) + 1
        if done + count > total:
            raise DataError("runs that do not fill its size")
        if repeated:
            # Every fourth value is the opacity: so many of them lie before a place.
            pixels = (done + count) // 4 - done // 4
            marks.append((bits.take(8) >= _OPAQUE, pixels))
        else:
            opacity = bits.bytes(count)[(3 - done) % 4 :: 4]
            marks += [(value >= _OPAQUE, 1) for value in opacity]
        done += count
    counts = [0]
    for inside, pixels in marks:
        if pixels and inside == (len(counts) % 2 == 1):
            counts.append(0)
        counts[-1] += pixels
    return counts


class _Bits:
    """Bits of bytes, from the first byte's highest on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, count: int) -> int:
        """Return the number in the next bits, 32 at most."""
        start, end = self._place, self._place + count
        if end > 8 * len(self._data):
            raise DataError("counts that end too early")
        self._place = end
        window = int.from_bytes(self._data[start // 8 : (end + 7) // 8])
        return (window >> (-end % 8)) & ((1 << count) - 1)

    def bytes(self, count: int) -> bytes:
        """Return the next bytes, which may lie across the bytes of the data."""
        start, end = self._place, self._place + 8 * count
        if end > 8 * len(self._data):
            raise DataError("counts that end too early")
        self._place = end
        window = self._data[start // 8 : (end + 7) // 8]
        shift = start % 8
        if not shift:
            return window
        return bytes((a << shift | b >> (8 - shift)) & 255 for a, b in pairwise(window))
