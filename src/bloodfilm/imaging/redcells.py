"""Find whole, single red cells by their outline: the ruler of a field.

No learning and no colour rule: whatever absorbs light is foreground; blobs that stand alone, are
convex and fill their ellipse of inertia are candidates; the commonest size and darkness among
them, weighted by area, are the red cells. White cells, platelets, dust and clumps fall outside.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

WORK_SIDE = 720
MIN_DIAMETER = 7.0
MIN_SOLIDITY = 0.94
MIN_ELLIPTICITY = 0.965
MAX_ASPECT = 3.0
SIZE_BANDWIDTH = 0.09
DARKNESS_BANDWIDTH = 0.25
SIZE_GATE = 0.25
DARKNESS_GATE = 0.5


@dataclass(frozen=True, eq=False)
class RedCells:
    """Outlines taken for whole red cells, in pixels of the image they were found in.

    `centres` (n, 2); `moments` (n, 3): second central moments xx, yy, xy of the filled outline
    (a disc of diameter d has xx = yy = d^2 / 16). `candidates` counts all single round blobs.
    """

    centres: Floats
    moments: Floats
    candidates: int


def background_colour(image: Pixels) -> tuple[float, float, float]:
    """RGB of empty glass: the commonest colour of the bright part of the image (H, W, 3).

    Blood only absorbs, so empty glass is the bright peak of the sum of channels. The bright part
    is what Otsu's threshold (IEEE Trans. SMC 1979) splits off.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    histogram = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    smooth = np.convolve(histogram, np.ones(5) / 5, mode="same")
    cut = otsu(histogram)
    peak = cut + 1 + int(np.argmax(smooth[cut + 1 :])) if cut < 255 else 255
    chosen = cv2.inRange(grey, max(peak - 4, 0), min(peak + 4, 255))
    colour = []
    for channel in cv2.split(image):
        counts = cv2.calcHist([channel], [0], chosen, [256], [0, 256]).ravel().astype(np.float64)
        colour.append(_histogram_median(counts))
    return colour[0], colour[1], colour[2]


def otsu(histogram: Floats) -> int:
    """Last bin of the lower class by Otsu's criterion, middle of a plateau of equal optima."""
    weights = histogram / max(histogram.sum(), 1.0)
    omega = np.cumsum(weights)
    mu = np.cumsum(weights * np.arange(len(weights)))
    spread = omega * (1.0 - omega)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.where(spread > 1e-12, (mu[-1] * omega - mu) ** 2 / spread, 0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return int(best[len(best) // 2])


def _histogram_median(counts: Floats) -> float:
    """Median of binned integers, interpolated inside its bin."""
    cumulative = np.cumsum(counts)
    half = cumulative[-1] / 2
    at = int(np.searchsorted(cumulative, half))
    if cumulative[-1] == 0 or counts[at] == 0:
        return 255.0
    before = cumulative[at] - counts[at]
    return float(np.clip(at - 0.5 + (half - before) / counts[at], 0, 255))


def absorption(image: Pixels, white: tuple[float, float, float]) -> Pixels:
    """How much darker than the background a pixel is: 255 (1 - p / white), largest channel."""
    ramp = np.arange(256, dtype=np.float64)[:, None]
    table = 255.0 * (1.0 - ramp / np.maximum(np.array(white), 1.0)[None, :])
    lut = np.clip(np.rint(table), 0, 255).astype(np.uint8).reshape(1, 256, 3)
    red, green, blue = cv2.split(cv2.LUT(image, lut))
    return np.asarray(cv2.max(cv2.max(red, green), blue))


def find_red_cells(image: Pixels, white: tuple[float, float, float]) -> RedCells:
    """Whole single red cells of a field (H, W, 3), given its background colour."""
    scale = min(1.0, WORK_SIDE / max(image.shape[:2]))
    small = image
    if scale < 1.0:
        small = np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        )
    factors = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
    found = _best_blobs(absorption(small, white))
    table = found[_dominant(found)]
    stretch = np.array([factors[0] ** 2, factors[1] ** 2, factors[0] * factors[1]])
    return RedCells(table[:, :2] * factors, table[:, 2:5] * stretch, len(found))


def _best_blobs(dark: Pixels) -> Floats:
    """Candidate blobs at the threshold, of two, that shows the more area of single round cells.

    Pale red cells beside dark nuclei make Otsu split nuclei from the rest; splitting the lower
    class again then finds the red cells.
    """
    dark = np.asarray(cv2.GaussianBlur(dark, (3, 3), 0))
    histogram = np.bincount(dark.ravel(), minlength=256).astype(np.float64)
    upper = otsu(histogram)
    lower = otsu(histogram[: upper + 1])
    best = np.zeros((0, 6))
    for level in {upper, lower}:
        found = blobs(dark, level)
        if _area(found[_dominant(found)]) > _area(best[_dominant(best)]):
            best = found
    return best


def _area(table: Floats) -> float:
    return float(np.sqrt(table[:, 2] * table[:, 3] - table[:, 4] ** 2).sum())


def blobs(dark: Pixels, level: int) -> Floats:
    """Single round blobs above `level`: (n, 6) x, y, xx, yy, xy, mean darkness."""
    height, width = dark.shape
    mask = cv2.threshold(dark, level, 255, cv2.THRESH_BINARY)[1]
    mask = cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    )
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    rows = []
    for contour in contours:
        if len(contour) < 2 * MIN_DIAMETER:
            continue
        x, y, w, h = cv2.boundingRect(contour)
        if x <= 1 or y <= 1 or x + w >= width - 1 or y + h >= height - 1:
            continue
        shape = _round(contour)
        if shape is not None:
            window = dark[y : y + h, x : x + w]
            inside = mask[y : y + h, x : x + w]
            rows.append((*shape, cv2.mean(window, inside)[0]))
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def _round(contour: cv2.typing.MatLike) -> tuple[float, float, float, float, float] | None:
    """Centre and second moments of an outline that is convex and elliptical, else None."""
    m = cv2.moments(contour)
    area = m["m00"]
    if area < MIN_DIAMETER**2 / 2:
        return None
    hull = cv2.contourArea(cv2.convexHull(contour))
    if area < MIN_SOLIDITY * hull:
        return None
    xx, yy, xy = m["mu20"] / area, m["mu02"] / area, m["mu11"] / area
    determinant = xx * yy - xy * xy
    # An ellipse has area 4 pi sqrt(det) whatever its axes; every other shape has less.
    if determinant <= 0 or area < MIN_ELLIPTICITY * 4 * np.pi * np.sqrt(determinant):
        return None
    if max(xx, yy) > MAX_ASPECT**2 * min(xx, yy):
        return None
    # The outline runs through the centres of edge pixels, half a pixel inside on either side.
    grow_x, grow_y = 1 + 0.25 / np.sqrt(xx), 1 + 0.25 / np.sqrt(yy)
    centre = m["m10"] / area, m["m01"] / area
    return *centre, xx * grow_x**2, yy * grow_y**2, xy * grow_x * grow_y


def _dominant(table: Floats) -> NDArray[np.bool_]:
    """Which blobs (n, 6) belong to the commonest size and darkness, weighted by area."""
    if len(table) == 0:
        return np.zeros(0, dtype=np.bool_)
    root = np.sqrt(np.sqrt(table[:, 2] * table[:, 3] - table[:, 4] ** 2))
    size, tone = np.log(root), np.log(np.maximum(table[:, 5], 1.0))
    size_gap = size[:, None] - size[None, :]
    tone_gap = tone[:, None] - tone[None, :]
    near = np.exp(-0.5 * (size_gap / SIZE_BANDWIDTH) ** 2)
    near *= np.exp(-0.5 * (tone_gap / DARKNESS_BANDWIDTH) ** 2)
    peak = int(np.argmax(near @ root**2))
    centre = np.median(size[np.abs(size_gap[peak]) < 2 * SIZE_BANDWIDTH])
    gate: NDArray[np.bool_] = np.abs(size - centre) < SIZE_GATE
    return gate & (np.abs(tone_gap[peak]) < DARKNESS_GATE)
