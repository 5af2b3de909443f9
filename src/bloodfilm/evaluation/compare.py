"""Whether two differentials agree within what counting alone explains.

Two counts of one film differ by chance. Rümke (1960) tabulated the exact binomial limits of a
count; CLSI H20-A2 judges a count by such limits around the reference. Here the limits of each count
are computed exactly for its own number of cells, and an exact test says how probable a difference
at least as large is. With many classes some differ by chance, so the p-values are also given after
Holm's correction (Scand J Statist 6, 1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bloodfilm.core.errors import DataError
from bloodfilm.evaluation.exact_binomial import exact_limits, exact_test

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class ComparedClass:
    """One class of two differentials.

    Attributes:
        name: of the class.
        counts: cells in the first and in the second count.
        shares: of the white cells of each.
        limits: exact 95 % limits of each share, low and high.
        within: whether each share lies within the other's limits.
        p_value: of the exact test that both come from one share.
        p_corrected: the same after Holm's correction for the number of classes.
    """

    name: str
    counts: tuple[int, int]
    shares: tuple[float, float]
    limits: tuple[tuple[float, float], tuple[float, float]]
    within: bool
    p_value: float
    p_corrected: float

    @property
    def differs(self) -> bool:
        """Whether counting alone hardly explains the difference."""
        return self.p_corrected < ALPHA


@dataclass(frozen=True)
class Comparison:
    """Two differentials, class by class.

    Attributes:
        names: what the two are called.
        totals: white cells of each.
        classes: in the order of the first differential, then those of the second alone.
        left_open: cells of each that were not named closely enough to compare; not in the totals.
    """

    names: tuple[str, str]
    totals: tuple[int, int]
    classes: tuple[ComparedClass, ...]
    left_open: tuple[int, int] = (0, 0)

    @property
    def agrees(self) -> bool:
        """Whether no class differs."""
        return not any(row.differs for row in self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "format": "bloodfilm-comparison",
            "version": 1,
            "names": list(self.names),
            "totals": list(self.totals),
            "left_open": list(self.left_open),
            "agrees": self.agrees,
            "classes": [asdict(row) | {"differs": row.differs} for row in self.classes],
        }


def compare_counts(
    first: Mapping[str, int],
    second: Mapping[str, int],
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Compare two counts of white cells by class.

    Raises:
        DataError: if one of them has no cells.

    >>> same = compare_counts({"neutrophil": 60, "blast": 40}, {"neutrophil": 120, "blast": 80})
    >>> same.agrees, same.classes[1].limits[0] == exact_limits(40, 100)
    (True, True)
    >>> compare_counts({"neutrophil": 95, "blast": 5}, {"neutrophil": 70, "blast": 30}).agrees
    False
    """
    totals = sum(first.values()), sum(second.values())
    for name, total in zip(names, totals, strict=True):
        if total <= 0:
            raise DataError(f"{name}: no white cell is counted, so there is nothing to compare")
    listed = list(dict.fromkeys([*first, *second]))
    pairs = [(first.get(name, 0), second.get(name, 0)) for name in listed]
    p = [exact_test(a, totals[0], b, totals[1]) for a, b in pairs]
    rows = [
        _compared(name, pair, totals, value, corrected)
        for name, pair, value, corrected in zip(listed, pairs, p, holm(p), strict=True)
    ]
    return Comparison(names, totals, tuple(rows))


def _compared(
    name: str, counts: tuple[int, int], totals: tuple[int, int], p: float, corrected: float
) -> ComparedClass:
    shares = counts[0] / totals[0], counts[1] / totals[1]
    limits = exact_limits(counts[0], totals[0]), exact_limits(counts[1], totals[1])
    within = all(
        low <= share <= high for share, (low, high) in zip(reversed(shares), limits, strict=True)
    )
    return ComparedClass(name, counts, shares, limits, within, p, corrected)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[k]))
        corrected[k] = highest
    return corrected
