"""Drawn pictures of anything but a blood film."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from other_pictures import clouds

Image = np.ndarray
WIDTH, HEIGHT = 640, 480
SIZE = HEIGHT, WIDTH


def landscape(rng: np.random.Generator) -> Image:
    common, beta = clouds(rng, 1.2, SIZE), rng.uniform(0.9, 1.5)
    layers = [0.8 * common + 0.5 * clouds(rng, beta, SIZE) for _ in range(3)]
    return _image(128 + 45 * np.stack(layers, axis=-1), rng)


def gradient(rng: np.random.Generator) -> Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * x / WIDTH + np.sin(angle) * y / HEIGHT
    first, last = rng.uniform(60, 255, 3), rng.uniform(60, 255, 3)
    return _image(first + (last - first) * slope[..., None], rng)


def text(rng: np.random.Generator) -> Image:
    page = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
    for row in range(12):
        line = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz  "), 60))
        ink = tuple(int(v) for v in rng.integers(0, 120, 3))
        size = float(rng.uniform(0.5, 1))
        cv2.putText(page, line, (5, 30 + 38 * row), 0, size, ink, 1, cv2.LINE_AA)
    return page


def tissue(rng: np.random.Generator) -> Image:
    """A section in haematoxylin and eosin: violet nuclei, close together, in pink fibres."""
    fibres = np.clip(clouds(rng, 1.2, SIZE), -2, 2)[..., None]
    section = np.array([225, 150, 185]) + fibres * np.array([12, 22, 14])
    scale = rng.uniform(0.7, 1.6)
    for _ in range(int(520 / scale**2)):
        at = (rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT))
        axes = (2 * scale * rng.uniform(5, 11), 2 * scale * rng.uniform(4, 8))
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(mask, (at, axes, rng.uniform(0, 180)), 255, -1, cv2.LINE_AA)
        cover = mask[..., None] / 255 * rng.uniform(0.6, 0.95)
        section = section * (1 - cover) + (np.array([95, 60, 140]) + rng.normal(0, 14, 3)) * cover
    return _image(cv2.GaussianBlur(section, (0, 0), 1.0), rng)


def smear(rng: np.random.Generator) -> Image:
    """Squamous cells: large, thin, pink, each with a small round nucleus."""
    scene = np.full((HEIGHT, WIDTH, 3), [238.0, 236.0, 232.0])
    for y in range(50, HEIGHT - 20, 92):
        for x in range(50, WIDTH - 20, 92):
            at = (x + rng.normal(0, 6), y + rng.normal(0, 6))
            axes = (80 * rng.uniform(0.85, 1.1), 80 * rng.uniform(0.85, 1.1))
            pink = np.array([230, 165, 180]) + rng.normal(0, 6)
            turn = rng.uniform(0, 180)
            cv2.ellipse(scene, (at, axes, turn), pink.tolist(), -1, cv2.LINE_AA)
            cv2.ellipse(scene, (at, (22, 20), turn), (75, 65, 115), -1, cv2.LINE_AA)
    return _image(cv2.GaussianBlur(scene, (0, 0), 1.0), rng)


def still_life(rng: np.random.Generator) -> Image:
    scene = np.zeros((HEIGHT, WIDTH, 3))
    scene[:], scene[HEIGHT // 2 :] = rng.uniform(90, 230, 3), rng.uniform(40, 200, 3)
    for _ in range(20):
        colour = tuple(float(v) for v in rng.uniform(0, 255, 3))
        corners = rng.uniform([0, 0], [WIDTH, HEIGHT], (5, 2)).astype(np.int32)
        cv2.fillPoly(scene, [corners], colour)
    return _image(cv2.GaussianBlur(scene, (0, 0), 1.2), rng)


def _image(values: Image, rng: np.random.Generator) -> Image:
    return np.clip(np.rint(values + rng.normal(0, 3, values.shape)), 0, 255).astype(np.uint8)


PICTURES: dict[str, Callable[[np.random.Generator], Image]] = {
    "landscape": landscape,
    "text": text,
    "tissue": tissue,
    "smear": smear,
    "still life": still_life,
}
