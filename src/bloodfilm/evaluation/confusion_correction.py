"""Shares of classes, corrected for how often the classifier takes one class for another.

A classifier that takes a tenth of the lymphocytes for blasts finds blasts on every film. Where its
errors were measured on sites that were left out of training, the counts can be corrected: the
shares are those under which the named counts are most probable (a mixture with known components,
by EM; the idea is Rogan & Gladen's, Am J Epidemiol 107, 1978, for two classes). The interval holds
both errors: of the count, and of the measured confusion.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.core.errors import DataError

DRAWS = 400
STEPS = 300
PRIOR = 0.5
"""Pseudo count per cell of the confusion and per named class (Jeffreys)."""
TAIL = 2.5
METRIC = "left_out_confusion"
"""Name under which a bundle's metrics hold the confusion."""


@dataclass(frozen=True, eq=False)
class ClassConfusion:
    """How a classifier names cells of sites that it was not trained on.

    Attributes:
        true: classes that were measured, in order.
        named: names that it gave, in order; inner nodes of the taxonomy are cells it left open.
        counts: (true, named) how many cells.
        sites: the sites, each left out of training in turn.
    """

    true: tuple[str, ...]
    named: tuple[str, ...]
    counts: Floats
    sites: tuple[str, ...] = ()

    @classmethod
    def of_pairs(
        cls, pairs: Iterable[tuple[str, str]], sites: Sequence[str] = ()
    ) -> "ClassConfusion":
        """Count pairs of (true class, given name).

        >>> c = ClassConfusion.of_pairs([("monocyte", "monocyte"), ("monocyte", "white cell")])
        >>> c.true, c.named, c.counts.tolist()
        (('monocyte',), ('monocyte', 'white cell'), [[1.0, 1.0]])
        """
        met = Counter(pairs)
        true = tuple(sorted({t for t, _ in met}))
        named = tuple(sorted({n for _, n in met}))
        counts = np.array([[met[t, n] for n in named] for t in true], dtype=np.float64)
        return cls(true, named, counts.reshape(len(true), len(named)), tuple(sites))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "true": list(self.true),
            "named": list(self.named),
            "counts": [[int(v) for v in row] for row in self.counts],
            "sites": list(self.sites),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ClassConfusion":
        """Read what `to_json` wrote; `DataError` if it is no confusion."""
        try:
            true, named = tuple(map(str, data["true"])), tuple(map(str, data["named"]))
            counts = np.array(data["counts"], dtype=np.float64)
            if counts.shape != (len(true), len(named)) or not (counts >= 0).all():
                raise ValueError("its counts do not fit its classes")
            return cls(true, named, counts, tuple(map(str, data.get("sites", ()))))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"confusion: not the record of one ({error!r})") from None


def confusion_of(metrics: Mapping[str, Any]) -> ClassConfusion | None:
    """Return the confusion that a bundle's metrics hold; `None` if there is none."""
    held = metrics.get(METRIC)
    return None if held is None else ClassConfusion.from_json(held)


@dataclass(frozen=True, eq=False)
class CorrectedShares:
    """Shares of the measured classes.

    Attributes:
        classes: their names.
        shares: (classes,) the most probable shares.
        draws: (draws, classes) shares under counts and confusions that are as probable.
        counted: cells that the correction rests on.
        unmeasured: named cells whose name the confusion does not have: they are not in it.
    """

    classes: tuple[str, ...]
    shares: Floats
    draws: Floats
    counted: int
    unmeasured: int = 0

    def of(self, names: Iterable[str]) -> tuple[float, float, float]:
        """Return share, low and high (95 %) of some of the classes together."""
        wanted = set(names)
        which = [k for k, name in enumerate(self.classes) if name in wanted]
        low, high = np.percentile(self.draws[:, which].sum(axis=1), [TAIL, 100 - TAIL])
        return float(self.shares[which].sum()), float(low), float(high)

    def probability_above(self, names: Iterable[str], limit: float) -> float:
        """Return how probable it is that the share of some classes reaches a limit."""
        wanted = set(names)
        which = [k for k, name in enumerate(self.classes) if name in wanted]
        return float((self.draws[:, which].sum(axis=1) >= limit).mean())


def corrected_shares(
    counts: Mapping[str, int], confusion: ClassConfusion, seed: int = 0, draws: int = DRAWS
) -> CorrectedShares | None:
    """Return the shares of classes that explain how cells were named.

    Args:
        counts: cells by the name they were given.
        confusion: measured on sites left out.
        seed: of the draws.
        draws: for the interval.

    Returns:
        `None` if no cell has a name that was measured.

    >>> c = ClassConfusion(("a", "b"), ("a", "b"), np.array([[90.0, 10.0], [0.0, 100.0]]))
    >>> found = corrected_shares({"a": 45, "b": 55}, c)
    >>> round(found.of(["a"])[0], 2)
    0.5
    """
    y = np.array([counts.get(name, 0) for name in confusion.named], dtype=np.float64)
    if not y.sum():
        return None
    rows = confusion.counts.sum(axis=1, keepdims=True)
    shares = _mixture(y[None], (confusion.counts / np.maximum(rows, 1))[None])[0]
    rng = np.random.default_rng(seed)
    drawn_y = rng.dirichlet(y + PRIOR / len(y), size=draws) * y.sum()
    drawn_p = np.stack(
        [rng.dirichlet(row + PRIOR / len(row), size=draws) for row in confusion.counts], axis=1
    )
    unmeasured = sum(n for name, n in counts.items() if name not in confusion.named)
    return CorrectedShares(
        confusion.true, shares, _mixture(drawn_y, drawn_p), int(y.sum()), unmeasured
    )


def _mixture(y: Floats, p: Floats) -> NDArray[np.float64]:
    """Return the weights (n, true) of components p (n, true, named) that best explain y (n, named).

    Expectation maximisation; each step raises the likelihood.
    """
    weights = np.full(p.shape[:2], 1 / p.shape[1])
    total = np.maximum(y.sum(axis=1, keepdims=True), 1e-12)
    for _ in range(STEPS):
        expected = np.einsum("nt,ntk->nk", weights, p)
        ratio = y / np.maximum(expected, 1e-12)
        weights = weights * np.einsum("ntk,nk->nt", p, ratio) / total
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return weights
