"""The annotation-cost curve as an SVG picture."""

import math
from typing import Any

Series = tuple[str, str]
COLOURS: dict[Series, tuple[str, str, str]] = {
    ("ours", "uncertainty"): ("#b3261e", "bloodfilm, where uncertain", "7 4"),
    ("ours", "random"): ("#b3261e", "bloodfilm", ""),
    ("published", "uncertainty"): ("#1f5fa8", "published, where uncertain", "7 4"),
    ("published", "random"): ("#1f5fa8", "published recipe", ""),
    ("region", "uncertainty"): ("#3c8d40", "region loss, where uncertain", "7 4"),
    ("region", "random"): ("#3c8d40", "region loss only", ""),
    ("patches", "random"): ("#8a6d1d", "patches only", ""),
    ("naive", "random"): ("#777777", "unmarked = background", ""),
}
"""Method and planner -> colour, name, dashes."""
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM, GAP = 960, 440, 62, 84, 190, 66, 74
PANELS = (("ap50", "AP50"), ("ap", "AP50-95"))
NUDGE = 6
"""Pixels between the points of two methods at one share, so that their bars do not hide."""


def curve(groups: list[dict[str, Any]], start: dict[str, float] | None) -> str:
    """Draw AP50 and AP50-95 against the marked share of the area, one line a method."""
    shown = [g for g in groups if g["data"] == "txl" and g["start"] == "films"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 28, "How much of every field has to be annotated?", size=17),
        _text(
            LEFT,
            50,
            "TXL-PBC, clean test split; all methods from one start and with as many steps",
            colour="#555555",
        ),
    ]
    side = (WIDTH - LEFT - RIGHT - GAP) / 2
    for number, (metric, title) in enumerate(PANELS):
        left = LEFT + number * (side + GAP)
        parts += _panel(shown, start, metric, title, (left, side), number == len(PANELS) - 1)
    middle = LEFT + side + GAP / 2
    parts.append(
        _text(
            middle,
            HEIGHT - 14,
            "share of every field's area that was annotated; bars: ± 1 sd",
            anchor="middle",
            colour="#555555",
        )
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    groups: list[dict[str, Any]],
    start: dict[str, float] | None,
    metric: str,
    title: str,
    place: tuple[float, float],
    labelled: bool,
) -> list[str]:
    left, side = place
    points = {
        key: {g["share"]: g[metric] for g in groups if (g["method"], g["planner"]) == key}
        for key in COLOURS
    }
    shares = sorted({share for found in points.values() for share in found})
    full = next((g[metric]["mean"] for g in groups if g["method"] == "full"), None)
    alone = None if start is None else start[metric]
    every = [v for found in points.values() for v in found.values()]
    values = [v["mean"] + sign * (v["sd"] or 0) for v in every for sign in (-1, 1)]
    values += [v for v in (full, alone) if v is not None]
    low, high = math.floor(20 * min(values)) / 20, math.ceil(20 * max(values)) / 20

    def y_of(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    steps = max(1, len(shares) - 1)
    across = [left + side * (0.12 + 0.76 * i / steps) for i in range(len(shares))]
    parts = [_text(left, TOP - 12, title, size=14, weight="bold")]
    for step in range(round((high - low) / 0.05) + 1):
        value = low + 0.05 * step
        parts.append(_line(left, y_of(value), left + side, y_of(value), "#e4e4e4"))
        parts.append(_text(left - 8, y_of(value) + 4, f"{value:.2f}", anchor="end"))
    for share, x in zip(shares, across, strict=True):
        parts.append(_text(x, HEIGHT - BOTTOM + 20, f"{share:.0%}", anchor="middle"))
    labels: list[tuple[float, str, str]] = []
    for value, name in ((full, "full supervision"), (alone, "no real label at all")):
        if value is not None:
            parts.append(_line(left, y_of(value), left + side, y_of(value), "#222222", "6 4"))
            labels.append((y_of(value), name, "#222222"))
    for number, (key, (colour, name, dash)) in enumerate(COLOURS.items()):
        found = points[key]
        if not found:
            continue
        shift = NUDGE * (number - 2)
        at = [(across[shares.index(s)] + shift, found[s]) for s in sorted(found)]
        parts += _series([(x, y_of(v["mean"])) for x, v in at], colour, dash)
        for x, v in at:
            if v["sd"] is not None:
                ends = y_of(v["mean"] + v["sd"]), y_of(v["mean"] - v["sd"])
                parts.append(_line(x, ends[0], x, ends[1], colour, width=1.6))
                parts += [_line(x - 4, end, x + 4, end, colour, width=1.6) for end in ends]
        labels.append((y_of(at[-1][1]["mean"]), name, colour))
    return parts + (_labels(labels, left + side + 12) if labelled else [])


def _labels(labels: list[tuple[float, str, str]], x: float) -> list[str]:
    """Write names beside the lines' ends, apart from each other."""
    parts, floor = [], 0.0
    for y, text, colour in sorted(labels):
        floor = max(y + 4, floor + 17)
        parts.append(_text(x, floor, text, colour=colour))
    return parts


def _text(
    x: float,
    y: float,
    text: str,
    *,
    colour: str = "#222222",
    anchor: str = "start",
    size: int = 13,
    weight: str = "normal",
) -> str:
    safe = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" '
        f'font-size="{size}" font-weight="{weight}">{safe}</text>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "", width: float = 1
) -> str:
    extra = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{extra}/>'
    )


def _series(points: list[tuple[float, float]], colour: str, dash: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
    extra = f' stroke-dasharray="{dash}"' if dash else ""
    stroke = f'fill="none" stroke="{colour}" stroke-width="2"{extra}'
    return [f'<polyline points="{path}" {stroke}/>', *dots]
