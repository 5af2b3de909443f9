"""Intervals: of a share by Wilson, of any figure by resampling whole groups.

Groups are resampled because cells of one film are not independent. Source: Efron & Tibshirani, An
introduction to the bootstrap, 1993, chapter 13; groups are drawn with replacement, as many as there
are, with every item of a drawn group.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.field import Field

Weights = NDArray[np.intp]
_Z95 = 1.959963984540054


def wilson_interval(count: float, total: float, z: float = _Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, 95 % by default; (0, 1) of nothing.

    It holds the counting error alone: how far a share strays because few were counted.
    Source: E. B. Wilson, JASA 22 (1927) 209-212; as equation (4) in Brown, Cai, DasGupta,
    Statistical Science 16 (2001) 101-133.

    Args:
        count, total: `count` of `total`; fractions stand for effective sample sizes.
        z: quantile of the normal distribution.

    >>> [round(end, 4) for end in wilson_interval(20, 100)]
    [0.1334, 0.2888]
    """
    if total <= 0:
        return 0.0, 1.0
    share = count / total
    spread = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / spread
    half = z / spread * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == total else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True)
class Interval:
    """A figure with its uncertainty.

    Attributes:
        value: on the whole sample.
        low, high: the percentile interval; not-a-number with fewer than two groups.
        undefined: resamples in which the figure does not exist, left out.
    """

    value: float
    low: float
    high: float
    undefined: int = 0


def group_fields(fields: Sequence[Field]) -> tuple[list[str], str]:
    """Return each field's group and what a group is, in words.

    A patient is a group where known; a field of an unknown patient is a group of its own, but
    byte-identical fields (`meta["twin"]`) and copies of one field (`meta["matched"]`) are together.
    """
    groups = [
        _own_group(i, f) if f.patient is None else f"patient {f.patient}"
        for i, f in enumerate(fields)
    ]
    known = sum(f.patient is not None for f in fields)
    if known == 0:
        return groups, "field (no patient known)"
    if known == len(fields):
        return groups, "patient"
    return groups, "patient where known, else field"


def _own_group(i: int, item: Field) -> str:
    for key in ("twin", "matched"):
        if item.meta.get(key):
            return f"{key} {item.meta[key]}"
    return f"field {i}"


def resamples(groups: Sequence[Hashable], n: int, seed: int) -> Iterator[Weights]:
    """Yield n times how often each item is in a resample of whole groups, shape (items,)."""
    code: dict[Hashable, int] = {}
    where = np.asarray([code.setdefault(g, len(code)) for g in groups], dtype=np.intp)
    rng = np.random.default_rng(seed)
    for _ in range(n):
        drawn = rng.integers(0, len(code), size=len(code))
        yield np.bincount(drawn, minlength=len(code))[where]


def intervals(
    metric: Callable[[Weights], ArrayLike],
    groups: Sequence[Hashable],
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """Return an interval for each figure a metric gives.

    Args:
        metric: takes how often each item is in the sample, returns one figure or several.
        groups: the group of each item.
        n: resamples; 0 gives the value alone.
        seed: of the resamples.
        level: share of resamples between low and high.

    Raises:
        ConfigError: if the level is not between 0 and 1, or n is negative.
    """
    if not 0 < level < 1 or n < 0:
        raise ConfigError("bootstrap: needs 0 or more resamples and a level between 0 and 1")
    value = np.atleast_1d(np.asarray(metric(np.ones(len(groups), dtype=np.intp)), dtype=float))
    if n == 0 or len(set(groups)) < 2:
        return [Interval(float(v), float("nan"), float("nan")) for v in value]
    draws = np.asarray([np.atleast_1d(metric(w)) for w in resamples(groups, n, seed)], dtype=float)
    tail = 50 * (1 - level)
    out = []
    for v, column in zip(value, draws.T, strict=True):
        defined = column[np.isfinite(column)]
        low, high = np.percentile(defined, [tail, 100 - tail]) if len(defined) else (np.nan,) * 2
        out.append(Interval(float(v), float(low), float(high), len(column) - len(defined)))
    return out
