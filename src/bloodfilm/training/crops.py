"""Training crops for the reader: one known cell in the middle of each."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.attributes import Schema, known_values
from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM
from bloodfilm.imaging.open import open_image
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.training.augment import random_orientation, random_stretch, vary_look
from bloodfilm.training.config import AugmentSection
from bloodfilm.training.sources import Progress, SourcedField, training_view

SIZE = CROP_SIZE
STORE_UM = 0.14
STORE_SIZE = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crops:
    """Cells to read.

    Attributes:
        images: (n, 200, 200, 3) at 0.14 um/px, centred on the cell.
        allowed: (n, leaves) boolean: the leaves each label stands for.
        codes: (n, attributes) value index, -1 where unknown.
        weights: (n,) how often an epoch draws each.
        sizes: (n, 2) width and height of the cell's box in um, 0 where nobody drew one.
    """

    images: NDArray[np.uint8]
    allowed: NDArray[np.bool_]
    codes: NDArray[np.int64]
    weights: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)


def reader_leaves(taxonomy: Taxonomy) -> tuple[str, ...]:
    """Return the leaves the reader tells apart: those of nucleated cells."""
    return taxonomy.leaves_under("nucleated cell")


def label_groups(allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the sets of leaves (groups, leaves) that cells teach, larger ones first.

    A leaf that some cell names for certain is a group of its own. A label at a node above, none of
    whose leaves any cell names, teaches its leaves together: they are one group. A leaf in no group
    was never learnt.

    Args:
        allowed: (n, leaves) as in `Crops`.
    """
    labels = np.unique(allowed[allowed.any(1)], axis=0)
    labels = labels[np.argsort(-labels.sum(1), kind="stable")]
    alone = labels.sum(1) == 1
    certain = labels[alone].any(0)
    return np.asarray(labels[alone | ~(labels & certain).any(1)])


def load_crops(
    sourced: Sequence[SourcedField], schema: Schema, taxonomy: Taxonomy, progress: Progress
) -> Crops:
    """Open every field and cut out its nucleated cells.

    Cells that are ignored, unnamed or of another kind are left out; so is a field that cannot be
    opened (reported).

    Raises:
        ConfigError: if no cell is left.
    """
    leaves = reader_leaves(taxonomy)
    images, allowed, codes, weights, sizes = [], [], [], [], []
    for i in progress(range(len(sourced)), len(sourced), "cells"):
        item = sourced[i]
        cells = [
            c
            for c in item.field.cells
            if not c.ignore and c.label and taxonomy.is_under(c.label, "nucleated cell")
        ]
        if not cells:
            continue
        try:
            image = open_image(item.field.path)
            view = training_view(item.field, image)
        except BloodfilmError as error:
            _log.warning("left out: %s", error)
            continue
        middle = (image.shape[1] / 2, image.shape[0] / 2)
        boxes = [c.box for c in cells]
        at = [middle if b is None else (b[0] + b[2] / 2, b[1] + b[3] / 2) for b in boxes]
        images.append(view.crops(image, at, STORE_SIZE, STORE_UM))
        for cell in cells:
            allowed.append(taxonomy.leaf_mask(str(cell.label), leaves))
            values = schema.codes(known_values(schema, cell.attributes))
            codes.append([-1 if v is None else v for v in values])
            weights.append(item.repeat)
            box = cell.box
            sizes.append(
                (0.0, 0.0)
                if box is None
                else (box[2] * view.um_per_px_x, box[3] * view.um_per_px_y)
            )
    if not images:
        raise ConfigError("data: no cell with a class to learn in these splits")
    return Crops(
        np.concatenate(images),
        np.array(allowed, dtype=bool),
        np.array(codes, dtype=np.int64).reshape(len(allowed), -1),
        np.array(weights),
        np.array(sizes),
    )


def centred(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: int = SIZE
) -> NDArray[np.uint8]:
    """Warp a stored crop about its middle: `matrix` (2, 3) maps middle-relative stored pixels."""
    middle = (image.shape[1] - 1) / 2
    goal = (size - 1) / 2
    linear = matrix[:, :2]
    offset = matrix[:, 2] + goal - linear @ [middle, middle]
    warped = cv2.warpAffine(
        image,
        np.column_stack([linear, offset]),
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(BACKGROUND,) * 3,
    )
    return np.asarray(warped, dtype=np.uint8)


def plain_crop(image: NDArray[np.uint8], um_per_px: float = CROP_UM) -> NDArray[np.uint8]:
    """Return a stored crop as the runtime would cut it."""
    scale = STORE_UM / um_per_px
    return centred(image, np.array([[scale, 0, 0], [0, scale, 0.0]]))


def varied_crop(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    augment: AugmentSection,
    um_per_px: float = CROP_UM,
) -> NDArray[np.uint8]:
    """Return a stored crop turned, stretched, shifted and in another light."""
    linear = random_orientation(rng) @ random_stretch(rng, augment) * (STORE_UM / um_per_px)
    shift = rng.uniform(-1, 1, 2) * augment.shift * SIZE
    warped = centred(image, np.column_stack([linear, shift]))
    return vary_look(warped, rng, augment)
