"""The matrix of a cross-domain evaluation as a picture: one heat map per figure, in one SVG.

The picture stands alone: it brings its font sizes and colours, needs no style sheet and no script,
and shows the same in a browser and in print.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import escape

from bloodfilm.core.text import printable
from bloodfilm.evaluation.cross_domain import FIGURES, Figure
from bloodfilm.evaluation.cross_matrix import CrossMatrix
from bloodfilm.evaluation.intervals import Interval

CELL_WIDTH, CELL_HEIGHT = 92, 44
LETTER = 7.0
"""Width of a letter of the names, px."""
TITLE_HEIGHT, GAP, MARGIN = 22, 30, 16
LONGEST_NAME = 34
PALE, MIDDLE, DEEP = (253, 243, 226), (244, 164, 96), (92, 26, 84)
"""Colours of 0, one half and 1; lightness falls evenly, so that it reads in grey, too."""
ABSENT = "#f1f1f1"
WORST_CALIBRATION = 0.5
"""Calibration error that is drawn as the worst."""
MEANS = (("mean in-domain", "in_domain"), ("mean out-of-domain", "out_of_domain"))
DARK_TEXT, LIGHT_TEXT = "#222222", "#ffffff"


@dataclass(frozen=True)
class _Entry:
    """One square: its value, the ends of its interval, and whether the domain was trained on."""

    value: float | None
    text: str
    ends: str
    trained: bool


def heat_map(matrix: CrossMatrix) -> str:
    """Return the matrix as SVG text: methods by column, domains by row, one panel per figure.

    Darker is better. A square bears the figure and its interval; a corner marks domains that the
    model was trained on. Figures that no pair has are left out.
    """
    names = [*(d.name for d in matrix.domains), *(name for name, _ in MEANS)]
    left = MARGIN + LETTER * max(len(_short(name)) for name in names) + 10
    width = max(left + CELL_WIDTH * len(matrix.methods) + MARGIN + 40, 560.0)
    head = 22 + LETTER * 0.62 * max(len(_short(m.name)) for m in matrix.methods)
    parts, top = [], float(MARGIN)
    for figure in (f for f in FIGURES if matrix.has(f)):
        drawn, height = _panel(matrix, figure, left, top, head)
        parts.append(drawn)
        top += height + GAP
    level = f"{matrix.resampling.level:.0%}"
    note = f"◢ trained on data of this domain; small: {level} bootstrap interval; darker is better"
    parts.append(_text((MARGIN, top + 10), note, 11))
    height = top + 26
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" role="img">'
        f"<title>Cross-domain evaluation</title>"
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _panel(
    matrix: CrossMatrix, figure: Figure, left: float, top: float, head: float
) -> tuple[str, float]:
    """Return one figure's heat map and its height."""
    title = figure.title if figure.rises else f"{figure.title} (less is better)"
    parts = [_text((MARGIN, top + 16), title, 15, weight="bold")]
    first = top + TITLE_HEIGHT + head
    for m, method in enumerate(matrix.methods):
        x = left + CELL_WIDTH * (m + 0.4)
        parts.append(
            f'<text transform="translate({x:.1f} {first - 8:.1f}) rotate(-35)" font-size="12" '
            f'fill="{DARK_TEXT}">{escape(_short(method.name))}</text>'
        )
    y = first
    for name, entries, is_mean in _rows(matrix, figure):
        y += 6 if is_mean else 0
        place = (left - 10, y + CELL_HEIGHT / 2 + 4)
        weight = "bold" if is_mean else "normal"
        parts.append(_text(place, _short(name), 12, "end", weight=weight))
        for m, entry in enumerate(entries):
            parts.append(_square(entry, left + CELL_WIDTH * m, y, figure))
        y += CELL_HEIGHT
    return "".join(parts), y - top


def _rows(matrix: CrossMatrix, figure: Figure) -> Iterator[tuple[str, list[_Entry], bool]]:
    """Yield name, squares and whether it is a mean, of each row."""
    methods = range(len(matrix.methods))
    for d, domain in enumerate(matrix.domains):
        yield domain.name, [_entry(matrix, (m, d), figure) for m in methods], False
    for name, key in MEANS:
        means = [getattr(matrix.means[m][figure.key], key) for m in methods]
        if any(means):
            yield name, [_entry_of(mean, False) for mean in means], True


def _entry(matrix: CrossMatrix, pair: tuple[int, int], figure: Figure) -> _Entry:
    if pair not in matrix.cells:
        return _Entry(None, "", "", False)
    return _entry_of(matrix.cells[pair][figure.key], not matrix.new[pair][figure.part])


def _entry_of(interval: Interval | None, trained: bool) -> _Entry:
    if interval is None or not math.isfinite(interval.value):
        return _Entry(None, "–", "", trained)
    known = math.isfinite(interval.low)
    ends = f"{interval.low:.2f}–{interval.high:.2f}" if known else ""
    return _Entry(interval.value, f"{interval.value:.3f}", ends, trained)


def _square(entry: _Entry, x: float, y: float, figure: Figure) -> str:
    w, h = CELL_WIDTH - 3, CELL_HEIGHT - 3
    if entry.value is None:
        fill, ink = ABSENT, DARK_TEXT
    else:
        goodness = entry.value if figure.rises else 1 - min(1.0, entry.value / WORST_CALIBRATION)
        red, green, blue = _colour(goodness)
        fill = f"rgb({red},{green},{blue})"
        ink = DARK_TEXT if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else LIGHT_TEXT
    middle = x + w / 2
    parts = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{w}" height="{h}" rx="3" fill="{fill}"/>']
    at = (middle, y + (20 if entry.ends else 26))
    parts.append(_text(at, entry.text, 14, "middle", ink=ink))
    if entry.ends:
        parts.append(_text((middle, y + 35), entry.ends, 10, "middle", ink=ink))
    if entry.trained:
        right, bottom = x + w, y + h
        parts.append(
            f'<path d="M{right:.1f} {bottom:.1f}h-11l11 -11z" fill="{ink}" fill-opacity="0.75"/>'
        )
    return "".join(parts)


def _colour(goodness: float) -> tuple[int, int, int]:
    """Return the colour of a figure in [0, 1]."""
    t = min(1.0, max(0.0, goodness)) * 2
    low, high, share = (PALE, MIDDLE, t) if t < 1 else (MIDDLE, DEEP, t - 1)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _short(name: str) -> str:
    """Return a name as it is shown: printable, on one line, not too long."""
    text = printable(name)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def _text(
    at: tuple[float, float],
    text: str,
    size: int,
    anchor: str = "start",
    *,
    weight: str = "normal",
    ink: str = DARK_TEXT,
) -> str:
    return (
        f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="{ink}">{escape(text)}</text>'
    )
