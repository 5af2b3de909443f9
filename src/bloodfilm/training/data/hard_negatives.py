"""Hard negatives for the classifier: crops of red cells, platelets and background.

A detector works at a coarser scale and sometimes detects a dark red cell as a nucleated one. The
classifier gets a crop of higher resolution; from these crops it learns to reject such detections.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.boxes import centres
from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.core.progress import Progress, track
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.training.config import HardNegativeSection
from bloodfilm.training.data.canonical_fields import CanonicalField, FieldLoader
from bloodfilm.training.data.cell_crops import STORE_SIZE, STORE_UM, warp
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.stain_augment import recolour, stain_vectors
from bloodfilm.training.vocabulary import Vocabulary

EMPTY_UM = 2.5
"""Minimum distance of a background place from the centre of every box."""
GROUND_SIZE = 160
"""Pixels of a stored crop, in its middle, that must show the film for something to be drawn on."""
MOST_BEYOND = 0.02
"""Most of these that may lie beyond the picture's edge."""
_TRIES = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HardNegatives:
    """Places, some of them nucleated cells, most of them not.

    Attributes:
        images: (n, 224, 224, 3) at 0.14 um/px, centred on the place.
        nucleated: (n,) whether a nucleated cell is in the middle.
        dyes: (n, 2, 3) what nuclei and red cells of its field absorb, NaN where unknown.
        weights: (n,) how often an epoch draws each.
    """

    images: NDArray[np.uint8]
    nucleated: NDArray[np.bool_]
    dyes: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.images)

    def grounds(self) -> NDArray[np.uint8]:
        """Return the crops, (n, 224, 224, 3), without a nucleated cell or an edge in the middle."""
        start = (STORE_SIZE - GROUND_SIZE) // 2
        middle = self.images[:, start : start + GROUND_SIZE, start : start + GROUND_SIZE]
        beyond = np.array([(crop == BACKGROUND).all(-1).mean() for crop in middle])
        return self.images[~self.nucleated & (beyond < MOST_BEYOND)]

    def varied(
        self,
        i: int,
        rng: np.random.Generator,
        section: HardNegativeSection,
        view: CropView,
    ) -> NDArray[np.uint8]:
        """Return one place, augmented, as input of the classifier."""
        image, dyes = self.images[i], self.dyes[i]
        if np.isfinite(dyes).all() and rng.random() < section.augment.recolour:
            image = recolour(image, dyes, rng)
        return view.varied(image, rng, augment=section.augment)


def load_hard_negatives(
    sourced: Sequence[SourcedField],
    vocabulary: Vocabulary,
    section: HardNegativeSection,
    seed: int,
    progress: Progress,
) -> HardNegatives:
    """Open every field and cut out its places: see `locate_hard_negatives`.

    A field that cannot be opened is reported and left out.

    Raises:
        ConfigError: if the places are all nucleated cells, or none is.
    """
    images, nucleated, dyes, weights = [], [], [], []
    loader, stains = FieldLoader(vocabulary, STORE_UM), vocabulary.stain_types
    for i in track(range(len(sourced)), progress, "places", len(sourced)):
        try:
            field = loader.load(sourced[i])
        except BloodfilmError as error:
            _log.warning("left out: %s", error)
            continue
        if _only_centred(sourced[i]):
            height, width = field.image.shape[:2]
            at, is_cell = (
                np.array([[width / 2, height / 2]]),
                np.array([_shows_cell(sourced[i], vocabulary)]),
            )
        else:
            rng = np.random.default_rng([seed, i])
            at, is_cell = locate_hard_negatives(field, vocabulary, section, rng)
        absorbed = None if stains is None else stain_vectors(field, stains)
        images += [cut_crop(field.image, place) for place in at]
        nucleated += is_cell.tolist()
        dyes += [np.full((2, 3), np.nan) if absorbed is None else absorbed] * len(at)
        weights += [sourced[i].repeat] * len(at)
    if len(set(nucleated)) < 2:
        raise ConfigError("hard negatives: their data must hold nucleated cells and other things")
    return HardNegatives(
        np.stack(images), np.array(nucleated, dtype=bool), np.stack(dyes), np.array(weights)
    )


def locate_hard_negatives(
    field: CanonicalField,
    vocabulary: Vocabulary,
    section: HardNegativeSection,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return places (n, 2) in a field known everywhere or in part, and which are nucleated cells.

    Every nucleated cell and every platelet, some red cells, and some places in the known region
    where nothing is boxed.
    """
    at = centres(field.boxes)
    known = field.region.contains(at) if len(at) else np.zeros(0, bool)
    at, types = at[known], field.type_ids[known]
    is_ruler = (
        np.zeros(len(types), bool)
        if vocabulary.ruler_id is None
        else (types == vocabulary.ruler_id)
    )
    few = rng.permutation(np.flatnonzero(is_ruler))[: section.red_cells]
    keep = np.sort(np.concatenate([np.flatnonzero(~is_ruler), few]))
    is_cell = types[keep] == vocabulary.classified_id
    empty = _empty_places(field, section.empty, rng)
    return np.concatenate([at[keep], empty]), np.concatenate([is_cell, np.zeros(len(empty), bool)])


def _empty_places(
    field: CanonicalField, count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    boxed = centres(np.concatenate([field.boxes, field.ignore]))
    if not len(boxed):
        return np.zeros((0, 2))
    height, width = field.image.shape[:2]
    tried = rng.uniform(0, 1, (count * _TRIES, 2)) * (width, height)
    distance = np.linalg.norm(tried[:, None] - boxed[None], axis=2).min(axis=1)
    free = (distance > EMPTY_UM / STORE_UM) & field.region.contains(tried)
    return np.asarray(tried[free][:count], dtype=np.float64)


def _only_centred(item: SourcedField) -> bool:
    """Whether of this picture only the cell in the middle is known."""
    return len(item.field.cells) == 1 and item.field.cells[0].box is None


def _shows_cell(item: SourcedField, vocabulary: Vocabulary) -> bool:
    return vocabulary.is_classified(item.field.cells[0].label, item.dataset.taxonomy)


def cut_crop(image: NDArray[np.uint8], at: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Cut a stored crop out of a picture at `STORE_UM`, centred on `at` (x, y)."""
    middle = (STORE_SIZE - 1) / 2
    # Pixel centres lie at whole numbers for the warp, at halves for boxes.
    matrix = np.array([[1, 0, middle - (at[0] - 0.5)], [0, 1, middle - (at[1] - 0.5)]])
    return warp(image, matrix, STORE_SIZE)
