"""What a report shows, gathered in one pass over a run: fields, cells, counts.

Of a cell only what the page needs is kept, so a run may be larger than memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bloodfilm.core.arrays import Floats
from bloodfilm.core.attributes import LLD_SCHEMA, Attribute
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.progress import Progress, track
from bloodfilm.core.results import (
    AnalysisRun,
    CaseCell,
    CaseResult,
    CellResult,
    FieldFailure,
    FieldResult,
    ModelInfo,
)
from bloodfilm.core.text import printable
from bloodfilm.evaluation.differential import (
    Differential,
    differential,
    is_artefact,
    is_undecided,
)
from bloodfilm.evaluation.film_differential import FilmDifferential, film_differential
from bloodfilm.evaluation.open_cells import likeliest_leaf
from bloodfilm.evaluation.patterns import FilmPatterns, film_patterns
from bloodfilm.report.html.palette import CellStyle, cell_style
from bloodfilm.report.pictures import FieldPicture, PictureStore

NOT_SURE, NOT_GIVEN = -1, -2
"""Codes in the place of a value's index: no value is probable enough; nothing is said of it."""
MOST_OTHERS = 40_000
"""Outlines of red cells and platelets in one page; fields beyond are shown without."""


@dataclass(frozen=True, slots=True)
class ReportCell:
    """One classified cell.

    Attributes:
        field: number of its field, from 1.
        place: index in the field's result.
        cell: the cell, without the probabilities of classes and values.
        likeliest: classes with their probabilities, the likeliest first.
        leaves: of a cell that is named by no class, the probability of every leaf of the tree.
        likely: of such a cell, the likeliest class that its name leaves open.
        answers: per attribute of the model the index of its value, `NOT_SURE` or `NOT_GIVEN`.
        percents: per attribute the probability of each value in percent.
        counted: whether it may be counted: its field may, and its case counts it.
        beside: whether it was named as no nucleated cell, and is listed beside the count.
        other_view: whether another field shows the same cell better, and it is counted there.
    """

    field: int
    place: int
    cell: CellResult
    likeliest: tuple[tuple[str, float], ...]
    answers: tuple[int, ...]
    percents: tuple[tuple[int, ...], ...]
    counted: bool
    beside: bool = False
    other_view: bool = False
    leaves: Floats | None = None
    likely: str | None = None

    @property
    def label(self) -> str:
        """Its name."""
        return self.cell.label

    @property
    def codes(self) -> frozenset[str]:
        """Codes of its issues."""
        return frozenset(issue.code for issue in self.cell.issues)


@dataclass(frozen=True, slots=True)
class ReportField:
    """One field.

    Attributes:
        number: from 1, in the order of the run.
        path: of the image, as the user named it.
        size: width and height of the image, pixels.
        view: scale, aspect ratio, white point.
        issues: of the field.
        counted: whether its cells may be counted.
        labels: its classified cells by name.
        undecided, with_issues: how many of them are.
        others: the other objects, by type.
        outlines: the others as an SVG path in pixels of the image; empty if too many.
        picture: where its pictures are.
    """

    number: int
    path: str
    size: tuple[int, int]
    view: ViewRecord
    issues: tuple[Issue, ...]
    counted: bool
    labels: Counter[str]
    undecided: int
    with_issues: int
    others: Counter[str]
    outlines: str
    picture: FieldPicture

    @property
    def cells(self) -> int:
        """How many classified cells it has."""
        return sum(self.labels.values())

    @property
    def needs_attention(self) -> bool:
        """Whether an issue is a warning or an error."""
        return any(issue.severity != "info" for issue in self.issues)


@dataclass(frozen=True)
class ReportContent:
    """A run, or a case of it, as the report shows it."""

    run: AnalysisRun
    fields: tuple[ReportField, ...]
    cells: tuple[ReportCell, ...]
    case: CaseResult | None = None

    @cached_property
    def shown(self) -> tuple[ReportCell, ...]:
        """The cells, each once: without other views of the same."""
        return tuple(cell for cell in self.cells if not cell.other_view)

    @property
    def failures(self) -> tuple[FieldFailure, ...]:
        """Files of the run, or of the case, without a result."""
        if self.case is None:
            return tuple(self.run.failures)
        named = set(self.case.failures)
        return tuple(f for f in self.run.failures if f.path in named)

    @property
    def model(self) -> ModelInfo:
        """The model of the run."""
        return self.run.model

    @cached_property
    def folder(self) -> str:
        """The folder that all images share; empty if there is none."""
        return shared_folder([field.path for field in self.fields])

    def name_of(self, field: ReportField) -> str:
        """Return a field's path below the shared folder, fit to be shown."""
        return printable(field.path[len(self.folder) :])

    @cached_property
    def differential(self) -> Differential:
        """Counts over the fields that may be counted."""
        counted = differential(self._counted, self.model)
        if self.case is not None:
            return replace(
                counted,
                other=dict(sorted(self.case.other.items())),
                fields_left_out=len(self.case.set_aside),
                cells_left_out=sum(not cell.counted for cell in self.case.cells),
            )
        others: Counter[str] = Counter()
        for field in self.fields:
            if field.counted:
                others.update(field.others)
        left_out = [field for field in self.fields if not field.counted]
        return replace(
            counted,
            other=dict(sorted(others.items())),
            fields_left_out=len(left_out),
            cells_left_out=sum(field.cells for field in left_out),
        )

    @cached_property
    def film(self) -> FilmDifferential:
        """The differential as it is reported: corrected, against 20 % blasts, with open cells."""
        return film_differential(self._counted, self.model)

    @cached_property
    def patterns(self) -> FilmPatterns:
        """What the film suggests."""
        return film_patterns(self._counted, self.model)

    @property
    def _counted(self) -> Iterator[CellResult]:
        return (self.with_probabilities(shown) for shown in self.cells if shown.counted)

    def with_probabilities(self, shown: ReportCell) -> CellResult:
        """Return a cell; one that is named by no class has the probabilities of all classes."""
        if shown.leaves is None:
            return shown.cell
        found = dict(zip(self.model.taxonomy.leaves, shown.leaves.tolist(), strict=True))
        return replace(shown.cell, probabilities=found)

    @cached_property
    def attributes(self) -> tuple[tuple[Attribute, bool], ...]:
        """The model's attributes, each with whether it is one of LLD's, which come first."""
        schema = self.model.schema.attributes
        first = [a for a in schema if a.name in LLD_SCHEMA and a == LLD_SCHEMA[a.name]]
        if not first:
            return tuple((a, True) for a in schema)
        return tuple([(a, True) for a in first] + [(a, False) for a in schema if a not in first])

    def is_undecided(self, label: str) -> bool:
        """Whether a name leaves open which class a cell is of."""
        return is_undecided(label, self.model)

    def style(self, label: str) -> CellStyle:
        """How cells of a name are drawn."""
        return cell_style(label, self.model.taxonomy)

    def in_tree_order(self, labels: "Counter[str] | set[str]") -> list[str]:
        """Return names in the order of the tree, those outside it last."""
        order = {name: place for place, name in enumerate(self.model.taxonomy.names)}
        return sorted(labels, key=lambda name: (order.get(name, len(order)), name))


def collect(
    run: AnalysisRun, store: PictureStore, progress: Progress, case: CaseResult | None = None
) -> ReportContent:
    """Read a run, or the fields of one of its cases, once; missing pictures are made from files."""
    fields: list[ReportField] = []
    cells: list[ReportCell] = []
    room = MOST_OTHERS
    part = _CasePart(case)
    wanted = run.fields if case is None else case.fields
    stage = "report" if case is None or len(run.cases) == 1 else f"report on {case.name}"
    for number, result in enumerate(track(wanted, progress, stage, len(wanted)), 1):
        field = _field(number, result, run.model, store.complete(result), room)
        room -= sum(field.others.values())
        fields.append(part.field(field))
        cells += part.cells(number, _cells(number, result, run.model))
    return ReportContent(run, tuple(fields), tuple(cells), case)


class _CasePart:
    """What a case says of its fields and cells."""

    def __init__(self, case: CaseResult | None) -> None:
        self._case = case
        self._of: dict[tuple[int, str], tuple[CaseCell, bool]] = {}
        if case is not None:
            numbers = {p.number: place for place, p in enumerate(case.placements, 1)}
            for cell in case.cells:
                for view in cell.views:
                    self._of[numbers[view.field], view.id] = cell, view == cell.shown

    def field(self, field: ReportField) -> ReportField:
        """Return a field as the case has it."""
        if self._case is None:
            return field
        placement = self._case.placements[field.number - 1]
        issues = (*field.issues, *placement.issues)
        return replace(field, counted=placement.counted, issues=_each_code_once(issues))

    def cells(self, number: int, found: Iterable[ReportCell]) -> Iterator[ReportCell]:
        """Yield cells as the case has them; one that it does not name is not counted."""
        for shown in found:
            if self._case is None:
                yield shown
                continue
            cell, best = self._of.get((number, shown.cell.id), (None, True))
            issues = (*shown.cell.issues, *(cell.issues if cell is not None and best else ()))
            yield replace(
                shown,
                cell=replace(shown.cell, issues=_each_code_once(issues)),
                counted=cell is not None and cell.counted and best,
                other_view=not best,
            )


def _each_code_once(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    return tuple({issue.code: issue for issue in issues}.values())


def shared_folder(paths: Sequence[str]) -> str:
    """Return the longest beginning, up to and with a slash, that all paths share."""
    if len(paths) < 2:
        return ""
    first, last = min(paths), max(paths)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[: first.rfind("/", 0, same) + 1]


def _field(
    number: int, result: FieldResult, model: ModelInfo, picture: FieldPicture, room: int
) -> ReportField:
    named = [c for c in result.cells if c.object_type == model.classified]
    others = [c for c in result.cells if c.object_type != model.classified]
    shown = others if len(others) <= room else []
    return ReportField(
        number=number,
        path=result.path,
        size=(result.image.width, result.image.height),
        view=result.view,
        issues=result.issues,
        counted=result.countable,
        labels=Counter(c.label for c in named),
        undecided=sum(is_undecided(c.label, model) for c in named),
        with_issues=sum(bool(c.issues) for c in named),
        others=Counter(c.object_type for c in others),
        outlines="".join(_outline(c) for c in shown),
        picture=picture,
    )


def _outline(cell: CellResult) -> str:
    x, y, w, h = cell.box
    return f"M{x:.0f} {y:.0f}h{w:.0f}v{h:.0f}h{-w:.0f}z"


def _cells(number: int, result: FieldResult, model: ModelInfo) -> Iterator[ReportCell]:
    untrained, leaves = model.untrained_attributes, model.taxonomy.leaves
    for place, cell in enumerate(result.cells):
        if cell.object_type != model.classified:
            continue
        likeliest = sorted(cell.probabilities.items(), key=lambda item: (-item[1], item[0]))
        answers, percents = [], []
        for attribute in model.schema.attributes:
            code, shares = _answer(cell, attribute)
            known = attribute.name not in untrained
            answers.append(code if known else NOT_GIVEN)
            percents.append(shares if known else ())
        yield ReportCell(
            field=number,
            place=place,
            cell=replace(cell, probabilities={}, attributes={}),
            likeliest=tuple((n, p) for n, p in likeliest[:4] if p >= 0.005),
            answers=tuple(answers),
            percents=tuple(percents),
            counted=result.countable,
            beside=is_artefact(cell.label, model),
            leaves=None
            if cell.label in leaves
            else np.array([cell.probabilities.get(n, 0.0) for n in leaves], dtype=np.float64),
            likely=likeliest_leaf(cell, model.taxonomy),
        )


def _answer(cell: CellResult, attribute: Attribute) -> tuple[int, tuple[int, ...]]:
    given = cell.attributes.get(attribute.name)
    if given is None or (given.value is None and given.probability <= 0):
        return NOT_GIVEN, ()
    shares = tuple(round(100 * given.probabilities.get(v, 0.0)) for v in attribute.values)
    if given.value not in attribute.values:
        return NOT_SURE, shares
    return attribute.values.index(given.value), shares


def json_number(value: float | None, digits: int) -> float | int | None:
    """Return a number of few characters."""
    if value is None:
        return None
    rounded = round(value, digits)
    return int(rounded) if rounded == int(rounded) else rounded


def plain(values: Sequence[Any], digits: int) -> list[Any]:
    """Return numbers of few characters."""
    return [json_number(value, digits) for value in values]
