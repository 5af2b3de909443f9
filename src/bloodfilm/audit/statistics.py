"""A data set in figures: classes, attributes, sizes, patients, domains, attribute by class."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.cell_table import IGNORE, UNKNOWN, CellTable

QUANTILES = (0.05, 0.5, 0.95)
BINS_UM = np.arange(0, 31, 1.0)
BINS_PX = np.arange(0, 310, 10.0)


def statistics(table: CellTable) -> dict[str, Any]:
    """Return the figures as plain data.

    Sizes are (width + height) / 2 of boxes, in pixels, and in um where scale and squeeze are known.
    """
    classes = _classes(table)
    um = diameters_um(table)
    px = np.nanmean(table.box[:, 2:], axis=1) if len(table) else np.zeros(0)
    return {
        "name": table.name,
        "source": table.source,
        "fields": len(table.rows),
        "cells": len(table),
        "ignored": int(table.ignored.sum()),
        "classes": classes,
        "patients": _by(table, [r.patient for r in table.rows]),
        "diagnoses": _by(table, [r.diagnosis for r in table.rows]),
        "domains": _by(table, [r.domain.name for r in table.rows]),
        "splits": _by(table, [r.split for r in table.rows]),
        "attributes": _attributes(table),
        "attribute_by_class": _attribute_by_class(table, list(classes)),
        "sizes": {
            name: _sizes(table, table.label == table.names.index(name), px, um) for name in classes
        },
        "size_px": _histogram(px, BINS_PX),
        "size_um": _histogram(um, BINS_UM),
        "cells_per_field": _quantiles(np.diff(table.starts).astype(np.float64)),
    }


def _classes(table: CellTable) -> dict[str, int]:
    counts = np.bincount(table.label, minlength=len(table.names)).tolist()
    order = {name: i for i, name in enumerate(table.taxonomy.names)}
    pairs = sorted(zip(table.names, counts, strict=True), key=lambda p: order.get(p[0], 999))
    return {name: int(count) for name, count in pairs if name != IGNORE}


def _by(table: CellTable, values: Sequence[str | None]) -> dict[str, dict[str, int]]:
    """Count fields and cells by what is said of each field."""
    fields = Counter(v if v is not None else "not stated" for v in values)
    cells: Counter[str] = Counter()
    for value, count in zip(values, np.diff(table.starts).tolist(), strict=True):
        cells[value if value is not None else "not stated"] += count
    keys = sorted(fields, key=lambda k: (int(k), "") if k.isdecimal() else (10**9, k))
    return {k: {"fields": fields[k], "cells": cells[k]} for k in keys}


def diameters_um(table: CellTable) -> NDArray[np.float64]:
    """Return (m,) mean of width and height in um; NaN where the scale is not stated."""
    scale = np.full((len(table.rows), 2), np.nan)
    for number, row in enumerate(table.rows):
        um = row.domain.um_per_px
        if um is not None:
            scale[number] = um / (row.domain.squeeze or 1.0), um
    sides = table.box[:, 2:] * scale[table.field]
    return np.asarray(sides.mean(axis=1)) if len(table) else np.zeros(0)


def _sizes(
    table: CellTable,
    chosen: NDArray[np.bool_],
    px: NDArray[np.float64],
    um: NDArray[np.float64],
) -> dict[str, Any]:
    w, h = table.box[chosen, 2], table.box[chosen, 3]
    return {
        "cells": int(chosen.sum()),
        "width_px": _quantiles(w),
        "height_px": _quantiles(h),
        "mean_px": _quantiles(px[chosen]),
        "mean_um": _quantiles(um[chosen]),
    }


def _quantiles(values: NDArray[np.float64]) -> list[float] | None:
    known = values[np.isfinite(values)]
    return [round(float(v), 2) for v in np.quantile(known, QUANTILES)] if len(known) else None


def _histogram(values: NDArray[np.float64], bins: NDArray[np.float64]) -> dict[str, Any] | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    counts = np.histogram(np.clip(known, bins[0], bins[-1] - 1e-6), bins)[0]
    return {"edges": bins.tolist(), "counts": counts.tolist()}


def _attributes(table: CellTable) -> dict[str, dict[str, int]]:
    found = {}
    for column, attribute in enumerate(table.schema.attributes):
        codes = table.codes[:, column]
        counts = {v: int((codes == i).sum()) for i, v in enumerate(attribute.values)}
        found[attribute.name] = counts | {"unknown": int((codes == UNKNOWN).sum())}
    return found


def _attribute_by_class(
    table: CellTable, classes: Sequence[str]
) -> dict[str, dict[str, list[int]]]:
    """Return, per attribute and class, the counts of its values in the schema's order."""
    place = {name: i for i, name in enumerate(table.names)}
    out: dict[str, dict[str, list[int]]] = {}
    for column, attribute in enumerate(table.schema.attributes):
        codes = table.codes[:, column]
        known = codes != UNKNOWN
        counts = np.zeros((len(table.names), len(attribute.values)), dtype=np.int64)
        np.add.at(counts, (table.label[known], codes[known]), 1)
        if counts.any():
            out[attribute.name] = {c: counts[place[c]].tolist() for c in classes}
    return out
