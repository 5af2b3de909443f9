"""Pair found boxes with true ones, one to one, the way COCO's evaluator does: best score first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core import boxes as geometry

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Matches:
    """Pairs of one field.

    Attributes:
        pairs: (index of the true box, index of the found box), by true index.
        missed: true boxes nobody found.
        extra: found boxes that lie on no true one.
    """

    pairs: tuple[tuple[int, int], ...]
    missed: tuple[int, ...]
    extra: tuple[int, ...]


def greedy(
    ious: NDArray[np.float64], threshold: float, optional: NDArray[np.bool_] | None = None
) -> Ints:
    """Give each found box the best true box still free; return its index or -1, shape (n,).

    Args:
        ious: (n found, m true), found boxes in order of falling score.
        threshold: the least IoU of a pair.
        optional: (m,) true boxes that count neither as found nor as missed; a found box takes one
            only if no other true box is free for it.

    The rule is COCO's (`evaluateImg` in pycocotools), ties included: of two true boxes with equal
    IoU the later one is taken.
    """
    taken = np.full(len(ious), -1, dtype=np.intp)
    if ious.size == 0:
        return taken
    optional = np.zeros(ious.shape[1], dtype=bool) if optional is None else optional
    least = min(threshold, 1 - 1e-10)
    free = np.ones(ious.shape[1], dtype=bool)
    for found in np.flatnonzero((ious >= least).any(axis=1)):
        good = free & (ious[found] >= least)
        if (good & ~optional).any():
            good &= ~optional
        if good.any():
            candidates = np.where(good, ious[found], -1.0)
            best = len(candidates) - 1 - int(np.argmax(candidates[::-1]))
            taken[found] = best
            free[best] = False
    return taken


def match(truth: ArrayLike, found: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> Matches:
    """Pair found boxes with true ones at an IoU; boxes are (x, y, w, h) rows of one field.

    Best score first, each taking the free true box it overlaps most; classes play no part, so that
    a cell found but misnamed is scored as misnamed. Equal scores keep their order.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    ious = geometry.iou(geometry.as_boxes(found)[order], truth)
    taken = greedy(ious, threshold)
    pairs = sorted((int(t), int(order[i])) for i, t in enumerate(taken) if t >= 0)
    hit = {t for t, _ in pairs}
    used = {d for _, d in pairs}
    return Matches(
        tuple(pairs),
        tuple(i for i in range(ious.shape[1]) if i not in hit),
        tuple(i for i in range(len(order)) if i not in used),
    )
