"""What a change of a classifier is worth on cells that a person named, and when that is proof.

Marked cells are few: whether a change names more of them rightly is decided cell by cell. Only
cells on which the classifiers disagree tell them apart, as in the test of McNemar (1947).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.evaluation.class_figures import label_recalls

MIN_PROFIT = 2
"""More of the marked cells that must be named rightly; one may be chance."""
MAX_CHANCE = 0.25
"""Probability that as many or more of the cells whose name changed for better or worse would have
changed for the better if both were equally likely."""


@dataclass(frozen=True)
class MarkedFigures:
    """A classifier on marked cells, before and after a change.

    Attributes:
        cells: their number.
        right: how many are named rightly: their most probable class is one of their label's.
        gained, lost: how many of them only afterwards, or only before.
        accuracy: mean recall of the labels.
        log_loss: mean of minus the log of the probability of the labels, every label counting
            alike.
        recalls: by label.
    """

    cells: int
    right: tuple[int, int]
    gained: int
    lost: int
    accuracy: tuple[float, float]
    log_loss: tuple[float, float]
    recalls: dict[str, tuple[float, float]]

    @property
    def chance(self) -> float:
        """One-sided exact sign test of the cells that changed for better or worse."""
        return sign_test(self.gained, self.lost)

    @property
    def worth(self) -> tuple[float, float]:
        """What changes are compared by: balanced accuracy, then how probable the labels are."""
        return self.accuracy[1], -self.log_loss[1]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data; each pair is before and after."""
        return {
            "cells": self.cells,
            "right": list(self.right),
            "gained": self.gained,
            "lost": self.lost,
            "chance": round(self.chance, 4),
            "accuracy": _rounded(self.accuracy),
            "log_loss": _rounded(self.log_loss),
            "recalls": {name: _rounded(pair) for name, pair in self.recalls.items()},
        }


def _rounded(pair: tuple[float, float]) -> list[float]:
    return [round(value, 4) for value in pair]


def marked_figures(
    labels: Sequence[str] | NDArray[np.str_], allowed: Bools, before: Floats, after: Floats
) -> MarkedFigures:
    """Compute the figures.

    Args:
        labels: (n,); allowed: (n, leaves) the classes that each stands for.
        before, after: (n, leaves) class probabilities.

    >>> truth, p = np.eye(2, dtype=bool)[[0, 0, 1]], np.array([[0.9, 0.1]] * 3)
    >>> figures = marked_figures(["a", "a", "b"], truth, p, np.array([[0.9, 0.1]] * 2 + [[0, 1]]))
    >>> figures.right, figures.gained, figures.lost, figures.accuracy
    ((2, 3), 1, 0, (0.5, 1.0))
    """
    names = np.array(labels)
    rows = np.arange(len(names))
    was, now = (allowed[rows, p.argmax(1)] for p in (before, after))
    recalls = label_recalls(names, allowed, before, after)
    _, place, count = np.unique(names, return_inverse=True, return_counts=True)
    weights = 1 / count[place] / len(count)
    inside = [np.where(allowed, p, 0.0).sum(1) for p in (before, after)]
    losses = [-float((weights * np.log(np.maximum(p, np.finfo(float).tiny))).sum()) for p in inside]
    means = np.mean(list(recalls.values()), axis=0)
    return MarkedFigures(
        len(names),
        (int(was.sum()), int(now.sum())),
        int((now & ~was).sum()),
        int((was & ~now).sum()),
        (float(means[0]), float(means[1])),
        (losses[0], losses[1]),
        recalls,
    )


def sign_test(gained: int, lost: int) -> float:
    """Return the probability of so many gains or more, if gain and loss were equally likely.

    >>> sign_test(2, 0), sign_test(4, 1), sign_test(0, 0)
    (0.25, 0.1875, 1.0)
    """
    total = gained + lost
    return sum(comb(total, k) for k in range(gained, total + 1)) / 2**total


def reasons_by_marked(figures: MarkedFigures) -> list[str]:
    """Return why marked cells do not speak for a change; nothing if they do.

    They do if at least `MIN_PROFIT` more of them are named rightly, if that is unlikely to be
    chance (`MAX_CHANCE`), and if their balanced accuracy does not fall.

    >>> reasons_by_marked(MarkedFigures(11, (7, 8), 2, 1, (0.5, 0.6), (1.0, 0.9), {}))
    ['8 of 11 marked cells are named rightly, 7 as it is: 2 more are needed']
    >>> reasons_by_marked(MarkedFigures(30, (12, 14), 8, 6, (0.5, 0.6), (1.0, 0.9), {}))
    ['of marked cells 8 are put right and 6 become wrong, which may be chance']
    >>> reasons_by_marked(MarkedFigures(30, (12, 14), 2, 0, (0.5, 0.6), (1.0, 0.9), {}))
    []
    """
    found = []
    was, now = figures.right
    if now - was < MIN_PROFIT:
        found.append(
            f"{now} of {figures.cells} marked cells are named rightly, {was} as it is: "
            f"{MIN_PROFIT} more are needed"
        )
    elif figures.chance > MAX_CHANCE:
        found.append(
            f"of marked cells {figures.gained} are put right and {figures.lost} become wrong, "
            "which may be chance"
        )
    before, after = figures.accuracy
    if after < before:
        found.append(
            f"balanced accuracy on marked cells would fall from {before:.3f} to {after:.3f}"
        )
    return found
