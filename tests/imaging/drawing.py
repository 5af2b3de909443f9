"""Small synthetic fields for the tests of this folder: ellipses on a background, with noise."""

import cv2
import numpy as np

Image = np.ndarray


def field(
    size: tuple[int, int] = (640, 640),
    cell: tuple[float, float] = (40.0, 40.0),
    white: tuple[int, int, int] = (235, 228, 215),
    ink: tuple[int, int, int] = (205, 150, 140),
    count: int = 40,
    seed: int = 0,
) -> Image:
    """An RGB field (width, height = size) of `count` round cells, `cell` px wide and high.

    Cells vary by 6 % in size and 6 % in shape, have a pale centre, and never touch.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    image = np.full((height, width, 3), white, np.uint8)
    placed: list[tuple[float, float]] = []
    for _ in range(4000):
        if len(placed) == count:
            break
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        if all(np.hypot((x - a) / cell[0], (y - b) / cell[1]) > 1.35 for a, b in placed):
            placed.append((x, y))
            grow, shape, angle = rng.normal(1, 0.06), rng.normal(1, 0.06), rng.uniform(0, np.pi)
            ellipse(image, (x, y), cell, (grow * shape, grow / shape, angle), ink)
            pale = tuple(int(0.6 * i + 0.4 * w) for i, w in zip(ink, white, strict=True))
            ellipse(image, (x, y), cell, (0.35, 0.35, 0.0), pale)
    image = cv2.GaussianBlur(image, (3, 3), 0)
    noise = rng.normal(0, 2.0, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def ellipse(
    image: Image,
    centre: tuple[float, float],
    cell: tuple[float, float],
    form: tuple[float, float, float],
    colour: tuple[int, ...],
) -> None:
    """Draw, in place, an ellipse: the unit disc stretched, turned, then scaled by `cell`.

    Exact to a fraction of a pixel, edges anti-aliased; pixel i covers [i, i + 1).
    """
    a, b, angle = form
    reach = max(a, b) / 2
    x0, x1 = (int(centre[0] + sign * reach * cell[0] + sign * 2) for sign in (-1, 1))
    y0, y1 = (int(centre[1] + sign * reach * cell[1] + sign * 2) for sign in (-1, 1))
    x0, y0 = max(x0, 0), max(y0, 0)
    part = image[y0 : max(y1, 0), x0 : max(x1, 0)]
    rows, columns = np.mgrid[: part.shape[0], : part.shape[1]]
    u = (columns + x0 + 0.5 - centre[0]) / (cell[0] / 2)
    v = (rows + y0 + 0.5 - centre[1]) / (cell[1] / 2)
    along = (u * np.cos(angle) + v * np.sin(angle)) / a
    across = (v * np.cos(angle) - u * np.sin(angle)) / b
    distance = (1 - np.hypot(along, across)) * min(a * cell[0], b * cell[1]) / 2
    cover = np.clip(distance + 0.5, 0, 1)[..., None]
    part[:] = np.rint(part * (1 - cover) + np.array(colour) * cover).astype(np.uint8)
