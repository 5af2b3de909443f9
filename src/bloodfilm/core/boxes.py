"""Geometry of bounding boxes: arrays of (x, y, w, h) in pixels, COCO's convention."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


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


def nms(boxes: ArrayLike, scores: ArrayLike, threshold: float) -> NDArray[np.intp]:
    """Return the indices greedy non-maximum suppression keeps, best score first.

    A box goes if its IoU with a better, kept one is above `threshold`. Equal scores keep their
    order, so the result is deterministic.
    """
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    overlaps = iou(boxes, boxes)
    alive = np.ones(len(order), dtype=bool)
    keep: list[int] = []
    for i in order:
        if alive[i]:
            keep.append(int(i))
            alive &= overlaps[i] <= threshold
            alive[i] = False
    return np.asarray(keep, dtype=np.intp)
