"""Tiles to one field: every cell once, wherever the seams run."""

from collections.abc import Sequence

import numpy as np

from bloodfilm.imaging.tiles import Tile
from bloodfilm.inference.decode import Detections, suppress

MARGIN = 8.0


def aggregate(
    tiles: Sequence[Tile], found: Sequence[Detections], nms_iou: float, margin: float = MARGIN
) -> Detections:
    """Join the detections of all tiles of a field.

    A tile answers for the cells whose centre lies in its core. The two tiles at a seam may place
    the same cell's centre a little apart, each in the other's core (then nobody would own it) or
    each in its own (then it would count twice). So a tile also hands in what lies within `margin`
    beyond its core, and one more suppression settles who keeps it.

    Args:
        tiles: the plan.
        found: per tile, its detections in the tile's own pixels.
        nms_iou: as in `decode`; quarrels between kinds are left to `settle`.
        margin: pixels; a few times less than the tiles' overlap.

    Returns:
        Detections in the pixels of the whole image, best first.
    """
    parts = []
    for tile, detections in zip(tiles, found, strict=True):
        boxes = detections.boxes + np.array([tile.x, tile.y, 0.0, 0.0])
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        near = np.zeros(len(boxes), dtype=bool)
        for dx in (-margin, 0.0, margin):
            for dy in (-margin, 0.0, margin):
                near |= tile.owns(centres + np.array([dx, dy]))
        parts.append(detections.with_boxes(boxes).take(near))
    if len(parts) == 1:
        return parts[0]
    return suppress(Detections.join(parts), nms_iou, None)
