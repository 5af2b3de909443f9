"""What a data set holds, counted in one pass: the plain data behind `bloodfilm data info`."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bloodfilm.core import Cell, Dataset, Field

REGION_STRIDE = 8  # pixels: the known area is measured on a grid, not pixel by pixel


@dataclass
class _Counts:
    """Running counts over fields and cells."""

    classes: Counter[str] = field(default_factory=Counter)
    ignored: int = 0
    unboxed: int = 0
    describable: int = 0
    attributes: Counter[tuple[str, str]] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    patients: Counter[str] = field(default_factory=Counter)
    diagnoses: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    region_sum: float = 0.0
    region_fields: int = 0
    fields: int = 0


def summarise(dataset: Dataset) -> dict[str, Any]:
    """Count fields, cells by class in the tree's order, attributes, splits, patients, domains.

    `attributes` gives, over the cells that can have them (neither ignored nor red cells nor
    platelets), the share whose value is known and the values' counts. `region_share` is the mean
    share of a field's area in which every cell is annotated; `None` if no field's size is known.
    """
    counts = _Counts()
    bare = frozenset(_without_nucleus(dataset))
    for item in dataset:
        _count_field(counts, item)
        for cell in item.cells:
            _count_cell(counts, cell, bare)
    return {
        "name": dataset.name,
        "source": None if dataset.source is None else str(dataset.source),
        "licence": dataset.licence,
        "fields": counts.fields,
        "cells": sum(counts.classes.values()) + counts.ignored,
        "ignored": counts.ignored,
        "without_box": counts.unboxed,
        "classes": _in_tree_order(dataset, counts.classes),
        "attributes": {name: _attribute(dataset, counts, name) for name in dataset.schema.names},
        "splits": _ordered(counts.splits, ("train", "val", "test")),
        "patients": _ordered(counts.patients),
        "diagnoses": _ordered(counts.diagnoses),
        "domains": _ordered(counts.domains),
        "region_share": counts.region_sum / counts.region_fields if counts.region_fields else None,
        "problems": list(dataset.problems),
    }


def _without_nucleus(dataset: Dataset) -> list[str]:
    """Return the classes that have no attributes: red cells, platelets."""
    tree = dataset.taxonomy
    if "nucleated cell" not in tree:
        return []
    inside = set(tree.path("nucleated cell"))
    return [n for n in tree.names if n not in inside and not tree.is_under(n, "nucleated cell")]


def _count_field(counts: _Counts, item: Field) -> None:
    counts.fields += 1
    counts.splits[item.split or "none"] += 1
    counts.domains[item.domain.name] += 1
    if item.patient is not None:
        counts.patients[item.patient] += 1
    if item.diagnosis is not None:
        counts.diagnoses[item.diagnosis] += 1
    share = _known_share(item)
    if share is not None:
        counts.region_sum += share
        counts.region_fields += 1


def _known_share(item: Field) -> float | None:
    if item.region.is_everything:
        return 1.0
    if item.region.is_nothing:
        return 0.0
    if not item.width or not item.height:
        return None
    across, down = (max(1, side // REGION_STRIDE) for side in (item.width, item.height))
    return float(item.region.mask(across, down, REGION_STRIDE).mean())


def _count_cell(counts: _Counts, cell: Cell, bare: frozenset[str]) -> None:
    counts.unboxed += cell.box is None
    if cell.ignore:
        counts.ignored += 1
        return
    counts.classes[cell.class_name or "unnamed"] += 1
    if cell.label not in bare:
        counts.describable += 1
        counts.attributes.update(cell.attributes.items())


def _attribute(dataset: Dataset, counts: _Counts, name: str) -> dict[str, Any]:
    values = {v: counts.attributes[name, v] for v in dataset.schema[name].values}
    known = sum(values.values())
    share = known / counts.describable if counts.describable else 0.0
    return {"known": known, "share": share, "values": values}


def _in_tree_order(dataset: Dataset, classes: Counter[str]) -> dict[str, int]:
    return _ordered(classes, dataset.taxonomy.names)


def _ordered(counts: Counter[str], first: tuple[str, ...] = ()) -> dict[str, int]:
    """Return counts: those in `first` in its order, then the others by name (numbers by value)."""
    known = [name for name in first if name in counts]
    others = sorted(set(counts) - set(first), key=_by_number)
    return {name: counts[name] for name in (*known, *others)}


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (sys.maxsize, name)
