"""Tiles to one field: every cell once, wherever the seams run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.detections import Detections
from bloodfilm.imaging.tiles import Tile
from bloodfilm.inference.decode import iou_of_pairs, nms, overlapping_pairs

MARGIN = 8.0
SEAM_IOU = 0.2
"""Two tiles that place a 10 px platelet 4 px apart along both axes still overlap by this much."""


def aggregate(
    tiles: Sequence[Tile], found: Sequence[Detections], nms_iou: float, margin: float = MARGIN
) -> Detections:
    """Join the detections of all tiles of a field.

    A tile answers for the cells whose centre lies in its core. The two tiles at a seam may place
    the same cell's centre a little apart, each in the other's core (then nobody would own it) or
    each in its own (then it would count twice). So a tile also hands in what lies within `margin`
    beyond its core, and what several tiles saw of one cell is brought together first: one to one,
    nearest first. What one tile saw apart stays apart, so this rule can be far looser than a
    suppression's, and two cells that touch at a seam stay two.

    Args:
        tiles: the plan.
        found: per tile, its detections in the tile's own pixels.
        nms_iou: as in `decode`; quarrels between kinds are left to `cross_class_nms`.
        margin: pixels; a few times less than the tiles' overlap.

    Returns:
        Detections in the pixels of the whole image, best first.
    """
    parts, near, source = [], [], []
    for number, (tile, detections) in enumerate(zip(tiles, found, strict=True)):
        boxes = detections.boxes + np.array([tile.x, tile.y, 0.0, 0.0])
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        mine = np.zeros(len(boxes), dtype=bool)
        for dx in (-margin, 0.0, margin):
            for dy in (-margin, 0.0, margin):
                mine |= tile.owns(centres + np.array([dx, dy]))
        parts.append(detections.with_boxes(boxes))
        near.append(mine)
        source.append(np.full(len(boxes), number))
    if len(parts) == 1:
        return parts[0]
    joined, keep = Detections.merge(parts), np.concatenate(near)
    for group in _of_one_cell(joined, np.concatenate(source)):
        handed = [i for i in group if keep[i]]
        keep[handed] = False
        if handed:
            keep[max(handed, key=lambda i: float(joined.scores[i]))] = True
    return nms(joined.take(keep), nms_iou, None)


def _of_one_cell(found: Detections, source: NDArray[np.intp]) -> list[list[int]]:
    """Return the groups of two detections or more that different tiles made of one cell.

    Detections of one kind are joined, those that overlap most first; no tile is in a group twice.

    Args:
        found: detections of all tiles, in the pixels of the whole image.
        source: the tile (n,) of each.
    """
    first, second = overlapping_pairs(found.boxes, SEAM_IOU)
    comparable = (source[first] != source[second]) & (
        found.type_ids[first] == found.type_ids[second]
    )
    first, second = first[comparable], second[comparable]
    overlap = iou_of_pairs(found.boxes[first], found.boxes[second])
    groups = {i: [i] for i in {*first.tolist(), *second.tolist()}}
    for at in np.argsort(-overlap, kind="stable"):
        one, other = groups[int(first[at])], groups[int(second[at])]
        if set(source[one]).isdisjoint(source[other]):
            one += other
            groups |= dict.fromkeys(other, one)
    return [group for i, group in groups.items() if group[0] == i and len(group) > 1]
