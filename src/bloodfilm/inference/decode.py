"""Dense detector outputs to detections, for torch and ONNX, as numpy arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.detections import Detections
from bloodfilm.inference.nms import CROSS_TYPE_IOU, below, best_of_each, box_voting, nms

MIN_SIDE = 1.0
"""Canonical pixels, 0.2 um: nothing smaller is a cell."""
BEYOND = 128.0
"""How far a box may reach beyond the map, canonical pixels: no cut cell is larger."""
PRE_NMS_TOP_K = 1000


@dataclass(frozen=True, kw_only=True)
class DecodeParameters:
    """How dense outputs become detections.

    Attributes:
        stride: pixels per location.
        thresholds: (K,) the lowest scores to return, by object type.
        nms_iou: of two boxes of one type that overlap more, the better stays.
        vote_thresholds: (K,) the lowest scores of candidates that vote on where a box lies;
            `thresholds`, if left out.
        pre_nms_top_k: maximum number of candidates of each type below `vote_thresholds`, best
            first: low scores are common in the background.
        max_detections: keep that many of the best; `None` keeps all.
        cross_iou: as `nms_iou`, of two boxes of different types; `None` keeps both.
    """

    stride: int
    thresholds: Sequence[float]
    nms_iou: float
    vote_thresholds: Sequence[float] | None = None
    pre_nms_top_k: int = PRE_NMS_TOP_K
    max_detections: int | None = None
    cross_iou: float | None = CROSS_TYPE_IOU


def decode(scores: ArrayLike, boxes: ArrayLike, parameters: DecodeParameters) -> Detections:
    """Turn one image's dense outputs into detections.

    Candidates are suppressed, the remaining boxes are refined by box voting over all candidates
    above `vote_thresholds`, and suppressed again. No box and no score depends on `thresholds`:
    a lower one adds detections, as long as `max_detections` allows it, and changes none.

    Args:
        scores: (K, h, w) in [0, 1], one map per object type.
        boxes: (4, h, w) distances left, top, right, bottom in pixels from each location's centre,
            which lies at ((j + 0.5) * stride, (i + 0.5) * stride).
        parameters: of the decoding.

    Returns:
        Detections, best first; equal scores in order of type, then row, then column.
    """
    p = parameters
    s, d = np.asarray(scores), np.asarray(boxes)
    vote_thresholds = p.thresholds if p.vote_thresholds is None else p.vote_thresholds
    # In the precision of the scores: a score that equals its threshold meets it.
    lowest, voting = (
        np.asarray(t, dtype=s.dtype).astype(np.float64) for t in (p.thresholds, vote_thresholds)
    )
    if s.ndim != 3 or d.shape != (4, *s.shape[1:]) or not len(lowest) == len(voting) == len(s):
        raise ValueError(
            f"decode: scores {s.shape}, boxes {d.shape}, {len(lowest)} and {len(voting)} "
            "thresholds do not belong together"
        )
    candidates = _candidates(s, d, p.stride, np.minimum(lowest, voting))
    unsure = below(candidates, voting)
    voters = candidates.take(~unsure)
    found = nms(best_of_each(candidates, unsure, p.pre_nms_top_k), p.nms_iou, None)
    found = nms(box_voting(found, voters), p.nms_iou, p.cross_iou)
    found = found.take(~below(found, lowest))
    if p.max_detections is not None:
        found = found.take(np.arange(len(found))[: p.max_detections])
    return found


def _candidates(
    scores: NDArray[Any], distances: NDArray[Any], stride: int, lowest: ArrayLike
) -> Detections:
    """Return every location that scores at least `lowest` and holds a box of some size."""
    limits = np.asarray(lowest, dtype=scores.dtype).reshape(-1, 1, 1)
    types, rows, columns = np.nonzero(scores >= limits)
    sides = distances[:, rows, columns].astype(np.float64)
    finite = np.isfinite(sides).all(axis=0)
    left, top, right, bottom = np.where(finite, sides, 0.0)
    x, y = (columns + 0.5) * stride, (rows + 0.5) * stride
    height, width = (n * stride for n in scores.shape[1:])
    x0, x1 = (np.clip(v, -BEYOND, width + BEYOND) for v in (x - left, x + right))
    y0, y1 = (np.clip(v, -BEYOND, height + BEYOND) for v in (y - top, y + bottom))
    boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
    found = Detections(boxes, scores[types, rows, columns].astype(np.float64), types)
    return found.take(np.asarray(finite & (boxes[:, 2:] >= MIN_SIDE).all(axis=1)))
