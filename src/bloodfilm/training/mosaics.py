"""Training images for the detector: pieces of varied fields side by side on one canvas."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.boxes import area, clip
from bloodfilm.losses.target import Target
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.augment import (
    random_orientation,
    random_stretch,
    transform_boxes,
    vary_look,
)
from bloodfilm.training.config import AugmentSection
from bloodfilm.training.sources import CanonicalField

BACKGROUND = 245
MIN_VISIBLE = 0.3
"""A box cut to less than this share of itself is no longer a cell to find, but not background."""


@dataclass
class _Canvas:
    """A picture in the making and its truth, in pixels of the canvas; `known` by location."""

    image: NDArray[np.uint8]
    known: NDArray[np.bool_]
    boxes: list[NDArray[np.float64]]
    kinds: list[NDArray[np.int64]]
    ignore: list[NDArray[np.float64]]


class Mosaics:
    """Draws training images by number: the same number gives the same image.

    Args:
        fields: at `oversampling` times the training scale.
        size: side of a training image, pixels; stride: of the output grid.
        augment: how hard to vary.
        seed: with epoch and number, decides everything.
    """

    oversampling = 2.0

    def __init__(
        self,
        fields: Sequence[CanonicalField],
        size: int,
        augment: AugmentSection,
        seed: int,
    ) -> None:
        self.fields, self.size, self.augment, self.seed = fields, size, augment, seed
        self.cumulative = np.cumsum([f.repeat for f in fields])
        self.stride = CellDetector.stride

    def __getitem__(self, key: tuple[int, int]) -> tuple[NDArray[np.uint8], Target]:
        """Return image (size, size, 3) and target number `key[1]` of epoch `key[0]`."""
        rng = np.random.default_rng([self.seed, *key])
        size, grid = self.size, self.size // self.stride
        canvas = _Canvas(
            np.full((size, size, 3), BACKGROUND, np.uint8), np.ones((grid, grid), bool), [], [], []
        )
        y = 0
        while y < size - 24:
            x, tallest = 0, 0
            while x < size - 24:
                piece = self._piece(rng)
                width, height = self._paste(canvas, piece, (x, y), rng)
                x, tallest = x + width, max(tallest, height)
            y += tallest
        return canvas.image, self._target(canvas)

    def _piece(self, rng: np.random.Generator) -> CanonicalField:
        at = np.searchsorted(self.cumulative, rng.random() * self.cumulative[-1], side="right")
        return self.fields[int(at)]

    def _paste(
        self,
        canvas: _Canvas,
        field: CanonicalField,
        corner: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[int, int]:
        """Warp a field, cut what does not fit, put it at a corner; return the size it took."""
        linear = random_orientation(rng) @ random_stretch(rng, self.augment) / self.oversampling
        height, width = field.image.shape[:2]
        span = np.abs(linear) @ np.array([width, height])
        room = np.array([self.size - corner[0], self.size - corner[1]])
        take = np.minimum(np.floor(span), room).astype(int)
        take = np.maximum(take, 1)
        start = rng.random(2) * np.maximum(span - take, 0)
        low = np.minimum(linear @ np.diag([width, height]), 0).sum(axis=1)
        matrix = np.column_stack([linear, -low - start])
        # cv2 maps pixel centres; boxes live on pixel edges.
        shifted = matrix.copy()
        shifted[:, 2] += linear @ [0.5, 0.5] - 0.5
        patch = cv2.warpAffine(
            field.image,
            shifted,
            (int(take[0]), int(take[1])),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        x, y = corner
        canvas.image[y : y + take[1], x : x + take[0]] = vary_look(
            np.asarray(patch, dtype=np.uint8), rng, self.augment
        )
        self._paste_truth(canvas, field, matrix, (x, y, int(take[0]), int(take[1])))
        return int(take[0]), int(take[1])

    def _paste_truth(
        self,
        canvas: _Canvas,
        field: CanonicalField,
        matrix: NDArray[np.float64],
        place: tuple[int, int, int, int],
    ) -> None:
        x, y, width, height = place
        offset = np.array([x, y, 0, 0])
        moved = transform_boxes(field.boxes, matrix)
        cut = clip(moved, width, height)
        share = area(cut) / np.maximum(area(moved), 1e-9)
        keep = share >= MIN_VISIBLE
        canvas.boxes.append(cut[keep] + offset)
        canvas.kinds.append(field.kinds[keep])
        slivers = cut[(share > 0) & ~keep]
        ignore = clip(transform_boxes(field.ignore, matrix), width, height)
        canvas.ignore.append(np.concatenate([slivers, ignore]) + offset)
        if not field.region.is_everything:
            region = field.region.transform(matrix)
            x1, x2 = self._locations(x, width)
            y1, y2 = self._locations(y, height)
            centres = np.stack(np.meshgrid(np.arange(x1, x2), np.arange(y1, y2)), axis=-1) + 0.5
            inside = region.contains(centres.reshape(-1, 2) * self.stride - [x, y])
            canvas.known[y1:y2, x1:x2] = inside.reshape(y2 - y1, x2 - x1)

    def _locations(self, start: int, length: int) -> tuple[int, int]:
        """Return the first location whose centre is at `start` or after, and the first beyond."""
        ends = np.ceil(np.array([start, start + length]) / self.stride - 0.5)
        return int(ends[0]), int(ends[1])

    def _target(self, canvas: _Canvas) -> Target:
        stride = self.stride
        known = canvas.known.copy()
        for box in np.concatenate(canvas.ignore):
            x1, y1 = np.floor(box[:2] / stride - 0.5).astype(int) + 1
            x2, y2 = np.ceil((box[:2] + box[2:]) / stride - 0.5).astype(int)
            known[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = False
        boxes = np.concatenate(canvas.boxes)
        return Target(
            boxes.astype(np.float32),
            np.concatenate(canvas.kinds),
            np.ones(len(boxes), np.float32),
            known,
        )
