"""COCO's average precision from matches made once, so that resampling fields is quick.

Matching does not depend on which fields are in the sample; only the ranking across fields does.
So each detection's verdict at every IoU threshold is found once, and a resample is a weight per
field: the average precision of the full sample equals the COCO evaluator's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import boxes as geometry
from bloodfilm.core.errors import ConfigError
from bloodfilm.evaluation.detection import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    DetectionScores,
    DetectionTable,
    OperatingPoint,
    PreparedFields,
    summarise,
)

RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
RIGHT, DROPPED, WRONG = np.int8(1), np.int8(0), np.int8(-1)


@dataclass(frozen=True)
class MatchVerdicts:
    """Detections of one class over all fields, in order of falling score.

    Attributes:
        verdicts: (thresholds, n) `RIGHT`, `DROPPED` or `WRONG`.
        scores: (n,).
        field: (n,) index of the field each lies in.
        truths: (fields,) number of cells to find.
    """

    verdicts: NDArray[np.int8]
    scores: NDArray[np.float64]
    field: NDArray[np.intp]
    truths: NDArray[np.intp]


def verdicts_of(
    entries: DetectionTable, max_detections: int = MAX_DETECTIONS
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return one field's verdicts (thresholds, n) and scores (n,), best score first."""
    order = np.argsort(-entries.scores, kind="stable")[:max_detections]
    truth = np.concatenate([entries.truth, entries.optional])
    optional = np.arange(len(truth)) >= len(entries.truth)
    ious = geometry.iou(entries.found[order], truth)
    out = np.empty((len(IOU_THRESHOLDS), len(order)), dtype=np.int8)
    for row, threshold in zip(out, IOU_THRESHOLDS, strict=True):
        taken = geometry.greedy_match(ious, float(threshold), optional)
        row[:] = np.where(entries.excused[order], DROPPED, WRONG)
        matched = taken >= 0
        row[matched] = np.where(optional[taken[matched]], DROPPED, RIGHT)
    return out, entries.scores[order]


def collect(
    prepared: PreparedFields, max_detections: int = MAX_DETECTIONS
) -> dict[str, MatchVerdicts]:
    """Match every field once; classes without a cell to find are left out."""
    collected = {}
    for name in prepared.level.classes:
        truths = np.asarray([len(f[name].truth) for f in prepared.fields], dtype=np.intp)
        if truths.sum() == 0:
            continue
        parts = [verdicts_of(f[name], max_detections) for f in prepared.fields]
        verdicts = np.concatenate([v for v, _ in parts], axis=1)
        scores = np.concatenate([s for _, s in parts])
        where = np.repeat(np.arange(len(parts)), [len(s) for _, s in parts])
        order = np.argsort(-scores, kind="mergesort")
        collected[name] = MatchVerdicts(verdicts[:, order], scores[order], where[order], truths)
    return collected


def precision_and_recall(
    verdicts: MatchVerdicts, weights: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return AP and final recall per IoU threshold, both (thresholds,); -1 without truth.

    Args:
        verdicts: one class.
        weights: (fields,) how often each field is in the sample; once if left out.

    Source: `accumulate` of pycocotools: precision made to fall, read at 101 recalls.
    """
    n = len(verdicts.verdicts)
    if weights is None:
        weights = np.ones(len(verdicts.truths), dtype=np.intp)
    total = int((weights * verdicts.truths).sum())
    if total == 0:
        return np.full(n, -1.0), np.full(n, -1.0)
    ap, recall = np.zeros(n), np.zeros(n)
    weight = weights[verdicts.field]
    present = weight > 0
    weight = weight[present]
    for t, row in enumerate(verdicts.verdicts[:, present]):
        right = np.cumsum(weight * (row == RIGHT))
        wrong = np.cumsum(weight * (row == WRONG))
        # Precision peaks at true positives, and recall only rises there: look nowhere else.
        at = np.flatnonzero(row == RIGHT)
        if len(at) == 0:
            continue
        hits = right[at].astype(np.float64)
        precision = hits / (hits + wrong[at] + np.spacing(1))
        falling = np.maximum.accumulate(precision[::-1])[::-1]
        index = np.searchsorted(hits / total, RECALLS, side="left")
        reached = falling[index[index < len(falling)]]
        ap[t] = reached.sum() / len(RECALLS)
        recall[t] = hits[-1] / total
    return ap, recall


def full_scores(prepared: PreparedFields, collected: dict[str, MatchVerdicts]) -> DetectionScores:
    """Return the scores of the full sample; equal to the COCO evaluator's."""
    shape = (len(IOU_THRESHOLDS), len(prepared.level.classes))
    precision, recall = np.full(shape, -1.0), np.full(shape, -1.0)
    for k, name in enumerate(prepared.level.classes):
        if name in collected:
            precision[:, k], recall[:, k] = precision_and_recall(collected[name])
    return summarise(prepared, precision, recall)


def means(
    collected: dict[str, MatchVerdicts], weights: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Return (AP, AP50, AP75, AR, recall50) averaged over the classes that the sample holds."""
    rows = []
    for verdicts in collected.values():
        ap, recall = precision_and_recall(verdicts, weights)
        if ap[0] >= 0:
            rows.append((ap.mean(), ap[0], ap[5], recall.mean(), recall[0]))
    return np.mean(rows, axis=0) if rows else np.full(5, np.nan)


def operating_point(
    collected: dict[str, MatchVerdicts], threshold: float, iou: float = 0.5
) -> OperatingPoint:
    """Count right, wrong, missed and dropped among detections of that score or more.

    Dropping low scores never changes the verdict of a higher one, so no new match is needed.

    Raises:
        ConfigError: if the IoU is none of those matched at.
    """
    t = int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))
    if abs(float(IOU_THRESHOLDS[t]) - iou) > 1e-6:
        raise ConfigError(f"IoU {iou:g}: choose one of 0.50, 0.55, ... 0.95")
    right = wrong = dropped = total = 0
    for verdicts in collected.values():
        kept = verdicts.verdicts[t, verdicts.scores >= threshold]
        right += int((kept == RIGHT).sum())
        wrong += int((kept == WRONG).sum())
        dropped += int((kept == DROPPED).sum())
        total += int(verdicts.truths.sum())
    return OperatingPoint(threshold, float(IOU_THRESHOLDS[t]), right, wrong, total - right, dropped)
