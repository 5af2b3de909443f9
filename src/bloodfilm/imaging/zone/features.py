"""What one block of a slide shows of its film: cover, layers, single red cells, pallor, sharpness.

A block is looked at coarsely, a red cell is 15 px wide. Colours become absorbances (Beer-Lambert),
in units of one layer of red cells, along the colour that the red cells of the slide have, and apart
from it: nuclei, pen and stain deposits absorb light that red cells do not.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats32, Image

FEATURE_UM = 0.5
"""Micrometres per pixel at which blocks are looked at."""
PEEL_PX = 3
"""Pixels taken off all around cells, so that those that only touch come apart."""
CORE_UM2 = 15.9
"""Area of what is left of a red cell of 7.5 um."""
MIN_UM2 = 3.0
"""Smaller remains are platelets and dirt."""
PALLOR_UM2 = 12.0
"""Largest hole in a red cell that is its pallor; larger ones are glass that cells surround."""
PALLOR_FILL = 0.6
"""Share of its bounding box that it fills, at least: gaps between cells have corners."""
FOREGROUND = 0.4
"""Absorbance, in layers of red cells, from which on a pixel belongs to a cell."""
OTHER_COLOUR = 0.22
"""Absorbance apart from the red cells' colour, natural logarithm, of nuclei and pens."""
SINGLE = (0.35, 1.9)
"""Areas of the cores of single red cells, in `CORE_UM2`."""
ROUND = 0.66
"""Share of its bounding box that a round cell fills, at least; a disc fills 0.79."""
LONGEST = 1.5
NUCLEAR_SHARE = 0.06
PEN_UM2 = 600.0
"""Smallest area of one other colour that is no cell."""
OPAQUE = 3.0
"""Layers of red cells beyond which light is too little to tell."""


@dataclass(frozen=True)
class RedCellReference:
    """How one layer of red cells absorbs on a slide.

    Attributes:
        white: colour of empty glass, RGB.
        absorbance: natural logarithm, R, G, B, of the middle of a red cell.
    """

    white: tuple[float, float, float]
    absorbance: tuple[float, float, float]

    def split(self, image: Image) -> tuple[Floats32, Floats32]:
        """Return, for each pixel, layers of red cells, and absorbance of another colour."""
        ramp = np.maximum(np.arange(256, dtype=np.float32), 1.0)[:, None]
        glass = np.maximum(np.array(self.white, np.float32), 1.0)
        table = -np.log(ramp / glass).reshape(1, 256, 3).astype(np.float32)
        absorbed = np.asarray(cv2.LUT(image, table), dtype=np.float32)
        colour = np.array(self.absorbance, dtype=np.float32)
        length = max(float(np.linalg.norm(colour)), 1e-3)
        unit = colour / length
        along = np.asarray(absorbed @ unit, dtype=np.float32)
        apart = absorbed - along[..., None] * unit
        other = np.sqrt(np.einsum("hwc,hwc->hw", apart, apart))
        return along / length, np.asarray(other, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class BlockFeatures:
    """What a block shows.

    Attributes:
        covered: share of the block that cells cover.
        layers: mean layers of red cells where they are, nuclei left out.
        isolated: share of the red cells' area in cells that stand alone.
        singles: how many such cells there are.
        pallor: absorbance of the middle of such a cell as a share of its mean, their median.
        sharpness: of cells' edges, in layers of red cells; comparable within a slide.
        foreign: share of the block under pen, dirt and the like.
    """

    covered: float = 0.0
    layers: float = 0.0
    isolated: float = 0.0
    singles: int = 0
    pallor: float = 1.0
    sharpness: float = 0.0
    foreign: float = 0.0


def block_features(block: Image, reference: RedCellReference) -> BlockFeatures:
    """Measure a block (H, W, 3) at `FEATURE_UM` micrometres per pixel."""
    smooth = np.asarray(cv2.blur(block, (3, 3)), dtype=np.uint8)
    layers, other = reference.split(smooth)
    np.minimum(layers, OPAQUE, out=layers)
    coloured = (other > OTHER_COLOUR).astype(np.uint8)
    foreground = ((layers > FOREGROUND) | (coloured > 0)).astype(np.uint8)
    filled = _without_pallor(foreground)
    cores = cv2.erode(filled, _DISC, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    count, labels, found, centroids = cv2.connectedComponentsWithStats(cores, connectivity=4)
    stats = np.asarray(found, dtype=np.int32)
    if count < 2:
        return BlockFeatures()
    flat = labels.ravel()
    # Where nothing is glass, the first part, which is that of the glass, has no pixels.
    area = np.maximum(stats[:, cv2.CC_STAT_AREA], 1).astype(np.float64)
    nuclear = np.bincount(flat, coloured.ravel(), count) / area
    mean = np.bincount(flat, layers.ravel(), count) / area
    um2 = area * FEATURE_UM**2
    real = um2 > MIN_UM2
    real[0] = False
    foreign = real & (nuclear > NUCLEAR_SHARE) & (area * nuclear * FEATURE_UM**2 > PEN_UM2)
    red = real & (nuclear <= NUCLEAR_SHARE)
    edge = _at_edge(stats, block.shape)
    single = red & ~edge & _round(stats, um2)
    # What the edge cuts tells nothing if it is small, and is a clump if it is large.
    counted = red & ~(edge & (um2 < SINGLE[1] * CORE_UM2))
    at = np.clip(np.rint(centroids[single]).astype(int), 0, None)
    middle = layers[at[:, 1], at[:, 0]]
    pallor = float(np.median(middle / np.maximum(mean[single], 1e-3))) if single.any() else 1.0
    inside = red[labels]
    return BlockFeatures(
        covered=float(filled.mean() - foreign[labels].mean()),
        layers=float(layers[inside].mean()) if inside.any() else 0.0,
        isolated=float(area[single].sum() / max(area[counted].sum(), 1.0)),
        singles=int(single.sum()),
        pallor=pallor,
        sharpness=_sharpness(layers, inside),
        foreign=float(foreign[labels].mean()),
    )


_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * PEEL_PX + 1, 2 * PEEL_PX + 1))


def _without_pallor(foreground: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fill the round holes that the pallor of red cells leaves in the foreground."""
    outlines, tree = cv2.findContours(foreground, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    filled = foreground.copy()
    for number, outline in enumerate(outlines):
        if tree[0, number, 3] < 0:
            continue  # an outer outline
        area = cv2.contourArea(outline) * FEATURE_UM**2
        _, _, width, height = cv2.boundingRect(outline)
        if area < PALLOR_UM2 and area >= PALLOR_FILL * (width - 1) * (height - 1) * FEATURE_UM**2:
            cv2.drawContours(filled, outlines, number, 1, cv2.FILLED)
    return filled


def _at_edge(stats: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right = left + stats[:, cv2.CC_STAT_WIDTH]
    low = top + stats[:, cv2.CC_STAT_HEIGHT]
    return np.asarray((left <= 0) | (top <= 0) | (right >= shape[1]) | (low >= shape[0]))


def _round(stats: NDArray[np.int32], um2: NDArray[np.float64]) -> NDArray[np.bool_]:
    width = stats[:, cv2.CC_STAT_WIDTH].astype(np.float64)
    height = stats[:, cv2.CC_STAT_HEIGHT].astype(np.float64)
    # A picture without background has a background of no pixels.
    ratio = np.maximum(width, height) / np.maximum(np.minimum(width, height), 1)
    fill = stats[:, cv2.CC_STAT_AREA] / np.maximum(width * height, 1)
    low, high = SINGLE
    fits = (um2 > low * CORE_UM2) & (um2 < high * CORE_UM2)
    return np.asarray(fits & (ratio < LONGEST) & (fill > ROUND))


def _sharpness(layers: Floats32, inside: NDArray[np.bool_]) -> float:
    """Deviation of the Laplacian where red cells are; 0 without any."""
    if not inside.any():
        return 0.0
    where = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8))
    _, deviation = cv2.meanStdDev(cv2.Laplacian(layers, cv2.CV_32F), mask=where)
    return float(deviation[0, 0])
