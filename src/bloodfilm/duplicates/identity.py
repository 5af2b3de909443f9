"""One physical cell, one identity: over overlapping fields, and over photographs of one field.

Fields of one microscope that show the same glass are found by content. The same field under
another microscope, camera or magnification is known by its patient and number; how the two
photographs lie on each other is found by registration, and refused where it cannot be told.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.cell_table import PHYSICAL, Table
from bloodfilm.audit.finding import Finding
from bloodfilm.audit.image_statistics import Survey, survey
from bloodfilm.core import Dataset
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.duplicates.common_content import lying_on_each_other, physical_cells, search
from bloodfilm.duplicates.overlaps import FieldOverlap
from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.registration.align import register
from bloodfilm.registration.view import ImageCandidate
from bloodfilm.registration.warp import warp_boxes

Pair = tuple[int, int]


@dataclass(frozen=True)
class Reacquisition:
    """One field in two subsets: their numbers, and how sure it is that they were put together."""

    first: int
    second: int
    confidence: float
    reason: str

    @property
    def aligned(self) -> bool:
        """Whether the two photographs could be put together."""
        return self.confidence > 0


@dataclass(frozen=True, eq=False)
class CellIdentities:
    """What was found to be the same.

    Attributes:
        overlaps: pairs of fields of one subset that show common glass, numbered as in the table.
        retaken: pairs of photographs of one field in several subsets.
        cells: (m,) the same number for boxes of one physical cell.
        notes: what was not searched, or could not be opened.
    """

    table: Table
    overlaps: list[FieldOverlap]
    retaken: list[Reacquisition]
    cells: NDArray[np.int64]
    notes: list[Finding] = field(default_factory=list)

    def groups(self) -> list[list[int]]:
        """Return the cells, as numbers in the table, of each physical cell with several boxes."""
        order = np.argsort(self.cells, kind="stable")
        starts = np.flatnonzero(np.diff(self.cells[order], prepend=-1))
        return [g.tolist() for g in np.split(order, starts[1:]) if len(g) > 1]

    def shared(self, first: int, second: int) -> int:
        """Count the physical cells that are annotated in both of two fields."""
        here, there = (set(self.cells[self.table.cells_of(n)].tolist()) for n in (first, second))
        return len(here & there)

    def to_json(self) -> dict[str, Any]:
        """Return plain data: pairs of fields, and the boxes of each physical cell."""
        rows = self.table.rows
        return {
            "format": "bloodfilm-identities",
            "version": 1,
            "fields": len(rows),
            "boxes": len(self.cells),
            "physical_cells": len(np.unique(self.cells)),
            "overlaps": [
                {
                    "first": rows[o.first].path,
                    "second": rows[o.second].path,
                    "identical": o.identical,
                    "turned": o.turned,
                    "shift": list(o.shift),
                    "share": o.share,
                    "correlation": o.ncc,
                    "shared_cells": self.shared(o.first, o.second),
                }
                for o in self.overlaps
            ],
            "retaken": [
                {
                    "first": rows[r.first].path,
                    "second": rows[r.second].path,
                    "aligned": r.aligned,
                    "confidence": round(r.confidence, 4),
                    "reason": r.reason,
                    "shared_cells": self.shared(r.first, r.second),
                }
                for r in self.retaken
            ],
            "cells": [[self._box(cell) for cell in group] for group in self.groups()],
            "notes": [n.to_json() for n in self.notes],
        }

    def _box(self, cell: int) -> dict[str, Any]:
        table = self.table
        return {
            "image": table.rows[int(table.field[cell])].path,
            "id": str(table.ids[cell]),
            "class": table.class_of(cell),
            "box": [round(v, 2) for v in table.box_of(cell)],
        }


def identify(
    table: Table, progress: Progress | None = None, *, thorough: bool = False, retaken: bool = True
) -> CellIdentities:
    """Find overlapping fields and photographs of one field, and which boxes are one cell.

    Args:
        table: of one data set; its images are opened.
        progress: follows the fields and pairs that are looked at.
        thorough: compare all fields at all shifts, however many there are.
        retaken: also register photographs of one field in several subsets.
    """
    progress = progress or NoProgress()
    seen = survey(table, progress)
    common = search(seen, progress, thorough)
    pairs = list(_retaken(seen)) if retaken else []
    found, same = [], []
    for pair in track(pairs, progress, "registering subsets", len(pairs)):
        one, cells = _registered(seen, *pair)
        found.append(one)
        same += cells
    cells_of = physical_cells(seen, common.overlaps, same)
    return CellIdentities(table, common.overlaps, found, cells_of, [*seen.findings, *common.notes])


def _retaken(seen: Survey) -> Iterator[Pair]:
    """Yield pairs of fields of one patient and number, the first against each other subset's."""
    taken: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for number in sorted(seen.looks):
        row = seen.table.rows[number]
        if row.patient is not None and row.number is not None:
            taken[row.patient, row.number].setdefault(row.domain.name, number)
    for of_domain in taken.values():
        first, *others = of_domain.values()
        yield from ((first, other) for other in others)


def _registered(seen: Survey, first: int, second: int) -> tuple[Reacquisition, list[Pair]]:
    """Register two photographs; return how it went and which cells lie on each other."""
    table = seen.table
    one, two = (_photograph(table.rows[n].path) for n in (first, second))
    alignment = register(one, two)
    if not alignment.aligned or alignment.matrix is None:
        return Reacquisition(first, second, 0.0, alignment.reason), []
    a, b = table.cells_of(first), table.cells_of(second)
    moved = warp_boxes(np.nan_to_num(table.box[a]), alignment.matrix)
    same = lying_on_each_other(moved, np.nan_to_num(table.box[b]))
    pairs = [(a.start + i, b.start + j) for i, j in same]
    return Reacquisition(first, second, alignment.confidence, alignment.reason), pairs


def _photograph(path: str) -> ImageCandidate:
    image = open_image(path)
    return ImageCandidate(image, canonical_view(image))


def with_identities(dataset: Dataset, found: CellIdentities) -> Dataset:
    """Return a data set whose cells' ids say which physical cell each is.

    The data set is the one whose table was searched. `split` keeps cells of one such id together.
    """
    numbers = iter(np.unique(found.cells, return_inverse=True)[1].ravel().tolist())
    fields = tuple(
        item.with_cells(tuple(replace(c, id=f"{PHYSICAL}{next(numbers)}") for c in item.cells))
        for item in dataset
    )
    return replace(dataset, fields=fields)
