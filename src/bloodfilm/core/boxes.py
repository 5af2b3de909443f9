"""Geometry of bounding boxes: arrays of (x, y, w, h) in pixels, COCO's convention."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Bools, Floats, Ints

_NEIGHBOURS = np.array([(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
_CHUNK = 1 << 20
_FIRST_BLOCK, _LARGEST_BLOCK = 256, 4096


def as_boxes(boxes: ArrayLike) -> Floats:
    """Return boxes as a float array of shape (n, 4), n may be 0."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def to_xyxy(boxes: ArrayLike) -> Floats:
    """Turn (x, y, w, h) rows into (x1, y1, x2, y2) rows."""
    b = as_boxes(boxes)
    return np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1)


def to_xywh(boxes: ArrayLike) -> Floats:
    """Turn (x1, y1, x2, y2) rows into (x, y, w, h) rows."""
    b = as_boxes(boxes)
    return np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1)


def area(boxes: ArrayLike) -> Floats:
    """Return each box's area in square pixels, shape (n,)."""
    b = as_boxes(boxes)
    return np.asarray(np.clip(b[:, 2], 0, None) * np.clip(b[:, 3], 0, None))


def centres(boxes: ArrayLike) -> Floats:
    """Return each box's centre (x, y), shape (n, 2)."""
    b = as_boxes(boxes)
    return np.asarray(b[:, :2] + b[:, 2:] / 2)


def clip(boxes: ArrayLike, width: float, height: float) -> Floats:
    """Cut boxes to the image; one that lies outside gets zero width or height."""
    b = to_xyxy(boxes)
    b[:, 0::2] = np.clip(b[:, 0::2], 0, width)
    b[:, 1::2] = np.clip(b[:, 1::2], 0, height)
    return to_xywh(b)


def corner_pixels(
    box: Sequence[float], width: int, height: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the top left and bottom right corner to draw on an image of that size.

    A side beyond the image stays beyond it, at most by the image's own size: drawing libraries
    refuse numbers that 32 bits do not hold.

    >>> corner_pixels((10.2, 5, 3e9, 20), 160, 120)
    ((10, 5), (320, 25))
    """
    x, y, w, h = box
    left, right = (round(min(max(v, -width), 2 * width)) for v in (x, x + w))
    top, bottom = (round(min(max(v, -height), 2 * height)) for v in (y, y + h))
    return (left, top), (right, bottom)


def intersection(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the shared area of every pair of boxes, shape (n, m)."""
    p, q = to_xyxy(a)[:, None], to_xyxy(b)[None]
    wh = np.minimum(p[..., 2:], q[..., 2:]) - np.maximum(p[..., :2], q[..., :2])
    return np.asarray(np.clip(wh, 0, None).prod(axis=-1))


def iou(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the intersection over union of every pair of boxes, shape (n, m), in [0, 1]."""
    inter = intersection(a, b)
    union = area(a)[:, None] + area(b)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def paired_iou(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the intersection over union of a[i] with b[i], shape (n,); sides must be positive.

    >>> paired_iou([[0, 0, 4, 4]], [[2, 0, 4, 4]]).round(3).tolist()
    [0.333]
    """
    p, q = as_boxes(a), as_boxes(b)
    upper = np.minimum(p[:, :2] + p[:, 2:], q[:, :2] + q[:, 2:])
    sides = np.clip(upper - np.maximum(p[:, :2], q[:, :2]), 0, None)
    shared = sides[:, 0] * sides[:, 1]
    union = p[:, 2] * p[:, 3] + q[:, 2] * q[:, 3] - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float64).tiny))


def overlapping_pairs(
    boxes: ArrayLike, threshold: float, others: ArrayLike | None = None
) -> tuple[Ints, Ints]:
    """Return the indices (i, j) of all pairs of boxes whose IoU is above a threshold.

    Centres are sorted into square bins. Two boxes with IoU above t have centres no further apart,
    along either axis, than (a + b) / 2 * (1 - t) / (1 + t) for sides a and b (the one-dimensional
    overlap bounds the IoU), so bins as wide as that for the longest side need only be compared with
    their neighbours. Memory grows with the number of near pairs, never with n squared.

    Args:
        boxes: (n, 4) with positive sides.
        threshold: of the IoU.
        others: (m, 4) to pair `boxes` with, indexed by j; without them boxes are paired with each
            other, i < j.
    """
    a = as_boxes(boxes)
    b = a if others is None else as_boxes(others)
    none = np.zeros(0, dtype=np.intp)
    if not len(a) or not len(b):
        return none, none
    first_centres, centres_b = centres(a), centres(b)
    longest = max(float(a[:, 2:].max()), float(b[:, 2:].max()))
    size = max(longest * (1 - threshold) / (1 + threshold), 0.5) * (1 + 1e-9)
    low = np.minimum(first_centres.min(axis=0), centres_b.min(axis=0))
    bins_a = np.floor((first_centres - low) / size).astype(np.int64) + 1
    bins_b = np.floor((centres_b - low) / size).astype(np.int64) + 1
    width = int(max(bins_a[:, 0].max(), bins_b[:, 0].max())) + 2
    keys = bins_b[:, 1] * width + bins_b[:, 0]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    around = (bins_a[:, 1] * width + bins_a[:, 0])[:, None]
    around = around + (_NEIGHBOURS[:, 1] * width + _NEIGHBOURS[:, 0])[None]
    begin = np.searchsorted(ordered, around, side="left")
    count = np.searchsorted(ordered, around, side="right") - begin
    firsts, seconds = [none], [none]
    for rows in _chunks(count.sum(axis=1)):
        lengths = count[rows].ravel()
        i = np.repeat(np.repeat(np.arange(len(a))[rows], len(_NEIGHBOURS)), lengths)
        within = np.arange(len(i)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        j = order[np.repeat(begin[rows].ravel(), lengths) + within]
        if others is None:
            later = j > i
            i, j = i[later], j[later]
        over = paired_iou(a[i], b[j]) > threshold
        firsts.append(i[over])
        seconds.append(j[over])
    return np.concatenate(firsts), np.concatenate(seconds)


def _chunks(work: NDArray[np.int64]) -> list[slice]:
    """Cut rows into runs of bounded work, so that a heap of boxes on one spot fits in memory."""
    ends = np.cumsum(work)
    cuts = [0]
    while cuts[-1] < len(work):
        done = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        reach = int(np.searchsorted(ends, done + _CHUNK, side="right"))
        cuts.append(max(reach, cuts[-1] + 1))
    return [slice(a, b) for a, b in pairwise(cuts)]


def nms(
    boxes: ArrayLike, scores: ArrayLike, threshold: float, groups: ArrayLike | None = None
) -> Ints:
    """Return the indices that greedy non-maximum suppression keeps, best score first.

    A box goes if its IoU with a better, kept one (of its group) is above `threshold`. Equal scores
    keep their order. The best boxes are worked off in blocks, each of which removes what it
    overlaps of the rest: time grows with the boxes that are kept, not with the square of all.

    Args:
        boxes: (n, 4) with positive sides.
        scores: (n,).
        threshold: of the IoU.
        groups: (n,) integers; boxes of different groups do not suppress each other.

    >>> nms([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 10, 10]], [0.8, 0.9, 0.7], 0.5).tolist()
    [1, 2]
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    b = as_boxes(boxes)[order]
    group = np.zeros(len(b), dtype=np.intp) if groups is None else np.asarray(groups)[order]
    alive = np.ones(len(b), dtype=bool)
    for name in np.unique(group):
        members = np.flatnonzero(group == name)
        alive[members] = _suppressed(b[members], threshold)
    return np.asarray(order[alive])


def _suppressed(b: Floats, threshold: float) -> Bools:
    """Return which boxes (n, 4), best first, stay."""
    alive = np.ones(len(b), dtype=bool)
    begin, size = 0, _FIRST_BLOCK
    while begin < len(b):
        block = np.flatnonzero(alive[begin:])[:size] + begin
        if not len(block):
            break
        stay = greedy_survivors(len(block), *overlapping_pairs(b[block], threshold))
        alive[block[~stay]] = False
        kept, begin = block[stay], int(block[-1]) + 1
        rest = np.flatnonzero(alive[begin:]) + begin
        _, gone = overlapping_pairs(b[kept], threshold, b[rest])
        alive[rest[gone]] = False
        size = min(2 * size, _LARGEST_BLOCK)
    return alive


def greedy_survivors(n: int, first: Ints, second: Ints) -> Bools:
    """Return which of n candidates, best first, no better survivor excludes.

    Args:
        n: number of candidates.
        first, second: (p,) pairs that exclude each other, first < second.

    >>> greedy_survivors(3, np.array([0, 1]), np.array([1, 2])).tolist()
    [True, False, True]
    """
    alive = np.ones(n, dtype=bool)
    order = np.argsort(first, kind="stable")
    losers = second[order]
    starts = np.searchsorted(first[order], np.arange(n + 1))
    for i in np.unique(first):
        if alive[i]:
            alive[losers[starts[i] : starts[i + 1]]] = False
    return alive


def greedy_match(ious: Floats, threshold: float, optional: Bools | None = None) -> Ints:
    """Give each found box the best true box still free; return its index or -1, shape (n,).

    Args:
        ious: (n found, m true), found boxes in order of falling score.
        threshold: the least IoU of a pair.
        optional: (m,) true boxes that count neither as found nor as missed; a found box takes one
            only if no other true box is free for it.

    The rule is COCO's (`evaluateImg` in pycocotools), ties included: of two true boxes with equal
    IoU the later one is taken.

    >>> greedy_match(np.array([[0.6, 0.8], [0.0, 0.7]]), 0.5).tolist()
    [1, -1]
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
