"""Augment stain, optics and camera of a training crop, then normalise its colours.

A classifier for unseen microscopes must not learn the appearance of one microscope. The
augmentation varies stain, lens, lamp and sensor at random, in the order of the optical path; then
the colours get the distribution of a crop from another data set (`transfer`), and last they are
normalised as in analysis (`imaging.colour_normalisation`), with a small random deviation.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from bloodfilm.core.arrays import Floats32, Pixels
from bloodfilm.imaging.canonical import CROP_UM, DETECTOR_UM
from bloodfilm.imaging.colour_normalisation import (
    EXACT,
    ColourStandard,
    Jitter,
    balanced_lab,
    standardised,
)
from bloodfilm.imaging.resample import BACKGROUND

if TYPE_CHECKING:
    from bloodfilm.training.config import AppearanceSection, AugmentSection

Rng = np.random.Generator

REFERENCE_SIDE = 128
"""Side of a crop, px, that the widths of blurs are given for; they scale with it."""
_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_HED /= np.linalg.norm(_HED, axis=1, keepdims=True)
"""Absorption of haematoxylin, eosin and a residual (Ruifrok and Johnston 2001), rows, RGB."""
_TO_HED = np.linalg.inv(_HED)
CANONICAL_UNIT = CROP_UM / DETECTOR_UM
"""The same length in the detector's canonical pixels."""
LEVELS = 33
"""Quantiles of a colour profile."""
PROFILE_SIDE = 64
MILD = 0.3
"""Strength factor of mildly augmented crops."""


def vary_crop(
    crop: Pixels,
    rng: Rng,
    strength: "AppearanceSection",
    standard: ColourStandard,
    profile: Floats32 | None = None,
) -> Pixels:
    """Return a crop with augmented stain and optics, in standard colours.

    Args:
        crop: (S, S, 3), in original colours.
        rng: random generator.
        strength: of the stain and optics augmentation.
        standard: the colours of the result.
        profile: colour profile of another crop to transfer in part, see `colour_profile`.
    """
    factor = MILD if rng.random() < strength.mild else 1.0
    varied = crop.astype(np.float32)
    if strength.stain:
        varied = vary_stain(varied, rng, strength.stain * factor)
    if strength.optics:
        varied = vary_optics(varied, rng, strength.optics * factor)
    jitter = _random_jitter(rng, standard)
    lab = balanced_lab(_to_pixels(varied), standard, jitter)
    if profile is not None:
        lab = transfer_colours(lab, profile, rng.uniform(0.3, 1.0))
    return standardised(lab, standard, jitter)


def _random_jitter(rng: Rng, standard: ColourStandard) -> Jitter:
    """Return the random deviation of a training crop's normalisation."""
    red, green, blue = 1 + rng.normal(0, 0.012, 3)
    light, colour, turn = rng.normal(0, (0.08, 0.12, 0.12))
    turn = turn if standard.nucleus is not None else 0.0
    return Jitter((float(red), float(green), float(blue)), float(light), float(colour), float(turn))


def _to_pixels(image: Floats32) -> Pixels:
    pixels: Pixels = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return pixels


def vary_stain(image: Floats32, rng: Rng, strength: float) -> Floats32:
    """Return an image with changed absorption of the dyes (Beer-Lambert); clear glass is unchanged.

    Absorbance is raised to a power, its dyes weighed anew (Tellez et al., Medical Image Analysis
    2019), and its channels mixed.
    """
    white = measure_white(image)
    density = -np.log(np.clip(image / white, 0.004, 1.2))
    if rng.random() < 0.5:
        density = np.sign(density) * np.abs(density) ** np.exp(rng.uniform(-0.35, 0.35) * strength)
    mix = np.eye(3)
    if rng.random() < 0.7:
        mix = _TO_HED @ np.diag(np.exp(rng.normal(0, 0.3 * strength, 3))) @ _HED
    mix = mix @ (np.eye(3) + rng.normal(0, 0.1 * strength, (3, 3)))
    if rng.random() < 0.4 * strength:
        mix = mix @ (0.5 * np.eye(3) + 0.5 * rng.dirichlet(np.ones(3), 3).T)
    mix = mix * np.exp(rng.normal(0, 0.25 * strength))
    varied: Floats32 = white * np.exp(-(density.astype(np.float32) @ mix.astype(np.float32)))
    return varied


def measure_white(image: Floats32) -> Floats32:
    """Return the mean RGB of the brightest tenth of an image, sampled at every second pixel."""
    sampled = image[::2, ::2]
    brightness = sampled.sum(axis=2)
    place = int(brightness.size * 0.9)
    clear = brightness >= np.partition(brightness.ravel(), place)[place]
    white: Floats32 = np.maximum(sampled[clear].mean(axis=0), 8.0).astype(np.float32)
    return white


def vary_optics(image: Floats32, rng: Rng, strength: float, unit: float | None = None) -> Floats32:
    """Return an image with simulated lens, lamp and camera changes, in [0, 255].

    Fewer pixels, defocus with and without bright or dark halos, chromatic fringes, coloured
    shading, haze, the camera's curve and white balance, noise fine and coarse, sharpening, and
    JPEG, each at random.

    Args:
        image: (H, W, 3).
        rng: random generator.
        strength: factor on the chance of each part.
        unit: length that blurs, halos and fringes are measured in, px; `None` takes the image for
            a crop of `REFERENCE_SIDE` units.
    """
    unit = image.shape[0] / REFERENCE_SIDE if unit is None else unit
    for chance, part in (
        (0.30, _fewer_pixels),
        (0.45, _defocus),
        (0.25, _halo),
        (0.25, _fringes),
        (0.50, _shading),
        (0.30, _haze),
        (0.40, _curve),
        (0.40, _tint),
        (0.40, _noise),
        (0.20, _sharpen),
        (0.25, _jpeg),
    ):
        if rng.random() < chance * strength:
            image = part(image, rng, unit)
    return np.clip(image, 0, 255)


def vary_camera(image: Pixels, rng: Rng, strength: "AugmentSection") -> Pixels:
    """Return canonical pixels as a view of a cheaper camera's photograph would show them.

    The view finds the white point of what the camera makes and divides it out, mostly well.
    """
    factor = MILD if rng.random() < strength.mild else 1.0
    varied = vary_optics(image.astype(np.float32), rng, strength.optics * factor, CANONICAL_UNIT)
    balance = BACKGROUND / measure_white(varied)
    # Where a view has no clear glass to measure, some of the cast stays.
    share = 1.0 if rng.random() < 0.7 else rng.uniform(0, 1)
    gain = (1 + share * (balance - 1)).astype(np.float32)
    return _to_pixels(varied * gain)


def _blurred(image: Floats32, sigma: float) -> Floats32:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float32)


def _fewer_pixels(image: Floats32, rng: Rng, _unit: float) -> Floats32:
    height, width = image.shape[:2]
    across = rng.uniform(0.35, 0.9)
    down = float(np.clip(across * np.exp(rng.normal(0, 0.2)), 0.3, 1.0))
    small = cv2.resize(
        image, (int(width * across), int(height * down)), interpolation=cv2.INTER_AREA
    )
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, dtype=np.float32)


def _defocus(image: Floats32, rng: Rng, unit: float) -> Floats32:
    return _blurred(image, rng.uniform(0.3, 1.6) * unit + 0.05)


def _halo(image: Floats32, rng: Rng, unit: float) -> Floats32:
    edges = image - _blurred(image, rng.uniform(1.5, 4.0) * unit)
    return image + np.float32(rng.uniform(-0.5, 1.2)) * edges


def _fringes(image: Floats32, rng: Rng, unit: float) -> Floats32:
    height, width = image.shape[:2]
    moved = image.copy()
    for channel in (0, 2):
        shift, zoom = rng.normal(0, 0.9, 2) * unit, 1 + rng.normal(0, 0.006)
        matrix = np.array(
            [
                [zoom, 0, shift[0] + (1 - zoom) * width / 2],
                [0, zoom, shift[1] + (1 - zoom) * height / 2],
            ]
        )
        plane = np.ascontiguousarray(image[..., channel])
        moved[..., channel] = cv2.warpAffine(
            plane, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
        )
    return moved


def _shading(image: Floats32, rng: Rng, _unit: float) -> Floats32:
    slope = rng.normal(0, 0.08, (2, 3))
    y = np.linspace(-1, 1, image.shape[0])[:, None, None]
    x = np.linspace(-1, 1, image.shape[1])[None, :, None]
    return image * (1 + slope[0] * x + slope[1] * y).astype(np.float32)


def _haze(image: Floats32, rng: Rng, _unit: float) -> Floats32:
    share = np.float32(rng.uniform(0, 0.5))
    return image * (1 - share) + share * rng.uniform(150, 240, 3).astype(np.float32)


def _curve(image: Floats32, rng: Rng, _unit: float) -> Floats32:
    power = np.float32(np.exp(rng.normal(0, 0.25)))
    curved: Floats32 = 255 * (np.clip(image, 0, 255) / np.float32(255)) ** power
    return curved


def _tint(image: Floats32, rng: Rng, _unit: float) -> Floats32:
    return image * np.clip(1 + rng.normal(0, 0.12, 3), 0.6, 1.15).astype(np.float32)


def _noise(image: Floats32, rng: Rng, _unit: float) -> Floats32:
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 9))
    if rng.random() < 0.5:
        noise = _blurred(noise, 0.7) * np.float32(1.8)
    return image + noise


def _sharpen(image: Floats32, rng: Rng, _unit: float) -> Floats32:
    return image + np.float32(rng.uniform(0.2, 1.0)) * (image - _blurred(image, 1.0))


def _jpeg(image: Floats32, rng: Rng, _unit: float) -> Floats32:
    quality = int(rng.uniform(25, 85))
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.float32)


# ---- colours of another crop -------------------------------------------------------------------


def colour_profile(crop: Pixels, standard: ColourStandard) -> Floats32:
    """Return the distribution of a crop's colours: (3, 33) quantiles of its CIELAB channels.

    White-balanced, so that profiles of different lamps are comparable.
    """
    small = cv2.resize(crop, (PROFILE_SIDE, PROFILE_SIDE), interpolation=cv2.INTER_AREA)
    lab = balanced_lab(np.asarray(small, dtype=np.uint8), standard, EXACT)
    levels = np.quantile(lab.reshape(-1, 3), np.linspace(0, 1, LEVELS), axis=0)
    return np.asarray(levels.T, dtype=np.float32)


def transfer_colours(lab: Pixels, profile: Floats32, share: float) -> Pixels:
    """Return a crop in CIELAB whose colours are distributed partly as another crop's.

    Every channel is mapped by a monotone curve from its own quantiles to those of the profile
    (histogram matching), and mixed with what it was.

    Args:
        lab: (H, W, 3) from `balanced_lab`.
        profile: of the other crop.
        share: of the other's distribution; 1 replaces it.
    """
    values = np.arange(256.0)
    table = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        ordered = np.sort(lab[..., channel].ravel()[::7])
        own = ordered[np.linspace(0, len(ordered) - 1, LEVELS).astype(int)]
        rising = own + np.arange(LEVELS) * 1e-3
        mapped = (1 - share) * values + share * np.interp(values, rising, profile[channel])
        table[0, :, channel] = np.clip(mapped + 0.5, 0, 255)
    return np.asarray(cv2.LUT(lab, table), dtype=np.uint8)
