"""Charts as SVG text, drawn by hand: bars, a histogram, a stacked share."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

_ROW = 22
_LEFT, _RIGHT = 190, 90
_WIDTH = 640
_TINTS = ("var(--v0)", "var(--v1)", "var(--v2)")
_FADED = 0.45
_LEAST_SHARE = 0.001


def bars(values: Mapping[str, float], most_bars: int = 60) -> str:
    """Return a horizontal bar chart, one bar a name, longest value full width.

    Of more than `most_bars` the largest are drawn, in their order, and the rest are one bar.
    """
    if len(values) > most_bars:
        largest = sorted(values, key=lambda name: -values[name])[: most_bars - 1]
        kept = {name: value for name, value in values.items() if name in set(largest)}
        rest = len(values) - len(kept)
        total = sum(values.values()) - sum(kept.values())
        values = {**kept, f"each of {rest} others": total / rest}
    most = max(values.values(), default=0) or 1
    rows = []
    for place, (name, value) in enumerate(values.items()):
        y = place * _ROW
        length = (_WIDTH - _LEFT - _RIGHT) * value / most
        rows.append(
            f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_LEFT}" y="{y + 4}" width="{length:.1f}" height="14" fill="var(--v0)"/>'
            f'<text x="{_LEFT + length + 6:.1f}" y="{y + 15}">{value:,.0f}</text>'
        )
    return _svg(_WIDTH, max(len(values), 1) * _ROW, "".join(rows))


def histogram(edges: Sequence[float], counts: Sequence[int], unit: str) -> str:
    """Return a histogram with the edges written below every fifth bar."""
    most = max(counts, default=0) or 1
    step = _WIDTH / max(len(counts), 1)
    parts = []
    for place, count in enumerate(counts):
        high = 150 * count / most
        parts.append(
            f'<rect x="{place * step + 1:.1f}" y="{160 - high:.1f}" width="{step - 2:.1f}" '
            f'height="{high:.1f}" fill="var(--v0)"><title>{edges[place]:g}–{edges[place + 1]:g} '
            f"{escape(unit)}: {count:,}</title></rect>"
        )
        if place % 5 == 0:
            parts.append(f'<text x="{place * step:.1f}" y="178">{edges[place]:g}</text>')
    parts.append(f'<text x="{_WIDTH}" y="178" text-anchor="end">{escape(unit)}</text>')
    return _svg(_WIDTH, 184, "".join(parts))


def stack(counts: Sequence[int]) -> Markup:
    """Return one bar divided in proportion to counts."""
    total = sum(counts) or 1
    x, parts = 0.0, []
    for place, count in enumerate(counts):
        width = 120 * count / total
        if count >= _LEAST_SHARE * total:
            parts.append(
                f'<rect x="{x:.1f}" y="3" width="{width:.1f}" height="10" {_fill(place)}/>'
            )
        x += width
    return Markup(_svg(120, 16, "".join(parts), 120))


def swatch(place: int) -> Markup:
    """Return a small square in the colour that `stack` gives a place."""
    return Markup(_svg(10, 10, f'<rect width="10" height="10" {_fill(place)}/>', 10))


def _fill(place: int) -> str:
    """Return a colour: three tints, then the same ones paler."""
    faded = f' fill-opacity="{_FADED}"' if place >= len(_TINTS) else ""
    return f'fill="{_TINTS[place % len(_TINTS)]}"{faded}'


def _svg(width: int, height: int, inside: str, shown: int | None = None) -> str:
    size = f'width="{shown}"' if shown else 'style="width:100%;max-width:760px"'
    return (
        f'<svg viewBox="0 0 {width} {height}" {size} role="img" font-size="12" '
        f'fill="currentColor" font-family="inherit">{inside}</svg>'
    )
