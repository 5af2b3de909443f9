"""The label lines that YOLO and LLD's text labels share: class, normalised box, more columns."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bloodfilm.core import Box
from bloodfilm.formats.shared.label_faults import LabelFault


@dataclass(frozen=True, slots=True)
class Row:
    """One line: its number, its class id, its box in pixels (unchecked), the columns after it."""

    line: int
    class_id: int
    box: tuple[float, float, float, float]
    rest: tuple[float, ...]

    @property
    def place(self) -> str:
        """What a message calls the line."""
        return f"line {self.line}"


def parse_rows(
    lines: Iterable[str], size: tuple[int, int], widths: Collection[int]
) -> tuple[list[Row], list[LabelFault]]:
    """Return the lines that have one of the allowed numbers of columns, and what the others lack.

    >>> rows, faults = parse_rows(["0 0.5 0.5 0.1 0.2", "0 0.5"], (200, 100), {5})
    >>> rows[0].box, faults[0].place
    ((90.0, 40.0, 20.0, 20.0), 'line 2')
    """
    rows: list[Row] = []
    faults: list[LabelFault] = []
    for number, text in enumerate(lines, 1):
        words = text.replace(",", " ").split()
        if not words:
            continue
        values = _numbers(words)
        place = f"line {number}"
        if values is None or values[0] != int(values[0]) or values[0] < 0:
            message = "not a line of class id and numbers"
            faults.append(LabelFault("unreadable-labels", message, place, annotation=place))
        elif len(values) not in widths:
            allowed = ", ".join(map(str, sorted(widths)[:6]))
            message = f"{len(values)} columns instead of {allowed}"
            faults.append(LabelFault("unreadable-labels", message, place, annotation=place))
        else:
            box = denormalise(values[1:5], size)
            rows.append(Row(number, int(values[0]), box, tuple(values[5:])))
    return rows, faults


def _numbers(words: list[str]) -> list[float] | None:
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if math.isfinite(values[0]) else None


def denormalise(centre: list[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Turn a normalised (centre x, centre y, w, h) into (x, y, w, h) in pixels."""
    xc, yc, w, h = centre
    return (xc - w / 2) * size[0], (yc - h / 2) * size[1], w * size[0], h * size[1]


def normalise(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Turn (x, y, w, h) in pixels into a normalised (centre x, centre y, w, h)."""
    x, y, w, h = box
    return (x + w / 2) / size[0], (y + h / 2) / size[1], w / size[0], h / size[1]
