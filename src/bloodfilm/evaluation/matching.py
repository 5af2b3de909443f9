"""Pair found boxes with true ones, one to one, as COCO's evaluator does: best score first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bloodfilm.core import boxes as geometry

MATCH_IOU = 0.5
"""IoU from which on a found box is that of a true cell."""


@dataclass(frozen=True)
class Matches:
    """Pairs of one field.

    Attributes:
        pairs: (index of the true box, index of the found box), by true index.
        missed: unmatched true boxes.
        extra: unmatched found boxes.
    """

    pairs: tuple[tuple[int, int], ...]
    missed: tuple[int, ...]
    extra: tuple[int, ...]


def match(
    truth: ArrayLike, found: ArrayLike, scores: ArrayLike, threshold: float = MATCH_IOU
) -> Matches:
    """Pair found boxes with true ones at an IoU; boxes are (x, y, w, h) rows of one field.

    Best score first, each taking the free true box it overlaps most; classes are ignored, so that
    a misclassified cell is scored as misclassified. Equal scores keep their order.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    ious = geometry.iou(geometry.as_boxes(found)[order], truth)
    taken = geometry.greedy_match(ious, threshold)
    pairs = sorted((int(t), int(order[i])) for i, t in enumerate(taken) if t >= 0)
    hit = {t for t, _ in pairs}
    used = {d for _, d in pairs}
    return Matches(
        tuple(pairs),
        tuple(i for i in range(ious.shape[1]) if i not in hit),
        tuple(i for i in range(len(order)) if i not in used),
    )
