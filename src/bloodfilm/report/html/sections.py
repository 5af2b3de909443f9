"""The sections of the report as plain data for the template: counts, issues, fields."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bloodfilm.core.attributes import Attribute
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import AnalysisRun, CellResult, FieldResult
from bloodfilm.evaluation.differential import (
    Differential,
    DifferentialRow,
    Proportion,
    differential,
)
from bloodfilm.report.html import formatting
from bloodfilm.report.html.images import EmbeddedImage
from bloodfilm.report.html.palette import CellStyle, cell_style

_AXES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def shared_folder(paths: Sequence[str]) -> str:
    """Return the longest beginning, up to and with a slash, that all paths share."""
    if len(paths) < 2:
        return ""
    first, last = min(paths), max(paths)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[: first.rfind("/", 0, same) + 1]


@dataclass(frozen=True)
class ReportSummary:
    """A field without its red cells and platelets, of which there may be hundreds.

    Attributes:
        path: of the image.
        name: the path below the folder that all images share, fit to be shown.
        view: scale, aspect ratio and white point.
        cells: index in the result and cell, nucleated ones only.
    """

    path: str
    name: str
    view: ViewRecord
    cells: tuple[tuple[int, CellResult], ...]


@dataclass(frozen=True)
class ReportMetadata:
    """The run with what several sections of the report need of it."""

    run: AnalysisRun

    @cached_property
    def fields(self) -> tuple[ReportSummary, ...]:
        """All fields in brief; the run itself may read each from disk again."""
        found = [(f.path, f.view, tuple(self.nucleated(f))) for f in self.run.fields]
        below = len(shared_folder([path for path, _, _ in found]))
        return tuple(
            ReportSummary(p, formatting.clean(p[below:]), view, cells) for p, view, cells in found
        )

    @cached_property
    def folder(self) -> str:
        """The folder that all images share, fit to be shown; empty if there is none."""
        return formatting.clean(shared_folder([brief.path for brief in self.fields]))

    @cached_property
    def cells(self) -> tuple[CellResult, ...]:
        """The nucleated cells of all fields."""
        return tuple(cell for brief in self.fields for _, cell in brief.cells)

    @cached_property
    def differential(self) -> Differential:
        """Counts over all fields."""
        return differential(self.run)

    def nucleated(self, result: FieldResult) -> Iterator[tuple[int, CellResult]]:
        """Yield index and cell of the nucleated cells of a field."""
        for place, cell in enumerate(result.cells):
            if cell.object_type == self.run.model.classified:
                yield place, cell

    def undecided(self, cell: CellResult) -> bool:
        """Whether a cell's name is no leaf."""
        taxonomy = self.run.model.taxonomy
        return cell.label not in taxonomy.leaves

    def style(self, label: str) -> CellStyle:
        """How cells of that name are drawn."""
        return cell_style(label, self.run.model.taxonomy)


@dataclass(frozen=True)
class BarRow:
    """One line of the differential; lengths in percent of the axis.

    Attributes:
        counted: false where the model cannot name the class, so there is no count.
        lower_limit: the model cannot name a class below this one, so the sum is a lower limit.
    """

    name: str
    depth: int
    kind: str
    colour: str
    count: int = 0
    share: str = ""
    interval: str = ""
    length: float = 0.0
    low: float = 0.0
    high: float = 0.0
    counted: bool = True
    lower_limit: bool = False


def axis(rows: Sequence[DifferentialRow]) -> float:
    """Return the share at the right end of the chart: round, and no interval beyond it."""
    shares = (r.proportion for r in rows if r.depth)
    longest = max((share.high for share in shares if share), default=1.0)
    return next(end for end in _AXES if longest <= end or end == 1.0)


def bars(facts: ReportMetadata) -> list[BarRow]:
    """Return the differential's lines: sums, classes, and cells not named more closely."""
    counted = facts.differential
    end = axis(counted.rows)
    lines = []
    for row in counted.rows:
        kind = "leaf" if row.leaf else "total" if row.depth == 0 else "sum"
        colour = facts.style(row.name).colour
        if row.proportion is None:
            lines.append(BarRow(row.name, row.depth, kind, colour, counted=False))
            continue
        lines.append(_bar(row, kind, colour, row.proportion, end))
        if not row.leaf and row.undecided:
            share = Proportion.of(row.undecided, row.proportion.total)
            stopped = replace(
                row, name=f"{row.name}, not named more closely", depth=row.depth + 1, untrained=()
            )
            lines.append(_bar(stopped, "stopped", colour, share, end))
    return lines


def _bar(row: DifferentialRow, kind: str, colour: str, share: Proportion, end: float) -> BarRow:
    def place(value: float) -> float:
        return round(100 * min(value / end, 1.0), 2)

    return BarRow(
        name=formatting.class_title(row.name),
        depth=row.depth,
        kind=kind,
        colour=colour,
        count=share.count,
        share=formatting.percent(share.share),
        interval=formatting.interval(share.low, share.high) if kind != "total" else "",
        length=place(share.share),
        low=place(share.low),
        high=place(share.high),
        lower_limit=bool(row.untrained) and kind == "sum",
    )


@dataclass(frozen=True)
class AttributeAnswer:
    """What the cells of one class look like in one attribute."""

    value: str
    share: str
    sure: int
    parts: tuple[tuple[str, float], ...]


def attribute_table(
    facts: ReportMetadata,
) -> list[tuple[str, CellStyle, int, list[AttributeAnswer]]]:
    """Return, per class met (in tree order), the answers for every trained attribute."""
    cells: dict[str, list[CellResult]] = {}
    for cell in facts.cells:
        cells.setdefault(cell.label, []).append(cell)
    order = {name: place for place, name in enumerate(facts.run.model.taxonomy.names)}
    return [
        (
            label,
            facts.style(label),
            len(cells[label]),
            [_answer(a, cells[label]) for a in facts.run.model.trained_attributes],
        )
        for label in sorted(cells, key=lambda name: (order.get(name, len(order)), name))
    ]


def _answer(attribute: Attribute, cells: Sequence[CellResult]) -> AttributeAnswer:
    given = [c.attributes.get(attribute.name) for c in cells]
    tally = Counter(g.value for g in given if g is not None and g.value is not None)
    sure = sum(tally.values())
    parts = tuple((value, 100 * tally[value] / len(cells)) for value in attribute.values)
    if not sure:
        return AttributeAnswer("not sure", "", 0, parts)
    value = max(attribute.values, key=lambda v: tally[v])
    return AttributeAnswer(value, formatting.percent(tally[value] / sure), sure, parts)


def issue_counts(facts: ReportMetadata) -> list[tuple[str, int]]:
    """Return every issue of nucleated cells with how often it occurs, most frequent first."""
    tally = Counter(
        code for cell in facts.cells for code in sorted({issue.code for issue in cell.issues})
    )
    found = sorted(tally.items(), key=lambda item: (-item[1], item[0]))
    return [(formatting.issue_title(code), n) for code, n in found]


def scale_summary(facts: ReportMetadata) -> list[str]:
    """Return, in a sentence or two, where scales come from and how they spread."""
    views = [f.view for f in facts.fields]
    if not views:
        return []
    tally = Counter(view.scale_source for view in views)
    parts = [
        f"{text} in {formatting.many(tally[source], 'field')}"
        for source, text in formatting.SUMMARY.items()
        if tally[source]
    ]
    said = [f"The scale was {formatting.listed(parts)}."]
    ratios = [view.pixel_aspect_ratio for view in views]
    low, high = min(ratios), max(ratios)
    if low < 0.97 or high > 1.03:
        same = high - low < 0.005
        span = f"{low:.2f}" if same else f"{low:.2f} to {high:.2f}"
        said.append(
            f"Round cells are {span} times as wide as high in the files; "
            "the pictures below are stretched so that round cells are round."
        )
    if tally["assumed"]:
        said.append(
            "Where the scale is assumed, every size in µm is a guess, and cells were classified at "
            "a size the model may not know: doubt their names."
        )
    return said


@dataclass(frozen=True)
class DrawnBox:
    """One box on a field's picture, in the picture's pixels."""

    cell: int
    label: str
    title: str
    style: CellStyle
    x: float
    y: float
    w: float
    h: float
    text_x: float
    text_y: float
    anchor: str


@dataclass(frozen=True)
class FieldSection:
    """One field as the page shows it."""

    number: int
    name: str
    cells: int
    undecided: int
    with_issues: int
    counts: list[tuple[str, CellStyle, int]]
    view: str
    view_doubtful: bool
    stretched: bool
    issues: list[str]
    picture: EmbeddedImage
    boxes: list[DrawnBox]
    others: str
    other_count: int
    font: float


def field_section(
    facts: ReportMetadata, number: int, result: FieldResult, picture: EmbeddedImage
) -> FieldSection:
    """Return what the page shows of one field."""
    nucleated = list(facts.nucleated(result))
    tally = Counter(cell.label for _, cell in nucleated)
    order = {name: place for place, name in enumerate(facts.run.model.taxonomy.names)}
    view, doubtful = formatting.describe_view(result.view)
    font = max(11.0, round(picture.width / 80, 1))
    places = {place for place, _ in nucleated}
    others = [c for place, c in enumerate(result.cells) if place not in places]
    fx, fy = picture.width / result.image.width, picture.height / result.image.height
    shown = picture.picture is not None
    return FieldSection(
        number=number,
        name=facts.fields[number - 1].name,
        cells=len(nucleated),
        undecided=sum(facts.undecided(cell) for _, cell in nucleated),
        with_issues=sum(bool(cell.issues) for _, cell in nucleated),
        counts=[
            (label, facts.style(label), tally[label])
            for label in sorted(tally, key=lambda name: (order.get(name, len(order)), name))
        ],
        view=view,
        view_doubtful=doubtful,
        stretched=abs(result.view.pixel_aspect_ratio - 1) >= 0.03,
        issues=[formatting.clean(issue.message) for issue in result.issues],
        picture=picture,
        boxes=[_drawn(facts, p, c, (fx, fy, picture.width, font)) for p, c in nucleated]
        if shown
        else [],
        others="".join(_outline(c, fx, fy) for c in others) if shown else "",
        other_count=len(others),
        font=font,
    )


def _drawn(
    facts: ReportMetadata, place: int, cell: CellResult, frame: tuple[float, float, int, float]
) -> DrawnBox:
    fx, fy, width, font = frame
    x, y, w, h = cell.box
    left, top = x * fx, y * fy
    at_right = left > 0.75 * width
    above = top > 1.4 * font
    return DrawnBox(
        cell=place + 1,
        label=cell.label,
        title=f"{cell.label}, {cell.label_confidence:.2f}" + "".join(f"; {i}" for i in cell.issues),
        style=facts.style(cell.label),
        x=round(left, 1),
        y=round(top, 1),
        w=round(w * fx, 1),
        h=round(h * fy, 1),
        text_x=round(left + w * fx if at_right else left, 1),
        text_y=round(top - 0.35 * font if above else top + h * fy + 1.05 * font, 1),
        anchor="end" if at_right else "start",
    )


def _outline(cell: CellResult, fx: float, fy: float) -> str:
    x, y, w, h = cell.box
    return f"M{x * fx:.0f} {y * fy:.0f}h{w * fx:.0f}v{h * fy:.0f}h{-w * fx:.0f}z"


def flat(data: Mapping[str, Any], most: int = 40) -> list[tuple[str, str]]:
    """Return nested plain data as lines of name and value, cut after `most`."""
    lines: list[tuple[str, str]] = []

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key in value:
                walk(f"{name} › {key}" if name else str(key), value[key])
        elif isinstance(value, float):
            lines.append((formatting.clean(name), f"{value:.4g}"))
        elif isinstance(value, list | tuple):
            lines.append((formatting.clean(name), formatting.clean(", ".join(map(str, value)))))
        else:
            lines.append((formatting.clean(name), formatting.clean(value)))

    walk("", data)
    if len(lines) > most:
        rest = len(lines) - most
        lines = [*lines[:most], ("…", f"{rest} more in the bundle's manifest.json")]
    return lines
