"""Varying the look of canonical pixels: dye, light, focus, sensor, orientation."""

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Pixels
from bloodfilm.training.config import AugmentSection

Rng = np.random.Generator
_WHITE = 245.0
_DENSE = 1.4
"""Density (natural logarithm) of a nucleus, about."""
_FOOT = 0.05


def vary_appearance(image: Pixels, rng: Rng, strength: AugmentSection) -> Pixels:
    """Return the image as another stain, lamp, lens and camera might have shown it.

    Args:
        image: (H, W, 3) canonical pixels, background 245.
        rng: source of all chance.
        strength: how far each part may go.
    """
    factor = 0.25 if rng.random() < strength.mild else 1.0
    out = _stain(image.astype(np.float32), rng, strength, factor)
    out = _light(out, rng, strength.light * factor)
    if strength.blur and rng.random() < 0.5:
        sigma = rng.uniform(0.2, 1.0) * strength.blur * factor
        if sigma > 0.15:
            out = cv2.GaussianBlur(out, (0, 0), sigma, borderType=cv2.BORDER_REFLECT).astype(
                np.float32
            )
    if strength.noise and rng.random() < 0.5:
        sigma = rng.uniform(0, strength.noise) * factor
        out += rng.standard_normal(out.shape, dtype=np.float32) * sigma
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def _stain(
    image: NDArray[np.float32], rng: Rng, strength: AugmentSection, factor: float
) -> NDArray[np.float32]:
    """Mix and scale absorption (Beer-Lambert); the clear background stays what it is."""
    reach = strength.stain * factor
    density = -np.log(np.clip(image, 1, 255) / _WHITE)
    if strength.contrast:
        density = _bend(density, float(np.exp(rng.uniform(-1, 0.35) * strength.contrast * factor)))
    mix = np.eye(3) + rng.normal(0, 0.35 * reach, (3, 3))
    gain = np.exp(rng.normal(0, 0.5 * reach, 3) + rng.normal(0, 0.4 * reach))
    if rng.random() < strength.permute:
        mix = mix[rng.permutation(3)]
    density = density @ (mix * gain[:, None]).T.astype(np.float32)
    out: NDArray[np.float32] = _WHITE * np.exp(-density)
    return out


def _bend(density: NDArray[np.float32], power: float) -> NDArray[np.float32]:
    """Raise density to a power; nuclei stay as dark, red cells come near them or fade.

    On some films red cells are nearly as dark as nuclei. The foot keeps the background's noise
    from being raised with them.
    """
    scaled = np.maximum(density, 0) / _DENSE + _FOOT
    bent: NDArray[np.float32] = (scaled**power - _FOOT**power) * (
        _DENSE / ((1 + _FOOT) ** power - _FOOT**power)
    )
    return bent


def _light(image: NDArray[np.float32], rng: Rng, strength: float) -> NDArray[np.float32]:
    """Tint, brightness and a gradient across the image."""
    if not strength:
        return image
    tint = 1 + rng.normal(0, 0.05 * strength, 3)
    bright = 1 + rng.normal(0, 0.08 * strength)
    height, width = image.shape[:2]
    slope = rng.normal(0, 0.06 * strength, 2)
    ramp = 1 + np.add.outer(
        np.linspace(-slope[0], slope[0], height), np.linspace(-slope[1], slope[1], width)
    )
    shaded: NDArray[np.float32] = image * (ramp[..., None] * (tint * bright)).astype(np.float32)
    return shaded


def random_orientation(rng: Rng) -> NDArray[np.float64]:
    """Return one of the square's eight symmetries as a 2x2 matrix (x, y)."""
    turn = [np.eye(2), np.array([[0, -1], [1, 0]]), -np.eye(2), np.array([[0, 1], [-1, 0]])]
    matrix = turn[rng.integers(4)]
    return matrix @ np.diag([-1, 1]) if rng.random() < 0.5 else matrix


def random_stretch(rng: Rng, strength: AugmentSection) -> NDArray[np.float64]:
    """Return a random scale and aspect ratio as a 2x2 diagonal matrix."""
    scale = rng.uniform(-strength.scale, strength.scale) - strength.shrink
    aspect = rng.uniform(-strength.aspect, strength.aspect) / 2
    return np.diag(np.exp([scale + aspect, scale - aspect]))


def transform_boxes(boxes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Carry (n, 4) x, y, w, h boxes through an affine map (2, 3) that keeps axes parallel."""
    if not len(boxes):
        return boxes.reshape(0, 4)
    first = boxes[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    second = (boxes[:, :2] + boxes[:, 2:]) @ matrix[:, :2].T + matrix[:, 2]
    low, high = np.minimum(first, second), np.maximum(first, second)
    return np.concatenate([low, high - low], axis=1)
