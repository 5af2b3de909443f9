"""Counting: the differential over white cells with its counting error, and what stays undecided."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Taxonomy

_Z95 = 1.959963984540054


def wilson(count: int, total: int, z: float = _Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, 95 % by default; (0, 1) if nothing was counted.

    It holds the counting error alone: how far a share strays because few cells were counted.
    Source: E. B. Wilson, JASA 22 (1927) 209-212; as equation (4) in Brown, Cai, DasGupta,
    Statistical Science 16 (2001) 101-133.
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


@dataclass(frozen=True, slots=True)
class Proportion:
    """A count among others, with the share it makes and that share's 95 % interval."""

    count: int
    total: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> "Proportion":
        """Return the share `count` makes of `total` (0 of 0 is 0, anywhere between 0 and 1)."""
        low, high = wilson(count, total)
        return cls(count, total, count / total if total else 0.0, low, high)


@dataclass(frozen=True, slots=True)
class Row:
    """One name of the differential.

    Attributes:
        name: node of the taxonomy.
        depth: steps below the white cell, which is the first row.
        leaf: whether the tree ends here.
        blast: whether it counts as a blast.
        share: cells with this name or one below it, among white cells.
        stopped: cells the model named no more closely than this (for a leaf: all of them).
    """

    name: str
    depth: int
    leaf: bool
    blast: bool
    share: Proportion
    stopped: int


@dataclass(frozen=True, slots=True)
class Differential:
    """What was counted.

    Attributes:
        nucleated: all nucleated cells.
        white: those among them that are white cells: the total of every share.
        rows: the white cell and the names below it that were met, in tree order.
        blasts: cells named as a blast or blast equivalent.
        maybe_blasts: undecided nucleated cells whose name leaves room for a blast.
        erythroblasts: nucleated red cells, which are no part of the differential.
        unplaced: nucleated cells not decided to be white cell or erythroblast.
        undecided: nucleated cells whose name is no leaf.
        flagged: nucleated cells with a flag.
        other: cells without nucleus, by kind.
    """

    nucleated: int
    white: int
    rows: tuple[Row, ...]
    blasts: Proportion
    maybe_blasts: int
    erythroblasts: int
    unplaced: int
    undecided: int
    flagged: int
    other: dict[str, int]

    @property
    def erythroblasts_per_100(self) -> float | None:
        """Erythroblasts per 100 white cells, as haematology reports them; `None` without any."""
        return 100 * self.erythroblasts / self.white if self.white else None


def is_nucleated(cell: CellResult, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> bool:
    """Whether the detector took a cell for a nucleated one."""
    nucleated = taxonomy.find("nucleated cell")
    if nucleated is None:
        return bool(cell.probabilities)
    return cell.kind in taxonomy and taxonomy.is_under(cell.kind, nucleated)


def differential(
    cells: Iterable[CellResult], taxonomy: Taxonomy = DEFAULT_TAXONOMY
) -> Differential:
    """Count cells by class. Pure: the same cells give the same counts, whatever their order."""
    stopped: Counter[str] = Counter()
    other: Counter[str] = Counter()
    flagged = 0
    for cell in cells:
        if is_nucleated(cell, taxonomy):
            stopped[cell.label] += 1
            flagged += bool(cell.flags)
        else:
            other[cell.kind] += 1
    unknown = sum(n for name, n in stopped.items() if name not in taxonomy)
    known = {name: n for name, n in stopped.items() if name in taxonomy}

    def below(node: str | None) -> int:
        if node is None:
            return 0
        return sum(n for name, n in known.items() if taxonomy.is_under(name, node))

    leaves = set(taxonomy.leaves)
    top = taxonomy.find("white cell") or taxonomy.nodes[0].name
    red = taxonomy.find("erythroblast")
    white, total = below(top), sum(stopped.values())
    erythroblasts = below(red) if red and not taxonomy.is_under(red, top) else 0
    blasts = sum(n for name, n in known.items() if name in taxonomy.blasts)
    undecided = {name: n for name, n in known.items() if name not in leaves}
    return Differential(
        nucleated=total,
        white=white,
        rows=_rows(known, taxonomy, top, white),
        blasts=Proportion.of(blasts, white),
        maybe_blasts=sum(
            n
            for name, n in undecided.items()
            if name not in taxonomy.blasts and taxonomy.blasts & set(taxonomy.leaves_under(name))
        ),
        erythroblasts=erythroblasts,
        unplaced=total - white - erythroblasts,
        undecided=sum(undecided.values()) + unknown,
        flagged=flagged,
        other=dict(sorted(other.items())),
    )


def _rows(known: dict[str, int], taxonomy: Taxonomy, top: str, white: int) -> tuple[Row, ...]:
    """Return the white cell and the nodes below it that cells were counted under, depth first."""
    leaves, rows = set(taxonomy.leaves), []
    waiting = [(top, 0)]
    while waiting:
        name, depth = waiting.pop()
        count = sum(n for label, n in known.items() if taxonomy.is_under(label, name))
        if not count:
            continue
        rows.append(
            Row(
                name=name,
                depth=depth,
                leaf=name in leaves,
                blast=name in taxonomy.blasts,
                share=Proportion.of(count, white),
                stopped=known.get(name, 0),
            )
        )
        waiting += [(child, depth + 1) for child in reversed(taxonomy.children(name))]
    return tuple(rows)
