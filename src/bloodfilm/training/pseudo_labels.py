"""A teacher's detections as targets: selection, weights and confirmed background."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bloodfilm.core.boxes import centres
from bloodfilm.core.detections import Detections
from bloodfilm.evaluation.matching import MATCH_IOU, match
from bloodfilm.losses.targets import Target
from bloodfilm.training.config import SparseSection
from bloodfilm.training.data.augment import transform_boxes

BINS = 20
PRIOR_CELLS = 4.0
"""Prior count of a score bin, whose precision is its score until about so many were counted."""
LEAST_SCORE = 0.1
"""Detections below it are ignored."""
FORGET = 0.98
"""Decay of the counts per step, because the teacher improves."""


class Augmentation:
    """One of the square's eight symmetries, for a square image and for detections on it.

    Args:
        code: 0 to 7; 0 is the identity.
    """

    def __init__(self, code: int) -> None:
        self.quarters, self.mirrored = code % 4, code >= 4

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mirror left to right where the code requires it, then rotate counter-clockwise."""
        mirrored = image[:, ::-1] if self.mirrored else image
        return np.ascontiguousarray(np.rot90(mirrored, self.quarters))

    def map_back(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map a map (h, w) of the augmented image back to the original image."""
        back = np.rot90(values, -self.quarters)
        return np.ascontiguousarray(back[:, ::-1] if self.mirrored else back)

    def boxes_back(self, boxes: NDArray[np.float64], size: float) -> NDArray[np.float64]:
        """Map boxes (n, 4) x, y, w, h back to the original image, `size` pixels per side."""
        for _ in range(self.quarters):  # undo one quarter: (x, y) was (size - y, x)
            boxes = transform_boxes(boxes, np.array([[0, -1, size], [1, 0, 0.0]]))
        if self.mirrored:
            boxes = transform_boxes(boxes, np.array([[-1, 0, size], [0, 1, 0.0]]))
        return boxes


@dataclass(frozen=True)
class TeacherPrediction:
    """A teacher's prediction on one image.

    Attributes:
        found: its detections.
        highest: (h, w) per location the highest score of any kind.
        values: (n, values) probability of each attribute value of each detection, 0 without a
            prediction; `None` if it predicts no attributes.
    """

    found: Detections
    highest: NDArray[np.float32]
    values: NDArray[np.float32] | None = None

    def take(self, which: NDArray[np.bool_]) -> "TeacherPrediction":
        """Return the prediction with some of its detections."""
        values = None if self.values is None else self.values[which]
        return TeacherPrediction(self.found.take(which), self.highest, values)


class PrecisionCalibrator:
    """Precision of the teacher by kind and score, counted in annotated regions.

    Counts decay, so that they follow the teacher. In a checkpoint they are a tensor
    (2, kinds, bins): right and wrong.
    """

    def __init__(self, kinds: int) -> None:
        self.counts = torch.zeros(2, kinds, BINS)

    def learn(
        self, opinions: Sequence[TeacherPrediction], marked: Sequence[Target], stride: int
    ) -> None:
        """Compare detections in annotated regions with the annotated cells."""
        counts = np.zeros(self.counts.shape, np.float32)
        for opinion, target in zip(opinions, marked, strict=True):
            found = opinion.found.take(centred_on(target.known, opinion.found.boxes, stride))
            bins = _bins(found.scores)
            for kind in range(counts.shape[1]):
                own = np.flatnonzero(found.type_ids == kind)
                truth = np.asarray(target.boxes[target.type_ids == kind], dtype=np.float64)
                pairs = match(truth, found.boxes[own], found.scores[own], MATCH_IOU).pairs
                right = np.zeros(len(own), dtype=bool)
                right[[at for _, at in pairs]] = True
                for row, which in enumerate((right, ~right)):
                    counts[row, kind] += np.bincount(bins[own[which]], minlength=BINS)
        self.counts = self.counts * FORGET + torch.from_numpy(counts)

    def precision(self, found: Detections) -> NDArray[np.float64]:
        """Return the estimated precision of each detection; without counts, its score."""
        right, wrong = self.counts.double().numpy()
        middle = (np.arange(BINS) + 0.5) / BINS
        proven = (right + PRIOR_CELLS * middle) / (right + wrong + PRIOR_CELLS)
        return np.asarray(proven[found.type_ids, _bins(found.scores)])


def _bins(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.clip((scores * BINS).astype(np.intp), 0, BINS - 1)


def centred_on(
    area: NDArray[np.bool_], boxes: NDArray[np.float64], stride: int
) -> NDArray[np.bool_]:
    """Return which boxes (n, 4) are centred on locations where `area` (h, w) is true."""
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
    """Return the targets that a teacher's prediction gives for unannotated locations.

    Pseudo labels are detections centred on unannotated locations whose score (with `reliability`:
    whose estimated precision, which is then their weight) reaches `rules.confidence`. Their boxes
    are supervised; so are locations whose highest score is below `rules.background`.
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
    features: Tensor, marked: Tensor, marked_kinds: Tensor, pseudo: Tensor, pseudo_kinds: Tensor
) -> Tensor:
    """Contrastive loss: pull features of pseudo-labelled cells to annotated cells of their kind.

    Hinge on cosine similarities: max(0, 0.5 - nearest same kind's mean + nearest other kind's
    mean), so a better embedding lowers it.

    Args:
        features: (B, C, h, w).
        marked, pseudo: (n, 3) rows of image, row, column of cells' centres; kinds: (n,).
    """
    if not len(marked) or not len(pseudo):
        return features.sum() * 0.0

    def at(places: Tensor) -> Tensor:
        picked = features[places[:, 0], :, places[:, 1], places[:, 2]].float()
        return torch.nn.functional.normalize(picked, dim=1)

    kinds = marked_kinds.unique()
    means = torch.stack([at(marked[marked_kinds == k]).mean(0) for k in kinds])
    likeness = at(pseudo) @ torch.nn.functional.normalize(means, dim=1).T
    same = pseudo_kinds[:, None] == kinds[None]
    comparable = same.any(1)
    if not comparable.any():
        return features.sum() * 0.0
    own = likeness.masked_fill(~same, -1.0).amax(1)
    others = likeness.masked_fill(same, -1.0).amax(1)
    return (0.5 - own + others).clamp_min(0)[comparable].mean()
