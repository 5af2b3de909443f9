"""What a classifier is worth before and after a class was added, and when that is harm."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats

LEAST_RECALL = 0.5
"""A class is not added unless half of its held-out cells are found."""
MAX_LABEL_LOSS = 0.05
"""The most that the recall of one known class may lose."""


@dataclass(frozen=True)
class ClassFigures:
    """A new class on cells that were not learnt from.

    Attributes:
        recall: share of its cells for which it is the most probable class.
        named: share of its cells for which it is sure enough to be named.
        precision: share of its cells among those for which it is the most probable, if every class
            were equally frequent.
        false: share of the other cells for which it is the most probable, all classes counting
            alike.
        auroc: probability that a cell of the class gets a higher score than another.
    """

    recall: float
    named: float
    precision: float
    false: float
    auroc: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def class_figures(
    leaf: int,
    own: NDArray[np.bool_],
    labels: NDArray[np.str_],
    probabilities: Floats,
    confidence: float,
) -> ClassFigures:
    """Return the figures of one class.

    Args:
        leaf: its place.
        own: (n,) whether each cell is of it.
        labels: (n,) of all cells.
        probabilities: (n, leaves).
        confidence: from which a cell is named.

    >>> p = np.array([[0.1, 0.9], [0.4, 0.6], [0.8, 0.2], [0.9, 0.1]])
    >>> own = np.array([True, True, False, False])
    >>> class_figures(1, own, np.array(["b", "b", "a", "a"]), p, 0.8)
    ClassFigures(recall=1.0, named=0.5, precision=1.0, false=0.0, auroc=1.0)
    """
    most = probabilities.argmax(1) == leaf
    others = [most[(labels == name) & ~own].mean() for name in np.unique(labels[~own])]
    recall, false = float(most[own].mean()), float(np.mean(others)) if others else 0.0
    called = recall + false * len(others)
    return ClassFigures(
        recall,
        float((probabilities[own, leaf] >= confidence).mean()),
        recall / called if called else 0.0,
        false,
        rank_auroc(probabilities[own, leaf], probabilities[~own, leaf]),
    )


def rank_auroc(positive: Floats, negative: Floats) -> float:
    """Return the share of pairs in which the positive has the higher score, ties counting half.

    >>> rank_auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    low = np.searchsorted(ordered, positive, side="left")
    high = np.searchsorted(ordered, positive, side="right")
    return float((low + high).mean() / 2 / len(negative))


def label_recalls(
    labels: NDArray[np.str_], allowed: NDArray[np.bool_], before: Floats, after: Floats
) -> dict[str, tuple[float, float]]:
    """Return, by label, the share of cells whose most probable class the label stands for.

    Args:
        labels: (n,); allowed: (n, leaves) the classes each stands for.
        before, after: (n, leaves) probabilities.
    """
    rows = np.arange(len(labels))
    right = [allowed[rows, p.argmax(1)] for p in (before, after)]
    return {
        str(name): (float(right[0][labels == name].mean()), float(right[1][labels == name].mean()))
        for name in np.unique(labels)
    }


def reasons_against(
    classes: Mapping[str, ClassFigures],
    known: Mapping[str, tuple[float, float]],
    checks: Mapping[str, Mapping[str, tuple[float, float]]],
    max_loss: float,
) -> list[str]:
    """Return why a bundle had better not learn classes; nothing if it may.

    It may if each new class is found in half of its held-out cells, and balanced accuracy on what
    was known and on every labelled set loses no more than `max_loss`, and no known class more than
    `MAX_LABEL_LOSS` of its recall (or `max_loss`, if that is more).

    Args:
        classes: figures of the new ones.
        known: recall by label before and after, on the exemplars.
        checks: the same by labelled set; labels that only the new classes have are not compared.
        max_loss: of balanced accuracy.
    """
    found = [
        f"only {figures.recall:.0%} of held-out cells of {name!r} are found (less than "
        f"{LEAST_RECALL:.0%})"
        for name, figures in classes.items()
        if not figures.recall >= LEAST_RECALL
    ]
    for where, labels in (("what was known", known), *checks.items()):
        compared = {name: pair for name, pair in labels.items() if name not in classes}
        if not compared:
            continue
        before, after = (float(np.mean([pair[i] for pair in compared.values()])) for i in (0, 1))
        if before - after > max_loss:
            found.append(
                f"balanced accuracy on {where} would fall from {before:.3f} to {after:.3f}, by "
                f"more than {max_loss:g}"
            )
        worst = max(compared, key=lambda name: compared[name][0] - compared[name][1])
        lost = compared[worst][0] - compared[worst][1]
        if lost > max(MAX_LABEL_LOSS, max_loss):
            found.append(
                f"recall of {worst!r} on {where} would fall from {compared[worst][0]:.3f} to "
                f"{compared[worst][1]:.3f}"
            )
    return found
