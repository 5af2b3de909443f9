"""Which fields may share a strip too narrow for keypoints: by laying edge on edge.

A stage moves a camera without turning it. So the outermost strip of a field's left edge is looked
for beside the right edge of another, at every shift along it, and the top one beside the bottom.
Candidates are verified afterwards, as those of `candidates` are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.cases.candidates import CandidatePair
from bloodfilm.cases.landmarks import FieldDetail
from bloodfilm.cases.pairs import effective_number
from bloodfilm.core.arrays import Floats
from bloodfilm.core.progress import NoProgress, Progress, counter

EDGE_UM_PER_PX = 1.0
EDGE_UM = 14.0
"""Width of an edge in which another's outermost strip is looked for: wider ones have keypoints."""
OUTERMOST_UM = 3.0
"""Width of that strip: narrower overlaps are not found."""
MIN_LENGTH = 0.4
"""Share of an edge that must lie on the other's."""
COMPARISONS, NEXT = 600, 2
"""Pairs of fields of a case that are compared, nearest in the order of the files first; each field
with so many that follow it in any case."""
CACHED = 96
MIN_DEVIATIONS = 4.5
SQUARE_UM = 3.0
"""Side of the squares that are counted as samples of a correlation."""

_Strip = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FieldEdges:
    """The edges of a field, each (length, width) with its rows along the edge, 0 on average.

    Attributes:
        size_um: width and height of the field.
        ends: the right edge and the bottom one; the field ends with their last column.
        begins: the outermost strip of the left edge and of the top one.
    """

    size_um: tuple[float, float]
    ends: tuple[_Strip, _Strip]
    begins: tuple[_Strip, _Strip]


def field_edges(found: FieldDetail, um_per_px: float) -> FieldEdges | None:
    """Return the edges of a field; `None` for a round one, whose edge is no line."""
    if not found.mask.all():
        return None
    height, width = found.detail.shape
    size = width * um_per_px, height * um_per_px
    across, down = (max(1, round(n / EDGE_UM_PER_PX)) for n in size)
    wide, outermost = (round(n / EDGE_UM_PER_PX) for n in (EDGE_UM, OUTERMOST_UM))
    if min(across, down) < 2 * wide:
        return None
    small = cv2.resize(found.detail, (across, down), interpolation=cv2.INTER_AREA)
    flat = np.asarray(small, dtype=np.float32) - 128
    return FieldEdges(
        size,
        (flat[:, -wide:].copy(), flat[-wide:].T.copy()),
        (flat[:, :outermost].copy(), flat[:outermost].T.copy()),
    )


def edge_candidates(
    fields: Sequence[FieldEdges | None],
    parts: Sequence[int],
    progress: Progress | None = None,
    map_: Callable[..., Iterable[Any]] = map,
) -> list[CandidatePair]:
    """Return pairs of fields of different parts whose edges may show common glass.

    Args:
        fields: edges of each field, where it has such, in the order of the files.
        parts: of each field; fields of one part are joined already.
        progress: follows the fields.
        map_: `map`, or the `map` of an executor; it bears on time only.
    """
    reach = max(NEXT, COMPARISONS // max(len(fields), 1))

    def compared(one: int) -> list[CandidatePair]:
        """Return the candidates of a field and those that follow it."""
        found = []
        for two in range(one + 1, min(len(fields), one + 1 + reach)):
            first, second = fields[one], fields[two]
            if first is None or second is None or parts[one] == parts[two]:
                continue
            for shift, votes in _shifts(first, second):
                found.append(CandidatePair(one, two, _moved(-shift), votes))
            for shift, votes in _shifts(second, first):
                found.append(CandidatePair(one, two, _moved(shift), votes))
        return found

    candidates: list[CandidatePair] = []
    count = counter(progress or NoProgress(), "comparing edges", len(fields))
    for done, found in enumerate(map_(compared, range(len(fields))), 1):
        candidates += found
        count(done)
    return candidates


def _moved(shift: Floats) -> Floats:
    return np.column_stack([np.eye(2), shift])


def _shifts(first: FieldEdges, second: FieldEdges) -> Iterator[tuple[Floats, int]]:
    """Yield where in the first field the second may begin, um, and by how many deviations."""
    for axis in (0, 1):
        end, begin = first.ends[axis], second.begins[axis]
        if _samples(second, axis) <= 3:
            continue
        beyond = _beyond(len(end), len(begin))
        padded = cv2.copyMakeBorder(end, beyond, beyond, 0, 0, cv2.BORDER_CONSTANT, value=0)
        if len(padded) < len(begin):
            continue
        value = cv2.matchTemplate(padded, begin, cv2.TM_CCORR_NORMED)
        # The norm is that of the whole strip, of which only a part lies on the other's edge.
        norm, precision = _weights(second, axis, len(end))
        deviations = np.arctanh(np.clip(value / norm, 0, 0.99)) * precision
        row, column = divmod(int(deviations.argmax()), value.shape[1])
        if deviations[row, column] >= MIN_DEVIATIONS:
            across = first.size_um[axis] - (end.shape[1] - column) * EDGE_UM_PER_PX
            along = (row - beyond) * EDGE_UM_PER_PX
            place = (across, along) if axis == 0 else (along, across)
            yield np.array(place), int(deviations[row, column])


def _beyond(end: int, begin: int) -> int:
    """Return how far an edge may reach beyond either end of another; both are lengths."""
    return round((1 - MIN_LENGTH) * min(end, begin))


# What depends on one field and the other's size is the same for all of its neighbours.
@lru_cache(maxsize=CACHED)
def _weights(field: FieldEdges, axis: int, end: int) -> tuple[Floats, NDArray[np.float32]]:
    """Return norm and precision (n, 1) of the correlations of an outermost strip, by the shift."""
    strip = field.begins[axis]
    beyond = _beyond(end, len(strip))
    shifts = np.arange(end + 2 * beyond - len(strip) + 1) - beyond
    share = _shared_power(strip, end, shifts)
    precision = np.sqrt(np.maximum(share * _samples(field, axis) - 3, 0))
    return np.sqrt(np.maximum(share, 0.1))[:, None], precision.astype(np.float32)[:, None]


@lru_cache(maxsize=CACHED)
def _samples(field: FieldEdges, axis: int) -> float:
    """Return how many squares of an outermost strip its contrast is spread over."""
    strip = field.begins[axis]
    side = round(SQUARE_UM / EDGE_UM_PER_PX)
    whole = len(strip) // side * side
    power = np.square(strip[:whole]).reshape(-1, side * strip.shape[1]).sum(axis=1)
    return effective_number(power) * strip.shape[1] / side


def _shared_power(strip: _Strip, length: int, shifts: NDArray[np.int64]) -> Floats:
    """Return the share of a strip's contrast that lies on an edge of a length, by the shift."""
    total = np.concatenate([[0.0], np.square(strip, dtype=np.float64).sum(axis=1).cumsum()])
    low = np.clip(-shifts, 0, len(strip))
    high = np.clip(length - shifts, low, len(strip))
    return np.asarray((total[high] - total[low]) / max(float(total[-1]), 1e-9), dtype=np.float64)
