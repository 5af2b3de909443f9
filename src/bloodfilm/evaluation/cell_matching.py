"""Pair found cells with true ones, to score classes and attributes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bloodfilm.core.field import Cell, Field
from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import NUCLEATED, Taxonomy
from bloodfilm.evaluation.class_granularity import ClassGranularity
from bloodfilm.evaluation.matching import match


@dataclass(frozen=True)
class MatchedPair:
    """A true cell, its classification, and the index of its field."""

    field: int
    cell: Cell
    result: CellResult


@dataclass(frozen=True)
class MatchedCells:
    """All pairs of an evaluation; `wanted` counts the true cells that could have had one."""

    pairs: tuple[MatchedPair, ...]
    wanted: int
    rule: str


def is_readable(cell: Cell, taxonomy: Taxonomy, classified: str = NUCLEATED) -> bool:
    """Whether a true cell is of the classified type and has a label or attributes.

    `classified` is the object type whose cells are classified.
    """
    if cell.ignore:
        return False
    if cell.label is None:
        return bool(cell.attributes)
    if cell.label not in taxonomy or classified not in taxonomy:
        return False
    return taxonomy.is_under(cell.label, classified) or taxonomy.is_under(classified, cell.label)


def coarsen(fields: Iterable[Field], classes: ClassGranularity) -> list[Field]:
    """Return the fields with every label replaced by the class it lies under, others left out."""
    out = []
    for item in fields:
        cells = []
        for cell in item.cells:
            names, certain = classes.of_truth(cell.label)
            if certain:
                cells.append(replace(cell, label=names[0]))
        out.append(item.with_cells(tuple(cells)))
    return out


@dataclass(frozen=True)
class CellMatch:
    """A true cell, the found one it was paired with, and the index of its field.

    Attributes:
        result: `None` for a cell that was missed.
    """

    field: int
    cell: Cell
    result: CellResult | None


def match_fields(
    fields: Sequence[Field],
    results: Sequence[Sequence[CellResult]],
    taxonomy: Taxonomy,
    iou: float = 0.5,
    classified: str = NUCLEATED,
) -> list[CellMatch]:
    """Return every true cell that is to be classified, with what was found of it.

    The rule is that of `pair_fields`. Cells of a field are in order: boxed ones, then centred ones.
    """
    matches: list[CellMatch] = []
    for i, (item, cells) in enumerate(zip(fields, results, strict=True)):
        truth = [c for c in item.cells if is_readable(c, taxonomy, classified)]
        found = [c for c in cells if c.object_type == classified]
        boxed = [c for c in truth if c.box is not None]
        boxes = [c.box for c in truth if c.box is not None]
        confidence = [c.confidence for c in found]
        partner = dict(match(boxes, [c.box for c in found], confidence, iou).pairs)
        for t, cell in enumerate(boxed):
            matches.append(CellMatch(i, cell, found[partner[t]] if t in partner else None))
        for cell in truth:
            if cell.box is None:
                matches.append(CellMatch(i, cell, _centred(item, found)))
    return matches


def pair_fields(
    fields: Sequence[Field],
    results: Sequence[Sequence[CellResult]],
    taxonomy: Taxonomy,
    iou: float = 0.5,
    classified: str = NUCLEATED,
) -> MatchedCells:
    """Pair true cells of the classified object type with found ones, one to one, best score first.

    A true cell without a box is its image's centred one: it is paired with the found cell of
    highest score whose box holds the image's centre.
    """
    matched = match_fields(fields, results, taxonomy, iou, classified)
    pairs = [MatchedPair(m.field, m.cell, m.result) for m in matched if m.result is not None]
    wanted = len(matched)
    rule = f"one to one at IoU {iou:g}, best score first"
    if any(c.box is None for f in fields for c in f.cells):
        rule += "; a cell without a box: the surest found cell that holds the image's centre"
    return MatchedCells(tuple(pairs), wanted, rule)


def _centred(item: Field, found: Sequence[CellResult]) -> CellResult | None:
    if item.width is None or item.height is None:
        return None
    x, y = item.width / 2, item.height / 2
    holds = [
        c
        for c in found
        if c.box[0] <= x <= c.box[0] + c.box[2] and c.box[1] <= y <= c.box[1] + c.box[3]
    ]
    return max(holds, key=lambda c: c.confidence, default=None)
