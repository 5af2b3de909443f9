"""Charts as SVG text, drawn by hand: bars, a histogram, a stacked share."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

_ROW = 22
_LEFT, _RIGHT = 190, 90
_WIDTH = 640
_TINTS = ("var(--v0)", "var(--v1)", "var(--v2)")


def bars(values: Mapping[str, float]) -> str:
    """Return a horizontal bar chart, one bar a name, longest value full width."""
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
        tint = _TINTS[place % 3]
        parts.append(f'<rect x="{x:.1f}" y="3" width="{width:.1f}" height="10" fill="{tint}"/>')
        x += width
    return Markup(_svg(120, 16, "".join(parts), 120))


def _svg(width: int, height: int, inside: str, shown: int | None = None) -> str:
    size = f'width="{shown}"' if shown else 'style="width:100%;max-width:760px"'
    return (
        f'<svg viewBox="0 0 {width} {height}" {size} role="img" font-size="12" '
        f'fill="currentColor" font-family="inherit">{inside}</svg>'
    )
