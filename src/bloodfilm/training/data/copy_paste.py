"""Copy-paste augmentation: annotated cells pasted where none is annotated.

Source: Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance
Segmentation, arXiv 2012.07177; here with boxes, so what is copied is the ellipse in the box.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Region
from bloodfilm.core.boxes import intersection
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.data.keys import Key
from bloodfilm.training.data.samplers import FieldCrop, Sampler

RIM = 0.2
"""A copy is blended from the ellipse in the cell's box to one larger by this share."""
TRIES = 5
"""Positions tried for a copy before it is skipped."""


class CopyPasteSampler:
    """Fields of another pool, with annotated cells of other fields pasted into them.

    Every annotated type is copied equally often, rotated and mirrored at random. A copy covers no
    annotated cell and no ignore box. The inside of its box is supervised; nothing else changes.

    Args:
        fields: where the cells are taken from.
        pool: fields to paste into.
        copies: mean number per field.
    """

    def __init__(self, fields: Sequence[CanonicalField], pool: Sampler, copies: float) -> None:
        self.pool, self.copies = pool, copies
        donors: dict[int, list[tuple[CanonicalField, int]]] = {}
        for field in fields:
            for i in np.flatnonzero(_whole(field)):
                donors.setdefault(int(field.type_ids[i]), []).append((field, int(i)))
        self.donors = [donors[kind] for kind in sorted(donors)]

    def pieces(self, key: Key, rng: np.random.Generator) -> Iterator[FieldCrop]:
        """Yield the other pool's pieces with copies in them."""
        for piece in self.pool.pieces(key, rng):
            yield FieldCrop(self._with_copies(piece.field, rng), piece.dyes)

    def _with_copies(self, field: CanonicalField, rng: np.random.Generator) -> CanonicalField:
        count = int(rng.poisson(self.copies)) if self.donors else 0
        if not count:
            return field
        field = replace(field, image=field.image.copy())
        for _ in range(count):
            donors = self.donors[int(rng.integers(len(self.donors)))]
            giver, cell = donors[int(rng.integers(len(donors)))]
            patch, rim = _cut(giver, cell, rng)
            corner = _place(field, patch.shape[:2], rng)
            if corner is not None:
                _paste(field.image, patch, rim, corner)
                field = _with_cell(field, giver, cell, _inner(patch, rim, corner))
        return field


def _whole(field: CanonicalField) -> NDArray[np.bool_]:
    """Return which boxes lie in the image with their rim."""
    height, width = field.image.shape[:2]
    rim = np.ceil(field.boxes[:, 2:] * RIM / 2)
    low, high = field.boxes[:, :2] - rim, field.boxes[:, :2] + field.boxes[:, 2:] + rim
    fits = (low >= 0).all(1) & (high <= [width, height]).all(1)
    return np.asarray(fits & (field.boxes[:, 2:] >= 4).all(1))


def _cut(
    field: CanonicalField, cell: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Crop a cell with its rim, in one of the square's eight symmetries.

    Returns:
        pixels (h, w, 3), and how much of them, left and top, is rim.
    """
    x, y, w, h = np.round(field.boxes[cell]).astype(int)
    across, down = (int(np.ceil(side * RIM / 2)) for side in (w, h))
    top, left = max(y - down, 0), max(x - across, 0)
    patch = field.image[top : y + h + down, left : x + w + across]
    quarters = int(rng.integers(4))
    patch = np.rot90(patch, quarters)
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    return patch, (across, down) if quarters % 2 == 0 else (down, across)


def _place(
    field: CanonicalField, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return a corner (x, y) where a patch of that size covers nothing annotated."""
    height, width = field.image.shape[:2]
    if size[0] > height or size[1] > width:
        return None
    taken = np.concatenate([field.boxes, field.ignore])
    for _ in range(TRIES):
        x = int(rng.integers(width - size[1] + 1))
        y = int(rng.integers(height - size[0] + 1))
        if not intersection(np.array([[x, y, size[1], size[0]]], float), taken).any():
            return x, y
    return None


def _paste(
    image: NDArray[np.uint8],
    patch: NDArray[np.uint8],
    rim: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    """Blend a patch into a picture, in place: the ellipse in the cell's box whole, then fading."""
    height, width = patch.shape[:2]
    half = np.array([width / 2 - rim[0], height / 2 - rim[1]])
    across = (np.arange(width) + 0.5 - width / 2) / half[0]
    down = (np.arange(height) + 0.5 - height / 2) / half[1]
    radius = np.hypot(across[None], down[:, None])
    share = np.clip((1 + RIM - radius) / RIM, 0, 1)[..., None]
    x, y = corner
    under = image[y : y + height, x : x + width]
    under[:] = np.round(share * patch + (1 - share) * under).astype(np.uint8)


def _inner(
    patch: NDArray[np.uint8], rim: tuple[int, int], corner: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the cell's box x, y, w, h of the pasted patch."""
    height, width = patch.shape[:2]
    (x, y), (across, down) = corner, rim
    return float(x + across), float(y + down), width - 2.0 * across, height - 2.0 * down


def _with_cell(
    field: CanonicalField,
    giver: CanonicalField,
    cell: int,
    box: tuple[float, float, float, float],
) -> CanonicalField:
    """Return the field with one more annotated cell, its box supervised."""
    values = field.values
    if values is not None or giver.values is not None:
        width = (values if values is not None else giver.values).shape[1]  # type: ignore[union-attr]
        said = np.zeros((len(field.boxes), width), np.float32) if values is None else values
        row = np.zeros(width, np.float32) if giver.values is None else giver.values[cell]
        values = np.vstack([said, row[None]])
    return replace(
        field,
        boxes=np.vstack([field.boxes, np.array(box)[None]]),
        type_ids=np.append(field.type_ids, giver.type_ids[cell]),
        region=Region.union([field.region, Region.rect(*box)]),
        values=values,
    )
