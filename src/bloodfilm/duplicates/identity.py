"""One physical cell, one identity: over overlapping fields, and over photographs of one field.

Fields of one microscope that show the same glass are found by content. The same field under
another microscope, camera or magnification is known by its patient and number; how the two
photographs lie on each other is found by registration, and refused where it is uncertain.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Dataset
from bloodfilm.core.cell_table import PHYSICAL, CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.duplicates.common_content import coinciding, find_common_content, physical_cells
from bloodfilm.duplicates.fingerprints import Fingerprints, fingerprint_fields
from bloodfilm.duplicates.overlaps import FieldOverlap
from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources import open_source, read_whole
from bloodfilm.registration.align import register
from bloodfilm.registration.view import ImageCandidate
from bloodfilm.registration.warp import warp_boxes

Pair = tuple[int, int]


@dataclass(frozen=True)
class Reacquisition:
    """One field in two subsets.

    Attributes:
        first, second: the fields' numbers in the table.
        confidence: that they were registered rightly; 0 where they could not be.
        reason: why they could not be registered.
    """

    first: int
    second: int
    confidence: float
    reason: str

    @property
    def aligned(self) -> bool:
        """Whether the two photographs could be registered."""
        return self.confidence > 0


@dataclass(frozen=True, eq=False)
class CellIdentities:
    """Which fields show the same glass, and which boxes the same cell.

    Attributes:
        overlaps: pairs of fields of one subset that show common glass, numbered as in the table.
        reacquired: pairs of photographs of one field in several subsets.
        cells: (m,) the same number for boxes of one physical cell.
        notes: what was not searched, or could not be opened.
    """

    table: CellTable
    overlaps: list[FieldOverlap]
    reacquired: list[Reacquisition]
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
            "version": 2,
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
                for r in self.reacquired
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
    table: CellTable,
    progress: Progress | None = None,
    *,
    thorough: bool = False,
    reacquired: bool = True,
) -> CellIdentities:
    """Find overlapping fields and photographs of one field, and which boxes are one cell.

    Args:
        table: of one data set; its images are opened.
        progress: follows the fields that are looked at and compared.
        thorough: compare all fields at all shifts, however many there are.
        reacquired: also register photographs of one field in several subsets.
    """
    progress = progress or NoProgress()
    prints = fingerprint_fields(table, progress)
    common = find_common_content(prints, progress, thorough)
    pairs = list(_reacquired(prints)) if reacquired else []
    found: list[Reacquisition] = []
    same: list[Pair] = []
    for pair in track(pairs, progress, "registering subsets", len(pairs)):
        one, cells = _registered(table, *pair)
        found.append(one)
        same += cells
    cells_of = physical_cells(table, common.overlaps, same)
    notes = [*prints.findings, *common.notes]
    return CellIdentities(table, common.overlaps, found, cells_of, notes)


def _reacquired(prints: Fingerprints) -> Iterator[Pair]:
    """Yield pairs of fields of one patient and number, the first against each other subset's."""
    fields: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for number in sorted(prints.fields):
        row = prints.table.rows[number]
        if row.patient is not None and row.number is not None:
            fields[row.patient, row.number].setdefault(row.domain.name, number)
    for by_domain in fields.values():
        first, *others = by_domain.values()
        yield from ((first, other) for other in others)


def _registered(table: CellTable, first: int, second: int) -> tuple[Reacquisition, list[Pair]]:
    """Register two photographs; return how it went and which cells lie on each other."""
    one, two = (_photograph(table.rows[n].path) for n in (first, second))
    alignment = register(one, two)
    if not alignment.aligned or alignment.matrix is None:
        return Reacquisition(first, second, 0.0, alignment.reason), []
    a, b = table.cells_of(first), table.cells_of(second)
    moved = warp_boxes(np.nan_to_num(table.box[a]), alignment.matrix)
    same = coinciding(moved, np.nan_to_num(table.box[b]))
    pairs = [(a.start + i, b.start + j) for i, j in same]
    return Reacquisition(first, second, alignment.confidence, alignment.reason), pairs


def _photograph(path: str) -> ImageCandidate:
    source = open_source(path)
    image = read_whole(source)
    return ImageCandidate(image, canonical_view(image, ScalePrior().with_image(source.pixel_size)))


def with_identities(dataset: Dataset, found: CellIdentities) -> Dataset:
    """Return a data set whose cells' ids name the physical cell each is.

    The data set is the one whose table was searched. `split` keeps cells of one such id together.
    """
    numbers = iter(np.unique(found.cells, return_inverse=True)[1].ravel().tolist())
    fields = tuple(
        item.with_cells(tuple(replace(c, id=f"{PHYSICAL}{next(numbers)}") for c in item.cells))
        for item in dataset
    )
    return replace(dataset, fields=fields)
