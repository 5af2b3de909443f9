"""A data set in figures: fields, classes, attributes, sizes, patients, domains."""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bloodfilm.core import Dataset
from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.core.cell_table import IGNORE, UNKNOWN, UNNAMED, CellTable, FieldRow
from bloodfilm.formats.parquet.columns import table_of

QUANTILES = (0.05, 0.5, 0.95)
BINS_UM = np.arange(0, 31, 1.0)
BINS_PX = np.arange(0, 310, 10.0)
REGION_STRIDE = 8  # pixels: the known area is measured on a grid, not pixel by pixel
MOST_POINTS = 1 << 22  # of that grid, however large a field is said to be
SPLITS = ("train", "val", "test")


def summarise(dataset: Dataset) -> dict[str, Any]:
    """Return the summary of a data set: what it holds, and what its reader had to leave out.

    `attributes` gives, over the cells that can have them (neither ignored nor red cells nor
    platelets), the share whose value is known and the values' counts. `region_share` is the mean
    share of a field's area in which every cell is annotated; `None` if no field's size is known.
    """
    table = table_of(dataset)
    cells = table.cells
    describable = table.white & ~cells.ignore
    shares = [share for row in table.rows if (share := _known_share(row)) is not None]
    classes = Counter(_class_counts(table))
    if classes.pop(UNNAMED, 0):  # under the data set's own names, which a table does not hold
        classes.update(_own_names(dataset))
    return {
        "name": dataset.name,
        "source": None if dataset.source is None else str(dataset.source),
        "licence": dataset.licence,
        "fields": len(table.rows),
        "cells": len(table),
        "ignored": int(cells.ignore.sum()),
        "without_box": int(np.isnan(cells.box).all(axis=1).sum()),
        "classes": _ordered(classes, dataset.taxonomy.names),
        "attributes": {
            name: _known_values(table, column, describable)
            for column, name in enumerate(dataset.schema.names)
        },
        "splits": _counted((row.split or "none" for row in table.rows), SPLITS),
        "patients": _counted(row.patient for row in table.rows),
        "diagnoses": _counted(row.diagnosis for row in table.rows),
        "domains": _counted(row.domain.name for row in table.rows),
        "region_share": sum(shares) / len(shares) if shares else None,
        "issues": [found.to_json() for found in dataset.issues],
    }


def _own_names(dataset: Dataset) -> Iterator[str]:
    """Yield the data set's own class of each cell that has no class of the taxonomy."""
    for item in dataset:
        for cell in item.cells:
            if cell.label is None and not cell.ignore:
                yield cell.class_name or "unnamed"


def _known_share(row: FieldRow) -> float | None:
    """Return the share of a field in which every cell is annotated; `None` without its size."""
    if row.region.is_everything:
        return 1.0
    if row.region.is_nothing:
        return 0.0
    if not row.width or not row.height:
        return None
    stride = max(REGION_STRIDE, math.ceil(math.sqrt(row.width * row.height / MOST_POINTS)))
    across, down = (max(1, side // stride) for side in (row.width, row.height))
    return float(row.region.mask(across, down, stride).mean())


def _known_values(table: CellTable, column: int, chosen: Bools) -> dict[str, Any]:
    codes = table.codes[chosen, column]
    values = table.schema.attributes[column].values
    counts = {value: int((codes == code).sum()) for code, value in enumerate(values)}
    known = sum(counts.values())
    return {"known": known, "share": known / len(codes) if len(codes) else 0.0, "values": counts}


def _counted(values: Iterable[str | None], first: Sequence[str] = ()) -> dict[str, int]:
    """Count the values that are stated; see `_ordered`."""
    return _ordered(Counter(v for v in values if v is not None), first)


def _ordered(counts: Mapping[str, int], first: Sequence[str] = ()) -> dict[str, int]:
    """Return counts: those in `first` in its order, then the others by name (numbers by value)."""
    known = [name for name in first if name in counts]
    others = sorted(set(counts) - set(first), key=_by_number)
    return {name: counts[name] for name in (*known, *others)}


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (sys.maxsize, name)


def _class_counts(table: CellTable) -> dict[str, int]:
    """Count the cells of each class, without those to ignore."""
    counts = np.bincount(table.label, minlength=len(table.names)).tolist()
    pairs = zip(table.names, counts, strict=True)
    return {name: count for name, count in pairs if name != IGNORE}


# ---- in full ---------------------------------------------------------------------------------


def statistics(table: CellTable) -> dict[str, Any]:
    """Return the figures of a data set in full, as plain data.

    Sizes are (width + height) / 2 of boxes, in pixels, and in um where scale and aspect ratio are
    known.
    """
    classes = _ordered(_class_counts(table), table.taxonomy.names)
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


def _by(table: CellTable, values: Sequence[str | None]) -> dict[str, dict[str, int]]:
    """Count fields and cells by what is stated of each field."""
    fields = Counter(v if v is not None else "not stated" for v in values)
    cells: Counter[str] = Counter()
    for value, count in zip(values, np.diff(table.starts).tolist(), strict=True):
        cells[value if value is not None else "not stated"] += count
    return {k: {"fields": fields[k], "cells": cells[k]} for k in sorted(fields, key=_by_number)}


def diameters_um(table: CellTable) -> Floats:
    """Return (m,) mean of width and height in um; NaN where the scale is not stated."""
    scale = np.full((len(table.rows), 2), np.nan)
    for number, row in enumerate(table.rows):
        um = row.domain.um_per_px
        if um is not None:
            scale[number] = um / (row.domain.pixel_aspect_ratio or 1.0), um
    sides = table.box[:, 2:] * scale[table.field]
    return np.asarray(sides.mean(axis=1)) if len(table) else np.zeros(0)


def _sizes(
    table: CellTable,
    chosen: Bools,
    px: Floats,
    um: Floats,
) -> dict[str, Any]:
    w, h = table.box[chosen, 2], table.box[chosen, 3]
    return {
        "cells": int(chosen.sum()),
        "width_px": _quantiles(w),
        "height_px": _quantiles(h),
        "mean_px": _quantiles(px[chosen]),
        "mean_um": _quantiles(um[chosen]),
    }


def _quantiles(values: Floats) -> list[float] | None:
    known = values[np.isfinite(values)]
    return [round(float(v), 2) for v in np.quantile(known, QUANTILES)] if len(known) else None


def _histogram(values: Floats, bins: Floats) -> dict[str, Any] | None:
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
