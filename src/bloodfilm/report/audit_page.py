"""Write an audit as one self-contained page: every finding, where it is, and a picture of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm import __version__
from bloodfilm.audit.codes import CODES, title_of
from bloodfilm.core import Box
from bloodfilm.core.arrays import Pixels
from bloodfilm.core.boxes import corner_pixels
from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.files import open_output
from bloodfilm.core.findings import Finding, count_by_severity
from bloodfilm.core.issues import SEVERITIES
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.report.drawing import resized, true_size
from bloodfilm.report.html import charts, formatting
from bloodfilm.report.html.images import ImageBudget, webp
from bloodfilm.report.html.static_pages import render

MAX_SHOWN = 200
"""Findings of one code listed on the page; all are in the JSON."""
PICTURED = 24
BUDGET = 12_000_000
SIDE = 190
MARGIN = 0.6
GAP = 6
INKS = ((213, 94, 0), (0, 114, 178), (0, 158, 115))


@dataclass(frozen=True)
class Row:
    """One finding as the page shows it."""

    finding: Finding
    name: str
    folder: str
    picture: str | None
    size: tuple[int, int]


def write_audit(
    findings: Sequence[Finding],
    path: Path,
    *,
    name: str,
    facts: Mapping[str, Any],
    aspect_ratios: Mapping[str, float] | None = None,
) -> Path:
    """Write the page and return its path.

    Args:
        findings: the worst first; their images are opened again for the pictures.
        path: of the page.
        name: of what was audited.
        facts: figures for the head of the page, by caption.
        aspect_ratios: image -> width / height of a round cell in it, to show cells round.
    """
    painter = _Painter(aspect_ratios or {})
    groups = []
    for code, meaning in CODES.items():
        listed = [f for f in findings if f.code == code]
        if listed:
            worst = min(listed, key=lambda f: SEVERITIES.index(f.severity)).severity
            rows = [painter.row(f, i < PICTURED) for i, f in enumerate(listed[:MAX_SHOWN])]
            groups.append(
                {
                    "title": title_of(code),
                    "meaning": meaning,
                    "severity": worst,
                    "count": len(listed),
                    "rows": rows,
                    "hidden": len(listed) - len(rows),
                }
            )
    groups.sort(key=lambda g: SEVERITIES.index(str(g["severity"])))
    text = render(
        "audit.html",
        {
            "name": name,
            "version": __version__,
            "when": formatting.date_and_time(datetime.now().astimezone()),
            "counts": count_by_severity(findings),
            "facts": dict(facts),
            "groups": groups,
        },
    )
    with open_output(path) as file:
        file.write(text)
    return path


def write_stats(figures: Mapping[str, Any], path: Path) -> Path:
    """Write a data set's figures (`audit.statistics.statistics`) as a page with charts."""
    sizes = figures["size_um"] or figures["size_px"]
    unit = "µm" if figures["size_um"] else "px"
    text = render(
        "stats.html",
        {
            "version": __version__,
            "when": formatting.date_and_time(datetime.now().astimezone()),
            "figures": figures,
            "class_chart": charts.bars(figures["classes"]),
            "patient_chart": charts.bars({k: v["cells"] for k, v in figures["patients"].items()}),
            "domain_chart": charts.bars({k: v["cells"] for k, v in figures["domains"].items()}),
            "size_chart": charts.histogram(sizes["edges"], sizes["counts"], unit) if sizes else "",
            "unit": unit,
            "shares": _shares(figures),
        },
    )
    with open_output(path) as file:
        file.write(text)
    return path


def _shares(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, per attribute, each class's counts and shares of its values."""
    tables = []
    for name, classes in figures["attribute_by_class"].items():
        values = [v for v in figures["attributes"][name] if v != "unknown"]
        rows = [
            {
                "class": label,
                "cells": sum(row),
                "shares": [n / sum(row) for n in row],
                "chart": charts.stack(row),
            }
            for label, row in classes.items()
            if sum(row)
        ]
        keys = [(value, charts.swatch(place)) for place, value in enumerate(values)]
        tables.append({"name": name.replace("_", " "), "keys": keys, "rows": rows})
    return tables


class _Painter:
    """Cuts out what findings are about, within a budget."""

    def __init__(self, aspect_ratios: Mapping[str, float]) -> None:
        self.aspect_ratios = aspect_ratios
        self.budget = ImageBudget(BUDGET)

    def row(self, finding: Finding, pictured: bool) -> Row:
        image = self._picture(finding) if pictured else None
        text = None if image is None else self.budget.take(webp(image, 78))
        size = (0, 0) if image is None else (image.shape[1], image.shape[0])
        path = Path(finding.file)
        if not path.suffix:  # a data set, a domain or a folder
            return Row(finding, finding.file, "", text, size)
        folder = "" if path.parent == Path() else path.parent.as_posix()
        return Row(finding, path.name, folder, text, size)

    def _picture(self, finding: Finding) -> Pixels | None:
        try:
            if finding.code in ("identical-fields", "overlapping-fields", "augmented-copy"):
                return _beside([self._field(*place) for place in _places(finding)])
            if finding.boxes:
                return _beside([self._crop(*place) for place in _places(finding)])
            if finding.code == "blurred":
                return self._shown(finding.file, SIDE * 2)
        except (BloodfilmError, OSError, ValueError):
            return None
        return None

    def _crop(self, file: str, boxes: Sequence[Box]) -> Pixels:
        """Return the neighbourhood of boxes, the boxes drawn."""
        image = _opened(file)
        corners = np.array(boxes, dtype=np.float64)
        if not np.isfinite(corners).all():
            raise ValueError("a box without numbers cannot be shown")
        height, width = image.shape[:2]
        low, high = corners[:, :2].min(axis=0), (corners[:, :2] + corners[:, 2:]).max(axis=0)
        pad = MARGIN * np.maximum(high - low, 30)
        x0, y0 = np.clip(low - pad, 0, [width - 20, height - 20]).astype(int)
        x1, y1 = np.clip(high + pad, [x0 + 20, y0 + 20], [width, height]).astype(int)
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        size = true_size(part.shape[1], part.shape[0], self.aspect_ratios.get(file, 1.0))
        factor = SIDE / max(size)
        size = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
        return _outlined(part, corners - [x0, y0, 0, 0], size)

    def _field(self, file: str, boxes: Sequence[Box]) -> Pixels:
        """Return a whole field, boxes drawn."""
        image = _opened(file)
        size = true_size(image.shape[1], image.shape[0], self.aspect_ratios.get(file, 1.0), SIDE)
        return _outlined(image, np.array(boxes, dtype=np.float64).reshape(-1, 4), size)

    def _shown(self, file: str, side: int) -> Pixels:
        image = _opened(file)
        ratio = self.aspect_ratios.get(file, 1.0)
        return resized(image, true_size(image.shape[1], image.shape[0], ratio, side))


def _places(finding: Finding) -> list[tuple[str, Sequence[Box]]]:
    """Return the first two files a finding is about, each with its boxes."""
    there = zip(finding.others[:1], finding.other_boxes, strict=False)
    return [(finding.file, finding.boxes), *((file, (box,)) for file, box in there)]


def _outlined(image: Pixels, boxes: NDArray[np.float64], size: tuple[int, int]) -> Pixels:
    """Return an image in another size, boxes in its own pixels drawn."""
    canvas = np.ascontiguousarray(resized(image, size)).copy()
    fx, fy = size[0] / image.shape[1], size[1] / image.shape[0]
    for place, (x, y, w, h) in enumerate(boxes.tolist()):
        inset = 2 * place  # equal boxes stay visible beside each other
        (left, top), (right, bottom) = corner_pixels((x * fx, y * fy, w * fx, h * fy), *size)
        one = left + inset, top + inset
        two = right - inset - 1, bottom - inset - 1
        cv2.rectangle(canvas, one, two, INKS[place % len(INKS)], 2)
    return canvas


def _beside(pictures: Sequence[Pixels]) -> Pixels:
    """Return pictures side by side on white."""
    height = max(p.shape[0] for p in pictures)
    parts = []
    for place, picture in enumerate(pictures):
        gap = GAP if place else 0
        canvas = np.full((height, picture.shape[1] + gap, 3), 255, dtype=np.uint8)
        canvas[: picture.shape[0], gap:] = picture
        parts.append(canvas)
    return np.concatenate(parts, axis=1)


@lru_cache(maxsize=8)
def _opened(file: str) -> Pixels:
    return open_image(file)
