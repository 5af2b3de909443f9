"""Evidence for a nucleated cell beside the detector: its stain, and the classifier."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreFusion:
    """How much each piece of evidence counts in the score of a nucleated cell.

    The defaults were chosen on TXL's validation fields: original, with simulated acquisitions, and
    with pale stain (`benchmarks/closer_look.py`). Contrasts from 0.03 to 0.06 score equally there
    (within 0.001 in the mean), better than none; the highest of these is used, because red cells as
    dark as nuclei are commoner than films without colour.

    Attributes:
        contrast: the stain contrast (see `imaging.stain`) at which a score is halved; 0 leaves
            it out of account.
        steepness: how fast the share rises there.
        closer_look: the power of the probability that the reader gives.
    """

    contrast: float = 0.06
    steepness: float = 4.0
    closer_look: float = 0.125

    def of_contrast(self, contrast: Floats) -> Floats:
        """The share in [0, 1] of a score that a stain contrast leaves; all of it where NaN."""
        if self.contrast == 0:
            return np.ones_like(contrast)
        share = 1 / (1 + (self.contrast / np.maximum(contrast, 1e-9)) ** self.steepness)
        return np.where(np.isnan(contrast), 1.0, share)

    def of_closer_look(self, probability: float) -> float:
        """The share of a score that the classifier's probability of a nucleated cell leaves."""
        return float(probability**self.closer_look)
