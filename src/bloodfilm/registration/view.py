"""A field prepared for registration: canonical scale, normalised stain, features."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.resample import BACKGROUND

SCALES = (0.2, 0.25, 0.32, 0.4, 0.5, 0.64, 0.8, 1.0)
"""Scales of registration, um per pixel; few, so that features are computed once per field."""
MAX_SIDE = 1000
MAX_FEATURES = 1500
FEW_PIXELS = 160
FINER = 3
LOCAL_UM = 2.5
FLAT = 0.03
CONTRAST = 48.0
_DENSITY = np.asarray(
    np.log(BACKGROUND) - np.log(np.clip(np.arange(256), 4, BACKGROUND).astype(np.float32)),
    dtype=np.float32,
)
"""Optical density of every brightness of 0 to 255."""

Choice = Callable[[NDArray[np.float32]], NDArray[np.intp]]


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Keypoints (n, 2), x and y of pixel indices, and their RootSIFT descriptors (n, 128).

    `angles` (n,) are their orientations, degrees, clockwise as displayed; empty where they are not
    needed. The strongest come first. RootSIFT: Arandjelovic & Zisserman, CVPR 2012, section 2.
    """

    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    angles: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class RegisteredView:
    """One field at `um_per_px`, with square pixels.

    Attributes:
        um_per_px: micrometres per pixel of `detail`.
        view: how the field maps to it.
        detail: (H, W) uint8, optical density with normalised local mean and contrast, 128 in
            the empty background: comparable across stains and cameras.
    """

    um_per_px: float
    view: CanonicalView
    detail: Pixels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.detail.shape[1], self.detail.shape[0]

    @property
    def from_original(self) -> Floats:
        """3x3, from the original's pixels to this view's (edges at whole numbers)."""
        width, height = self.size
        return np.diag([width / self.view.width, height / self.view.height, 1.0])

    @property
    def known_scale(self) -> bool:
        """Whether the scale is known rather than assumed."""
        return self.view.scale_source != "assumed"

    @cached_property
    def features(self) -> Keypoints:
        """SIFT features of the detail."""
        return find_features(self.detail)

    @cached_property
    def mirrored_features(self) -> Keypoints:
        """SIFT features of the detail, mirrored left to right."""
        return find_features(np.ascontiguousarray(self.detail[:, ::-1]))


def find_features(
    detail: Pixels, mask: Pixels | None = None, choose: Choice | None = None
) -> Keypoints:
    """SIFT keypoints with RootSIFT descriptors (Lowe, IJCV 2004).

    Args:
        detail: (H, W) uint8.
        mask: (H, W), not 0 where keypoints may lie; everywhere if left out.
        choose: returns which keypoints (n, 2), strongest first, to keep, rising; only those are
            described, which takes as long as finding them.
    """
    sift = cv2.SIFT.create(nfeatures=MAX_FEATURES, contrastThreshold=0.03)
    points = sift.detect(detail, np.ones_like(detail) if mask is None else mask)
    order = np.argsort([-p.response for p in points], kind="stable")
    positions = np.array([points[i].pt for i in order], dtype=np.float32).reshape(-1, 2)
    if choose is not None and len(order):
        kept = choose(positions)
        order, positions = order[kept], positions[kept]
    if not len(order):
        return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    described, found = sift.compute(detail, [points[i] for i in order])
    descriptors = np.asarray(found, dtype=np.float32)
    descriptors /= descriptors.sum(axis=1, keepdims=True) + 1e-7
    angles = np.array([p.angle for p in described], dtype=np.float32)
    return Keypoints(positions, np.sqrt(descriptors), angles)


def prepare_view(image: Pixels, view: CanonicalView, um_per_px: float) -> RegisteredView:
    """Prepare a field (H, W, 3) for registration at a scale."""
    rendered = view.render(image, um_per_px)
    red, green, blue = (cv2.LUT(channel, _DENSITY) for channel in cv2.split(rendered))
    total = red + green + blue
    sigma = LOCAL_UM / um_per_px
    centred = total - cv2.GaussianBlur(total, (0, 0), sigma)
    spread = np.sqrt(cv2.GaussianBlur(centred * centred, (0, 0), sigma))
    # Full normalisation would amplify background noise to the contrast of cells.
    floor = max(FLAT, 0.35 * float(np.percentile(spread, 90)))
    normalised = 128 + CONTRAST * centred / (spread + floor)
    return RegisteredView(um_per_px, view, np.clip(np.rint(normalised), 0, 255).astype(np.uint8))


class ImageCandidate:
    """One field with its canonical view; registered views are computed on demand and cached."""

    def __init__(self, image: Pixels, view: CanonicalView) -> None:
        self.image = image
        self.view = view
        self._views: dict[float, RegisteredView] = {}
        self._others: dict[tuple[float, float], ImageCandidate] = {}

    def at(self, um_per_px: float) -> RegisteredView:
        """The field at a scale."""
        if um_per_px not in self._views:
            self._views[um_per_px] = prepare_view(self.image, self.view, um_per_px)
        return self._views[um_per_px]

    def with_aspect_ratio(self, pixel_aspect_ratio: float) -> "ImageCandidate":
        """The same field with another pixel aspect ratio; its scale along y stays."""
        return self._other(self.view.um_per_px_y / pixel_aspect_ratio, self.view.um_per_px_y)

    def scaled(self, factor: float) -> "ImageCandidate":
        """The same field at another scale; its pixel aspect ratio stays."""
        return self._other(self.view.um_per_px_x * factor, self.view.um_per_px_y * factor)

    def _other(self, across: float, down: float) -> "ImageCandidate":
        """The same field at other micrometres per pixel; cached."""
        if (across, down) not in self._others:
            view = replace(self.view, um_per_px_x=across, um_per_px_y=down)
            self._others[across, down] = ImageCandidate(self.image, view)
        return self._others[across, down]


def common_scales(first: CanonicalView, second: CanonicalView) -> list[float]:
    """Scales at which to register two fields, of `SCALES`, the best one first.

    The coarser field limits the resolution; large fields use coarser scales. Finer scales follow
    for a field of few pixels: keypoints need a neighbourhood.
    """
    extents = [(v.width * v.um_per_px_x, v.height * v.um_per_px_y) for v in (first, second)]
    longest, shortest = max(max(e) for e in extents), min(min(e) for e in extents)
    native = max(float(np.sqrt(v.um_per_px_x * v.um_per_px_y)) for v in (first, second))
    wanted = max(native, longest / MAX_SIDE)
    best = next((s for s in SCALES if s >= 0.95 * wanted), wanted)
    finer = [s for s in reversed(SCALES) if longest / MAX_SIDE <= s < best]
    return [best, *(finer[:FINER] if shortest / best < FEW_PIXELS else [])]
