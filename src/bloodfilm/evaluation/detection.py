"""COCO detection metrics that exclude ambiguous and unannotated regions.

The rule, at each IoU threshold: true cells are matched first, best score first. A found box left
over is dropped if half or more of its area lies on an `ignore` box (which every box with IoU >= 0.5
to one does) or if its centre lies outside the field's annotated region; any other is a false
positive. True cells whose centre lies outside the region, and cells whose label is too shallow for
a class, are neither true positives nor misses.

The COCO evaluator computes this itself: it drops unmatched detections, and forgives true boxes,
whose `area` lies outside its area range, so each verdict is encoded in `area`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import boxes as geometry
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Cell, Field
from bloodfilm.core.results import CellResult
from bloodfilm.evaluation.class_granularity import ClassGranularity

IOU_THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = 1000
"""Per field and class, best scores first. COCO's 100 would cut fields full of red cells short."""
IGNORE_OVERLAP = 0.5
_WIDEST = 1e10
_OUTSIDE = 1e11


@dataclass(frozen=True)
class DetectionTable:
    """One field's boxes of one class, (x, y, w, h) rows.

    Attributes:
        truth: (n, 4) cells to find.
        optional: (m, 4) cells that count neither as found nor as missed.
        found: (k, 4) detections, and their scores (k,).
        excused: (k,) whether an unmatched detection is dropped instead of being a false positive.
    """

    truth: NDArray[np.float64]
    optional: NDArray[np.float64]
    found: NDArray[np.float64]
    scores: NDArray[np.float64]
    excused: NDArray[np.bool_]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to evaluate."""
        return len(self.truth) + len(self.optional) + len(self.found) == 0


@dataclass(frozen=True)
class PreparedFields:
    """Every field's entries by class, in the order of the fields, and what was excluded.

    Attributes:
        level: the classes.
        fields: one mapping from class to entries per field.
        notes: messages with counts of excluded items.
    """

    level: ClassGranularity
    fields: tuple[Mapping[str, DetectionTable], ...]
    notes: Mapping[str, int]

    def truth_count(self, name: str) -> int:
        """Return how many cells of a class are to be found."""
        return sum(len(entries[name].truth) for entries in self.fields)


@dataclass(frozen=True)
class DetectionScores:
    """Scores of the COCO evaluator; not-a-number where a class has no true cell.

    Attributes:
        ap: mean over classes of AP averaged over IoU 0.50 to 0.95.
        ap50, ap75: AP at one IoU.
        ar: recall averaged over IoU 0.50 to 0.95.
        recall50: recall at IoU 0.5, however many false positives that takes.
        per_class: the same figures and the number of true cells by class.
    """

    ap: float
    ap50: float
    ap75: float
    ar: float
    recall50: float
    per_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def prepare(
    fields: Sequence[Field], results: Sequence[Sequence[CellResult]], level: ClassGranularity
) -> PreparedFields:
    """Sort truth and results of each field into classes, and decide what is included.

    Raises:
        DataError: if there are not as many results as fields.
    """
    if len(fields) != len(results):
        raise DataError(
            f"evaluation: {len(fields)} fields but {len(results)} results; give one per field"
        )
    notes: dict[str, int] = {}
    prepared = tuple(
        _prepare_field(f, cells, level, notes) for f, cells in zip(fields, results, strict=True)
    )
    return PreparedFields(level, prepared, {name: n for name, n in notes.items() if n})


def _prepare_field(
    item: Field, results: Sequence[CellResult], level: ClassGranularity, notes: dict[str, int]
) -> dict[str, DetectionTable]:
    truth: dict[str, list[Any]] = {name: [] for name in level.classes}
    optional: dict[str, list[Any]] = {name: [] for name in level.classes}
    for cell in dict.fromkeys((c.box, c.label) for c in item.cells if not c.ignore):
        _sort_cell(cell, item, level, (truth, optional), notes)
    repeats = sum(not c.ignore and c.box is not None for c in item.cells) - len(
        {(c.box, c.label) for c in item.cells if not c.ignore and c.box is not None}
    )
    _add(notes, "exact repeats of a true box, counted once", repeats)
    ignored = [c.box for c in item.cells if c.ignore and c.box is not None]
    _add(notes, "ignore boxes", len(ignored))
    found: dict[str, list[tuple[Any, float]]] = {name: [] for name in level.classes}
    for result in results:
        verdict = level.of_result(result)
        if verdict is None:
            _add(notes, "detections of no class at this level, left out", 1)
        else:
            found[verdict[0]].append((result.box, verdict[1]))
    entries = {}
    for name in level.classes:
        boxes = geometry.as_boxes([box for box, _ in found[name]])
        entries[name] = DetectionTable(
            geometry.as_boxes(truth[name]),
            geometry.as_boxes(optional[name]),
            boxes,
            np.asarray([score for _, score in found[name]], dtype=np.float64),
            excused(boxes, geometry.as_boxes(ignored), item),
        )
    return entries


def _sort_cell(
    cell: tuple[Any, str | None],
    item: Field,
    level: ClassGranularity,
    sides: tuple[dict[str, list[Any]], dict[str, list[Any]]],
    notes: dict[str, int],
) -> None:
    box, label = cell
    if box is None:
        _add(notes, "cells without a box, left out", 1)
        return
    if box[2] <= 0 or box[3] <= 0:
        _add(notes, "true boxes without area, left out", 1)
        return
    classes, certain = level.of_truth(label)
    if not classes:
        _add(notes, "true cells of no class at this level, left out", 1)
    elif not certain:
        _add(notes, "true cells labelled above this level, neither found nor missed", 1)
    elif not item.region.contains(geometry.centres(box))[0]:
        _add(notes, "true cells outside the annotated region, neither found nor missed", 1)
        certain = False
    for name in classes:
        sides[0 if certain else 1][name].append(box)


def _add(notes: dict[str, int], what: str, n: int) -> None:
    notes[what] = notes.get(what, 0) + n


def excused(
    found: NDArray[np.float64], ignored: NDArray[np.float64], item: Field
) -> NDArray[np.bool_]:
    """Return for each found box (n, 4) whether it is dropped if unmatched."""
    own = np.maximum(geometry.area(found), np.finfo(float).tiny)
    on_ignored = geometry.intersection(found, ignored) >= IGNORE_OVERLAP * own[:, None]
    outside = ~item.region.contains(geometry.centres(found))
    return np.asarray(on_ignored.any(axis=1) | outside)


def coco_scores(prepared: PreparedFields, max_detections: int = MAX_DETECTIONS) -> DetectionScores:
    """Run the COCO evaluator (faster-coco-eval) over prepared entries.

    Source: Lin et al., Microsoft COCO, 2014; 101-point interpolated precision, IoU 0.50:0.05:0.95.

    Raises:
        DataError: if no class has a true cell to find.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    level = prepared.level
    if not any(prepared.truth_count(name) for name in level.classes):
        raise DataError(
            f"level {level.name!r}: no boxed cell to find in the {len(prepared.fields)} fields; "
            "choose another level, split or set of labels"
        )
    truth, found = coco_documents(prepared)
    evaluator = COCOeval_faster(COCO(truth), COCO(found), iouType="bbox")
    evaluator.params.areaRng = [[0, _WIDEST]]
    evaluator.params.areaRngLbl = ["all"]
    evaluator.params.maxDets = [max_detections]
    evaluator.params.iouThrs = IOU_THRESHOLDS
    evaluator.evaluate()
    evaluator.accumulate()
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1].mean(axis=1)
    recall = np.asarray(evaluator.eval["recall"])[:, :, 0, -1]
    return summarise(prepared, precision, recall)


def summarise(
    prepared: PreparedFields, precision: NDArray[np.float64], recall: NDArray[np.float64]
) -> DetectionScores:
    """Average AP and recall (both (thresholds, classes), -1 for "no truth") into scores."""
    per_class = {}
    for k, name in enumerate(prepared.level.classes):
        if (count := prepared.truth_count(name)) == 0:
            continue
        p, r = precision[:, k], recall[:, k]
        figures = (p.mean(), p[0], p[5], r.mean(), r[0])
        named = zip(("ap", "ap50", "ap75", "ar", "recall50"), figures, strict=True)
        per_class[name] = {"cells": float(count)} | {key: float(value) for key, value in named}
    means = {
        key: float(np.mean([scores[key] for scores in per_class.values()]))
        for key in ("ap", "ap50", "ap75", "ar", "recall50")
    }
    return DetectionScores(**means, per_class=per_class)


def coco_documents(prepared: PreparedFields) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return truth and results as COCO documents; ids start at 1, as its matcher needs."""
    categories = [{"id": k, "name": n} for k, n in enumerate(prepared.level.classes, 1)]
    images = [{"id": i, "width": 1, "height": 1} for i in range(1, len(prepared.fields) + 1)]
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for i, entries in enumerate(prepared.fields, 1):
        for k, name in enumerate(prepared.level.classes, 1):
            of = entries[name]
            kept = (False,) * len(of.truth) + (True,) * len(of.optional)
            for box, free in zip((*of.truth, *of.optional), kept, strict=True):
                truth.append(_annotation(len(truth) + 1, i, k, box, free) | {"iscrowd": 0})
            for box, score, free in zip(of.found, of.scores, of.excused, strict=True):
                annotation = _annotation(len(found) + 1, i, k, box, bool(free))
                found.append(annotation | {"score": float(score)})
    head = {"images": images, "categories": categories}
    return head | {"annotations": truth}, head | {"annotations": found}


def _annotation(
    number: int, image: int, category: int, box: NDArray[np.float64], free: bool
) -> dict[str, Any]:
    area = _OUTSIDE if free else float(box[2] * box[3])
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [float(v) for v in box],
        "area": area,
    }


@dataclass(frozen=True)
class OperatingPoint:
    """Counts at one score threshold and one IoU, over all classes of the level.

    Attributes:
        threshold: the least score of a detection.
        iou: the least overlap of a match.
        true_positives, false_positives, missed, dropped: counts.
    """

    threshold: float
    iou: float
    true_positives: int
    false_positives: int
    missed: int
    dropped: int

    @property
    def precision(self) -> float:
        """Precision; not-a-number if nothing was reported."""
        reported = self.true_positives + self.false_positives
        return self.true_positives / reported if reported else float("nan")

    @property
    def recall(self) -> float:
        """Recall; not-a-number if there are no cells to find."""
        cells = self.true_positives + self.missed
        return self.true_positives / cells if cells else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = 2 * self.true_positives + self.false_positives + self.missed
        return 2 * self.true_positives / total if total else float("nan")


def recall_of_known(
    fields: Sequence[Field],
    results: Sequence[Sequence[CellResult]],
    level: ClassGranularity,
    iou: float,
) -> tuple[int, int]:
    """Return how many boxed cells of the level were found, and how many there are.

    Counts boxed cells inside and outside the annotated region. Needs no complete annotation, so it
    is valid for sparse labels, for which precision is undefined.
    """
    from bloodfilm.evaluation.matching import match

    hits = total = 0
    for item, cells in zip(fields, results, strict=True):
        for name in level.classes:
            truth = {c.box for c in item.cells if _is_of(c, name, level)}
            verdicts = [(c.box, level.of_result(c)) for c in cells]
            selected = [(box, v[1]) for box, v in verdicts if v is not None and v[0] == name]
            pairs = match(
                sorted(box for box in truth if box is not None),
                [box for box, _ in selected],
                [score for _, score in selected],
                iou,
            ).pairs
            hits, total = hits + len(pairs), total + len(truth)
    return hits, total


def _is_of(cell: Cell, name: str, level: ClassGranularity) -> bool:
    if cell.ignore or cell.box is None or cell.box[2] <= 0 or cell.box[3] <= 0:
        return False
    return level.of_truth(cell.label) == ((name,), True)
