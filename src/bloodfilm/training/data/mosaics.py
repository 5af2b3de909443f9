"""Mosaic training images for the detector: augmented field crops on one canvas."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.boxes import area, clip
from bloodfilm.core.polygons import Region
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.losses.targets import Target
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.config import AugmentSection
from bloodfilm.training.data.appearance import vary_camera
from bloodfilm.training.data.augment import (
    random_orientation,
    random_stretch,
    transform_boxes,
    vary_appearance,
)
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.data.domains import UNKNOWN_DOMAIN
from bloodfilm.training.data.samplers import FieldCrop, InMemorySampler, Sampler
from bloodfilm.training.data.stain_augment import recolour

MIN_VISIBLE = 0.3
"""A box cut to less than this share of its area is neither a positive nor background."""


@dataclass
class _MosaicCanvas:
    """An image under construction and its truth, in pixels of the canvas; `known` by location."""

    image: NDArray[np.uint8]
    plain: NDArray[np.uint8]
    known: NDArray[np.bool_]
    boxes: list[NDArray[np.float64]]
    type_ids: list[NDArray[np.int64]]
    ignore: list[NDArray[np.float64]]
    values: list[NDArray[np.float32] | None]
    domains: set[int]


@dataclass(frozen=True)
class MosaicSample:
    """One training image.

    Attributes:
        image: (size, size, 3) augmented in colour; plain: the same without.
        target: what is known of it.
        unmarked: (h, w) unannotated locations: neither known nor on an ignore box.
    """

    image: NDArray[np.uint8]
    plain: NDArray[np.uint8]
    target: Target
    unmarked: NDArray[np.bool_]


class Mosaics:
    """Draws training images by number: the same number gives the same image.

    Args:
        fields: at `oversampling` times the training scale; in memory, or a pool that opens them.
        size: side of a training image, pixels; stride: of the output grid.
        augment: strength of the augmentation.
        seed: with epoch and number, determines the image.
        border: a location inside a region but nearer to its border than this, in pixels of the
            training image, is unknown unless it lies in a marked box: a cell whose centre is
            outside is unmarked, and may reach in.
        stains: object types whose stains are varied apart (see `stain_vectors`); `None`: none.
            A sampler measures stains itself.
        aimed_at: the object type that `augment.aim` cuts around.
    """

    oversampling = 2.0

    def __init__(
        self,
        fields: Sequence[CanonicalField] | Sampler,
        size: int,
        augment: AugmentSection,
        seed: int,
        border: float = 0.0,
        stains: tuple[int, int] | None = None,
        aimed_at: int = 0,
    ) -> None:
        self.size, self.augment, self.seed, self.border = size, augment, seed, border
        self.aimed_at = aimed_at
        self.pool: Sampler = (
            InMemorySampler(fields, stains if augment.recolour > 0 else None)
            if isinstance(fields, Sequence)
            else fields
        )
        self.stride = CellDetector.stride

    def __getitem__(self, key: tuple[int, int]) -> tuple[NDArray[np.uint8], Target]:
        """Return image (size, size, 3) and target number `key[1]` of epoch `key[0]`."""
        drawn = self.draw(key)
        return drawn.image, drawn.target

    def draw(self, key: tuple[int, int]) -> MosaicSample:
        """Return image, target and unannotated locations of number `key[1]` of epoch `key[0]`."""
        rng = np.random.default_rng([self.seed, *key])
        size, grid = self.size, self.size // self.stride
        canvas = _MosaicCanvas(
            np.full((size, size, 3), BACKGROUND, np.uint8),
            np.full((size, size, 3), BACKGROUND, np.uint8),
            np.ones((grid, grid), bool),
            [],
            [],
            [],
            [],
            set(),
        )
        pieces = self.pool.pieces(key, rng)
        y = 0
        while y < size - 24:
            x, tallest = 0, 0
            while x < size - 24:
                width, height = self._paste(canvas, next(pieces), (x, y), rng)
                x, tallest = x + width, max(tallest, height)
            y += tallest
        target, unmarked = self._target(canvas)
        return MosaicSample(canvas.image, canvas.plain, target, unmarked)

    def _paste(
        self,
        canvas: _MosaicCanvas,
        piece: FieldCrop,
        corner: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[int, int]:
        """Warp a field, cut what does not fit, put it at a corner; return the size it took."""
        field, dyes = piece
        linear = random_orientation(rng) @ random_stretch(rng, self.augment) / self.oversampling
        height, width = field.image.shape[:2]
        span = np.abs(linear) @ np.array([width, height])
        room = np.array([self.size - corner[0], self.size - corner[1]])
        take = np.minimum(np.floor(span), room).astype(int)
        take = np.maximum(take, 1)
        start = rng.random(2) * np.maximum(span - take, 0)
        low = np.minimum(linear @ np.diag([width, height]), 0).sum(axis=1)
        if self.augment.aim and rng.random() < self.augment.aim:
            whole = np.column_stack([linear, -low])
            cells = transform_boxes(field.boxes[field.type_ids == self.aimed_at], whole)
            start = _aimed(cells, span, take, rng) if len(cells) else start
        matrix = np.column_stack([linear, -low - start])
        # cv2 maps pixel centres; boxes live on pixel edges.
        shifted = matrix.copy()
        shifted[:, 2] += linear @ [0.5, 0.5] - 0.5
        warped = cv2.warpAffine(
            field.image,
            shifted,
            (int(take[0]), int(take[1])),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        x, y = corner
        patch: NDArray[np.uint8] = np.asarray(warped, dtype=np.uint8)
        canvas.plain[y : y + take[1], x : x + take[0]] = patch
        if dyes is not None and rng.random() < self.augment.recolour:
            patch = recolour(patch, dyes, rng)
        patch = vary_appearance(patch, rng, self.augment)
        if self.augment.optics:
            patch = vary_camera(patch, rng, self.augment)
        canvas.image[y : y + take[1], x : x + take[0]] = patch
        self._paste_truth(canvas, field, matrix, (x, y, int(take[0]), int(take[1])))
        return int(take[0]), int(take[1])

    def _paste_truth(
        self,
        canvas: _MosaicCanvas,
        field: CanonicalField,
        matrix: NDArray[np.float64],
        place: tuple[int, int, int, int],
    ) -> None:
        x, y, width, height = place
        canvas.domains.add(field.domain)
        offset = np.array([x, y, 0, 0])
        moved = transform_boxes(field.boxes, matrix)
        cut = clip(moved, width, height)
        share = area(cut) / np.maximum(area(moved), 1e-9)
        keep = share >= MIN_VISIBLE
        canvas.boxes.append(cut[keep] + offset)
        canvas.type_ids.append(field.type_ids[keep])
        canvas.values.append(None if field.values is None else field.values[keep])
        slivers = cut[(share > 0) & ~keep]
        ignore = clip(transform_boxes(field.ignore, matrix), width, height)
        canvas.ignore.append(np.concatenate([slivers, ignore]) + offset)
        if not field.region.is_everything:
            region = field.region.transform(matrix)
            x1, x2 = self._locations(x, width)
            y1, y2 = self._locations(y, height)
            grid = np.stack(np.meshgrid(np.arange(x1, x2), np.arange(y1, y2)), axis=-1) + 0.5
            points = grid.reshape(-1, 2) * self.stride - [x, y]
            inside = known_points(region, points, (width, height), self.border, cut[keep])
            canvas.known[y1:y2, x1:x2] = inside.reshape(y2 - y1, x2 - x1)

    def _locations(self, start: int, length: int) -> tuple[int, int]:
        """Return the first location whose centre is at `start` or after, and the first beyond."""
        ends = np.ceil(np.array([start, start + length]) / self.stride - 0.5)
        return int(ends[0]), int(ends[1])

    def _target(self, canvas: _MosaicCanvas) -> tuple[Target, NDArray[np.bool_]]:
        """Return the target, and the unannotated locations."""
        stride = self.stride
        ignored = np.zeros_like(canvas.known)
        for box in np.concatenate(canvas.ignore):
            x1, y1 = np.floor(box[:2] / stride - 0.5).astype(int) + 1
            x2, y2 = np.ceil((box[:2] + box[2:]) / stride - 0.5).astype(int)
            ignored[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
        boxes = np.concatenate(canvas.boxes)
        target = Target(
            boxes.astype(np.float32),
            np.concatenate(canvas.type_ids),
            np.ones(len(boxes), np.float32),
            canvas.known & ~ignored,
            values=_joined(canvas.values, [len(b) for b in canvas.boxes]),
            domain=canvas.domains.pop() if len(canvas.domains) == 1 else UNKNOWN_DOMAIN,
        )
        return target, ~canvas.known & ~ignored


def _aimed(
    cells: NDArray[np.float64],
    span: NDArray[np.float64],
    take: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the corner (x, y) of a cut of size `take` out of `span` that holds a random cell."""
    x, y, width, height = cells[rng.integers(len(cells))]
    size = np.array([width, height])
    lowest = np.array([x, y]) + size - take
    start = lowest + rng.random(2) * (take - size)
    return np.asarray(np.clip(start, 0, np.maximum(span - take, 0)))


def _joined(
    values: Sequence[NDArray[np.float32] | None], counts: Sequence[int]
) -> NDArray[np.float32] | None:
    """Stack the pieces' attribute values; unknown for pieces without any."""
    width = next((v.shape[1] for v in values if v is not None), None)
    if width is None:
        return None
    rows = [
        np.zeros((n, width), np.float32) if v is None else v
        for v, n in zip(values, counts, strict=True)
    ]
    return np.concatenate(rows)


def known_points(
    region: Region,
    points: NDArray[np.float64],
    size: tuple[int, int],
    border: float,
    boxes: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return which points (n, 2) are supervised, in pixels of an image of a given size.

    A point must lie in the region, and `border` away from where the region ends within the picture
    or in one of the marked boxes (m, 4) x, y, w, h. The picture's own edge is no such border: what
    lies beyond it cannot be seen.
    """
    inside = region.contains(points)
    if not border:
        return inside
    deep = inside.copy()
    edge = np.array(size, dtype=float)
    for angle in np.arange(8) * (np.pi / 4):
        step = border * np.array([np.cos(angle), np.sin(angle)])
        deep[deep] = region.contains(np.clip(points[deep] + step, 1e-6, edge - 1e-6))
    x, y = points[:, :1], points[:, 1:]
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    in_box = (x > low[:, 0]) & (x < high[:, 0]) & (y > low[:, 1]) & (y < high[:, 1])
    return np.asarray(deep | (inside & in_box.any(axis=1)))
