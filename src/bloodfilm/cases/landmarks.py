"""What recognises a field among the fields of a film: keypoints, a thumbnail, a detail image.

Everything is in micrometres of the field's own plane, so that fields of one film differ by a
rotation and a shift only, whatever the camera did to scale, aspect and light.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Image, Pixels
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.imaging.canonical import DETECTOR_UM, CanonicalView
from bloodfilm.imaging.sources import ImageSource, read_whole
from bloodfilm.registration.view import find_features, prepare_view

SCALE_UM = 0.4
"""Scale of comparison, um per pixel: a nucleus has some twenty pixels."""
KEYPOINT_UM = 0.5
"""Scale at which keypoints are found, if that of comparison is finer: half as many pixels."""
LONGEST_PX = 1500
"""Longest side of a detail image; larger fields are compared at a coarser scale."""
MAX_KEYPOINTS = 320
ALL_KEYPOINTS = 220_000
"""Keypoints of all fields of a case together: what is compared with each other stays bounded."""
BUCKET_UM = 18.0
"""Keypoints are taken evenly from squares of this size, so that a narrow overlap has some."""
RIM_UM = 3.0
"""Margin inside a round field, whose rim would look alike in all fields."""
THUMBNAIL = 24
DETAILS_KEPT = 192
KNOWN_BYTES = 64 << 20
"""Of details that are kept from looking at the fields, so that these need not be opened again."""


@dataclass(frozen=True, eq=False)
class FieldDetail:
    """A field in comparable form: `detail` (H, W), and `mask`, 255 where it shows the film."""

    detail: Pixels
    mask: Pixels


@dataclass(frozen=True, eq=False)
class FieldLandmarks:
    """What one field is recognised by.

    Attributes:
        size_um: width and height, um.
        points: (n, 2) of the keypoints, um from the top left corner.
        angles: (n,) of the keypoints, radians.
        descriptors: (n, 128) RootSIFT, 255 for 1.
        thumbnail: (THUMBNAIL**2,) of the detail, of unit length and mean 0.
        digest: of the decoded pixels.
    """

    size_um: tuple[float, float]
    points: Floats
    angles: Floats
    descriptors: NDArray[np.uint8]
    thumbnail: NDArray[np.float32]
    digest: str


def common_scale(results: Sequence[FieldResult]) -> float:
    """Return the scale at which fields are compared, um per pixel."""
    views = [r.view for r in results]
    coarsest = max(max(v.um_per_px_x, v.um_per_px_y) for v in views)
    longest = max(max(v.width * v.um_per_px_x, v.height * v.um_per_px_y) for v in views)
    return max(SCALE_UM, min(coarsest, 2 * SCALE_UM), longest / LONGEST_PX)


def field_detail(image: Image, result: FieldResult, um_per_px: float) -> FieldDetail:
    """Bring a field to the form in which fields are compared."""
    view = CanonicalView.from_record(result.view)
    detail = prepare_view(image, view, um_per_px).detail
    height, width = detail.shape
    if view.round_field is None:
        return FieldDetail(detail, _whole_mask(height, width))
    inside = view.round_field.mask_of(
        (0.0, 0.0, float(view.width), float(view.height)), width, height
    )
    margin = max(1, round(RIM_UM / um_per_px))
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    mask = np.asarray(cv2.erode(inside.astype(np.uint8) * 255, kernel), dtype=np.uint8)
    detail[mask == 0] = 128
    return FieldDetail(detail, mask)


@lru_cache(maxsize=8)
def _whole_mask(height: int, width: int) -> Pixels:
    """Return the mask of a field that shows the film everywhere; not to be written to."""
    mask = np.full((height, width), 255, np.uint8)
    mask.setflags(write=False)
    return mask


def find_landmarks(
    found: FieldDetail, um_per_px: float, keypoints: int, digest: str
) -> FieldLandmarks:
    """Return what a field is recognised by.

    Args:
        found: its detail, see `field_detail`.
        um_per_px: of the detail, see `common_scale`.
        keypoints: the most to keep.
        digest: of its decoded pixels.
    """
    height, width = found.detail.shape
    size = width * um_per_px, height * um_per_px
    coarse = _coarser(found, um_per_px / KEYPOINT_UM)
    step = np.divide(size, coarse.detail.shape[::-1])

    def in_um(points: NDArray[np.float32]) -> Floats:
        return np.asarray((points.astype(np.float64) + 0.5) * step)

    features = find_features(
        coarse.detail, coarse.mask, lambda points: _spread(in_um(points), keypoints)
    )
    return FieldLandmarks(
        size_um=size,
        points=in_um(features.points),
        angles=np.radians(features.angles.astype(np.float64)),
        descriptors=np.rint(features.descriptors * 255).astype(np.uint8),
        thumbnail=_thumbnail(found.detail),
        digest=digest,
    )


def _coarser(found: FieldDetail, factor: float) -> FieldDetail:
    """Return a field in fewer pixels; as it is for a factor of 1 or more."""
    if factor >= 1:
        return found
    height, width = found.detail.shape
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return FieldDetail(
        np.asarray(cv2.resize(found.detail, size, interpolation=cv2.INTER_AREA), dtype=np.uint8),
        np.asarray(cv2.resize(found.mask, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8),
    )


def _spread(points: Floats, most: int) -> NDArray[np.intp]:
    """Return the numbers of keypoints to keep, strongest first in every square in turn."""
    if len(points) <= most:
        return np.arange(len(points))
    squares = np.floor(points / BUCKET_UM).astype(np.int64)
    key = squares[:, 0] * 100_000 + squares[:, 1]
    order = np.argsort(key, kind="stable")
    rank = np.empty(len(points), np.int64)
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    sizes = np.diff([*starts, len(points)])
    rank[order] = np.arange(len(points)) - np.repeat(starts, sizes)
    return np.sort(np.lexsort((np.arange(len(points)), rank))[:most])


def _thumbnail(detail: Pixels) -> NDArray[np.float32]:
    small = cv2.resize(detail, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    flat = np.asarray(small, dtype=np.float32).ravel()
    flat = flat - flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6))


def cell_sharpness(image: Image, result: FieldResult, cells: Sequence[CellResult]) -> list[float]:
    """Return how sharp cells are: variance of the Laplacian over a box in the detector's view.

    Args:
        image: the field's pixels.
        result: of its analysis.
        cells: of it.
    """
    view = CanonicalView.from_record(result.view)
    rendered = view.render(image)
    edges = cv2.Laplacian(cv2.cvtColor(rendered, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
    height, width = edges.shape
    found = []
    for x, y, w, h in view.to_canonical([c.box for c in cells], DETECTOR_UM).tolist():
        left, top = int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1))
        right, bottom = int(np.clip(x + w, left + 1, width)), int(np.clip(y + h, top + 1, height))
        found.append(float(edges[top:bottom, left:right].var()))
    return found


class SeenFields:
    """Details of fields, made while their pixels are at hand, so that no file is decoded again.

    Thread-safe. What is kept bears on time and memory only.
    """

    def __init__(self, paths: Collection[str] = (), room: int = KNOWN_BYTES) -> None:
        """Args: `paths` are those of the fields to keep, `room` are bytes to keep details in."""
        self._paths = frozenset(paths)
        self._seen: dict[str, tuple[FieldResult, float, FieldDetail]] = {}
        self._room = room
        self._lock = threading.Lock()

    def see(self, source: ImageSource, result: FieldResult) -> None:
        """Keep the detail of a field that has been analysed, if it may be compared with others.

        It is made at the scale at which the field would be compared with its like.
        """
        if result.path not in self._paths or result.slide is not None or not result.countable:
            return
        # As results in a file have it, which cases are made of.
        view = ViewRecord.from_json(result.view.to_json())
        lean = replace(result, view=view, cells=(), timings={})
        um_per_px = common_scale([lean])
        width, height = CanonicalView.from_record(view).size_at(um_per_px)
        with self._lock:
            if 2 * width * height > self._room:
                return
            self._room -= 2 * width * height
        detail = field_detail(read_whole(source), lean, um_per_px)
        with self._lock:
            self._seen[result.path] = lean, um_per_px, detail

    def detail(self, result: FieldResult, um_per_px: float) -> FieldDetail | None:
        """Return the detail of a field at a scale; `None` if it is not kept."""
        with self._lock:
            seen, scale, detail = self._seen.get(result.path, (None, 0.0, None))
        if seen is None or scale != um_per_px:
            return None
        return detail if (seen.image, seen.view) == (result.image, result.view) else None


class Details:
    """Detail images of fields: some are kept, others made when they are asked for.

    Thread-safe. What is kept bears on time and memory only.
    """

    def __init__(self, made: Callable[[int], FieldDetail], room: int = KNOWN_BYTES) -> None:
        """Args: `made` makes the detail of a field, `room` are bytes to keep given ones in."""
        self._known: dict[int, FieldDetail] = {}
        self._room = room
        self._lock = threading.Lock()
        self._made = lru_cache(maxsize=DETAILS_KEPT)(made)

    def keep(self, number: int, detail: FieldDetail) -> None:
        """Keep the detail of a field if there is room."""
        size = detail.detail.nbytes + detail.mask.nbytes
        with self._lock:
            if size <= self._room:
                self._room -= size
                self._known[number] = detail

    def __getitem__(self, number: int) -> FieldDetail:
        return self._known.get(number) or self._made(number)
