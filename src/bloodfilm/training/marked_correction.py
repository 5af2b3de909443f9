"""A correction of a bundle's class names, chosen on cells of one microscope that a person named.

The network stays. To the class logits a linear function of the description of the cell is added,
see `corrections`, fitted on the marked cells and on exemplars of what was known. Fields of the
microscope, and exemplars, are held out in turn: how far the answers may move away from the
bundle's is decided by cells that were not fitted on, and they may not move at all where that names
these cells as well, or where a class that was known would lose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.evaluation.class_figures import label_recalls, reasons_against
from bloodfilm.training.class_rows import DescribedCells, assign_folds, label_weights
from bloodfilm.training.corrections import NOT_LEARNT, fit_correction

PENALTIES = (0.1, 0.03)
"""On the squared weights, that of the more careful correction first."""
MIN_PROFIT = 2
"""More of the held-out marked cells that must be named rightly; one may be chance."""
MIN_FIELDS = 2
"""Marked fields (or patients) without which none can be held out."""
MAX_LOSS = 0.01
"""The most that balanced accuracy on exemplars may lose."""

Recalls = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class ClassCorrection:
    """What is added to class logits over the temperature.

    Attributes:
        weight: (leaves, size) on the description; bias: (leaves,).
    """

    weight: Floats
    bias: Floats

    def log_probabilities(self, known: Floats, description: Floats) -> Floats:
        """Return log probabilities (n, leaves) for those that a bundle gives.

        Args:
            known: (n, leaves), minus infinity for a class that cannot be named.
            description: (n, size).
        """
        logits = known + description @ self.weight.T + self.bias
        most = logits.max(1, keepdims=True)
        return np.asarray(logits - most - np.log(np.exp(logits - most).sum(1, keepdims=True)))


def fit_on_cells(cells: DescribedCells, penalty: float) -> ClassCorrection:
    """Fit a correction in which every label counts alike.

    Marked cells are to get their labels, and exemplars that are named rightly are to keep the
    class that they have.

    Args:
        cells: marked ones and exemplars.
        penalty: on the weights.
    """
    known = np.where(np.isfinite(cells.known), cells.known, NOT_LEARNT)
    answer = np.eye(known.shape[1], dtype=bool)[known.argmax(1)]
    allowed = np.where(cells.old[:, None], answer, np.isfinite(cells.known).any(0)) & cells.allowed
    kept = np.flatnonzero(allowed.any(1))
    weight, bias = fit_correction(
        torch.from_numpy(cells.description[kept]).float(),
        torch.from_numpy(known[kept]).float(),
        torch.from_numpy(allowed[kept]),
        torch.from_numpy(label_weights(cells.take(kept))).float(),
        penalty,
    )
    return ClassCorrection(weight.double().numpy(), bias.double().numpy())


@dataclass(frozen=True)
class Candidate:
    """A correction, judged on cells that it was not fitted on.

    Attributes:
        penalty: on its weights; `None`: no correction.
        accuracy: balanced accuracy on the marked cells, and log_loss: the mean of minus the log of
            the probability of their labels, every label counting alike.
        marked, known: recall by label, before and after, of marked cells and of exemplars.
        reasons: why it must not be taken.
    """

    penalty: float | None
    accuracy: float
    log_loss: float
    marked: Recalls
    known: Recalls
    reasons: tuple[str, ...] = ()

    @property
    def worth(self) -> tuple[float, float]:
        """What candidates are compared by."""
        return self.accuracy, -self.log_loss

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "penalty": self.penalty,
            "accuracy": round(self.accuracy, 4),
            "log_loss": round(self.log_loss, 4),
            "marked": _rounded(self.marked),
            "known": _rounded(self.known),
            "reasons": list(self.reasons),
        }


def _rounded(recalls: Recalls) -> dict[str, list[float]]:
    return {name: [round(b, 4), round(a, 4)] for name, (b, a) in recalls.items()}


@dataclass(frozen=True)
class ChosenCorrection:
    """The outcome of the cross-validation.

    Attributes:
        original: no correction.
        candidates: the corrections, by rising strength; none for a single field.
        best: that which names marked cells best; the original where none is better.
        correction: fitted on all cells; `None` for the original.
    """

    original: Candidate
    candidates: tuple[Candidate, ...]
    best: Candidate
    correction: ClassCorrection | None

    def reasons(self) -> list[str]:
        """Return why no correction is made; nothing where one is."""
        if self.correction is not None:
            return []
        if not self.candidates:
            return [
                f"cells of {MIN_FIELDS} or more fields (or patients, where they are named) must be "
                "marked, so that some can be held out"
            ]
        return list(max(self.candidates, key=lambda c: c.worth).reasons)


def choose_correction(cells: DescribedCells, names: Sequence[str], seed: int) -> ChosenCorrection:
    """Choose the strength of a correction by cross-validation, none at all among them.

    Whole fields are held out, and a share of the exemplars with them. A correction is taken only if
    `MIN_PROFIT` more of the held-out marked cells are named rightly, if their balanced accuracy
    does not fall, and if exemplars lose nothing (`evaluation.class_figures.reasons_against`). Of
    several, the one with the highest balanced accuracy is taken, and of equal ones that under which
    the true classes are most probable.

    Args:
        cells: exemplars (`old`), marked cells and their varied views.
        names: the label of each cell that is no varied view.
        seed: of the folds.
    """
    fold, _ = assign_folds(cells, (), seed)
    labels, plain = np.array(names), cells.take(cells.view == 0)
    original = _judge(plain, labels, plain.known, None)
    enough = len(np.unique(cells.group[~cells.old])) >= MIN_FIELDS
    candidates = tuple(
        _judge(plain, labels, _held_out(cells, penalty, fold), penalty)
        for penalty in (PENALTIES if enough else ())
    )
    allowed = [candidate for candidate in candidates if not candidate.reasons]
    best = max(allowed, key=lambda c: c.worth) if allowed else original
    fitted = None if best.penalty is None else fit_on_cells(cells, best.penalty)
    return ChosenCorrection(original, candidates, best, fitted)


def _held_out(cells: DescribedCells, penalty: float, fold: NDArray[np.int64]) -> Floats:
    """Return log probabilities of the cells that are no views, each as if not fitted on."""
    found = np.zeros_like(cells.known)
    for number in np.unique(fold):
        out = fold == number
        fitted = fit_on_cells(cells.take(~out), penalty)
        found[out] = fitted.log_probabilities(cells.known[out], cells.description[out])
    return found[cells.view == 0]


def _judge(
    plain: DescribedCells, labels: NDArray[np.str_], after: Floats, penalty: float | None
) -> Candidate:
    own, before = ~plain.old, plain.known
    recalls = [
        label_recalls(labels[rows], plain.allowed[rows], before[rows], after[rows])
        for rows in (own, ~own)
    ]
    marked, known = recalls
    right, was = (float(np.mean([pair[i] for pair in marked.values()])) for i in (1, 0))
    inside = np.where(plain.allowed[own], np.exp(after[own]), 0.0).sum(1)
    weights = label_weights(plain.take(own))
    loss = -float((weights * np.log(np.maximum(inside, np.finfo(float).tiny))).sum())
    reasons = reasons_against({}, known, {}, MAX_LOSS)
    rows = np.arange(own.sum())
    now, then = (plain.allowed[own][rows, p[own].argmax(1)].sum() for p in (after, before))
    if now - then < MIN_PROFIT:
        reasons.insert(
            0,
            f"{then} of {len(rows)} held-out marked cells are named rightly as it is, {now} "
            f"would be: {MIN_PROFIT} more are needed",
        )
    if right < was:
        reasons.insert(
            0, f"balanced accuracy on marked cells would fall from {was:.3f} to {right:.3f}"
        )
    return Candidate(penalty, right, loss, marked, known, tuple(reasons))
