"""Crop annotated regions of fields, as training samples of their own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Region
from bloodfilm.core.boxes import centres, clip
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.data.mosaics import Mosaics


def cut_regions(field: CanonicalField, context: float) -> list[CanonicalField]:
    """Crop the annotated regions of a field, each with its cells and `context` (canonical px).

    No annotated cell is cut: a patch holds the region and the boxes in it. A completely annotated
    field is one patch. The surroundings of a region stay unknown.
    """
    if field.region.polygons is None:
        return [field]
    height, width = field.image.shape[:2]
    patches = []
    for polygon in field.region.polygons:
        selected = Region.polygon(polygon).contains(centres(field.boxes))
        boxes = field.boxes[selected]
        corners = np.concatenate([polygon, boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
        room = context * Mosaics.oversampling
        low = np.floor(np.maximum(corners.min(axis=0) - room, 0)).astype(int)
        high = np.ceil(np.minimum(corners.max(axis=0) + room, [width, height])).astype(int)
        if (high - low).min() < Mosaics.oversampling:
            continue
        patches.append(_crop(field, low, high))
    return patches


def repeat_rare_types(patches: Sequence[CanonicalField], power: float) -> list[CanonicalField]:
    """Return the patches (or whole fields), those with rare annotated types repeated more often.

    Source: repeat factor sampling, LVIS, arXiv 1908.03195, section 4, with the most common kind's
    frequency as threshold.
    """
    types = 1 + max((int(p.type_ids.max(initial=0)) for p in patches), default=0)
    held = np.array([[number in p.type_ids for number in range(types)] for p in patches])
    often = held.mean(axis=0)
    factors = (often.max() / np.maximum(often, 1e-9)) ** power
    counts = np.where(held, factors, 1.0).max(axis=1)
    return [replace(p, repeat=p.repeat * float(n)) for p, n in zip(patches, counts, strict=True)]


def _crop(field: CanonicalField, low: NDArray[np.int_], high: NDArray[np.int_]) -> CanonicalField:
    width, height = (int(v) for v in high - low)
    shift = np.array([low[0], low[1], 0, 0])

    def inside(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        at = centres(boxes)
        return np.asarray(((at >= low) & (at < high)).all(axis=1))

    keep = inside(field.boxes)
    ignore = clip(field.ignore - shift, width, height)
    return CanonicalField(
        image=np.ascontiguousarray(field.image[low[1] : high[1], low[0] : high[0]]),
        boxes=clip(field.boxes[keep] - shift, width, height),
        type_ids=field.type_ids[keep],
        ignore=ignore[(ignore[:, 2:] > 0).all(axis=1)],
        region=field.region.transform([[1, 0, -low[0]], [0, 1, -low[1]]]),
        repeat=field.repeat,
        domain=field.domain,
        values=None if field.values is None else field.values[keep],
    )
