"""The same glass in several fields: leaks and physical cells, by content and not by name."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import BoxArray
from bloodfilm.core.boxes import iou
from bloodfilm.core.cell_table import MIN_CELL_SIDE, CellTable
from bloodfilm.core.connected import connected_components
from bloodfilm.core.findings import Finding
from bloodfilm.core.issues import Severity
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.duplicates.fingerprints import Fingerprints, fingerprint_fields
from bloodfilm.duplicates.overlaps import FieldOverlap, alike_pairs, find_overlaps, verify
from bloodfilm.duplicates.symmetric_copies import SymmetricCopy, find_symmetric_copies

MAX_PAIRS = 60_000
"""Pairs of fields compared at all shifts; beyond it, only fields of one patient are."""
SAME_CELL = 0.35
MARKED = 0.1
"""IoU with some box above which a cell counts as marked."""
INSIDE = 4.0  # px from the edge at which a cell must be seen whole in the other field


@dataclass
class ContentMatches:
    """What the search for common content found.

    Attributes:
        table: of the data set.
        overlaps: pairs of fields, numbered as in the table.
        cells: (m,) number of each cell's physical cell.
        notes: what was not searched.
        copies: fields that are mirrored or quarter-turned copies of others.
    """

    table: CellTable
    overlaps: list[FieldOverlap]
    cells: NDArray[np.int64]
    notes: list[Finding] = field(default_factory=list)
    copies: list[SymmetricCopy] = field(default_factory=list)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of fields that show the same glass, in any way."""
        overlapping = [(o.first, o.second) for o in self.overlaps]
        return overlapping + [(c.first, c.second) for c in self.copies]


def find_common_content(
    prints: Fingerprints, progress: Progress | None = None, thorough: bool = False
) -> ContentMatches:
    """Find overlapping and identical fields, and which boxes are one physical cell.

    Args:
        prints: of the fields to compare.
        progress: follows the fields that have been compared.
        thorough: compare all fields at all shifts, however many there are.
    """
    progress = progress or NoProgress()
    notes: list[Finding] = []
    overlaps: dict[tuple[int, int], FieldOverlap] = {}
    for numbers in _comparable(prints, thorough, notes):
        small = [prints.fields[n].small for n in numbers]
        quarter = {n: prints.fields[n].quarter for n in numbers}
        load = prints.loader()
        for overlap in find_overlaps(small, load, quarter.__getitem__, numbers, progress):
            overlaps[overlap.first, overlap.second] = overlap
    for overlap in _alike(prints):
        overlaps.setdefault((overlap.first, overlap.second), overlap)
    listed = [overlaps[key] for key in sorted(overlaps)]
    cells = physical_cells(prints.table, listed)
    copies = find_symmetric_copies({n: one.quarter for n, one in prints.fields.items()})
    return ContentMatches(prints.table, listed, cells, notes, copies)


def overlapping_fields(
    table: CellTable, progress: Progress | None = None, thorough: bool = False
) -> list[tuple[int, int]]:
    """Return pairs of fields that show common glass, numbered as in the table."""
    progress = progress or NoProgress()
    return find_common_content(fingerprint_fields(table, progress), progress, thorough).pairs


def _comparable(prints: Fingerprints, thorough: bool, notes: list[Finding]) -> Iterator[list[int]]:
    """Yield groups of fields, of one size and domain, in which all pairs are compared."""
    sizes: dict[tuple[str, tuple[int, int]], list[int]] = defaultdict(list)
    for number, one in sorted(prints.fields.items()):
        sizes[prints.table.rows[number].domain.name, one.size].append(number)
    for (domain, _), numbers in sorted(sizes.items()):
        if thorough or len(numbers) * (len(numbers) - 1) // 2 <= MAX_PAIRS:
            yield numbers
            continue
        patients: dict[str, list[int]] = defaultdict(list)
        for number in numbers:
            patients[prints.table.rows[number].patient or ""].append(number)
        yield from patients.values()
        message = (
            f"{domain}: {len(numbers)} fields are too many to compare all of them at all shifts; "
            "between patients only whole pictures were compared"
        )
        notes.append(
            Finding(
                "not-checked",
                "info",
                message,
                {"check": "overlapping-fields", "domain": domain, "fields": len(numbers)},
                file=prints.table.name,
                advice="give --thorough",
            )
        )


def _alike(prints: Fingerprints) -> Iterator[FieldOverlap]:
    """Yield pairs of whole pictures that are the same, over all patients and names."""
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, one in sorted(prints.fields.items()):
        by_size[one.size].append(number)
    load = prints.loader()
    for size, numbers in sorted(by_size.items()):
        listed = [prints.fields[n] for n in numbers]
        for first, second, turned in alike_pairs([one.small for one in listed]):
            pair = numbers[first], numbers[second]
            if listed[first].digest == listed[second].digest:
                yield FieldOverlap(*pair, turned, (0.0, 0.0), 1.0, 1.0, size)
                continue
            quarter = {n: prints.fields[n].quarter for n in pair}
            overlap = verify(load, quarter.__getitem__, pair, turned, (0.0, 0.0))
            if overlap is not None:
                yield overlap


# ---- physical cells --------------------------------------------------------------------------


def physical_cells(
    table: CellTable, overlaps: Sequence[FieldOverlap], same: Iterable[tuple[int, int]] = ()
) -> NDArray[np.int64]:
    """Return a number per cell, (m,), the same for boxes of one physical cell in several fields.

    Args:
        table: of the data set.
        overlaps: fields that show common glass.
        same: pairs of cells known to be one from elsewhere.
    """
    in_common = (pair for overlap in overlaps for pair in _same_cells(table, overlap))
    return connected_components(len(table), chain(in_common, same))


def _same_cells(table: CellTable, overlap: FieldOverlap) -> Iterator[tuple[int, int]]:
    """Yield pairs of cells that lie on each other."""
    a, b = table.cells_of(overlap.first), table.cells_of(overlap.second)
    moved = overlap.to_first(_without_nan(table.box[b]))
    for i, j in coinciding(_without_nan(table.box[a]), moved):
        yield a.start + i, b.start + j


def coinciding(one: BoxArray, two: BoxArray) -> Iterator[tuple[int, int]]:
    """Yield pairs of boxes of two lists that are of one cell, each box once, best first."""
    if not len(one) or not len(two):
        return
    likeness = iou(one, two)
    while likeness.max() >= SAME_CELL:
        i, j = np.unravel_index(int(likeness.argmax()), likeness.shape)
        yield int(i), int(j)
        likeness[i], likeness[:, j] = -1, -1


def _without_nan(boxes: BoxArray) -> BoxArray:
    return np.nan_to_num(boxes, nan=0.0)


# ---- findings --------------------------------------------------------------------------------


def content_findings(content: ContentMatches) -> Iterator[Finding]:
    """Yield which fields and cells are the same, and what that breaks."""
    for overlap in content.overlaps:
        yield _common_glass(content.table, overlap)
        for seen in (overlap, overlap.swapped()):
            yield from _unmarked_in_first(content.table, seen)
    for copy in content.copies:
        yield _augmented_copy(content.table, copy)
    yield from _same_cell_findings(content)
    yield from content.notes


def _common_glass(table: CellTable, overlap: FieldOverlap) -> Finding:
    one, two = (table.rows[n] for n in (overlap.first, overlap.second))
    apart = one.split != two.split or one.patient != two.patient
    severity: Severity = "error" if apart else "warning"
    turned = ", turned by 180 degrees" if overlap.turned else ""
    origin = f"patient {one.patient} in {one.split} and patient {two.patient} in {two.split}"
    if not apart:
        origin = f"both of patient {one.patient} in {one.split}"
    x, y = overlap.shift
    if overlap.identical:
        code = "identical-fields"
        message = f"the same picture twice{turned} ({origin}; correlation {overlap.ncc:.3f})"
        advice = "find out whose it is; keep one of them" if apart else "keep one of them"
    else:
        code = "overlapping-fields"
        message = (
            f"{overlap.share:.0%} of the glass in common{turned}, shifted by ({x:.0f}, {y:.0f}) px "
            f"({origin}; correlation {overlap.ncc:.3f})"
        )
        advice = "keep both in one split, and count a cell once"
    here, there = overlap.common()
    return Finding(
        code,
        severity,
        message,
        {
            "same_patient": one.patient == two.patient,
            "same_split": one.split == two.split,
            "patients": [one.patient, two.patient],
            "splits": [one.split, two.split],
            "turned": overlap.turned,
            "shift_px": [x, y],
            "share": overlap.share,
            "correlation": overlap.ncc,
        },
        file=one.path,
        advice=advice,
        confidence=overlap.ncc,
        boxes=(here,),
        others=(two.path,),
        other_boxes=(there,),
    )


def _augmented_copy(table: CellTable, copy: SymmetricCopy) -> Finding:
    one, two = table.rows[copy.first], table.rows[copy.second]
    apart = one.split != two.split or one.patient != two.patient
    return Finding(
        "augmented-copy",
        "error" if apart else "warning",
        f"the same picture {copy.symmetry} (in {one.split or 'no split'} and "
        f"{two.split or 'no split'}; correlation {copy.ncc:.3f})",
        {
            "symmetry": copy.symmetry,
            "splits": [one.split, two.split],
            "patients": [one.patient, two.patient],
            "correlation": copy.ncc,
        },
        file=one.path,
        advice="split the originals, and augment the training part only",
        confidence=copy.ncc,
        others=(two.path,),
    )


def _same_cell_findings(content: ContentMatches) -> Iterator[Finding]:
    table = content.table
    order = np.argsort(content.cells, kind="stable")
    starts = np.flatnonzero(np.diff(content.cells[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        cells = [int(c) for c in group]
        if len({int(table.field[c]) for c in cells}) > 1:
            yield _same_cell(table, cells)


def _same_cell(table: CellTable, cells: Sequence[int]) -> Finding:
    rows = [table.rows[int(table.field[c])] for c in cells]
    names = sorted({table.class_of(c) for c in cells})
    splits = sorted({r.split or "none" for r in rows})
    severity: Severity = "error" if len(names) > 1 or len(splits) > 1 else "warning"
    if len(names) > 1:
        code = "cell-named-differently"
        message = f"one physical cell is named {' and '.join(names)} in overlapping fields"
        advice = "let a morphologist decide"
    else:
        code = "same-cell-in-two-fields"
        message = f"one physical {names[0]} is annotated in {len(cells)} fields"
        advice = "count it once; keep its fields in one split"
    return Finding(
        code,
        severity,
        message,
        {"classes": names, "splits": splits},
        file=rows[0].path,
        advice=advice,
        confidence=0.9,
        annotations=tuple(str(table.ids[c]) for c in cells),
        boxes=(table.box_of(cells[0]),),
        others=tuple(r.path for r in rows[1:]),
        other_boxes=tuple(table.box_of(c) for c in cells[1:]),
    )


def _unmarked_in_first(table: CellTable, overlap: FieldOverlap) -> Iterator[Finding]:
    """Yield cells marked in the second field only, though they are seen whole in the first."""
    here, there = table.cells_of(overlap.first), table.cells_of(overlap.second)
    moved = overlap.to_first(_without_nan(table.box[there]))
    width, height = overlap.size
    own = _without_nan(table.box[here])
    for place, box in enumerate(moved):
        cell = there.start + place
        x, y, w, h = box.tolist()
        side = min(w, h)
        whole = min(x, y, width - x - w, height - y - h) >= INSIDE and side >= MIN_CELL_SIDE
        if not whole or not table.white[cell] or table.ignored[cell]:
            continue
        if len(own) and float(iou(own, box[None]).max()) > MARKED:
            continue
        name = table.class_of(cell)
        yield Finding(
            "unmarked-white-cell",
            "warning",
            f"a {name} marked in an overlapping field has no box here",
            {"found_by": "overlapping field", "class": name},
            file=table.rows[overlap.first].path,
            advice="box it here too",
            confidence=0.9,
            annotations=(str(table.ids[cell]),),
            boxes=((x, y, w, h),),
            others=(table.rows[overlap.second].path,),
            other_boxes=(table.box_of(cell),),
        )
