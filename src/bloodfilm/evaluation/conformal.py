"""Conformal class sets: which classes a cell may be, with stated coverage.

Split conformal prediction: the limit is the quantile of the probabilities that cells got for their
own class, so that a new cell's own class reaches it with the stated probability (Vovk et al. 2005,
chapter 4; the quantile is that of Lei et al., JASA 113, 2018, with its correction for few cells).
Cells of one site are alike and a new film is of a new site: every site weighs the same, however
many cells it has. All classes share one limit, which gives the smallest sets for a coverage
(Sadinle, Lei, Wasserman, JASA 114, 2019); limits by class leave three times as many cells of a site
left out of training without a name (`benchmarks/conformal.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.inference.manifest import ConformalSpec


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


def conformal_limit(
    reached: Floats, coverage: float, sites: NDArray[np.str_] | None = None
) -> float:
    """Return the limit that a share `coverage` of new values reaches.

    Args:
        reached: (n,) values.
        coverage: share of new values.
        sites: (n,) where each value is from; every site weighs the same.

    >>> conformal_limit(np.arange(1, 100) / 100, 0.9)
    0.1
    >>> conformal_limit(np.array([0.5]), 0.9)
    0.0
    """
    owners = (
        np.zeros(len(reached), int) if sites is None else np.unique(sites, return_inverse=True)[1]
    )
    counts = np.bincount(owners)
    # A new value is one more of its site, and may be the lowest.
    weights = 1 / (len(counts) * (counts[owners] + 1.0))
    falling = np.argsort(reached)[::-1]
    enough = np.cumsum(weights[falling]) >= coverage - 1e-9
    return float(reached[falling[enough.argmax()]]) if enough.any() else 0.0


def fit_conformal(
    cells: LabelledProbabilities, leaves: Sequence[str], coverage: float = 0.9
) -> ConformalSpec:
    """Choose the probability that a class must reach to be in a cell's set.

    Args:
        cells: of sites left out of training, every one named by a classifier that never saw it.
        leaves: the classes, in the order of the probabilities.
        coverage: share of cells whose class shall be in their set.
    """
    found = conformal_limit(cells.reached, coverage, cells.sites)
    # Rounded down: rounded up, it would shut out the cell that it was chosen by.
    least = float(np.floor(found * 1e4) / 1e4)
    counts = cells.allowed.sum(axis=0).tolist()
    return ConformalSpec(
        coverage=coverage,
        least=dict.fromkeys(leaves, least),
        cells=dict(zip(leaves, counts, strict=True)),
        sites=tuple(sorted({str(site) for site in cells.sites})),
    )


@dataclass(frozen=True, slots=True)
class SetFigures:
    """How class sets fare on cells.

    Attributes:
        cells: how many.
        covered: share whose set holds a leaf that their label stands for.
        single: share whose set holds one class.
        single_right: share of these whose class is that one; 1 if there are none.
        size: mean number of classes in a set.
        by_class: by label, the share covered.
    """

    cells: int
    covered: float
    single: float
    single_right: float
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
    single = members.sum(axis=1) == 1
    return SetFigures(
        len(covered),
        round(float(covered.mean()), 4),
        round(float(single.mean()), 4),
        round(float(covered[single].mean()), 4) if single.any() else 1.0,
        round(float(members.sum(axis=1).mean()), 3),
        by_class,
    )
