"""The data of the page's script: names and texts once, one short list per cell."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import CellResult
from bloodfilm.core.text import printable, sentence
from bloodfilm.report.html import formatting
from bloodfilm.report.html.content import (
    ReportCell,
    ReportContent,
    ReportField,
    json_number,
    plain,
)
from bloodfilm.report.pictures import CELL_SIDE

_FEW = 3
"""A class of fewer cells is compared with all cells."""


def gallery(
    content: ReportContent,
    flags: Mapping[str, Sequence[str]] | None = None,
    maps: Mapping[str, Sequence[int]] | None = None,
    pictures: str = "",
) -> dict[str, Any]:
    """Return what the script needs to show, filter and sort the cells.

    Args:
        content: of the report.
        flags: ids of cells by the flag that they stand behind.
        maps: by cell id, how much the probability of its name falls where it is hidden, in percent,
            row by row of a square grid.
        pictures: the folder of the pictures, seen from the page; empty where the page holds them.
    """
    model, taxonomy = content.model, content.model.taxonomy
    labels = {cell.label for cell in content.cells}
    names = [*taxonomy.names, *sorted(labels - set(taxonomy.names))]
    codes = sorted({code for cell in content.cells for code in cell.codes})
    index = {name: place for place, name in enumerate(names)}
    issue_index = {code: place for place, code in enumerate(codes)}
    odd = oddities(content)
    places = {a.name: place for place, a in enumerate(model.schema.attributes)}
    order = [places[a.name] for a, _ in content.attributes]
    numbers = {cell.cell.id: place for place, cell in enumerate(content.cells)}
    return {
        "names": [_name(content, name, index) for name in names],
        "attributes": [
            {
                "name": a.name,
                "title": printable(a.title),
                "values": [printable(v) for v in a.values],
                "trained": a.name not in model.untrained_attributes,
                "first": first,
            }
            for a, first in content.attributes
        ],
        "issues": [
            {
                "code": code,
                "title": formatting.issue_title(code),
                "meaning": issue_codes.CODES.meaning(code) or "",
            }
            for code in codes
        ],
        "fields": [_field(content, field) for field in content.fields],
        "cells": [
            [
                *_row(cell, index, issue_index, order, odd[place]),
                _outlines(cell.cell, content.fields[cell.field - 1].view, model.crop_um),
                -1 if cell.likely is None else index[cell.likely],
            ]
            for place, cell in enumerate(content.cells)
        ],
        "flags": {
            code: [numbers[i] for i in ids if i in numbers] for code, ids in (flags or {}).items()
        },
        "maps": {i: list(values) for i, values in (maps or {}).items() if i in numbers},
        "window": model.crop_um,
        "pictures": pictures,
        "side": CELL_SIDE,
    }


def _name(content: ReportContent, name: str, index: Mapping[str, int]) -> dict[str, Any]:
    """What the script needs of a class; `index` numbers the names."""
    taxonomy = content.model.taxonomy
    known = name in taxonomy
    return {
        "name": name,
        "title": printable(formatting.class_title(name)),
        "path": [index[n] for n in taxonomy.path(name)] if known else [index[name]],
        "leaf": name in taxonomy.leaves,
        "undecided": content.is_undecided(name),
        "blast": name in taxonomy.blasts,
        "above": known and _may_be_blast(content, name),
        "colour": content.style(name).colour,
    }


def _field(content: ReportContent, field: ReportField) -> dict[str, Any]:
    """What the script needs of a field."""
    picture, view = field.picture, field.view
    return {
        "name": content.name_of(field),
        "picture": "" if picture.missing else picture.folder,
        "missing": printable(picture.missing),
        "shown": [picture.width, picture.height],
        "size": list(field.size),
        "um": plain((view.um_per_px_x, view.um_per_px_y), 4),
        "counted": int(field.counted),
        "issues": [sentence(issue.message) for issue in field.issues],
        "view": formatting.describe_view(view)[0],
        "others": field.outlines,
    }


def _may_be_blast(content: ReportContent, name: str) -> bool:
    taxonomy = content.model.taxonomy
    below = set(taxonomy.leaves_under(name))
    return name not in taxonomy.blasts and len(below) > 1 and bool(below & taxonomy.blasts)


def _row(
    shown: ReportCell,
    index: Mapping[str, int],
    issue_index: Mapping[str, int],
    order: Sequence[int],
    odd: int,
) -> list[Any]:
    """One cell, as `state.js` reads it.

    Field, place, id, box, confidence, name, its probability, likeliest classes, attributes, issues,
    diameter, stain contrast, probability of being a nucleated cell, oddity, whether it is
    counted (`_status`), measures of its outline (`_measures`). Its `_outlines` follow, and the
    likeliest class that its name leaves open, -1 for none.
    """
    cell = shown.cell
    return [
        shown.field,
        shown.place + 1,
        cell.id,
        plain(cell.box, 1),
        json_number(cell.confidence, 3),
        index[cell.label],
        json_number(cell.label_confidence, 3),
        [value for n, p in shown.likeliest if n in index for value in (index[n], round(100 * p))],
        [[shown.answers[a], *shown.percents[a]] if shown.percents[a] else 0 for a in order],
        sorted({issue_index[code] for code in shown.codes}),
        json_number(cell.diameter_um, 1),
        json_number(cell.stain_contrast, 2),
        json_number(cell.nucleated_probability, 2),
        odd,
        _status(shown),
        _measures(cell),
    ]


def _measures(cell: CellResult) -> list[Any]:
    """Return what is measured on a cell's outline, in the order of `card.js`; empty without one."""
    shape = cell.shape
    if shape is None:
        return []
    sides = plain((shape.diameter_um, shape.length_um, shape.width_um), 1)
    return [
        *sides,
        round(100 * shape.nucleus_ratio),
        json_number(shape.circularity, 2),
        shape.lobes,
    ]


def _outlines(cell: CellResult, view: ViewRecord, window_um: float) -> list[list[int]]:
    """Return outlines in pixels of the cell's picture: of the cell, then of its nucleus's pieces.

    Each is x1, y1, x2, y2, ...; none where the cell is not outlined.
    """
    if cell.shape is None:
        return []
    x, y, w, h = cell.box
    middle = np.array([x + w / 2, y + h / 2])
    scale = np.array([view.um_per_px_x, view.um_per_px_y]) * CELL_SIDE / window_um
    polygons = (cell.shape.outline, *cell.shape.nucleus)
    placed = ((np.array(p) - middle) * scale + CELL_SIDE / 2 for p in polygons)
    return [[int(v) for v in np.rint(points).ravel()] for points in placed]


def _status(shown: ReportCell) -> int:
    """Return 1 for a counted cell, 2 for one beside the count, 3 for another view, else 0."""
    if shown.other_view:
        return 3
    return 2 if shown.counted and shown.beside else int(shown.counted)


def oddities(content: ReportContent) -> list[int]:
    """Return how unusual each cell is among those of its name in this run, 0 and up.

    The mean surprise of its attribute values (-log2 of their share, Laplace's rule) and the
    distance of its diameter from the median in median absolute deviations, at most 4 each; a cell
    unlike the model's training cells comes before all others.
    """
    groups: dict[str, list[ReportCell]] = defaultdict(list)
    for cell in content.cells:
        groups[cell.label].append(cell)
    every = _Usual(content.cells, content)
    usual = {
        label: _Usual(cells, content) if len(cells) >= _FEW else every
        for label, cells in groups.items()
    }
    return [usual[cell.label].oddity(cell) for cell in content.cells]


class _Usual:
    """Counts of attribute values and the spread of diameters of some cells."""

    def __init__(self, cells: Sequence[ReportCell], content: ReportContent) -> None:
        self._values = [len(a.values) for a in content.model.schema.attributes]
        self._tallies = [Counter[int]() for _ in self._values]
        for cell in cells:
            for tally, answer in zip(self._tallies, cell.answers, strict=True):
                if answer >= 0:
                    tally[answer] += 1
        sizes = sorted(c.cell.diameter_um for c in cells if c.cell.diameter_um is not None)
        self._middle = sizes[len(sizes) // 2] if sizes else 0.0
        spread = sorted(abs(size - self._middle) for size in sizes)
        self._spread = max(spread[len(spread) // 2], 0.3) if spread else 1.0

    def oddity(self, cell: ReportCell) -> int:
        surprise = [
            -math.log2((tally[answer] + 1) / (tally.total() + values))
            for tally, answer, values in zip(self._tallies, cell.answers, self._values, strict=True)
            if answer >= 0
        ]
        size = cell.cell.diameter_um
        off = 0.0 if size is None else min(4.0, abs(size - self._middle) / self._spread)
        mean = min(4.0, sum(surprise) / len(surprise)) if surprise else 0.0
        unlike = 1000 if issue_codes.UNFAMILIAR in cell.codes else 0
        return unlike + round(100 * (mean + off / 2))


def script_json(data: Any) -> str:
    """Return JSON that can stand inside a script element, whatever its texts hold."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
