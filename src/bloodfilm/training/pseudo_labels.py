"""A teacher's detections as targets: which count, how much, and what is confirmed background."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bloodfilm.core.boxes import centres
from bloodfilm.core.detections import Detections
from bloodfilm.evaluation.matching import match
from bloodfilm.losses.targets import Target
from bloodfilm.training.config import SparseSection
from bloodfilm.training.data.augment import transform_boxes

BINS = 20
MATCH_IOU = 0.5
PRIOR_CELLS = 4.0
"""A score bin is believed to be as precise as its score until about so many cells were seen."""
LEAST_SCORE = 0.1
"""Detections below it are never looked at."""
FORGET = 0.98
"""The share of the counts that stays from one step to the next: the teacher gets better."""


class Augmentation:
    """One of the square's eight symmetries, for a square image and for what was found on it.

    Args:
        code: 0 to 7; 0 leaves everything as it is.
    """

    def __init__(self, code: int) -> None:
        self.quarters, self.mirrored = code % 4, code >= 4

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mirror left to right if asked to, then turn counter-clockwise."""
        mirrored = image[:, ::-1] if self.mirrored else image
        return np.ascontiguousarray(np.rot90(mirrored, self.quarters))

    def map_back(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a map (h, w) of the turned image to the image as it was."""
        back = np.rot90(values, -self.quarters)
        return np.ascontiguousarray(back[:, ::-1] if self.mirrored else back)

    def boxes_back(self, boxes: NDArray[np.float64], size: float) -> NDArray[np.float64]:
        """Bring boxes (n, 4) x, y, w, h to the image, `size` pixels a side, as it was."""
        for _ in range(self.quarters):  # undo one quarter: (x, y) was (size - y, x)
            boxes = transform_boxes(boxes, np.array([[0, -1, size], [1, 0, 0.0]]))
        if self.mirrored:
            boxes = transform_boxes(boxes, np.array([[-1, 0, size], [0, 1, 0.0]]))
        return boxes


@dataclass(frozen=True)
class TeacherPrediction:
    """What a teacher thinks of one image.

    Attributes:
        found: its detections.
        highest: (h, w) per location the highest score of any kind.
        values: (n, values) probability of each attribute value of each detection, 0 where it does
            not say; `None` if it reads none.
    """

    found: Detections
    highest: NDArray[np.float32]
    values: NDArray[np.float32] | None = None

    def take(self, which: NDArray[np.bool_]) -> "TeacherPrediction":
        """Return the opinion with some of its detections."""
        values = None if self.values is None else self.values[which]
        return TeacherPrediction(self.found.take(which), self.highest, values)


class PrecisionCalibrator:
    """How often the teacher is right, by kind and score, counted where people marked.

    Counts fade, so that they follow the teacher. Like a checkpoint's other parts they are kept as
    a tensor (2, kinds, bins): right and wrong.
    """

    def __init__(self, kinds: int) -> None:
        self.counts = torch.zeros(2, kinds, BINS)

    def learn(
        self, opinions: Sequence[TeacherPrediction], marked: Sequence[Target], stride: int
    ) -> None:
        """Compare detections on marked ground with the marked cells."""
        counts = np.zeros(self.counts.shape, np.float32)
        for opinion, target in zip(opinions, marked, strict=True):
            found = opinion.found.take(centred_on(target.known, opinion.found.boxes, stride))
            bins = _bins(found.scores)
            for kind in range(counts.shape[1]):
                mine = np.flatnonzero(found.type_ids == kind)
                truth = np.asarray(target.boxes[target.type_ids == kind], dtype=np.float64)
                pairs = match(truth, found.boxes[mine], found.scores[mine], MATCH_IOU).pairs
                right = np.zeros(len(mine), dtype=bool)
                right[[at for _, at in pairs]] = True
                for row, which in enumerate((right, ~right)):
                    counts[row, kind] += np.bincount(bins[mine[which]], minlength=BINS)
        self.counts = self.counts * FORGET + torch.from_numpy(counts)

    def precision(self, found: Detections) -> NDArray[np.float64]:
        """Return how likely each detection is right; without evidence, what its score says."""
        right, wrong = self.counts.double().numpy()
        middle = (np.arange(BINS) + 0.5) / BINS
        proven = (right + PRIOR_CELLS * middle) / (right + wrong + PRIOR_CELLS)
        return np.asarray(proven[found.type_ids, _bins(found.scores)])


def _bins(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.clip((scores * BINS).astype(np.intp), 0, BINS - 1)


def centred_on(
    area: NDArray[np.bool_], boxes: NDArray[np.float64], stride: int
) -> NDArray[np.bool_]:
    """Say which boxes (n, 4) are centred on locations where `area` (h, w) is true."""
    if not len(boxes):
        return np.zeros(0, dtype=bool)
    at = np.floor(centres(boxes) / stride).astype(int)
    height, width = area.shape
    return area[np.clip(at[:, 1], 0, height - 1), np.clip(at[:, 0], 0, width - 1)]


def pseudo_target(
    opinion: TeacherPrediction,
    unmarked: NDArray[np.bool_],
    rules: SparseSection,
    reliability: PrecisionCalibrator | None,
    stride: int,
) -> Target:
    """Return what a teacher's opinion says about the locations nobody marked.

    Counted cells are those centred on unmarked ground whose score (with `reliability`: whose
    proven precision, which is then their weight) reaches `rules.confidence`. Their boxes are
    known; so are locations whose highest score stays below `rules.background`.
    """
    opinion = opinion.take(centred_on(unmarked, opinion.found.boxes, stride))
    found = opinion.found
    worth = found.scores if reliability is None else reliability.precision(found)
    counted = worth >= rules.confidence
    opinion, worth = opinion.take(counted), worth[counted]
    found = opinion.found
    quiet = opinion.highest < rules.background
    if rules.background >= 1:
        quiet[:] = True
    known = (quiet | _covered(found.boxes, unmarked.shape, stride)) & unmarked
    weights = np.ones(len(found)) if reliability is None else worth
    return Target(
        found.boxes.astype(np.float32),
        found.type_ids.astype(np.int64),
        weights.astype(np.float32),
        known,
        values=opinion.values,
    )


def _covered(boxes: NDArray[np.float64], shape: tuple[int, ...], stride: int) -> NDArray[np.bool_]:
    """Return the locations (h, w) whose centre lies in a box."""
    covered = np.zeros(shape, dtype=bool)
    low = np.ceil(boxes[:, :2] / stride - 0.5).astype(int).clip(0)
    high = np.floor((boxes[:, :2] + boxes[:, 2:]) / stride - 0.5).astype(int).clip(-1)
    for (x1, y1), (x2, y2) in zip(low, high, strict=True):
        covered[y1 : y2 + 1, x1 : x2 + 1] = True
    return covered


def similarity_loss(
    features: Tensor, marked: Tensor, marked_kinds: Tensor, taught: Tensor, taught_kinds: Tensor
) -> Tensor:
    """Draw features of a teacher's cells to marked cells of their kind, away from other kinds.

    Hinge on cosine similarities: max(0, 0.5 - nearest same kind's mean + nearest other kind's
    mean), so a better embedding lowers it.

    Args:
        features: (B, C, h, w).
        marked, taught: (n, 3) rows of image, row, column of cells' centres; kinds: (n,).
    """
    if not len(marked) or not len(taught):
        return features.sum() * 0.0

    def at(places: Tensor) -> Tensor:
        picked = features[places[:, 0], :, places[:, 1], places[:, 2]].float()
        return torch.nn.functional.normalize(picked, dim=1)

    kinds = marked_kinds.unique()
    means = torch.stack([at(marked[marked_kinds == k]).mean(0) for k in kinds])
    likeness = at(taught) @ torch.nn.functional.normalize(means, dim=1).T
    same = taught_kinds[:, None] == kinds[None]
    comparable = same.any(1)
    if not comparable.any():
        return features.sum() * 0.0
    mine = likeness.masked_fill(~same, -1.0).amax(1)
    others = likeness.masked_fill(same, -1.0).amax(1)
    return (0.5 - mine + others).clamp_min(0)[comparable].mean()
