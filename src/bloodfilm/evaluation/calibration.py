"""Calibration of probabilities, and accuracy under abstention."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.core.errors import DataError

BINS = 15
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Bin:
    """A bin of cells of similar confidence: mean confidence and accuracy."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = BINS) -> tuple[Bin, ...]:
    """Sort predictions into bins of equal mass by confidence; equal confidences stay together."""
    p = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if len(p) == 0:
        return ()
    edges = np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1])
    where = np.searchsorted(edges, p, side="right")
    table = []
    for b in range(bins):
        selected = where == b
        if selected.any():
            of = p[selected]
            low, high = float(of.min()), float(of.max())
            accuracy = float(right[selected].mean())
            table.append(Bin(low, high, int(selected.sum()), float(of.mean()), accuracy))
    return tuple(table)


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS
) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal mass.

    Source: Guo et al., On calibration of modern neural networks, 2017, eq. 3; with bins of equal
    mass (Nixon et al., Measuring calibration in deep learning, 2019), because confident classifiers
    leave most bins of equal width empty.
    """
    table = reliability(confidence, correct, bins)
    n = sum(b.n for b in table)
    return sum(b.n * abs(b.confidence - b.accuracy) for b in table) / n if n else float("nan")


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean over cells of the summed squared errors of (n, k) probabilities.

    `labels` are (n,) indices or an (n, k) mask of the classes the true label stands for, which are
    then taken together.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    mask = as_mask(labels, p.shape[1])
    own = np.where(mask, p, 0).sum(axis=1)
    return float(np.mean((1 - own) ** 2 + np.where(mask, 0, p**2).sum(axis=1)))


def as_mask(labels: ArrayLike, k: int) -> NDArray[np.bool_]:
    """Convert (n,) indices to an (n, k) mask; a mask is returned unchanged."""
    given = np.asarray(labels)
    if given.ndim == 2:
        return given.astype(bool)
    return np.asarray(np.arange(k)[None] == given[:, None])


def log_likelihood(logits: Floats, mask: NDArray[np.bool_], temperature: float) -> float:
    """Return the mean log probability of the true labels at a temperature."""
    z = logits / temperature
    z = z - z.max(axis=1, keepdims=True)
    whole = np.log(np.exp(z).sum(axis=1))
    own = np.where(mask, z, -np.inf)
    peak = own.max(axis=1)
    part = peak + np.log(np.exp(own - peak[:, None]).sum(axis=1))
    return float(np.mean(part - whole))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature in [0.05, 20] that makes the true labels most likely.

    Args:
        logits: (n, k); a masked class is -inf.
        labels: (n,) indices, or an (n, k) mask of the leaves each label stands for.

    Raises:
        DataError: without any label, or if a label stands for no class.

    Source: Guo et al. 2017, section 4.2. A coarse scan, then golden-section search on log T.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or len(z) == 0:
        raise DataError("temperature: needs a row of logits for one labelled cell or more")
    mask = as_mask(labels, z.shape[1])
    if not (mask & np.isfinite(z)).any(axis=1).all():
        raise DataError("temperature: a label stands for no class the model knows; leave it out")

    def loss(log_t: float) -> float:
        return -log_likelihood(z, mask, float(np.exp(log_t)))

    grid = np.linspace(np.log(_COLDEST), np.log(_HOTTEST), 49)
    best = int(np.argmin([loss(float(t)) for t in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(np.exp(_golden(loss, float(low), float(high))))


def _golden(loss: Callable[[float], float], low: float, high: float) -> float:
    shrink = (np.sqrt(5.0) - 1) / 2
    a, b = high - shrink * (high - low), low + shrink * (high - low)
    at_a, at_b = loss(a), loss(b)
    while high - low > 1e-6:
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - shrink * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + shrink * (high - low)
            at_b = loss(b)
    return (low + high) / 2


@dataclass(frozen=True)
class Curve:
    """Accuracy over the predictions whose confidence reaches a threshold, by falling threshold."""

    thresholds: Floats
    coverage: Floats
    accuracy: Floats

    def at_coverage(self, coverage: float) -> tuple[float, float]:
        """Return (threshold, accuracy) of the smallest share of predictions of at least this."""
        i = min(int(np.searchsorted(self.coverage, coverage - 1e-12)), len(self.coverage) - 1)
        return float(self.thresholds[i]), float(self.accuracy[i])

    def threshold_for(self, accuracy: float) -> float | None:
        """Return the lowest threshold whose accepted predictions are at least this accurate."""
        good = np.flatnonzero(self.accuracy >= accuracy)
        return float(self.thresholds[good[-1]]) if len(good) else None


def coverage_accuracy(confidence: ArrayLike, correct: ArrayLike) -> Curve:
    """Return the accuracy under abstention at every possible threshold."""
    p = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if len(p) == 0:
        raise DataError("coverage: needs one answer or more")
    order = np.argsort(-p, kind="stable")
    p = p[order]
    hits, n = np.cumsum(right[order]), np.arange(1, len(p) + 1)
    last = np.append(p[1:] != p[:-1], True)
    return Curve(p[last], (n / len(p))[last], (hits / n)[last])
