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
from bloodfilm.evaluation.marked_figures import MarkedFigures, marked_figures, reasons_by_marked
from bloodfilm.training.class_rows import DescribedCells, assign_folds, label_weights
from bloodfilm.training.corrections import NOT_LEARNT, fit_correction

PENALTIES = (0.1, 0.03)
"""On the squared weights, that of the more careful correction first."""
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
        marked: figures of the marked cells.
        known: recall by label of the exemplars, before and after.
        reasons: why it must not be taken.
    """

    penalty: float | None
    marked: MarkedFigures
    known: Recalls
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "penalty": self.penalty,
            "marked": self.marked.to_json(),
            "known": {name: [round(b, 4), round(a, 4)] for name, (b, a) in self.known.items()},
            "reasons": list(self.reasons),
        }


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

    @property
    def nearest(self) -> Candidate:
        """The correction that names marked cells best, taken or not; else the original."""
        if self.correction is not None or not self.candidates:
            return self.best
        return max(self.candidates, key=lambda c: c.marked.worth)

    def reasons(self) -> list[str]:
        """Return why no correction is made; nothing where one is."""
        if self.correction is not None:
            return []
        if not self.candidates:
            return [
                f"cells of {MIN_FIELDS} or more fields (or patients, where they are named) must be "
                "marked, so that some can be held out"
            ]
        return list(self.nearest.reasons)


def choose_correction(cells: DescribedCells, names: Sequence[str], seed: int) -> ChosenCorrection:
    """Choose the strength of a correction by cross-validation, none at all among them.

    Whole fields are held out, and a share of the exemplars with them. A correction is taken only if
    the held-out marked cells speak for it (`evaluation.marked_figures.reasons_by_marked`) and
    exemplars lose nothing (`evaluation.class_figures.reasons_against`). Of several, the one with
    the highest balanced accuracy is taken, and of equal ones that under which the true classes are
    most probable.

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
    best = max(allowed, key=lambda c: c.marked.worth) if allowed else original
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
    pair = np.exp(before[own]), np.exp(after[own])
    marked = marked_figures(labels[own], plain.allowed[own], *pair)
    old = labels[~own], plain.allowed[~own], before[~own], after[~own]
    known = label_recalls(*old)
    reasons = reasons_by_marked(marked) + reasons_against({}, known, {}, MAX_LOSS)
    return Candidate(penalty, marked, known, tuple(reasons))
