"""Preprocessing of stored crops for a classifier: plain, or augmented for training."""

from dataclasses import dataclass

import cv2
import numpy as np

from bloodfilm.core.arrays import Floats32, Pixels
from bloodfilm.imaging.canonical import CROP_UM
from bloodfilm.imaging.colour_normalisation import ColourStandard, normalise
from bloodfilm.training.config import AppearanceSection, AugmentSection
from bloodfilm.training.data.appearance import vary_crop
from bloodfilm.training.data.augment import random_stretch
from bloodfilm.training.data.cell_crops import (
    SIZE,
    STORE_UM,
    augmented_crop,
    plain_crop,
    warp_centred,
)

Rng = np.random.Generator
DEFAULT_APPEARANCE, DEFAULT_AUGMENT = AppearanceSection(), AugmentSection()


@dataclass(frozen=True)
class CropView:
    """The view of a stored crop that a classifier gets.

    Attributes:
        um_per_px: its scale.
        standard: the colours its crops are brought to; `None` leaves them as the field's white
            balance made them.
        appearance: how hard training varies stain and optics, where there is a standard.
        augment: how far training varies geometry, and pixels where there is no standard.
    """

    um_per_px: float = CROP_UM
    standard: ColourStandard | None = None
    appearance: AppearanceSection = DEFAULT_APPEARANCE
    augment: AugmentSection = DEFAULT_AUGMENT

    def cut(self, image: Pixels) -> Pixels:
        """Return a stored crop at the classifier's scale, colours as they are stored."""
        return plain_crop(image, self.um_per_px)

    def plain(self, image: Pixels) -> Pixels:
        """Return a stored crop as the runtime would show it to the classifier."""
        crop = self.cut(image)
        return crop if self.standard is None else normalise(crop, self.standard)

    def varied(
        self,
        image: Pixels,
        rng: Rng,
        profile: Floats32 | None = None,
        augment: AugmentSection | None = None,
    ) -> Pixels:
        """Return a stored crop turned, stretched, shifted and in another light.

        Where there is a standard a crop is turned by any angle, and `appearance` takes the place
        of the pixel parts of `augment`.

        Args:
            image: a stored crop.
            rng: source of all chance.
            profile: colours of another crop to take over in part; needs a standard.
            augment: takes the place of the view's own.
        """
        augment = augment or self.augment
        if self.standard is None:
            return augmented_crop(image, rng, augment, self.um_per_px)
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        mirror = np.diag([-1.0 if rng.random() < 0.5 else 1.0, 1.0])
        linear = random_stretch(rng, augment) @ turn @ mirror * (STORE_UM / self.um_per_px)
        shift = np.clip(rng.normal(0, 0.5, 2), -1, 1) * augment.shift * SIZE
        matrix = np.column_stack([linear, shift])
        turned = warp_centred(image, matrix, SIZE, cv2.BORDER_REFLECT_101)
        return vary_crop(turned, rng, self.appearance, self.standard, profile)
