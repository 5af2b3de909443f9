"""The label lines that YOLO and LLD's text labels share: class, normalised box, more columns."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core import Box, DataError
from bloodfilm.formats.shared.context import ReadContext
from bloodfilm.formats.shared.parsing import read_text


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


def read_rows(
    reading: ReadContext, path: Path, size: tuple[int, int], widths: Collection[int]
) -> list[Row] | None:
    """Return a file's lines that have one of the allowed numbers of columns; report the others.

    `None` (reported) if the file is no text: nothing is known of its image then.
    """
    try:
        lines = read_text(path).splitlines()
    except DataError as error:
        reading.report(path, "", f"{str(error).removeprefix(f'{path}: ')}; left out")
        return None
    return parse_rows(reading, path, lines, size, widths)


def parse_rows(
    reading: ReadContext,
    path: Path,
    lines: Iterable[str],
    size: tuple[int, int],
    widths: Collection[int],
) -> list[Row]:
    """Like `read_rows`, of lines that were read."""
    rows = []
    for number, text in enumerate(lines, 1):
        words = text.replace(",", " ").split()
        if not words:
            continue
        values = _numbers(words)
        place = f"line {number}"
        if values is None or values[0] != int(values[0]) or values[0] < 0:
            reading.report(path, place, "not a line of class id and numbers, left out")
        elif len(values) not in widths:
            allowed = ", ".join(map(str, sorted(widths)[:6]))
            reading.report(path, place, f"{len(values)} columns instead of {allowed}, left out")
        else:
            box = denormalise(values[1:5], size)
            rows.append(Row(number, int(values[0]), box, tuple(values[5:])))
    return rows


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
