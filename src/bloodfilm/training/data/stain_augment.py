"""Augment the colour of red cells, independent of that of nuclei.

What differs most between films is the colour of the red cells, from salmon over grey to slate
blue, pale or nearly as dark as nuclei; nuclei stay purple. Shuffling all colours at once would
train a model to ignore that difference. So an image is separated into the absorption of nuclei and
that of red cells (Beer-Lambert; Ruifrok and Johnston 2001), and only the second is changed.
"""

import numpy as np
from numpy.typing import NDArray

from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.imaging.stain import absorbance
from bloodfilm.training.data.canonical_fields import CanonicalField

StainVectors = NDArray[np.float64]
_RIDGE = 0.02
_MIN_ANGLE = 0.12
FAINTEST, DARKEST = 0.12, 1.3
"""Minimum and maximum absorbance (natural logarithm) of a red cell in its strongest channel."""


def stain_vectors(field: CanonicalField, types: tuple[int, int]) -> StainVectors | None:
    """Return the absorbance of nuclei and red cells of a field, (2, 3) natural-log RGB densities.

    Nuclei are the darkest quarter of the nucleated cells' boxes, red cells the middle of theirs.
    `None` where a field lacks one of them, or they absorb equally.

    Args:
        field: with its boxes.
        types: places of nucleated cells and red cells among the object types.
    """
    nuclei = _pixels(field, types[0], 1.0)
    red = _pixels(field, types[1], 0.6)
    if len(nuclei) < 50 or len(red) < 50:
        return None
    total = nuclei.sum(axis=1)
    dyes = np.stack(
        [np.median(nuclei[total >= np.quantile(total, 0.75)], axis=0), np.median(red, axis=0)]
    )
    directions = dyes / np.linalg.norm(dyes, axis=1, keepdims=True)
    angle = np.arccos(np.clip(directions[0] @ directions[1], -1, 1))
    return dyes if angle > _MIN_ANGLE and dyes.min() > 0 else None


def _pixels(field: CanonicalField, type_id: int, share: float) -> NDArray[np.float64]:
    """Return the densities (n, 3) of the middle share of every box of a type."""
    parts = [np.zeros((0, 3))]
    for box in field.boxes[field.type_ids == type_id]:
        w, h = box[2:] * share
        x, y = box[:2] + (box[2:] - (w, h)) / 2
        cut = field.image[int(max(y, 0)) : int(y + h) + 1 : 2, int(max(x, 0)) : int(x + w) + 1 : 2]
        parts.append(absorbance(cut.reshape(-1, 3), BACKGROUND))
    return np.concatenate(parts)


def recolour(
    image: NDArray[np.uint8], dyes: StainVectors, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the image with its red cells in a random colour and darkness.

    Args:
        image: (H, W, 3) canonical pixels.
        dyes: absorbance of its nuclei and red cells, see `stain_vectors`.
        rng: random generator.
    """
    density = absorbance(image, BACKGROUND).astype(np.float32)
    gram = dyes @ dyes.T + _RIDGE * np.eye(2)
    amounts = density @ (dyes.T @ np.linalg.inv(gram)).astype(np.float32)
    amounts = np.maximum(amounts, 0)
    rest = density - amounts @ dyes.astype(np.float32)
    colour = rng.uniform(0.15, 1.0, 3)
    strength = np.exp(rng.uniform(np.log(FAINTEST), np.log(DARKEST)))
    nucleus = dyes[0] * np.exp(rng.normal(0, 0.12, 3) + rng.normal(0, 0.15))
    new = np.stack([nucleus, colour / colour.max() * strength])
    density = amounts @ new.astype(np.float32) + rest * 0.5
    pixels: NDArray[np.uint8] = np.clip(BACKGROUND * np.exp(-density) + 0.5, 0, 255).astype(
        np.uint8
    )
    return pixels
