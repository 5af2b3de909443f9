"""How well the probability of a blast, of whatever kind, tells blasts from all other cells."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import BLAST, Taxonomy
from bloodfilm.evaluation import intervals as bootstrap
from bloodfilm.evaluation.class_figures import rank_auroc
from bloodfilm.evaluation.intervals import Interval


@dataclass(frozen=True)
class BlastReport:
    """Blasts against all other nucleated cells.

    Attributes:
        blasts, others: how many cells of each there are.
        auroc: area under the ROC curve: the share of pairs of a blast and another cell in which the
            blast has the higher probability of being one.
    """

    blasts: int
    others: int
    auroc: Interval


def blast_report(
    labels: Sequence[str | None],
    results: Sequence[CellResult],
    taxonomy: Taxonomy,
    groups: Sequence[Hashable],
    resampling: tuple[int, int, float] = (1000, 0, 0.95),
) -> BlastReport | None:
    """Return the figures of cells that are labelled; `None` without blasts, or without others.

    Left out are cells whose label does not say whether they are blasts, such as "nucleated cell",
    and cells without probabilities. The probability is the sum over all kinds of blast that the
    model names.

    Args:
        labels: of the true cells.
        results: of the model, in the same order.
        taxonomy: of the labels.
        groups: of each cell, resampled whole.
        resampling: number of resamples, seed, and level of the interval.
    """
    if BLAST not in taxonomy:
        return None
    blasts = frozenset(taxonomy.leaves_under(BLAST))
    truth: list[bool] = []
    scores: list[float] = []
    kept: list[Hashable] = []
    for label, result, group in zip(labels, results, groups, strict=True):
        if label is None or label not in taxonomy or not result.probabilities:
            continue
        leaves = set(taxonomy.leaves_under(label))
        if leaves & blasts and not leaves <= blasts:
            continue
        truth.append(leaves <= blasts)
        scores.append(sum(p for leaf, p in result.probabilities.items() if leaf in blasts))
        kept.append(group)
    positive, score = np.array(truth, dtype=bool), np.array(scores)
    if not positive.any() or positive.all():
        return None

    def area(weights: NDArray[np.intp]) -> float:
        which = np.repeat(np.arange(len(weights)), weights)
        drawn = positive[which]
        return rank_auroc(score[which][drawn], score[which][~drawn])

    (auroc,) = bootstrap.intervals(area, kept, *resampling)
    return BlastReport(int(positive.sum()), int((~positive).sum()), auroc)
