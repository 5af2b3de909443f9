"""Complete sparse annotation with a model: what it is sure of is boxed, what it doubts is ignored.

Where only some cells of a field are boxed, nothing is known of the rest, and a detector learns no
background there. A model that was trained on fully boxed fields knows most of the rest: what it is
sure of becomes a box, what it doubts becomes an ignore box, and what is left is background.
Annotations are never changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.boxes import centres, iou
from bloodfilm.core.field import Box, Cell, Field
from bloodfilm.core.polygons import Region
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.core.taxonomy import NUCLEATED, Taxonomy

Boxes = NDArray[np.float64]

SAME_IOU = 0.3
"""A detection that overlaps an annotated cell so far is that cell."""
COVERED_IOU = 0.4
"""A doubtful detection that overlaps a sure one so far is left out."""
CENTRED = 0.1
"""How far from the middle of a single-cell image its cell may be, as a share of the side."""
NOT_NUCLEATED = 0.1
"""What the classifier gives a lower probability is no nucleated cell."""


@dataclass(frozen=True)
class CompletionRules:
    """What a model's detections are taken for.

    Attributes:
        classified: the object type whose detections the classifier verifies.
        sure: lowest confidence of a detection that becomes a box, by object type.
        sure_otherwise: the same for types that `sure` does not name.
        nucleated: lowest probability by the classifier of a sure nucleated cell.
        doubtful: lowest confidence of a detection that becomes an ignore box.
    """

    classified: str = NUCLEATED
    sure: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({NUCLEATED: 0.6}))
    sure_otherwise: float = 0.4
    nucleated: float = 0.9
    doubtful: float = 0.05


def labelled_types(
    fields: Sequence[Field], taxonomy: Taxonomy, object_types: Sequence[str]
) -> frozenset[str]:
    """Return the object types that a data set labels: of others it says nothing, nowhere."""
    found: set[str] = set()
    for item in fields:
        for cell in item.cells:
            if cell.label is not None and cell.label in taxonomy and not cell.ignore:
                found.update(t for t in object_types if t in taxonomy.path(cell.label))
    return frozenset(found)


def complete_field(
    annotated: Field,
    result: FieldResult,
    labelled: frozenset[str],
    rules: CompletionRules = CompletionRules(),
) -> Field | None:
    """Return a field in which every cell is boxed or ignored; `None` where that is impossible.

    That is where the scale of the field is not known, or where the centred cell of a single-cell
    image was not found.

    Args:
        annotated: a field with some of its cells annotated.
        result: of a model, with detections down to `rules.doubtful`.
        labelled: object types that the data set labels; within the annotated region, there are no
            others of these.
        rules: what detections are taken for.
    """
    view = result.view
    if view.scale_source == "assumed":
        return None
    detections = sorted(result.cells, key=lambda c: -c.confidence)
    centred = _centred(detections, view.width, view.height, rules.classified)
    if centred is None and any(c.box is None for c in annotated.cells):
        return None
    own = tuple(
        replace(c, box=centred.box) if c.box is None and centred is not None else c
        for c in annotated.cells
    )
    found = _boxes(c.box for c in detections)
    taken = _same(found, _boxes(c.box for c in own))
    known = np.array([c.object_type in labelled for c in detections], dtype=bool)
    taken |= known & _inside(annotated, found)
    added = _judged([c for c, t in zip(detections, taken, strict=True) if not t], rules)
    domain = replace(
        annotated.domain,
        um_per_px=view.um_per_px_y,
        pixel_aspect_ratio=view.um_per_px_y / view.um_per_px_x,
    )
    return replace(
        annotated,
        width=view.width,
        height=view.height,
        cells=(*own, *added),
        region=Region.everything(),
        domain=domain,
    )


def _judged(detections: Sequence[CellResult], rules: CompletionRules) -> list[Cell]:
    """Return the boxes of sure detections, and ignore boxes of doubtful ones apart from these."""
    sure: list[Cell] = []
    doubtful: list[Cell] = []
    for detection in detections:
        kind = detection.object_type
        verified = detection.nucleated_probability if kind == rules.classified else None
        nucleated = 1.0 if verified is None else verified
        if nucleated < NOT_NUCLEATED or detection.confidence < rules.doubtful:
            continue
        certain = detection.confidence >= rules.sure.get(kind, rules.sure_otherwise)
        if certain and nucleated >= rules.nucleated:
            sure.append(Cell(detection.box, kind))
        else:
            doubtful.append(Cell(detection.box, None, ignore=True))
    if sure and doubtful:
        overlap = iou(_boxes(c.box for c in doubtful), _boxes(c.box for c in sure)).max(axis=1)
        doubtful = [c for c, o in zip(doubtful, overlap, strict=True) if o <= COVERED_IOU]
    return [*sure, *doubtful]


def _boxes(rows: Iterable[Box | None]) -> Boxes:
    return np.array(list(rows), dtype=np.float64).reshape(-1, 4)


def _centred(
    detections: Sequence[CellResult], width: int, height: int, classified: str
) -> CellResult | None:
    """Return the surest detection of the classified type in the middle of an image."""
    middle, reach = np.array([width, height]) / 2, CENTRED * np.array([width, height])
    for detection in detections:
        centre = centres(_boxes([detection.box]))[0]
        if detection.object_type == classified and (np.abs(centre - middle) < reach).all():
            return detection
    return None


def _same(found: Boxes, own: Boxes) -> NDArray[np.bool_]:
    """Return which detections overlap an annotated cell or are centred in one."""
    if not len(own):
        return np.zeros(len(found), dtype=bool)
    x, y = centres(found).T[:, :, None]
    low, high = own[:, :2], own[:, :2] + own[:, 2:]
    within = (x > low[:, 0]) & (x < high[:, 0]) & (y > low[:, 1]) & (y < high[:, 1])
    return np.asarray(within.any(axis=1) | (iou(found, own).max(axis=1) > SAME_IOU))


def _inside(annotated: Field, found: Boxes) -> NDArray[np.bool_]:
    """Return which detections are centred in the annotated region."""
    return np.asarray(annotated.region.contains(centres(found)), dtype=bool)
