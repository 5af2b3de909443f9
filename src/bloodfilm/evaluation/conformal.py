"""Conformal class sets: which classes a cell may be, with stated coverage.

Split conformal prediction with class-conditional (Mondrian) limits: for each class the limit is
the quantile of the probabilities that cells of this class got, so that a new cell's own class
reaches it with the stated probability (Vovk et al. 2005, chapter 4; the quantile is that of Lei et
al., JASA 113, 2018, with its correction for few cells). Cells of one site are alike and a new site
differs: the limit is also taken within each site alone, and the lowest counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.inference.manifest import ConformalSpec

Bools = NDArray[np.bool_]
MIN_CELLS = 20
"""A class of fewer cells takes the limit of all classes together."""
MIN_SITE_CELLS = 20


@dataclass(frozen=True, eq=False)
class LabelledProbabilities:
    """Calibrated probabilities of cells that the classifier was not trained on.

    Attributes:
        probabilities: (n, leaves).
        allowed: (n, leaves) the leaves that each cell's label stands for; one or more.
        sites: (n,) where each cell is from.
    """

    probabilities: Floats
    allowed: Bools
    sites: NDArray[np.str_]

    @property
    def reached(self) -> Floats:
        """(n,) the highest probability of a leaf that the label stands for."""
        return np.asarray(np.where(self.allowed, self.probabilities, 0.0).max(axis=1))

    def of(self, which: Bools) -> "LabelledProbabilities":
        """Return some of the cells."""
        return LabelledProbabilities(
            self.probabilities[which], self.allowed[which], self.sites[which]
        )


def conformal_limit(reached: Floats, coverage: float) -> float:
    """Return the limit that a share `coverage` of new values reaches.

    >>> conformal_limit(np.arange(1, 100) / 100, 0.9)
    0.1
    >>> conformal_limit(np.array([0.5]), 0.9)
    0.0
    """
    n = len(reached)
    rank = int(np.floor((n + 1) * (1 - coverage) + 1e-9))
    return 0.0 if rank < 1 else float(np.sort(reached)[rank - 1])


def fit_conformal(
    cells: LabelledProbabilities,
    leaves: Sequence[str],
    coverage: float = 0.9,
    *,
    by_site: bool = True,
) -> ConformalSpec:
    """Choose for each class the probability that it must reach to be in a cell's set.

    Args:
        cells: of sites left out of training, every one named by a classifier that never saw it.
        leaves: the classes, in the order of the probabilities.
        coverage: share of cells whose class shall be in their set.
        by_site: whether the limit must hold within every site of enough cells, too.
    """
    reached = cells.reached
    pooled = _limit(reached, cells.sites, coverage, by_site)
    least, counts = {}, {}
    for k, leaf in enumerate(leaves):
        own = cells.allowed[:, k]
        counts[leaf] = int(own.sum())
        few = counts[leaf] < MIN_CELLS
        found = pooled if few else _limit(reached[own], cells.sites[own], coverage, by_site)
        # Rounded down: rounded up, it would shut out the cell that it was chosen by.
        least[leaf] = float(np.floor(found * 1e4) / 1e4)
    return ConformalSpec(
        coverage=coverage,
        least=least,
        cells=counts,
        sites=tuple(sorted({str(site) for site in cells.sites})),
    )


def _limit(reached: Floats, sites: NDArray[np.str_], coverage: float, by_site: bool) -> float:
    limits = [conformal_limit(reached, coverage)]
    if by_site:
        for site in np.unique(sites):
            inside = reached[sites == site]
            if len(inside) >= MIN_SITE_CELLS:
                limits.append(conformal_limit(inside, coverage))
    return min(limits)


@dataclass(frozen=True, slots=True)
class SetFigures:
    """How class sets fare on cells.

    Attributes:
        cells: how many.
        covered: share whose set holds a leaf that their label stands for.
        single: share whose set holds one class.
        size: mean number of classes in a set.
        by_class: by label, the share covered.
    """

    cells: int
    covered: float
    single: float
    size: float
    by_class: Mapping[str, float]


def set_figures(
    cells: LabelledProbabilities, spec: ConformalSpec, leaves: Sequence[str]
) -> SetFigures:
    """Judge class sets on labelled cells."""
    least = np.array([spec.least.get(leaf, 2.0) for leaf in leaves])
    members = cells.probabilities >= least
    covered = np.atleast_1d((members & cells.allowed).any(axis=1))
    labels = [" or ".join(np.array(leaves)[row]) for row in cells.allowed]
    by_class = {
        name: round(
            float(np.mean([c for c, n in zip(covered, labels, strict=True) if n == name])), 4
        )
        for name in sorted(set(labels))
    }
    return SetFigures(
        len(covered),
        round(float(covered.mean()), 4),
        round(float((members.sum(axis=1) == 1).mean()), 4),
        round(float(members.sum(axis=1).mean()), 3),
        by_class,
    )


def leave_one_site_out(
    cells: LabelledProbabilities, leaves: Sequence[str], coverage: float = 0.9
) -> dict[str, SetFigures]:
    """Fit on all sites but one, judge on that one, for every site."""
    return {
        str(site): set_figures(
            cells.of(cells.sites == site),
            fit_conformal(cells.of(cells.sites != site), leaves, coverage),
            leaves,
        )
        for site in np.unique(cells.sites)
    }
