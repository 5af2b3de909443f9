"""The differential of a film as practice reports it: per 100 cells, with both kinds of error.

`differential` counts; here counts become what is read: shares per 100, 200 or 400 white cells,
whether enough cells were counted, the share of blasts against 20 %, the same corrected for the
classifier's errors, what each class looks like, and how many cells were left open.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bloodfilm.core.results import AnalysisRun, CaseResult, CellResult, FieldResult, ModelInfo
from bloodfilm.core.taxonomy import BLAST
from bloodfilm.evaluation.confusion_correction import (
    CorrectedShares,
    confusion_of,
    corrected_shares,
)
from bloodfilm.evaluation.differential import (
    Differential,
    Proportion,
    differential,
    is_artefact,
    is_undecided,
)
from bloodfilm.evaluation.open_cells import LikeliestClass, OpenCells

BLAST_LIMIT = 0.20
"""Share of blasts from which acute leukaemia is diagnosed (WHO)."""
CELLS = (100, 200, 400)
"""White cells that practice counts: a screening count; ICSH (Palmer et al. 2015) where a film is
abnormal; two observers of CLSI H20-A2."""
USUAL = 200
LEAST_EXPECTED = 0.05
"""Cells below which an expected number is not listed."""

Correction = Literal["measured", "no-confusion", "nothing-counted"]
Side = Literal["above", "below", "undecided", "unknown"]


@dataclass(frozen=True, slots=True)
class CorrectedShare:
    """A share, corrected for the classifier's errors, with its 95 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Adequacy:
    """Whether enough white cells were counted.

    Attributes:
        white: counted.
        wanted: by the practice that was asked for.
        reached: the largest of 100, 200 and 400 that was reached; 0 below 100.
    """

    white: int
    wanted: int
    reached: int

    @property
    def enough(self) -> bool:
        """Whether what was wanted is reached."""
        return self.white >= self.wanted


@dataclass(frozen=True, slots=True)
class BlastShare:
    """The share of blasts against a limit.

    Attributes:
        limit: the limit.
        side: on which side of it the share surely lies: `above` if the interval of the count does;
            `below` if that of all cells that are blasts or may be does, and every kind of blast
            can be named; else `undecided`; `unknown` if the model can name no blast.
        corrected_side: the same of the corrected share; `unknown` where there is none.
        lower_limit: whether the share is a lower limit, as some kinds of blast cannot be named.
        most: the share if every cell that may be a blast were one.
    """

    limit: float
    side: Side
    corrected_side: Side
    lower_limit: bool
    most: float | None = None


@dataclass(frozen=True)
class LikelyCounts:
    """White cells by class if cells left open were what their probabilities say.

    Attributes:
        cells: by class or inner node, how many are expected: those named so, and of the open
            ones the share that their probabilities give.
        blasts: the same of all blasts together.
        likeliest: undecided white cells by their likeliest class; blasts are none of them.
    """

    cells: Mapping[str, float]
    blasts: float | None
    likeliest: Mapping[str, LikeliestClass]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "cells": {name: round(n, 2) for name, n in self.cells.items()},
            "blasts": None if self.blasts is None else round(self.blasts, 2),
            "likeliest": {
                name: {"cells": found.cells, "probability": round(found.probability, 4)}
                for name, found in self.likeliest.items()
            },
        }


@dataclass(frozen=True)
class FilmDifferential:
    """A differential as it is reported.

    Attributes:
        count: the counts, with binomial intervals.
        adequacy: whether enough cells were counted.
        corrected: by class or inner node with a measured class, its corrected share of all white
            cells; empty where the bundle has no measured confusion. Cells left open stay open.
        correction: `measured`, or why there is no correction: `no-confusion`, `nothing-counted`.
        sites: on which the confusion was measured.
        blast: the share of blasts against 20 %.
        undecided: cells that were named by an inner node only, by that node.
        likely: what the cells left open would add; `None` where none is, or no probabilities were
            recorded.
        profiles: by class, attribute and value, how many cells; `""` for cells whose value is not
            sure. Attributes that the model is not trained for are left out.
    """

    count: Differential
    adequacy: Adequacy
    corrected: Mapping[str, CorrectedShare]
    correction: Correction
    sites: tuple[str, ...]
    blast: BlastShare
    corrected_blasts: CorrectedShare | None = None
    undecided: Mapping[str, int] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    likely: LikelyCounts | None = None

    @property
    def per_100(self) -> dict[str, float]:
        """Cells of each class per 100 white cells, as far as the model can name them."""
        return {r.name: 100 * r.proportion.share for r in self.count.rows if r.proportion}

    def to_json(self) -> dict[str, Any]:
        """Return plain data; shares are fractions of 1."""
        return {
            "count": self.count.to_json(),
            "adequacy": asdict(self.adequacy) | {"enough": self.adequacy.enough},
            "per_100": {name: round(value, 2) for name, value in self.per_100.items()},
            "corrected": {name: _rounded(s) for name, s in self.corrected.items()},
            "correction": self.correction,
            "sites": list(self.sites),
            "blast": asdict(self.blast),
            "corrected_blasts": _rounded(self.corrected_blasts),
            "undecided": dict(self.undecided),
            "likely": None if self.likely is None else self.likely.to_json(),
            "profiles": {
                name: {attribute: dict(values) for attribute, values in profile.items()}
                for name, profile in self.profiles.items()
            },
        }


def _rounded(share: CorrectedShare | None) -> dict[str, float] | None:
    return None if share is None else {k: round(v, 4) for k, v in asdict(share).items()}


def film_differential(
    source: AnalysisRun | CaseResult | FieldResult | Iterable[CellResult],
    model: ModelInfo | None = None,
    *,
    wanted: int = USUAL,
) -> FilmDifferential:
    """Return the differential of a film as it is reported.

    Args:
        source: a case, a run, a field, or cells.
        model: as in `differential`.
        wanted: how many white cells practice asks for: 100, 200 or 400.
    """
    if model is None and isinstance(source, AnalysisRun | CaseResult):
        model = source.model
    model = model or ModelInfo({})
    cells = list(_counted(source))
    count = differential(source if isinstance(source, AnalysisRun | CaseResult) else cells, model)
    named = Counter(c.label for c in cells if c.object_type == model.classified)
    taxonomy = model.taxonomy
    top = taxonomy.find("white cell") or taxonomy.nodes[0].name
    white = {
        n: k
        for n, k in named.items()
        if n == BLAST or (n in taxonomy and taxonomy.is_under(n, top))
    }
    confusion = confusion_of(model.metrics)
    shares = None if confusion is None else corrected_shares(white, confusion, taxonomy)
    blasts = tuple(n for n in taxonomy.leaves if n in taxonomy.blasts)
    corrected_blasts = None
    if shares and set(blasts) & set(shares.measured):
        corrected_blasts = CorrectedShare(*shares.of((*blasts, BLAST)))
    reached = max((n for n in CELLS if n <= count.white), default=0)
    correction: Correction = "no-confusion"
    if confusion is not None:
        correction = "measured" if shares else "nothing-counted"
    return FilmDifferential(
        count=count,
        adequacy=Adequacy(count.white, wanted, reached),
        corrected=_by_node(shares, model, top) if shares else {},
        correction=correction,
        sites=() if confusion is None else confusion.sites,
        blast=_blast_share(count, corrected_blasts),
        likely=_likely(cells, count, model, top),
        corrected_blasts=corrected_blasts,
        undecided={
            n: k
            for n, k in sorted(named.items())
            if is_undecided(n, model) and not is_artefact(n, model)
        },
        profiles=_profiles(cells, model),
    )


def _counted(
    source: AnalysisRun | CaseResult | FieldResult | Iterable[CellResult],
) -> Iterable[CellResult]:
    if isinstance(source, CaseResult):
        return source.counted_cells()
    if isinstance(source, FieldResult):
        return source.cells
    if isinstance(source, AnalysisRun):
        return (cell for item in source if item.countable for cell in item.cells)
    return source


def _by_node(shares: CorrectedShares, model: ModelInfo, top: str) -> dict[str, CorrectedShare]:
    """Return the corrected share of every node below the top that has a measured class.

    A class that was not measured counts in the nodes above it.
    """
    found, taxonomy = {}, model.taxonomy
    for node in taxonomy.names:
        if node == top or not taxonomy.is_under(node, top):
            continue
        below = {n for n in shares.classes if n in taxonomy and taxonomy.is_under(n, node)}
        if below & set(shares.measured):
            found[node] = CorrectedShare(*shares.of(below))
    return found


def _blast_share(count: Differential, corrected: CorrectedShare | None) -> BlastShare:
    lower_limit = bool(count.untrained_blasts)
    if count.blasts is None:
        return BlastShare(BLAST_LIMIT, "unknown", "unknown", lower_limit)
    low, total = count.blasts.low, count.white
    most = Proportion.of(min(count.blasts.count + count.possible_blasts, total), total)
    corrected_side: Side = "unknown"
    if corrected is not None:
        high = corrected.high + most.share - count.blasts.share
        corrected_side = _side(corrected.low, high, lower_limit)
    side = _side(low, most.high, lower_limit)
    return BlastShare(BLAST_LIMIT, side, corrected_side, lower_limit, round(most.share, 4))


def _side(low: float, high: float, lower_limit: bool) -> Side:
    if low >= BLAST_LIMIT:
        return "above"
    return "below" if high < BLAST_LIMIT and not lower_limit else "undecided"


def _likely(
    cells: Iterable[CellResult], count: Differential, model: ModelInfo, top: str
) -> LikelyCounts | None:
    tree = model.taxonomy
    found = OpenCells.of(cells, model, top)
    if not found.expected:
        return None
    named = Counter(
        c.label for c in cells if c.object_type == model.classified and c.label in tree.leaves
    )
    expected = {
        node: tree.sum_under(named, node) + found.expected_under(node, tree)
        for node in tree.names
        if tree.is_under(node, top)
    }
    blasts = None
    if count.blasts is not None:
        blasts = tree.sum_under(named, BLAST) + found.expected_under(BLAST, tree)
    kept = {node: n for node, n in expected.items() if n >= LEAST_EXPECTED}
    return LikelyCounts(kept, blasts, found.likeliest)


def _profiles(
    cells: Iterable[CellResult], model: ModelInfo
) -> dict[str, dict[str, dict[str, int]]]:
    names = [a.name for a in model.trained_attributes]
    found: dict[str, dict[str, Counter[str]]] = {}
    for cell in cells:
        if cell.object_type != model.classified:
            continue
        profile = found.setdefault(cell.label, {})
        for name in names:
            answer = cell.attributes.get(name)
            if answer is not None:
                profile.setdefault(name, Counter())[answer.value or ""] += 1
    return {
        label: {name: dict(sorted(values.items())) for name, values in profile.items()}
        for label, profile in sorted(found.items())
    }
