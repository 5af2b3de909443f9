"""Shares of classes, corrected for how often the classifier takes one class for another.

A classifier that takes a tenth of the lymphocytes for blasts finds blasts on every film. Where its
errors were measured on sites that were left out of training, the counts can be corrected: the
shares are those under which the given names are most probable (a mixture with known components,
by EM; the idea is Rogan & Gladen's, Am J Epidemiol 107, 1978, for two classes). The interval holds
three errors: of the count, of the measured confusion, and of the site, since a new film errs as one
of the sites does, not as their mean.

A correction speaks of names only, of those that were measured:

- A cell left open stays open. How many cells are left open depends on the film more than on its
  classes: taken as evidence, a film that the classifier hardly reads would be full of the class
  that was left open most.
- A name that stands for no measured class is a class of its own: a blast on a film is no lymphocyte
  only because no blasts were among the cells on which errors were measured. What measured classes
  are named so by mistake is taken off it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.core.errors import DataError
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Taxonomy

DRAWS = 400
STEPS = 300
PRIOR = 0.5
"""Pseudo count per cell of the confusion and per named class (Jeffreys)."""
POOLED = 2.0
"""Cells that the mean of all sites counts for beside the cells of one site."""
TAIL = 2.5
METRIC = "left_out_confusion"
"""Name under which a bundle's metrics hold the confusion."""


@dataclass(frozen=True, eq=False)
class ClassConfusion:
    """How a classifier names cells of sites that it was not trained on.

    Attributes:
        true: classes that were measured, in order.
        named: names that it gave, in order; inner nodes of the taxonomy are cells it left open.
        counts: (true, named) how many cells, of all sites.
        sites: the sites, each left out of training in turn.
        by_site: (sites, true, named) the same of every site; empty where only the sum is known.
    """

    true: tuple[str, ...]
    named: tuple[str, ...]
    counts: Floats
    sites: tuple[str, ...] = ()
    by_site: tuple[Floats, ...] = ()

    @classmethod
    def of_pairs(
        cls, pairs: Iterable[tuple[str, str]], whose: Sequence[str] | None = None
    ) -> "ClassConfusion":
        """Count pairs of (true class, given name).

        Args:
            pairs: of the cells.
            whose: the site of every cell.

        >>> c = ClassConfusion.of_pairs([("monocyte", "monocyte"), ("monocyte", "white cell")])
        >>> c.true, c.named, c.counts.tolist()
        (('monocyte',), ('monocyte', 'white cell'), [[1.0, 1.0]])
        >>> c = ClassConfusion.of_pairs([("a", "a"), ("a", "b")], ["one", "two"])
        >>> c.sites, [site.tolist() for site in c.by_site]
        (('one', 'two'), [[[1.0, 0.0]], [[0.0, 1.0]]])
        """
        listed = list(pairs)
        owners = [""] * len(listed) if whose is None else list(whose)
        met = Counter((o, *pair) for o, pair in zip(owners, listed, strict=True))
        sites, true, named = (tuple(sorted({key[k] for key in met})) for k in range(3))
        counts = np.array(
            [[[met[s, t, n] for n in named] for t in true] for s in sites], dtype=np.float64
        ).reshape(len(sites), len(true), len(named))
        if whose is None:
            return cls(true, named, counts.sum(axis=0))
        return cls(true, named, counts.sum(axis=0), sites, tuple(counts))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        data: dict[str, Any] = {
            "true": list(self.true),
            "named": list(self.named),
            "counts": self.counts.astype(int).tolist(),
            "sites": list(self.sites),
        }
        if self.by_site:
            data["by_site"] = [counts.astype(int).tolist() for counts in self.by_site]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ClassConfusion":
        """Read what `to_json` wrote; `DataError` if it is no confusion."""
        try:
            true, named = tuple(map(str, data["true"])), tuple(map(str, data["named"]))
            shape = (len(true), len(named))
            counts = _matrix(data["counts"], shape)
            sites = tuple(map(str, data.get("sites", ())))
            by_site = tuple(_matrix(rows, shape) for rows in data.get("by_site", ()))
            if by_site and len(by_site) != len(sites):
                raise ValueError("its counts by site do not fit its sites")
            if by_site and not np.array_equal(sum(by_site), counts):
                raise ValueError("its counts by site do not add up to its counts")
            return cls(true, named, counts, sites, by_site)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"confusion: not the record of one ({error!r})") from None

    def of_classes(self, taxonomy: Taxonomy) -> "ClassConfusion":
        """Return it without labels that are above another: they say of a cell less than a class."""
        kept = [
            k
            for k, name in enumerate(self.true)
            if not any(t != name and _is_under(taxonomy, t, name) for t in self.true)
        ]
        true = tuple(self.true[k] for k in kept)
        by_site = tuple(counts[kept] for counts in self.by_site)
        return ClassConfusion(true, self.named, self.counts[kept], self.sites, by_site)

    def leaves_open(self, name: str, taxonomy: Taxonomy) -> bool:
        """Whether a name stands for every measured class, and so for none."""
        return name not in self.true and all(_is_under(taxonomy, t, name) for t in self.true)

    def tells_apart(self, name: str, taxonomy: Taxonomy) -> bool:
        """Whether a name is a measured class, below one, or above some but not all of them."""
        return not self.leaves_open(name, taxonomy) and any(
            _is_under(taxonomy, t, name) or _is_under(taxonomy, name, t) for t in self.true
        )


def _matrix(data: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    counts = np.array(data, dtype=np.float64)
    if counts.shape != shape or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError("its counts do not fit its classes")
    return counts


def _is_under(taxonomy: Taxonomy, name: str, node: str) -> bool:
    if name == node:
        return True
    return name in taxonomy and node in taxonomy and taxonomy.is_under(name, node)


def confusion_of(metrics: Mapping[str, Any]) -> ClassConfusion | None:
    """Return the confusion that a bundle's metrics hold; `None` if there is none."""
    held = metrics.get(METRIC)
    return None if held is None else ClassConfusion.from_json(held)


@dataclass(frozen=True, eq=False)
class CorrectedShares:
    """Shares of classes among all cells; together with the cells left open they are 1.

    Attributes:
        classes: measured classes, then names that stand for none of them.
        shares: (classes,) the most probable shares.
        draws: (draws, classes) shares under counts and confusions that are as probable.
        measured: the classes that were measured.
        counted: cells that the correction rests on.
        unmeasured: cells whose name stands for no measured class.
        undecided: cells left open.
    """

    classes: tuple[str, ...]
    shares: Floats
    draws: Floats
    measured: tuple[str, ...]
    counted: int
    unmeasured: int = 0
    undecided: int = 0

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
    counts: Mapping[str, int],
    confusion: ClassConfusion,
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> CorrectedShares | None:
    """Return the shares of classes that explain how cells were named.

    Args:
        counts: cells by the name they were given.
        confusion: measured on sites left out.
        taxonomy: of the names.
        seed: of the draws.
        draws: for the interval.

    Returns:
        `None` if no cell has a name that tells measured classes apart.

    >>> c = ClassConfusion(("a", "b"), ("a", "b"), np.array([[90.0, 10.0], [0.0, 100.0]]))
    >>> found = corrected_shares({"a": 45, "b": 55}, c)
    >>> round(found.of(["a"])[0], 2)
    0.5
    """
    confusion = confusion.of_classes(taxonomy)
    met = {n: k for n, k in counts.items() if k and not confusion.leaves_open(n, taxonomy)}
    others = sorted(n for n in met if not confusion.tells_apart(n, taxonomy))
    counted = sum(met.values()) - sum(met[n] for n in others)
    if not counted:
        return None
    columns = [k for k, n in enumerate(confusion.named) if not confusion.leaves_open(n, taxonomy)]
    names = [confusion.named[k] for k in columns]
    names += [n for n in met if n not in names]
    y = np.array([met.get(name, 0) for name in names], dtype=np.float64)
    total = float(sum(counts.values()))
    undecided = total - y.sum()
    rates, drawn_rates = (
        _with_others(part, names, others) for part in _rates(confusion, columns, seed, draws)
    )
    spread = np.append(y, undecided)
    rng = np.random.default_rng(seed)
    named = rng.dirichlet(spread + PRIOR / len(spread), size=draws)[:, :-1]
    return CorrectedShares(
        (*confusion.true, *others),
        _mixture(y[None], rates[None])[0] * y.sum() / total,
        _mixture(named, drawn_rates) * named.sum(axis=1, keepdims=True),
        confusion.true,
        counted,
        int(y.sum()) - counted,
        int(undecided),
    )


def _with_others(rates: Floats, names: Sequence[str], others: Sequence[str]) -> Floats:
    """Return rates (..., true, columns) with a row for each other name, which is always given it.

    Nothing is known of how such a class is named; what measured classes are wrongly named so is
    theirs, and the rest of these cells its own.
    """
    *leading, true, columns = rates.shape
    wide = np.zeros((*leading, true + len(others), len(names)))
    wide[..., :true, :columns] = rates
    for row, name in enumerate(others, start=true):
        wide[..., row, names.index(name)] = 1.0
    return wide


def _rates(
    confusion: ClassConfusion, columns: Sequence[int], seed: int, draws: int
) -> tuple[Floats, Floats]:
    """Return how named cells of each class are named: (true, names), and (draws, true, names).

    Every draw errs as one site does; the mean of all sites counts for a few cells beside it.
    """
    pooled = confusion.counts[:, columns]
    mean = pooled + PRIOR / len(columns)
    mean /= mean.sum(axis=1, keepdims=True)
    sites = np.stack(confusion.by_site)[:, :, columns] if confusion.by_site else pooled[None]
    rng = np.random.default_rng((seed, 1))
    drawn = np.empty((draws, *pooled.shape))
    for k, site in enumerate(rng.integers(len(sites), size=draws)):
        for t, row in enumerate(sites[site]):
            # A class that this site does not have errs as on all of them.
            seen = row if row.sum() else pooled[t]
            drawn[k, t] = rng.dirichlet(seen + POOLED * mean[t])
    held = pooled.sum(axis=1, keepdims=True)
    return np.where(held > 0, pooled / np.maximum(held, 1), mean), drawn


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
