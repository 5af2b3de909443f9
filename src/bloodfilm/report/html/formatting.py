"""Numbers, names, dates and issues as text."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from bloodfilm.core import issue_codes
from bloodfilm.core.pixels import RED_CELL_UM, ScaleSource, ViewRecord
from bloodfilm.core.taxonomy import BLAST
from bloodfilm.core.text import printable

SUMMARY: dict[ScaleSource, str] = {
    "measured": "measured on the field’s own red cells",
    "pooled": "taken from the other fields of the folder",
    "metadata": "taken from the file’s metadata",
    "user": "provided by the user",
    "assumed": "assumed",
}
SOURCES: dict[ScaleSource, str] = {**SUMMARY, "measured": "measured on this field's red cells"}

ISSUE_TITLES = {
    issue_codes.CUT_BY_EDGE: "cut by the edge of the field",
    issue_codes.UNFAMILIAR: "unlike the cells the model was trained on",
    issue_codes.LOW_STAIN_CONTRAST: "low stain contrast to neighbouring red cells",
    issue_codes.LOW_NUCLEATED_PROBABILITY: "low probability of being a nucleated cell",
    issue_codes.ATTRIBUTES_NOT_MEASURED: "not outlined; attributes by the network alone",
    issue_codes.UNCODED: "an issue recorded by an earlier version",
}
"""What the report calls the issues of cells."""


def issue_title(code: str) -> str:
    """Return what the report calls an issue of cells."""
    return ISSUE_TITLES.get(code, printable(code.replace("-", " ")))


def date_and_time(when: datetime) -> str:
    """Return a date as `7 March 2025, 09:05`, on every system and in every locale.

    >>> date_and_time(datetime(2025, 3, 7, 9, 5))
    '7 March 2025, 09:05'
    """
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M}"


_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


def percent(share: float) -> str:
    """Return a share as a percentage: one decimal below ten, none above, no `0` for a few."""
    value = 100 * share
    if 0 < value < 0.1:
        return "< 0.1\u00a0%"
    if 0 < value < 9.95 or 99 < value < 99.95:
        return f"{value:.1f}\u00a0%"
    return f"{value:.0f}\u00a0%"


def interval(low: float, high: float) -> str:
    """Return both ends of an interval as percentages."""
    ends = [f"{100 * v:.1f}" if 0 < 100 * v < 9.95 else f"{100 * v:.0f}" for v in (low, high)]
    return f"{ends[0]}–{ends[1]}\u00a0%"


def number(count: int) -> str:
    """Return a whole number with thousands set apart."""
    return f"{count:,}"


def many(count: int, one: str, more: str | None = None) -> str:
    """Return `1 field`, `2 fields`."""
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def listed(names: Iterable[str], last: str = "and") -> str:
    """Return `a, b and c`."""
    words = list(names)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def a(name: str) -> str:
    """Return a name with its indefinite article."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def class_title(name: str) -> str:
    """Return a class as reports show it.

    >>> class_title("blast")
    'blast, lineage not decided'
    """
    return "blast, lineage not decided" if name == BLAST else name


def untrained_classes(names: Sequence[str], blasts: frozenset[str]) -> list[str]:
    """Return what becomes of cells of classes without training examples."""
    said = []
    feared = [n for n in names if n in blasts]
    rest = [n for n in names if n not in blasts]
    if feared:
        said.append(
            f"This model was not trained on {listed(map(a, feared), 'or')}. Such a blast may "
            "get another name or an issue, and be missing from the count of blasts."
        )
    if rest:
        also = "also " if feared else ""
        said.append(
            f"This model was {also}not trained on {listed(map(a, rest), 'or')}. Such a cell will "
            "get another name or an issue."
        )
    return said


def untrained_attributes(titles: Sequence[str]) -> list[str]:
    """Return that nothing is reported on attributes without training examples."""
    if not titles:
        return []
    return [
        f"This model was not trained to judge {listed(titles, 'or')}. Nothing is reported on "
        f"{'it' if len(titles) == 1 else 'them'}, which does not mean normal or absent."
    ]


def describe_view(view: ViewRecord) -> tuple[str, bool]:
    """Return a field's scale and aspect ratio in words, and whether they are uncertain."""
    scale, shape = view.scale_source, view.aspect_source
    found = f" ({many(view.red_cells, 'red cell')} found"
    if view.red_cell_um != RED_CELL_UM:
        found += f", {view.red_cell_um:.1f} µm across by the granulocytes of the same film"
    found += ")"
    text = (
        f"{view.um_per_px_x:.3f} × {view.um_per_px_y:.3f} µm per pixel, {SOURCES[scale]}{found}. "
    )
    ratio = view.pixel_aspect_ratio
    if abs(ratio - 1) < 0.03:
        text += "Square pixels"
    elif ratio < 1:
        text += f"Pixels are not square: compressed to {percent(ratio)} of the width"
    else:
        text += f"Pixels are not square: compressed to {percent(1 / ratio)} of the height"
    text += f", {SOURCES[shape]}." if shape != scale else "."
    text += f" Confidence {view.confidence:.2f}."
    if view.film_cells:
        text += f" Cells are named without what {view.film_cells} cells of the film have in common."
    return text, "assumed" in (scale, shape) or view.confidence < 0.5
