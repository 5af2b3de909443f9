"""Evidence for a nucleated cell beside the detector: its stain, and the classifier.

A detector alone travels badly: on another camera it is less sure of every cell. What it says is
weighed with two facts that are measured otherwise. The stain contrast compares an object with the
red cells of its own field (see `imaging.stain`), and the classifier's verification head looks at
the original pixels.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Floats


class Fusion(Protocol):
    """How the evidence for nucleated cells becomes one score in [0, 1].

    The score rises with each piece of evidence, so that the best that verification could make of a
    detection is known before it is classified.
    """

    def before_verification(self, scores: Floats, contrast: Floats) -> Floats:
        """Return scores (n,) with stain contrast, as if verification agreed entirely.

        Args:
            scores: of the detector.
            contrast: stain contrasts, NaN where undefined.
        """

    def verified(self, score: float, probability: float) -> float:
        """Return the final score of a detection.

        Args:
            score: as `before_verification` returned it.
            probability: of there being a nucleated cell, by the classifier.
        """

    def lowest_detector_score(self, threshold: float) -> float:
        """Return a detector score below which no score reaches a threshold, whatever else is."""

    def reads_as_red_cell(self, contrast: Floats) -> NDArray[np.bool_]:
        """Return which stain contrasts are those of red cells."""


@dataclass(frozen=True)
class ProductFusion:
    """The score is the detector's, less what each other piece of evidence takes from it.

    Of bundles that were exported without an operating point. The defaults were chosen on TXL-PBC's
    validation fields: original, redrawn in other stains, and pale.

    Attributes:
        contrast: the stain contrast at which a score is halved; 0 leaves it out of account.
        steepness: how fast the share rises there.
        verification: the power of the probability that the classifier gives.
    """

    contrast: float = 0.06
    steepness: float = 4.0
    verification: float = 0.125

    def before_verification(self, scores: Floats, contrast: Floats) -> Floats:
        """See `Fusion`."""
        return np.asarray(scores * self.of_contrast(contrast))

    def verified(self, score: float, probability: float) -> float:
        """See `Fusion`."""
        return float(score * probability**self.verification)

    def lowest_detector_score(self, threshold: float) -> float:
        """See `Fusion`."""
        return threshold

    def reads_as_red_cell(self, contrast: Floats) -> NDArray[np.bool_]:
        """See `Fusion`."""
        return np.asarray(self.of_contrast(contrast) < 0.5)

    def of_contrast(self, contrast: Floats) -> Floats:
        """Return the share in [0, 1] of a score that a stain contrast leaves; 1 where NaN."""
        if self.contrast == 0:
            return np.ones_like(contrast)
        share = 1 / (1 + (self.contrast / np.maximum(contrast, 1e-9)) ** self.steepness)
        return np.where(np.isnan(contrast), 1.0, share)


RED_CELL_CONTRAST = 0.06
"""Stain contrast below which an object is coloured like a red cell."""
Range = tuple[float, float]


@dataclass(frozen=True)
class EvidenceLimits:
    """The lowest and highest value of each piece of evidence: beyond, it says no more.

    The defaults are those of bundles whose manifest holds none. They let a dark nucleus and a sure
    classifier say little about a cell that the detector takes for a red cell; newer bundles have
    others (`export.operating_point`).

    Attributes:
        score: of the detector.
        probability: of there being a nucleated cell, by the classifier.
        contrast: stain contrast; one that is not known counts as `unknown_contrast`.
        unknown_contrast: a value within `contrast`.
    """

    score: Range = (0.005, 0.995)
    probability: Range = (0.01, 0.99)
    contrast: Range = (0.02, 0.2)
    unknown_contrast: float = 0.2

    def __post_init__(self) -> None:
        for name, (low, high) in (("score", self.score), ("probability", self.probability)):
            if not 0 < low < high < 1:
                raise ValueError(f"{name}: two numbers between 0 and 1, the lower one first")
        low, high = self.contrast
        if not 0 < low < high:
            raise ValueError("contrast: two numbers above 0, the lower one first")
        if not low <= self.unknown_contrast <= high:
            raise ValueError("unknown_contrast: must lie within the limits of contrast")

    def evidence(self, scores: Floats, probability: Floats, contrast: Floats) -> Floats:
        """Return what is weighed (n, 3): of the detector, of verification, of contrast.

        Args:
            scores: (n,) of the detector.
            probability: (n,) of there being a nucleated cell, by the classifier.
            contrast: (n,) stain contrasts, NaN where undefined.

        Returns:
            logits of scores and probabilities, and the natural logarithm of the contrasts.

        >>> limits = EvidenceLimits(contrast=(0.02, 0.5))
        >>> one, alike = limits.evidence(np.full(2, 0.5), np.full(2, 0.5), np.array([0.5, 0.9]))
        >>> one.tolist() == alike.tolist()
        True
        """
        known = np.where(np.isnan(contrast), self.unknown_contrast, contrast)
        parts = (
            logit(scores, *self.score),
            logit(probability, *self.probability),
            np.log(np.clip(known, *self.contrast)),
        )
        return np.stack(parts, axis=-1)


@dataclass(frozen=True)
class LogisticFusion:
    """The score is a logistic regression on the evidence; fitted by `bloodfilm export`.

    The logit of the score is the sum of `bias`, the logit of the detector's score, the logit of the
    classifier's probability and the logarithm of the stain contrast, each times its weight. An
    absent probability counts as 1.

    Attributes:
        detector, verification, contrast: weights, none below 0.
        bias: added.
        limits: of the evidence.

    >>> fusion = LogisticFusion(detector=1.5, verification=0.6, contrast=2.7, bias=1.8)
    >>> dark, pale = fusion.before_verification(np.array([0.3, 0.3]), np.array([0.5, 0.08]))
    >>> round(float(dark), 2), round(float(pale), 2)
    (0.26, 0.03)
    >>> round(fusion.verified(float(dark), 0.9), 2), round(fusion.verified(float(dark), 0.1), 2)
    (0.08, 0.01)
    """

    detector: float
    verification: float
    contrast: float
    bias: float
    limits: EvidenceLimits = EvidenceLimits()

    def __post_init__(self) -> None:
        if min(self.detector, self.verification, self.contrast) < 0 or self.detector == 0:
            raise ValueError("weights: the detector's must be above 0, no other below 0")

    def before_verification(self, scores: Floats, contrast: Floats) -> Floats:
        """See `Fusion`."""
        evidence = self.limits.evidence(scores, np.ones_like(scores), contrast)
        return _logistic(evidence @ self._weights + self.bias)

    def verified(self, score: float, probability: float) -> float:
        """See `Fusion`."""
        doubt = self._most_sure - float(logit(probability, *self.limits.probability))
        return float(_logistic(logit(score, *_BETWEEN) - self.verification * doubt))

    def lowest_detector_score(self, threshold: float) -> float:
        """See `Fusion`."""
        darkest = np.log(self.limits.contrast[1])
        rest = self.bias + self.contrast * darkest + self.verification * self._most_sure
        lowest = float(_logistic((logit(threshold, *_BETWEEN) - rest) / self.detector))
        return lowest if lowest > self.limits.score[0] else 0.0

    def reads_as_red_cell(self, contrast: Floats) -> NDArray[np.bool_]:
        """See `Fusion`."""
        return np.asarray(contrast < RED_CELL_CONTRAST)

    @property
    def _weights(self) -> Floats:
        return np.array([self.detector, self.verification, self.contrast])

    @property
    def _most_sure(self) -> float:
        return float(logit(1.0, *self.limits.probability))


_BETWEEN = (1e-12, 1 - 1e-12)


def logit(probability: ArrayLike, least: float, most: float) -> Floats:
    """Return the logit of probabilities, each taken as lying between two others."""
    p = np.clip(np.asarray(probability, dtype=np.float64), least, most)
    return np.asarray(np.log(p / (1 - p)))


def _logistic(value: ArrayLike) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.asarray(value, dtype=np.float64))))
