"""The data of the cell gallery: one short list per nucleated cell; names and texts once."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bloodfilm.core.results import CellResult
from bloodfilm.report.html import formatting
from bloodfilm.report.html.sections import ReportMetadata

_ALTERNATIVES = 3


def wanted_cells(facts: ReportMetadata, room: int) -> list[set[int]]:
    """Choose, per field, the cells to embed: all if there is room, else the doubtful first."""
    every = [
        (not (facts.undecided(cell) or cell.issues), number, place)
        for number, brief in enumerate(facts.fields)
        for place, cell in brief.cells
    ]
    wanted: list[set[int]] = [set() for _ in facts.fields]
    for _, number, place in sorted(every)[:room]:
        wanted[number].add(place)
    return wanted


def gallery(facts: ReportMetadata) -> dict[str, Any]:
    """Return what the page's script needs to show, filter and sort the cells."""
    taxonomy, model = facts.run.model.taxonomy, facts.run.model
    labels = {cell.label for cell in facts.cells}
    names = [*taxonomy.names, *sorted(labels - set(taxonomy.names))]
    found = sorted({issue.code for cell in facts.cells for issue in cell.issues})
    index = {name: place for place, name in enumerate(names)}
    issue_index = {code: place for place, code in enumerate(found)}
    return {
        "names": [
            {
                "name": formatting.clean(formatting.class_title(name)),
                "path": [index[n] for n in taxonomy.path(name)]
                if name in taxonomy
                else [index[name]],
                "leaf": name in taxonomy and not taxonomy.children(name),
                "blast": name in taxonomy.blasts,
                "colour": facts.style(name).colour,
            }
            for name in names
        ],
        "attributes": [
            {
                "title": formatting.clean(a.title),
                "values": [formatting.clean(v) for v in a.values],
                "trained": a.name not in model.untrained_attributes,
            }
            for a in facts.run.model.schema.attributes
        ],
        "issues": [formatting.issue_title(code) for code in found],
        "fields": [brief.name for brief in facts.fields],
        "cells": [
            _cell(facts, cell, (number + 1, place + 1), index, issue_index)
            for number, brief in enumerate(facts.fields)
            for place, cell in brief.cells
        ],
    }


def _cell(
    facts: ReportMetadata,
    cell: CellResult,
    at: tuple[int, int],
    index: Mapping[str, int],
    issue_index: Mapping[str, int],
) -> list[Any]:
    """One cell, as the page's script reads it.

    Field, place, box, confidence, name, its probability, others, attributes, issues, um, stain
    contrast.
    """
    others = sorted(cell.probabilities.items(), key=lambda item: (-item[1], item[0]))
    attributes: list[Any] = []
    for attribute in facts.run.model.schema.attributes:
        answer = cell.attributes.get(attribute.name)
        if answer is None or (answer.value is None and answer.probability <= 0):
            attributes.append(0)
            continue
        best = answer.value or max(
            answer.probabilities, key=lambda v: answer.probabilities[v], default=""
        )
        place = attribute.values.index(best) if best in attribute.values else -1
        attributes.append([place, round(answer.probability, 3), int(answer.value is not None)])
    return [
        *at,
        [round(v, 1) for v in cell.box],
        round(cell.confidence, 3),
        index[cell.label],
        round(cell.label_confidence, 3),
        [[index[n], round(p, 3)] for n, p in others[:_ALTERNATIVES] if n in index and p >= 0.005],
        attributes,
        sorted({issue_index[issue.code] for issue in cell.issues}),
        None if cell.diameter_um is None else round(cell.diameter_um, 1),
        None if cell.stain_contrast is None else round(cell.stain_contrast, 2),
    ]


def crops_of(crops: Sequence[Mapping[int, str]]) -> dict[str, str]:
    """Return the cells' pictures under `field-cell`, as the page's links name them."""
    return {
        f"{number}-{place + 1}": text
        for number, of_field in enumerate(crops, 1)
        for place, text in sorted(of_field.items())
    }


def script_json(data: Any) -> str:
    """Return JSON that can stand inside a script element, whatever its texts hold."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
