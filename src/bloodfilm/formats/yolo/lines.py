"""What the numbers of a YOLO label line mean: a box, an outline, scores, track ids, keypoints.

Trackers, pose models and segmentation write lines of the same look. How many numbers a line has
does not say what they are, so the meaning is taken from what the set declares (`task`,
`kpt_shape`), and else from evidence that all lines of that length agree on. A line whose meaning
stays open is left out and named.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

from bloodfilm.core.polygons import Point

BOX = 4
FEWEST_OUTLINE = 6
"""Numbers of an outline of three corners."""
AGREE = 0.9
"""Share of the lines of one length that must look alike for all to be read so."""
SLACK = 0.02
"""How far a number may lie outside [0, 1], as a share of the picture's side."""
NEAR = 1.0
"""How far a corner of an outline may lie from the others, as a share of their extent."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a label file.

    Attributes:
        number: in the file, from 1.
        class_id: its first number.
        values: the others.
        whole: whether the last of them is written without a decimal point.
    """

    number: int
    class_id: int
    values: tuple[float, ...]
    whole: bool

    @property
    def place(self) -> str:
        """What a message calls the line."""
        return f"line {self.number}"


@dataclass(frozen=True, slots=True)
class Meant:
    """What a line means, in shares of the picture's sides.

    Attributes:
        box: centre x, centre y, width, height; of an outline the box around it.
        outline: its corners, if it is one.
        besides: what the line states that a cell has no place for.
    """

    box: tuple[float, float, float, float]
    outline: tuple[Point, ...] | None = None
    besides: tuple[str, ...] = ()


CONFIDENCE, TRACK, KEYPOINTS = "confidence", "track id", "keypoints"


def parse(text: Iterable[str]) -> tuple[list[Line], list[int]]:
    """Return the lines of a file, and the numbers of those that are no class id and numbers.

    >>> parse(["0 .5 .5 .1 .1", "x", ""])[1]
    [2]
    """
    found, bad = [], []
    for number, content in enumerate(text, 1):
        words = content.replace(",", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if not values or not isfinite(values[0]) or values[0] < 0 or values[0] % 1:
            bad.append(number)
        else:
            whole = words[-1].isdigit()
            found.append(Line(number, int(values[0]), tuple(values[1:]), whole))
    return found, bad


class LineReader:
    """Reads lines by what a set declares and by what its lines agree on.

    Args:
        lines: all lines of the set.
        task: what the set declares itself to be for.
        keypoints: number of keypoints and of values for each, if it declares them.
    """

    def __init__(
        self,
        lines: Iterable[Line],
        task: str | None = None,
        keypoints: tuple[int, int] | None = None,
    ) -> None:
        self.task, self.keypoints = task, keypoints
        by_length: defaultdict[int, list[Line]] = defaultdict(list)
        for line in lines:
            by_length[len(line.values)].append(line)
        self._outlines = task in ("segment", "obb") or any(
            length >= 8 and _share(found, _is_outline) >= AGREE
            for length, found in by_length.items()
        )
        self._kinds = {length: self._kind(found) for length, found in by_length.items()}

    def read(self, line: Line) -> Meant | None:
        """Return what a line means; `None` if that cannot be told."""
        besides = self._kinds.get(len(line.values))
        if besides is None:
            return None
        values = line.values[: len(line.values) - len(set(besides) & {CONFIDENCE, TRACK})]
        if KEYPOINTS in besides or len(values) == BOX:
            x, y, w, h = values[:BOX]
            return Meant((x, y, w, h), None, besides)
        points = _points(values)
        if not _in_picture(values) or (self.task is None and not _coherent(points)):
            return None
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        across, down = max(xs) - min(xs), max(ys) - min(ys)
        box = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, across, down)
        return Meant(box, points, besides)

    def _kind(self, lines: Sequence[Line]) -> tuple[str, ...] | None:
        """Return what lines of one length state besides box or outline; `None` if unclear."""
        length = len(lines[0].values)
        if length < BOX:
            return None
        if self.keypoints is not None or self.task == "pose":
            return self._pose(lines)
        if length < FEWEST_OUTLINE or (length < FEWEST_OUTLINE + 2 and not self._outlines):
            return _behind_box(lines)
        return self._outline(lines)

    def _outline(self, lines: Sequence[Line]) -> tuple[str, ...] | None:
        """Return what stands behind an outline of corners."""
        length = len(lines[0].values)
        if length % 2 == 0 and self.task in ("segment", "obb") and _share(lines, _inside) >= AGREE:
            return ()
        if length % 2 == 0 and _share(lines, _is_outline) >= AGREE:
            return ()
        if length % 2 == 1 and length > FEWEST_OUTLINE and _share(lines, _is_scored) >= AGREE:
            return (CONFIDENCE,)
        if length > FEWEST_OUTLINE + 1 and _share(lines, _is_tracked) >= AGREE:
            return (CONFIDENCE, TRACK)
        return None

    def _pose(self, lines: Sequence[Line]) -> tuple[str, ...] | None:
        """Return what stands behind the box where the set declares keypoints."""
        length = len(lines[0].values)
        count, each = self.keypoints or (0, 0)
        more = length - BOX - count * each
        if length == BOX:
            return ()
        if self.keypoints is None:
            return (KEYPOINTS,) if length > BOX + 2 else None
        extra = {0: (), 1: (CONFIDENCE,), 2: (CONFIDENCE, TRACK)}.get(more)
        return None if extra is None else (KEYPOINTS, *extra)


def _behind_box(lines: Sequence[Line]) -> tuple[str, ...] | None:
    """Return what stands behind a box: nothing, a confidence, a track id, or both."""
    length = len(lines[0].values) - BOX
    found: tuple[str, ...] | None = None
    if length == 0:
        found = ()
    elif length == 1 and _any_large(lines) and _share(lines, _ends_in_track) >= AGREE:
        found = (TRACK,)
    elif length == 1 and _share(lines, _ends_in_share) >= AGREE:
        found = (CONFIDENCE,)
    elif length == 2 and _share(lines, _ends_in_score_and_track) == 1:
        certain = _any_large(lines) or all(line.whole for line in lines)
        found = (CONFIDENCE, TRACK) if certain else None
    return found


# ---- evidence --------------------------------------------------------------------------------


def _share(lines: Sequence[Line], test: Callable[[Line], bool]) -> float:
    return sum(map(test, lines)) / len(lines)


def _in_picture(values: Sequence[float]) -> bool:
    return all(-SLACK <= v <= 1 + SLACK for v in values)


def _inside(line: Line) -> bool:
    return _in_picture(line.values)


def _ends_in_share(line: Line) -> bool:
    return 0 <= line.values[-1] <= 1


def _ends_in_track(line: Line) -> bool:
    return line.values[-1] >= 1 and line.values[-1] % 1 == 0


def _ends_in_score_and_track(line: Line) -> bool:
    return _ends_in_track(line) and 0 <= line.values[-2] <= 1 and _in_picture(line.values[:BOX])


def _any_large(lines: Sequence[Line]) -> bool:
    """Whether a last number is larger than any share can be."""
    return any(line.values[-1] > 1 for line in lines)


def _points(values: Sequence[float]) -> tuple[Point, ...]:
    return tuple(zip(values[0::2], values[1::2], strict=True))


def _coherent(points: Sequence[Point]) -> bool:
    """Whether the second point lies near the others, as a corner does and a box's size does not."""
    others = [points[0], *points[2:]]
    for axis in (0, 1):
        low, high = min(p[axis] for p in others), max(p[axis] for p in others)
        reach = NEAR * (high - low) + SLACK
        if not low - reach <= points[1][axis] <= high + reach:
            return False
    return True


def _is_outline(line: Line) -> bool:
    values = line.values
    return len(values) % 2 == 0 and _in_picture(values) and _coherent(_points(values))


def _is_scored(line: Line) -> bool:
    values = line.values[:-1]
    return _ends_in_share(line) and _in_picture(values) and _coherent(_points(values))


def _is_tracked(line: Line) -> bool:
    values = line.values[:-2]
    if not _ends_in_track(line) or len(values) % 2 or len(values) < FEWEST_OUTLINE:
        return False
    return 0 <= line.values[-2] <= 1 and _in_picture(values) and _coherent(_points(values))
