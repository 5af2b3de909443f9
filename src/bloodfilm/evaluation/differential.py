"""The differential count: white cells by class, with counting error and undecided cells."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bloodfilm.core.results import AnalysisRun, CaseResult, CellResult, FieldResult, ModelInfo
from bloodfilm.core.taxonomy import BLAST, SMUDGE_CELL, Taxonomy
from bloodfilm.evaluation.intervals import wilson_interval


@dataclass(frozen=True, slots=True)
class Proportion:
    """A count of a total, with the share it makes and that share's 95 % Wilson interval."""

    count: int
    total: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> "Proportion":
        """Return the share `count` makes of `total`; 0 of 0 is 0, between 0 and 1.

        >>> p = Proportion.of(5, 10)
        >>> p.share, round(p.low, 4), round(p.high, 4)
        (0.5, 0.2366, 0.7634)
        """
        low, high = wilson_interval(count, total)
        return cls(count, total, count / total if total else 0.0, low, high)


@dataclass(frozen=True, slots=True)
class DifferentialRow:
    """One class of the differential.

    Attributes:
        name: node of the taxonomy.
        depth: steps below the white cell, which is the first row.
        leaf: whether the tree ends here.
        blast: whether it counts as a blast.
        proportion: cells with this name or one below it, among white cells; `None` where the model
            cannot give this name nor any below it, so that nothing is counted.
        undecided: cells the model named no more closely than this (for a leaf: all of them).
        untrained: leaves at or below this node that the model cannot name; a sum over such leaves
            is a lower limit.
    """

    name: str
    depth: int
    leaf: bool
    blast: bool
    proportion: Proportion | None
    undecided: int
    untrained: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Differential:
    """A differential count.

    Attributes:
        nucleated: all nucleated cells.
        white: those among them that are white cells: the total of every share.
        rows: in tree order the white cell, the classes below it that cells were named by, and the
            leaves that the model cannot name.
        blasts: cells named as a blast or blast equivalent, of a kind or of none, among white
            cells; `None` where the model can name no blast at all.
        blasts_by_kind: what `blasts` adds up, by label, in tree order; `blast` are those whose
            lineage was not decided.
        untrained_blasts: kinds of blast the model cannot name; with any, `blasts` is a lower limit.
        possible_blasts: undecided nucleated cells whose label includes blasts.
        erythroblasts: nucleated red cells, which are no part of the differential; `None` where the
            model cannot name them.
        unplaced: nucleated cells not decided to be white cell or erythroblast.
        undecided: nucleated cells that were named by no class (`is_undecided`).
        with_issues: nucleated cells with an issue.
        other: cells without nucleus, by object type.
        artefacts: objects found as nucleated cells and named as none, by class: smudge cells,
            clumps of platelets and the like. They are in no other count.
        fields_left_out: fields that are not counted: their scale is assumed, they show no film, or
            their picture was analysed before.
        cells_left_out: nucleated cells found in those.
    """

    nucleated: int
    white: int
    rows: tuple[DifferentialRow, ...]
    blasts: Proportion | None
    untrained_blasts: tuple[str, ...]
    possible_blasts: int
    erythroblasts: int | None
    unplaced: int
    undecided: int
    with_issues: int
    other: dict[str, int]
    fields_left_out: int = 0
    cells_left_out: int = 0
    blasts_by_kind: dict[str, int] = field(default_factory=dict)
    artefacts: dict[str, int] = field(default_factory=dict)

    @property
    def smudge_cells_per_100(self) -> float | None:
        """Smudge cells per 100 white cells, as they are reported beside the count; `None` if 0/0.

        ICSH asks for them in chronic lymphocytic leukaemia (Palmer et al., Int J Lab Hematol 2015).
        """
        count = self.artefacts.get(SMUDGE_CELL, 0)
        return 100 * count / self.white if self.white else None

    @property
    def erythroblasts_per_100(self) -> float | None:
        """Erythroblasts per 100 white cells, as haematology reports them; `None` if unknown."""
        if self.erythroblasts is None or not self.white:
            return None
        return 100 * self.erythroblasts / self.white

    def to_json(self) -> dict[str, Any]:
        """Return the count as plain data."""
        return asdict(self) | {
            "erythroblasts_per_100": self.erythroblasts_per_100,
            "smudge_cells_per_100": self.smudge_cells_per_100,
        }


def differential(
    source: AnalysisRun | CaseResult | FieldResult | Iterable[CellResult],
    model: ModelInfo | None = None,
) -> Differential:
    """Count cells by class; the same cells give the same counts, whatever their order.

    Of a case, every physical cell counts once. Of a run, only fields are counted whose scale is
    known and that show a film (`FieldResult.countable`); the number of excluded fields is reported.

    Args:
        source: a case, a run, a field, or cells.
        model: whose taxonomy the labels are nodes of and which classes it can name; the run's own,
            else one with the default taxonomy that can name every class.

    >>> def found(label: str) -> CellResult:
    ...     return CellResult((0, 0, 60, 60), 0.9, "nucleated cell", label, 0.95)
    >>> cells = [found("lymphocyte"), found("lymphocyte"), found("monocyte"), found("neutrophil")]
    >>> count = differential(cells, ModelInfo({}, untrained_classes=("monoblast",)))
    >>> [(r.name, r.proportion.count) for r in count.rows if r.leaf and r.proportion]
    [('monocyte', 1), ('lymphocyte', 2)]
    >>> [r.name for r in count.rows if r.proportion is None]
    ['monoblast']
    """
    if isinstance(source, AnalysisRun):
        return _count_run(source, model or source.model)
    if isinstance(source, CaseResult):
        return _count_case(source, model or source.model)
    cells = source.cells if isinstance(source, FieldResult) else source
    return _count(cells, model or ModelInfo({}))


def _count_run(run: AnalysisRun, model: ModelInfo) -> Differential:
    left_out: Counter[str] = Counter()

    def counted() -> Iterator[CellResult]:
        for item in run:
            if item.countable:
                yield from item.cells
            else:
                left_out["fields"] += 1
                left_out["cells"] += sum(c.object_type == model.classified for c in item.cells)

    count = _count(counted(), model)
    return replace(count, fields_left_out=left_out["fields"], cells_left_out=left_out["cells"])


def _count_case(case: CaseResult, model: ModelInfo) -> Differential:
    count = _count(case.counted_cells(), model)
    return replace(
        count,
        other=dict(sorted(case.other.items())),
        fields_left_out=len(case.set_aside),
        cells_left_out=sum(not cell.counted for cell in case.cells),
    )


def _count(cells: Iterable[CellResult], model: ModelInfo) -> Differential:
    taxonomy, untrained = model.taxonomy, frozenset(model.untrained_classes)
    labels: Counter[str] = Counter()
    other: Counter[str] = Counter()
    artefacts: Counter[str] = Counter()
    with_issues = 0
    for cell in cells:
        if cell.object_type == model.classified:
            if is_artefact(cell.label, model):
                artefacts[cell.label] += 1
                continue
            labels[cell.label] += 1
            with_issues += bool(cell.issues)
        else:
            other[cell.object_type] += 1
    known = {name: n for name, n in labels.items() if name in taxonomy}

    top = taxonomy.find("white cell") or taxonomy.nodes[0].name
    white, total = taxonomy.sum_under(known, top), sum(labels.values())
    erythroblasts = _erythroblasts(known, taxonomy, top, untrained)
    by_kind = {n: known[n] for n in (*taxonomy.names, BLAST) if n in known and n in taxonomy.blasts}
    blasts = sum(by_kind.values())
    blast_leaves = [name for name in taxonomy.leaves if name in taxonomy.blasts]
    untrained_blasts = tuple(name for name in blast_leaves if name in untrained)
    undecided = {name: n for name, n in known.items() if is_undecided(name, model)}
    nameless = bool(blast_leaves) and len(untrained_blasts) == len(blast_leaves)
    return Differential(
        nucleated=total,
        white=white,
        rows=_rows(known, taxonomy, (top, white), untrained),
        blasts=None if nameless and not blasts else Proportion.of(blasts, white),
        untrained_blasts=untrained_blasts,
        possible_blasts=sum(
            n for name, n in undecided.items() if taxonomy.blasts & set(taxonomy.leaves_under(name))
        ),
        erythroblasts=erythroblasts,
        unplaced=total - white - (erythroblasts or 0),
        undecided=sum(undecided.values()) + total - sum(known.values()),
        with_issues=with_issues,
        other=dict(sorted(other.items())),
        blasts_by_kind=by_kind,
        artefacts={n: artefacts[n] for n in taxonomy.names if n in artefacts},
    )


def is_undecided(label: str, model: ModelInfo) -> bool:
    """Whether a name leaves open which class a cell is of.

    A blast whose lineage is not decided is named as a blast, which is a class of the differential.
    """
    tree = model.taxonomy
    return label not in tree.leaves and label not in tree.blasts


def is_artefact(label: str, model: ModelInfo) -> bool:
    """Whether an object found as a cell of the classified type was named as none."""
    tree = model.taxonomy
    return label in tree and not (
        tree.is_under(label, model.classified) or tree.is_under(model.classified, label)
    )


def _erythroblasts(
    known: dict[str, int], taxonomy: Taxonomy, top: str, untrained: frozenset[str]
) -> int | None:
    node = taxonomy.find("erythroblast")
    if node is None or taxonomy.is_under(node, top):
        return 0
    count = taxonomy.sum_under(known, node)
    return None if not count and set(taxonomy.leaves_under(node)) <= untrained else count


def _rows(
    known: dict[str, int], taxonomy: Taxonomy, total: tuple[str, int], untrained: frozenset[str]
) -> tuple[DifferentialRow, ...]:
    """Return the top node and those below it that have a count or cannot be named, depth first."""
    top, white = total
    leaves, rows = set(taxonomy.leaves), []
    waiting = [(top, 0)]
    while waiting:
        name, depth = waiting.pop()
        count = taxonomy.sum_under(known, name)
        below = taxonomy.leaves_under(name)
        missing = tuple(leaf for leaf in below if leaf in untrained)
        if not count and not missing:
            continue
        nameless = not count and len(missing) == len(below)
        rows.append(
            DifferentialRow(
                name=name,
                depth=depth,
                leaf=name in leaves,
                blast=name in taxonomy.blasts,
                proportion=None if nameless else Proportion.of(count, white),
                undecided=known.get(name, 0),
                untrained=missing,
            )
        )
        if BLAST in taxonomy and taxonomy.parent(BLAST) == name and known.get(BLAST):
            share = Proportion.of(known[BLAST], white)
            rows.append(DifferentialRow(BLAST, depth + 1, True, True, share, known[BLAST]))
        waiting += [(child, depth + 1) for child in reversed(taxonomy.children(name))]
    return tuple(rows)
