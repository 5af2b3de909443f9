"""The same glass in several fields: leaks and physical cells, by content and not by name."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.boxes import MIN_SIDE
from bloodfilm.audit.finding import Finding, Severity
from bloodfilm.audit.image_statistics import Survey
from bloodfilm.core.boxes import iou
from bloodfilm.core.progress import NoProgress, Progress, counter
from bloodfilm.duplicates.overlaps import FieldOverlap, alike_pairs, find_overlaps, verify

MOST_PAIRS = 60_000
"""Pairs of fields compared at all shifts; beyond it, only fields of one patient are."""
SAME_CELL = 0.35
INSIDE = 4.0  # px from the edge at which a cell must be seen whole in the other field


@dataclass
class ContentMatches:
    """What the search for common content found.

    Attributes:
        overlaps: pairs of fields, numbered as in the table.
        cells: number of each cell's physical cell, (m,).
        notes: what was not searched.
    """

    overlaps: list[FieldOverlap]
    cells: NDArray[np.int64]
    notes: list[Finding] = field(default_factory=list)


def search(
    found: Survey, progress: Progress | None = None, thorough: bool = False
) -> ContentMatches:
    """Find overlapping and identical fields, and which boxes are one physical cell."""
    notes: list[Finding] = []
    overlaps: dict[tuple[int, int], FieldOverlap] = {}
    count = counter(progress or NoProgress(), "comparing fields", len(found.table.rows))
    for numbers in _comparable(found, thorough, notes):
        small = [found.looks[n].small for n in numbers]
        rough = {n: found.looks[n].rough for n in numbers}
        for overlap in find_overlaps(small, found.loader(), rough.__getitem__, numbers, count):
            overlaps[overlap.first, overlap.second] = overlap
    for overlap in _alike(found):
        overlaps.setdefault((overlap.first, overlap.second), overlap)
    listed = [overlaps[key] for key in sorted(overlaps)]
    return ContentMatches(listed, physical_cells(found, listed), notes)


def _comparable(found: Survey, thorough: bool, notes: list[Finding]) -> Iterator[list[int]]:
    """Yield groups of fields, of one size and domain, in which all pairs are compared."""
    sizes: dict[tuple[str, tuple[int, int]], list[int]] = defaultdict(list)
    for number, look in sorted(found.looks.items()):
        sizes[found.table.rows[number].domain.name, look.size].append(number)
    for (domain, _), numbers in sorted(sizes.items()):
        if thorough or len(numbers) * (len(numbers) - 1) // 2 <= MOST_PAIRS:
            yield numbers
            continue
        patients: dict[str, list[int]] = defaultdict(list)
        for number in numbers:
            patients[found.table.rows[number].patient or ""].append(number)
        yield from patients.values()
        what = (
            f"{domain}: {len(numbers)} fields are too many to compare all of them at all shifts; "
            "between patients only whole pictures were compared"
        )
        notes.append(Finding("not checked", "info", found.table.name, what, "give --thorough"))


def _alike(found: Survey) -> Iterator[FieldOverlap]:
    """Yield pairs of whole pictures that are the same, over all patients and names."""
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, look in sorted(found.looks.items()):
        by_size[look.size].append(number)
    load = found.loader()
    for size, numbers in sorted(by_size.items()):
        looks = [found.looks[n] for n in numbers]
        for one, two, turned in alike_pairs([look.small for look in looks]):
            pair = numbers[one], numbers[two]
            if looks[one].digest == looks[two].digest:
                yield FieldOverlap(*pair, turned, (0.0, 0.0), 1.0, 1.0, size)
                continue
            rough = {n: found.looks[n].rough for n in pair}
            overlap = verify(load, rough.__getitem__, pair, turned, (0.0, 0.0))
            if overlap is not None:
                yield overlap


# ---- physical cells --------------------------------------------------------------------------


def physical_cells(
    found: Survey, overlaps: Sequence[FieldOverlap], same: Iterable[tuple[int, int]] = ()
) -> NDArray[np.int64]:
    """Return a number per cell, (m,), the same for boxes of one physical cell in several fields.

    `same` are pairs of cells known to be one from elsewhere.
    """
    parent = np.arange(len(found.table), dtype=np.int64)

    def root(cell: int) -> int:
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = int(parent[cell])
        return cell

    in_common = (pair for overlap in overlaps for pair in _same_cells(found, overlap))
    for one, two in chain(in_common, same):
        a, b = sorted((root(one), root(two)))
        parent[b] = a
    return np.array([root(c) for c in range(len(parent))], dtype=np.int64)


def _same_cells(found: Survey, overlap: FieldOverlap) -> Iterator[tuple[int, int]]:
    """Yield pairs of cells that lie on each other."""
    table = found.table
    a, b = table.cells_of(overlap.first), table.cells_of(overlap.second)
    moved = overlap.to_first(_plain(table.box[b]))
    for i, j in lying_on_each_other(_plain(table.box[a]), moved):
        yield a.start + i, b.start + j


def lying_on_each_other(
    one: NDArray[np.float64], two: NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    """Yield pairs of boxes of two lists that are of one cell, each box once, best first."""
    if not len(one) or not len(two):
        return
    likeness = iou(one, two)
    while likeness.max() >= SAME_CELL:
        i, j = np.unravel_index(int(likeness.argmax()), likeness.shape)
        yield int(i), int(j)
        likeness[i], likeness[:, j] = -1, -1


def _plain(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(boxes, nan=0.0)


# ---- findings --------------------------------------------------------------------------------


def content_findings(found: Survey, content: ContentMatches) -> Iterator[Finding]:
    """Say which fields and cells are the same, and what that breaks."""
    for overlap in content.overlaps:
        yield _fields(found, overlap)
        yield from _missing(found, content, overlap)
    yield from _cells(found, content)
    yield from content.notes


def _fields(found: Survey, overlap: FieldOverlap) -> Finding:
    one, two = (found.table.rows[n] for n in (overlap.first, overlap.second))
    apart = one.split != two.split or one.patient != two.patient
    severity: Severity = "error" if apart else "warning"
    turned = ", turned by 180 degrees" if overlap.turned else ""
    where = f"patient {one.patient} in {one.split} and patient {two.patient} in {two.split}"
    if not apart:
        where = f"both of patient {one.patient} in {one.split}"
    if overlap.identical:
        what = f"the same picture twice{turned} ({where}; correlation {overlap.ncc:.3f})"
        hint = "keep one of them" if not apart else "find out whose it is; keep one of them"
        kind = "identical fields"
    else:
        x, y = overlap.shift
        what = (
            f"{overlap.share:.0%} of the glass in common{turned}, shifted by ({x:.0f}, {y:.0f}) px "
            f"({where}; correlation {overlap.ncc:.3f})"
        )
        hint = "keep both in one split, and count a cell once"
        kind = "overlapping fields"
    here, there = overlap.common()
    return Finding(
        kind,
        severity,
        one.path,
        what,
        hint,
        overlap.ncc,
        boxes=(here,),
        others=(two.path,),
        other_boxes=(there,),
    )


def _cells(found: Survey, content: ContentMatches) -> Iterator[Finding]:
    table = found.table
    order = np.argsort(content.cells, kind="stable")
    starts = np.flatnonzero(np.diff(content.cells[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        if len(group) < 2:
            continue
        cells = [int(c) for c in group]
        rows = [table.rows[int(table.field[c])] for c in cells]
        names = sorted({table.class_of(c) for c in cells})
        if len({r.path for r in rows}) < 2:
            continue
        severity: Severity = "error" if len({r.split for r in rows}) > 1 else "warning"
        finding = Finding(
            "same cell in two fields",
            severity,
            rows[0].path,
            f"one physical {names[0]} is annotated in {len(cells)} fields",
            "count it once; keep its fields in one split",
            0.9,
            tuple(str(table.ids[c]) for c in cells),
            (table.box_of(cells[0]),),
            tuple(r.path for r in rows[1:]),
            tuple(table.box_of(c) for c in cells[1:]),
        )
        if len(names) > 1:
            finding = replace(
                finding,
                kind="cell named differently",
                severity="error",
                what=f"one physical cell is named {' and '.join(names)} in overlapping fields",
                suggestion="let a morphologist decide",
            )
        yield finding


def _missing(found: Survey, content: ContentMatches, overlap: FieldOverlap) -> Iterator[Finding]:
    """Yield cells marked in one field and left out in the other, though they are whole in it."""
    for seen in (overlap, overlap.swapped()):
        yield from _missing_in_first(found, seen)


def _missing_in_first(found: Survey, overlap: FieldOverlap) -> Iterator[Finding]:
    table = found.table
    here, there = table.cells_of(overlap.first), table.cells_of(overlap.second)
    moved = overlap.to_first(_plain(table.box[there]))
    width, height = overlap.size
    mine = _plain(table.box[here])
    for place, box in enumerate(moved):
        cell = there.start + place
        x, y, w, h = box.tolist()
        whole = min(x, y, width - x - w, height - y - h) >= INSIDE and min(w, h) >= MIN_SIDE
        if not whole or not table.white[cell] or table.ignored[cell]:
            continue
        if len(mine) and float(iou(mine, box[None]).max()) > 0.1:
            continue
        row, other = table.rows[overlap.first], table.rows[overlap.second]
        what = f"a {table.class_of(cell)} marked in an overlapping field has no box here"
        yield Finding(
            "unmarked white cell",
            "warning",
            row.path,
            what,
            "box it here too",
            0.9,
            (str(table.ids[cell]),),
            ((x, y, w, h),),
            (other.path,),
            (table.box_of(cell),),
        )
