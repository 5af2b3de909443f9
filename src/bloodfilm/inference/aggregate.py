"""Merge detections of tiles into detections of the whole image, each cell once."""

from collections.abc import Iterator, Sequence

import numpy as np

from bloodfilm.core.arrays import Bools, Floats, Ints
from bloodfilm.core.boxes import overlapping_pairs, paired_iou
from bloodfilm.core.connected import connected_components
from bloodfilm.core.detections import Detections
from bloodfilm.imaging.tiles import Tile
from bloodfilm.inference.nms import nms

MARGIN = 8.0
SEAM_IOU = 0.2
"""IoU of two boxes of a 10 px platelet that are 4 px apart along both axes."""


def aggregate(
    tiles: Sequence[Tile],
    found: Sequence[Detections],
    nms_iou: float,
    certain: Sequence[float] | None = None,
    margin: float = MARGIN,
) -> Detections:
    """Merge the detections of all tiles of an image; see `TileAggregator`.

    Args:
        tiles: the plan, in reading order.
        found: per tile, its detections in the tile's own pixels.
        nms_iou: as in `decode`; different types are left to `cross_class_nms`.
        certain: see `TileAggregator`.
        margin: pixels; a few times less than the tiles' overlap.

    Returns:
        Detections in the pixels of the whole image, best first.
    """
    aggregator = TileAggregator(tiles, nms_iou, certain, margin)
    parts = [
        done
        for detections in zip(tiles, found, strict=True)
        for done in aggregator.add(*detections)
    ]
    whole = Detections.merge([*parts, aggregator.finish()])
    return whole.take(np.argsort(-whole.scores, kind="stable"))


class TileAggregator:
    """Merges detections tile by tile and yields those that no later tile can change.

    A tile owns the cells whose centre lies in its core. The two tiles at a seam may place the same
    cell's centre slightly apart, each in the other's core (the cell would be lost) or each in
    its own (it would count twice). So a tile also contributes what lies within `margin` beyond
    its core, and detections of one cell by several tiles are matched first: one to one, nearest
    first. Detections of the same tile are never merged, so this rule can be far looser than NMS,
    and two cells that touch at a seam stay two.

    Connected components of overlapping detections are resolved together, as soon as a row of tiles
    is complete and none of them reaches into the next. So an image of any height needs the memory
    of two rows of tiles, and the result does not depend on when it is read.

    Args:
        tiles: the plan, in reading order.
        nms_iou: as in `decode`.
        certain: per type, the score from which detections are joined before others are, so that
            those below never change them; without it all are equal.
        margin: pixels; a few times less than the tiles' overlap.
    """

    def __init__(
        self,
        tiles: Sequence[Tile],
        nms_iou: float,
        certain: Sequence[float] | None = None,
        margin: float = MARGIN,
    ) -> None:
        self._tiles = tiles
        self._nms_iou = nms_iou
        self._certain = None if certain is None else np.asarray(certain, dtype=np.float64)
        self._margin = margin
        self._number = 0
        self._found = Detections.empty()
        self._owned: Bools = np.zeros(0, dtype=bool)
        self._source: Ints = np.zeros(0, dtype=np.intp)

    def add(self, tile: Tile, found: Detections) -> Iterator[Detections]:
        """Add a tile's detections, in its own pixels; yield the detections that are final."""
        if tile != self._tiles[self._number]:
            raise ValueError(f"aggregate: tile {self._number} is not the next of the plan")
        boxes = found.boxes + np.array([tile.x, tile.y, 0.0, 0.0])
        middles = boxes[:, :2] + boxes[:, 2:] / 2
        owned = np.zeros(len(boxes), dtype=bool)
        for dx in (-self._margin, 0.0, self._margin):
            for dy in (-self._margin, 0.0, self._margin):
                owned |= tile.owns(middles + np.array([dx, dy]))
        self._found = Detections.merge([self._found, found.with_boxes(boxes)])
        self._owned = np.concatenate([self._owned, owned])
        self._source = np.concatenate([self._source, np.full(len(boxes), self._number)])
        self._number += 1
        if self._number < len(self._tiles) and self._tiles[self._number].y > tile.y:
            yield self._settle(float(self._tiles[self._number].y))

    def finish(self) -> Detections:
        """Return what is left after the last tile."""
        if self._number != len(self._tiles):
            raise ValueError(f"aggregate: {self._number} of {len(self._tiles)} tiles were added")
        return self._settle(np.inf)

    def _settle(self, below: float) -> Detections:
        """Return what lies above a height and overlaps nothing that reaches below it."""
        if len(self._tiles) == 1:
            return self._found
        reaching = self._found.boxes[:, 1] + self._found.boxes[:, 3] > below
        open_ = reaching
        if reaching.any():
            pairs = overlapping_pairs(self._found.boxes, min(SEAM_IOU, self._nms_iou))
            links = zip(*(p.tolist() for p in pairs), strict=True)
            component = connected_components(len(self._found), links)
            open_ = np.isin(component, component[reaching])
        done = self._joined(~open_)
        self._found = self._found.take(open_)
        self._owned, self._source = self._owned[open_], self._source[open_]
        return done

    def _joined(self, which: Bools) -> Detections:
        found, keep, source = self._found.take(which), self._owned[which], self._source[which]
        for group in _of_one_cell(found, source, self._is_certain(found)):
            handed = [i for i in group if keep[i]]
            keep[handed] = False
            if handed:
                keep[max(handed, key=lambda i: float(found.scores[i]))] = True
        return nms(found.take(keep), self._nms_iou, None)

    def _is_certain(self, found: Detections) -> Bools:
        if self._certain is None:
            return np.ones(len(found), dtype=bool)
        return np.asarray(found.scores >= self._certain[found.type_ids])


def _of_one_cell(found: Detections, source: Ints, certain: Bools) -> list[list[int]]:
    """Return the groups of two detections or more that different tiles made of one cell.

    Detections of one type are joined, no tile is in a group twice: first certain ones, those that
    overlap most first; then the others, the best first.

    Args:
        found: detections of all tiles, in the pixels of the whole image.
        source: the tile (n,) of each.
        certain: (n,).
    """
    first, second = overlapping_pairs(found.boxes, SEAM_IOU)
    comparable = source[first] != source[second]
    comparable &= found.type_ids[first] == found.type_ids[second]
    first, second = first[comparable], second[comparable]
    overlap = paired_iou(found.boxes[first], found.boxes[second])
    sure = certain[first] & certain[second]
    lesser: Floats = np.where(sure, 1.0, np.minimum(found.scores[first], found.scores[second]))
    groups = {i: [i] for i in {*first.tolist(), *second.tolist()}}
    # Ties end in the order of the detections, not in that in which pairs were found.
    for at in np.lexsort((second, first, -overlap, -lesser, ~sure)):
        i, j = int(first[at]), int(second[at])
        one, other = groups[i], groups[j]
        # An uncertain detection joins a group, but never links two groups.
        if not sure[at] and len(groups[min(i, j, key=lambda k: float(found.scores[k]))]) > 1:
            continue
        if set(source[one]).isdisjoint(source[other]):
            one += other
            groups |= dict.fromkeys(other, one)
    return [group for i, group in groups.items() if group[0] == i and len(group) > 1]
