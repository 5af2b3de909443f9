"""Estimate the affine map between two images of a field, with a confidence."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bloodfilm.core.arrays import Floats
from bloodfilm.registration.matching import plausible, propose_alignments
from bloodfilm.registration.verify import AlignmentEvidence, refine, verify
from bloodfilm.registration.view import ImageCandidate, RegisteredView, common_scales

MIN_CONFIDENCE = 0.5
SURE = 0.95
# Measured (benchmarks/transfer.py): of 72 pairs of one field, in two profiles each, no share
# is below 0.76; of 220 unrelated pairs, rendered and real, none is above 0.04, and the best of the
# wrong maps between related fields had 0.21. The curve is as steep as that gap allows.
MIDDLE_SHARE = 0.5
SHARE_WIDTH = 0.06
ASPECT_RATIOS = (0.5625, 0.75)
"""Pixel aspect ratios to try where it is only assumed: 16:9 and 4:3 frames made square."""
SCALE_FACTORS = (0.55, 1.8)
"""Factors to try on an assumed scale: close-ups have 0.055, 40x fields 0.2 um per px."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a source field maps onto a target field.

    Attributes:
        verdict: `aligned` or `refused`.
        reason: why, for display.
        confidence: 0..1, that the map is correct.
        matrix: 2x3, from the source's original pixels to the target's (edges at whole numbers);
            `None` without a candidate.
        evidence: patch agreement that supports it; `None` without a candidate.
        residual_px: median residual of the patches, target pixels.
        degrees: rotation of the target, counter-clockwise as displayed.
        scale: target pixels per source pixel (geometric mean of both axes).
        mirrored: whether one of the two is mirrored.
        matches: feature matches that agree with the candidate.
    """

    verdict: Literal["aligned", "refused"]
    reason: str
    confidence: float = 0.0
    matrix: Floats | None = None
    evidence: AlignmentEvidence | None = None
    residual_px: float = 0.0
    degrees: float = 0.0
    scale: float = 1.0
    mirrored: bool = False
    matches: int = 0

    @property
    def aligned(self) -> bool:
        """Whether the map may be used."""
        return self.verdict == "aligned"

    def to_json(self) -> dict[str, Any]:
        """Return the alignment as JSON-compatible data."""
        data: dict[str, Any] = {
            "verdict": self.verdict,
            "reason": self.reason,
            "confidence": round(self.confidence, 4),
        }
        if self.matrix is None or self.evidence is None:
            return data
        return data | {
            "matrix": [[round(float(v), 6) for v in row] for row in self.matrix],
            "scale": round(self.scale, 4),
            "degrees": round(self.degrees, 2),
            "mirrored": self.mirrored,
            "matches": self.matches,
            "patches": self.evidence.patches,
            "patches_that_agree": self.evidence.agree,
            "residual_px": round(self.residual_px, 3),
            "correlation": round(self.evidence.correlation, 4),
            "overlap_um2": round(self.evidence.overlap_um2, 1),
        }


def register(
    source: ImageCandidate, target: ImageCandidate, min_confidence: float = MIN_CONFIDENCE
) -> Alignment:
    """Estimate the map between two images of the same cells, or refuse.

    The canonical view normalises scale, pixel aspect ratio and white point; SIFT features and
    MAGSAC++ estimate the rest (rotation, shift, mirror, a few per cent of stretch), ECC refines
    the estimate, and patches used by neither step verify it.
    """
    best = Alignment("refused", "no cells of one are found again in the other")
    for first, second in _hypotheses(source, target):
        for um_per_px in common_scales(first.view, second.view):
            for found in _attempts(first.at(um_per_px), second.at(um_per_px), min_confidence):
                if found.confidence > best.confidence or best.matrix is None:
                    best = found
                if best.confidence >= SURE:
                    return best
    return best


def _hypotheses(
    source: ImageCandidate, target: ImageCandidate
) -> Iterator[tuple[ImageCandidate, ImageCandidate]]:
    """The pair as measured, then with other aspect ratios or scales where only assumed."""
    yield source, target
    yield from ((other, target) for other in _others(source))
    yield from ((source, other) for other in _others(target))


def _others(candidate: ImageCandidate) -> Iterator[ImageCandidate]:
    if candidate.view.aspect_source == "assumed":
        yield from map(candidate.with_aspect_ratio, ASPECT_RATIOS)
    if candidate.view.scale_source == "assumed":
        yield from map(candidate.scaled, SCALE_FACTORS)


def _attempts(
    first: RegisteredView, second: RegisteredView, min_confidence: float
) -> Iterator[Alignment]:
    for candidate in propose_alignments(first, second):
        matrix = refine(first.detail, second.detail, candidate.matrix)
        if not plausible(matrix, first, second):
            matrix = candidate.matrix
        evidence = verify(first.detail, second.detail, matrix, first.um_per_px)
        alignment = _judge(matrix, evidence, first, second, min_confidence)
        yield replace(alignment, matches=candidate.inliers)


def _judge(
    matrix: Floats,
    evidence: AlignmentEvidence,
    source: RegisteredView,
    target: RegisteredView,
    min_confidence: float,
) -> Alignment:
    """Confidence and verdict from the evidence, and the map in original pixels."""
    confidence = confidence_of(evidence)
    reason = f"{evidence.agree} of {evidence.patches} patches agree"
    aligned = confidence >= min_confidence
    if evidence.patches == 0:
        reason = "they share too small an area to judge"
    original = to_original(matrix, source, target)
    step = np.sqrt(abs(np.linalg.det(np.linalg.inv(target.from_original)[:2, :2])))
    turn = matrix[:, :2] * [np.sign(np.linalg.det(matrix[:, :2])), 1.0]
    return Alignment(
        verdict="aligned" if aligned else "refused",
        reason=reason if aligned or not evidence.patches else f"{reason}, too few to trust",
        confidence=confidence,
        matrix=original,
        evidence=evidence,
        residual_px=evidence.offset_um / target.um_per_px * float(step),
        degrees=float(np.degrees(np.arctan2(turn[0, 1] - turn[1, 0], turn[0, 0] + turn[1, 1]))),
        scale=float(np.sqrt(abs(np.linalg.det(original[:, :2])))),
        mirrored=bool(np.linalg.det(matrix[:, :2]) < 0),
    )


def confidence_of(evidence: AlignmentEvidence) -> float:
    """0..1 from the lower bound of the share of patches that agree: a logistic curve."""
    return float(1 / (1 + np.exp(-(evidence.share - MIDDLE_SHARE) / SHARE_WIDTH)))


def to_original(matrix: Floats, source: RegisteredView, target: RegisteredView) -> Floats:
    """Convert a map of views' pixel indices to one of the original images' pixel edges."""
    half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    edges = half @ np.vstack([matrix, [0.0, 0.0, 1.0]]) @ np.linalg.inv(half)
    whole = np.linalg.inv(target.from_original) @ edges @ source.from_original
    return np.asarray(whole[:2])
