"""Crops of drawn cells with the masks of cell and nucleus: what the outline network learns from.

Nobody has to mark an outline: a drawn film knows to the pixel what belongs to a cell and to its
nucleus. A crop is cut by the cell's box, as analysis cuts it by a detected one: the longer side of
the box, in micrometres, has always the same length, so that the network needs no scale.
"""

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Pixels
from bloodfilm.core.field import Box
from bloodfilm.core.progress import Progress, track
from bloodfilm.imaging.resample import BACKGROUND, box_step, window
from bloodfilm.synthetic.ground_truth import GroundTruth
from bloodfilm.synthetic.profiles import (
    PROFILES,
    AcquisitionProfile,
    random_profile,
    vary_profile,
)
from bloodfilm.synthetic.render import render_field
from bloodfilm.synthetic.scene import SceneSpec
from bloodfilm.training.data.cell_crops import warp_centred
from bloodfilm.training.data.outline_variation import add_plasma, bend, vary_cytoplasm

if TYPE_CHECKING:
    from bloodfilm.training.config import OutlinesSection

STORED = 144
"""Side of a stored crop, px."""
STORED_SHARE = 0.55
"""Length of a box's longer side, as a share of a stored crop."""
FIELD = 420
"""Side of a drawn field, px."""
SCALE = (0.08, 0.22)
"""Range of the drawn fields' scales, um per px."""
CELL_AREA = (250.0, 900.0)
"""Range of the glass per nucleated cell, um2: crowded cells touch."""
MOST_CELLS = 14
NAMED_SHARE = 0.3
"""Share of the fields in the look of a named profile instead of a random one."""
FEW_PIXELS = 60
"""Cells of which less is left in the field are not learnt from."""
CUT = 0.1
HALF = 127

Rng = np.random.Generator


@dataclass(frozen=True)
class OutlineCrops:
    """Crops of drawn cells.

    Attributes:
        images: (n, STORED, STORED, 3) in the colours of their field.
        masks: (n, STORED, STORED, 2) cell and nucleus, 255 inside, between at the border.
    """

    images: Pixels
    masks: Pixels

    def __len__(self) -> int:
        return len(self.images)


def draw_outline_crops(
    count: int, seed: int, progress: Progress, what: str = "drawing cells"
) -> OutlineCrops:
    """Draw cells of every class in many looks and scales, alone and in crowds.

    Args:
        count: number of crops.
        seed: of all chance; the same seed gives the same crops.
        progress: of the drawing.
        what: is drawn, for the progress.
    """
    images = np.empty((count, STORED, STORED, 3), np.uint8)
    masks = np.empty((count, STORED, STORED, 2), np.uint8)
    drawn = (
        cell
        for number in itertools.count()
        for cell in _drawn_field(np.random.default_rng([seed, number]))
    )
    for i in track(range(count), progress, what, count):
        images[i], masks[i] = next(drawn)
    return OutlineCrops(images, masks)


def _drawn_field(rng: Rng) -> list[tuple[Pixels, Pixels]]:
    """Return crops and masks of the nucleated cells of one drawn field."""
    profile = _profile(rng)
    area = profile.width * profile.um_x * profile.height * profile.um_per_px
    whites = int(np.clip(area / rng.uniform(*CELL_AREA), 2, MOST_CELLS))
    erythroblasts = int(rng.random() < NAMED_SHARE)
    spec = SceneSpec(whites=whites, mix="even", erythroblasts=erythroblasts, cut=CUT)
    image, truth = render_field(profile, spec, seed=int(rng.integers(2**31)))
    return [
        cut_drawn(image, truth, index, (profile.um_x, profile.um_per_px))
        for index, seen in enumerate(truth.visible)
        if seen.item.kind in ("white", "erythroblast")
        and not seen.ignore
        and truth.mask(index).sum() >= FEW_PIXELS
    ]


def _profile(rng: Rng) -> AcquisitionProfile:
    """Return the look and scale of a field."""
    scale = float(np.exp(rng.uniform(*np.log(SCALE))))
    if rng.random() < NAMED_SHARE:
        named = PROFILES[str(rng.choice(list(PROFILES)))]
        # A name's own scale may be too coarse to draw an outline at.
        scale = min(named.um_per_px, SCALE[1])
        return replace(vary_profile(named, rng), width=FIELD, height=FIELD, um_per_px=scale)
    return replace(random_profile(rng, FIELD, FIELD), um_per_px=scale)


def cut_drawn(
    image: Pixels,
    truth: GroundTruth,
    index: int,
    um_per_px: tuple[float, float],
    box: Box | None = None,
    size: int = STORED,
    share: float = STORED_SHARE,
) -> tuple[Pixels, Pixels]:
    """Return crop (size, size, 3) and masks (size, size, 2) of `truth.visible[index]`.

    Args:
        image: the field.
        truth: what is on it.
        index: of a nucleated cell.
        um_per_px: of the field, along x and y.
        box: to cut by, instead of the cell's own.
        size: of the crop, px.
        share: of its side that the box's longer side takes.
    """
    own = truth.mask(index)
    mask = np.zeros((*own.shape, 3), np.uint8)
    mask[..., 0], mask[..., 1] = own * 255, (own & truth.nuclei) * 255
    x, y, w, h = box or truth.visible[index].box
    step = box_step((w, h), um_per_px, share * size)
    crop = np.full((size, size, 3), BACKGROUND, np.uint8)
    drawn = np.zeros((size, size, 3), np.uint8)
    for target, source in ((crop, image), (drawn, mask)):
        patch, where = window(source, (x + w / 2, y + h / 2), step, size)
        target[where] = patch
    return crop, drawn[..., :2]


def varied_crop(
    image: Pixels, mask: Pixels, rng: Rng, *, size: int, share: float, section: "OutlinesSection"
) -> tuple[Pixels, Pixels]:
    """Return a stored crop and its masks turned, deformed and cut by a box with errors, alike.

    The crop is cut anew by the box of the deformed cell, as a detector would give it. Cytoplasm
    and glass are varied as well.

    Args:
        image, mask: as stored.
        rng: source of all chance.
        size: of the result, px.
        share: of its side that the box's longer side takes, on average.
        section: how strongly.
    """
    if section.bend:
        image, mask = bend(image, mask, rng, section.bend * STORED_SHARE)
    turns = [_rotation(angle) for angle in rng.uniform(0, 2 * np.pi, 2)]
    longer = np.exp(rng.normal(0, section.deform))
    mirror = np.diag([-1.0 if rng.random() < 0.5 else 1.0, 1.0])
    linear = turns[0] @ np.diag([longer, 1 / longer]) @ turns[1] @ mirror
    low, high = _extent(mask, linear)
    aspect = np.exp(rng.normal(0, section.stretch / 2))
    scale = size * share / max(high - low) * np.exp(rng.normal(0, section.stretch))
    stretch = scale * np.diag([aspect, 1 / aspect])
    shift = rng.normal(0, section.shift, 2) * share * size
    matrix = np.column_stack([stretch @ linear, shift - stretch @ ((low + high) / 2)])
    crop, inside = _warped(image, mask, matrix, size)
    if rng.random() < section.cytoplasm:
        crop = vary_cytoplasm(crop, inside, rng)
    if rng.random() < section.plasma:
        crop = add_plasma(crop, inside, rng)
    return crop, inside


def _warped(
    image: Pixels, mask: Pixels, matrix: NDArray[np.float64], size: int
) -> tuple[Pixels, Pixels]:
    """Return a stored crop and its masks mapped by `matrix` (2, 3) about their middle."""
    return (
        warp_centred(image, matrix, size, cv2.BORDER_REFLECT_101),
        warp_centred(mask, matrix, size, cv2.BORDER_REPLICATE),
    )


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _extent(
    mask: Pixels, linear: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of the cell's box after a linear map about the middle of its crop."""
    rows, columns = np.nonzero(mask[::2, ::2, 0] > HALF)
    middle = (mask.shape[0] - 1) / 2
    points = (np.stack([columns, rows]) * 2 - middle).T @ linear.T
    if not len(points):
        return np.full(2, -middle), np.full(2, middle)
    return points.min(axis=0), points.max(axis=0)


def plain_crop(image: Pixels, mask: Pixels, *, size: int, share: float) -> tuple[Pixels, Pixels]:
    """Return a stored crop and its masks as analysis would cut them."""
    matrix = np.column_stack([np.eye(2) * size * share / (STORED * STORED_SHARE), np.zeros(2)])
    return _warped(image, mask, matrix, size)
