"""What cameras do to a drawn field: vignettes, stray light, halos, a round field on black."""

import cv2
import numpy as np

from imaging.drawing import ellipse

Image = np.ndarray


def vignetted(
    image: Image,
    fall: tuple[float, float, float] = (0.5, 0.25, 0.3),
    centre: tuple[float, float] = (0.55, 0.45),
) -> Image:
    """The image darker towards the middle by `fall` (natural logarithm) in each channel."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    distance = ((x + 0.5) / width - centre[0]) ** 2 + ((y + 0.5) / height - centre[1]) ** 2
    share = 1 - distance / distance.max()
    light = np.exp(-np.array(fall) * share[..., None])
    return np.clip(np.rint(image * light), 0, 255).astype(np.uint8)


def spotted(image: Image, centre: tuple[float, float], radius: float, gain: float) -> Image:
    """The image with a bright reflex: `gain` in its middle, gone at three radii."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot(x - centre[0], y - centre[1]) / radius
    light = 1 + (gain - 1) * np.exp(-(distance**2) / 2)
    return np.clip(np.rint(image * light[..., None]), 0, 255).astype(np.uint8)


def hazy(image: Image, white: tuple[int, int, int], veiling_glare: float) -> Image:
    """The image under stray light that is `veiling_glare` of the glass's light."""
    return np.clip(
        np.rint(image * (1 - veiling_glare) + veiling_glare * np.array(white)), 0, 255
    ).astype(np.uint8)


def on_black(image: Image, x: float, y: float, radius: float) -> Image:
    """The disc of the image that an eyepiece shows; its rim falls off, the rest is nearly black."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot(columns + 0.5 - x, rows + 0.5 - y)
    light = np.clip((radius - distance) / 2 + 0.5, 0, 1) * (1 - 0.3 * (distance / radius) ** 4)
    dark = np.array([14, 12, 16])
    return np.rint(dark + (image - dark) * light[..., None].clip(0, 1)).astype(np.uint8)


def nucleus(image: Image, x: float, y: float, size: float) -> None:
    """Draw a nucleated cell in place: pale cytoplasm round a dark violet nucleus."""
    ellipse(image, (x, y), (size, size), (1, 1, 0), (190, 170, 200))
    ellipse(image, (x, y), (0.7 * size, 0.7 * size), (1, 1, 0), (70, 25, 110))


def refractile(
    size: tuple[int, int] = (640, 640),
    cell: float = 40.0,
    white: tuple[int, int, int] = (170, 150, 150),
    count: int = 40,
    seed: int = 0,
) -> Image:
    """A field of pale red cells without pallor, each with a dark rim and a bright halo."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = np.full((height, width, 3), white, np.uint8)
    glass = np.array(white, dtype=float)
    placed: list[tuple[float, float]] = []
    for _ in range(4000):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        if len(placed) < count and all(np.hypot(x - a, y - b) > 1.6 * cell for a, b in placed):
            placed.append((x, y))
            grow = float(rng.normal(1, 0.04))
            for share, tone in ((1.16, 1.08), (1.0, 0.8), (0.86, 0.92)):
                colour = tuple(int(v) for v in np.clip(glass * tone, 0, 255))
                ellipse(image, (x, y), (cell * share, cell * share), (grow, grow, 0), colour)
    image = cv2.GaussianBlur(image, (0, 0), 1.2)
    return np.clip(np.rint(image + rng.normal(0, 2, image.shape)), 0, 255).astype(np.uint8)
