"""Numbers, names and doubts in plain words."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Control characters and the marks that turn the direction of text: in a file name they only
# mislead, so they are shown by their number instead.
_MISLEADING = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

SUMMARY = {
    "measured": "measured on the field’s own red cells",
    "pooled": "taken from the other fields of the folder",
    "stated": "as stated by the user or the file",
    "assumed": "assumed",
}
SOURCES = {
    "measured": "measured on this field's red cells",
    "pooled": "taken from the other fields of the folder",
    "stated": "as stated by the user or the file",
    "assumed": "assumed",
}


def clean(text: object) -> str:
    """Return text that shows what it is and can be written as UTF-8."""
    shown = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return _MISLEADING.sub(lambda m: f"\\u{ord(m.group()):04x}", shown)


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


def unlearnt_classes(names: Sequence[str], blasts: frozenset[str]) -> list[str]:
    """Say what becomes of cells of classes no example was ever shown of."""
    said = []
    feared = [n for n in names if n in blasts]
    rest = [n for n in names if n not in blasts]
    if feared:
        said.append(
            f"This model has never seen {listed(map(a, feared), 'or')}. Such a blast will be "
            "given another name or be flagged; it will not appear in the count of blasts."
        )
    if rest:
        also = "also " if feared else ""
        said.append(
            f"This model has {also}never seen {listed(map(a, rest), 'or')}. Such a cell will be "
            "given another name or be flagged."
        )
    return said


def unlearnt_attributes(titles: Sequence[str]) -> list[str]:
    """Say that the report is silent on attributes no example was ever shown of."""
    if not titles:
        return []
    return [
        f"This model has never learnt to judge {listed(titles, 'or')}. Nothing is reported on "
        f"{'it' if len(titles) == 1 else 'them'}, which does not mean normal or absent."
    ]


def view_words(view: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what is known of a field's scale and squeeze, and whether that is cause for doubt."""
    x, y = view.get("um_per_px_x"), view.get("um_per_px_y")
    if not isinstance(x, int | float) or not isinstance(y, int | float) or x <= 0 or y <= 0:
        return "Scale unknown.", True
    scale = str(view.get("scale_source", "assumed"))
    shape = str(view.get("squeeze_source", scale))
    red = view.get("red_cells")
    on = f" ({many(int(red), 'red cell')} found)" if isinstance(red, int | float) else ""
    sure = view.get("confidence")
    text = f"{x:.3f} × {y:.3f} µm per pixel, {SOURCES.get(scale, clean(scale))}{on}. "
    squeeze = y / x
    if abs(squeeze - 1) < 0.03:
        text += "Not squeezed"
    elif squeeze < 1:
        text += f"Squeezed to {percent(squeeze)} of its width"
    else:
        text += f"Squeezed to {percent(1 / squeeze)} of its height"
    text += f", {SOURCES.get(shape, clean(shape))}." if shape != scale else "."
    if isinstance(sure, int | float):
        text += f" Confidence {sure:.2f}."
    doubtful = "assumed" in (scale, shape) or (isinstance(sure, int | float) and sure < 0.5)
    return text, doubtful
