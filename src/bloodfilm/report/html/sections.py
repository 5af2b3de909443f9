"""What the page says, as plain data for the template: counts, doubts, fields."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bloodfilm.core.attributes import Attribute, Schema
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.evaluation.differential import (
    Differential,
    Proportion,
    Row,
    differential,
    is_nucleated,
)
from bloodfilm.report.html import formatting
from bloodfilm.report.html.images import EmbeddedImage, squeeze_of
from bloodfilm.report.html.palette import CellStyle, ink
from bloodfilm.report.run import Run

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
        view: the canonical view's record.
        cells: place in the result and cell, nucleated ones only.
    """

    path: str
    name: str
    view: Mapping[str, Any]
    cells: tuple[tuple[int, CellResult], ...]


@dataclass(frozen=True)
class ReportMetadata:
    """The run with what every part of the page asks of it."""

    run: Run

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
    def taxonomy(self) -> Taxonomy:
        """The tree of the bundle."""
        return self.run.manifest.taxonomy

    @cached_property
    def schema(self) -> Schema:
        """The attributes of the bundle."""
        return self.run.manifest.attributes

    @cached_property
    def differential(self) -> Differential:
        """Counts over all fields."""
        return differential((c for f in self.run.fields for c in f.cells), self.taxonomy)

    @cached_property
    def learnt(self) -> tuple[Attribute, ...]:
        """The attributes the bundle's model can judge."""
        unlearnt = self.run.manifest.untrained.attributes
        return tuple(a for a in self.schema.attributes if a.name not in unlearnt)

    def nucleated(self, result: FieldResult) -> Iterator[tuple[int, CellResult]]:
        """Yield place and cell of the nucleated cells of a field."""
        for place, cell in enumerate(result.cells):
            if is_nucleated(cell, self.taxonomy):
                yield place, cell

    def undecided(self, cell: CellResult) -> bool:
        """Whether a cell's name is no leaf."""
        return cell.label not in self.taxonomy or bool(self.taxonomy.children(cell.label))

    def ink(self, label: str) -> CellStyle:
        """How cells of that name are drawn."""
        return ink(label, self.taxonomy)


@dataclass(frozen=True)
class BarRow:
    """One line of the differential; lengths in percent of the axis."""

    name: str
    depth: int
    kind: str
    colour: str
    count: int
    share: str
    interval: str
    length: float
    low: float
    high: float


def axis(rows: Sequence[Row]) -> float:
    """Return the share at the right end of the chart: round, and no interval beyond it."""
    longest = max((r.share.high for r in rows if r.depth), default=1.0)
    return next(end for end in _AXES if longest <= end or end == 1.0)


def bars(facts: ReportMetadata) -> list[BarRow]:
    """Return the differential's lines: sums, classes, and cells not named more closely."""
    counted = facts.differential
    end = axis(counted.rows)
    lines = []
    for row in counted.rows:
        kind = "leaf" if row.leaf else "total" if row.depth == 0 else "sum"
        lines.append(_bar(row.name, row.depth, kind, facts.ink(row.name).colour, row.share, end))
        if not row.leaf and row.stopped:
            share = Proportion.of(row.stopped, row.share.total)
            name = f"{row.name}, not named more closely"
            lines.append(
                _bar(name, row.depth + 1, "stopped", facts.ink(row.name).colour, share, end)
            )
    return lines


def _bar(name: str, depth: int, kind: str, colour: str, share: Proportion, end: float) -> BarRow:
    def place(value: float) -> float:
        return round(100 * min(value / end, 1.0), 2)

    return BarRow(
        name=name,
        depth=depth,
        kind=kind,
        colour=colour,
        count=share.count,
        share=formatting.percent(share.share),
        interval=formatting.interval(share.low, share.high) if kind != "total" else "",
        length=place(share.share),
        low=place(share.low),
        high=place(share.high),
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
    """Return, per class met (in tree order), the answers for every attribute learnt."""
    cells: dict[str, list[CellResult]] = {}
    for cell in facts.cells:
        cells.setdefault(cell.label, []).append(cell)
    order = {name: place for place, name in enumerate(facts.taxonomy.names)}
    return [
        (
            label,
            facts.ink(label),
            len(cells[label]),
            [_answer(a, cells[label]) for a in facts.learnt],
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


def flags(facts: ReportMetadata) -> list[tuple[str, int]]:
    """Return every flag given to a nucleated cell with how often, commonest first."""
    tally = Counter(flag for cell in facts.cells for flag in cell.flags)
    return sorted(tally.items(), key=lambda item: (-item[1], item[0]))


def scale_summary(facts: ReportMetadata) -> list[str]:
    """Return, in a sentence or two, where scales came from and how they spread."""
    fields = facts.fields
    if not fields:
        return []
    tally = Counter(str(f.view.get("scale_source", "assumed")) for f in fields)
    order = (*formatting.SOURCES, *sorted(set(tally) - set(formatting.SOURCES)))
    parts = [
        f"{formatting.SUMMARY.get(s, formatting.clean(s))} in {formatting.many(tally[s], 'field')}"
        for s in order
        if tally[s]
    ]
    said = [f"The scale was {formatting.listed(parts)}."]
    squeezes = [squeeze_of(f.view) for f in fields]
    low, high = min(squeezes), max(squeezes)
    if low < 0.97 or high > 1.03:
        same = high - low < 0.005
        span = f"{low:.2f}" if same else f"{low:.2f} to {high:.2f}"
        said.append(
            f"Round cells are {span} times as wide as high in the files; "
            "the pictures below are stretched so that round cells are round."
        )
    if tally["assumed"]:
        said.append(
            "Where the scale is assumed, every size in µm is a guess, and cells were read at a "
            "size the model may not know: doubt their names."
        )
    return said


@dataclass(frozen=True)
class DrawnBox:
    """One box on a field's picture, in the picture's pixels."""

    cell: int
    label: str
    title: str
    ink: CellStyle
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
    flagged: int
    counts: list[tuple[str, CellStyle, int]]
    view: str
    view_doubtful: bool
    squeezed: bool
    problems: list[str]
    picture: EmbeddedImage
    boxes: list[DrawnBox]
    others: str
    other_count: int
    font: float


def field_part(
    facts: ReportMetadata, number: int, result: FieldResult, picture: EmbeddedImage
) -> FieldSection:
    """Return what the page shows of one field."""
    nucleated = list(facts.nucleated(result))
    tally = Counter(cell.label for _, cell in nucleated)
    order = {name: place for place, name in enumerate(facts.taxonomy.names)}
    view, doubtful = formatting.view_words(result.view)
    font = max(11.0, round(picture.width / 80, 1))
    places = {place for place, _ in nucleated}
    others = [c for place, c in enumerate(result.cells) if place not in places]
    fx, fy = picture.width / max(result.width, 1), picture.height / max(result.height, 1)
    shown = picture.picture is not None
    return FieldSection(
        number=number,
        name=facts.fields[number - 1].name,
        cells=len(nucleated),
        undecided=sum(facts.undecided(cell) for _, cell in nucleated),
        flagged=sum(bool(cell.flags) for _, cell in nucleated),
        counts=[
            (label, facts.ink(label), tally[label])
            for label in sorted(tally, key=lambda name: (order.get(name, len(order)), name))
        ],
        view=view,
        view_doubtful=doubtful,
        squeezed=abs(squeeze_of(result.view) - 1) >= 0.03,
        problems=[formatting.clean(p) for p in result.problems],
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
        title=f"{cell.label}, {cell.label_score:.2f}" + "".join(f"; {f}" for f in cell.flags),
        ink=facts.ink(cell.label),
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
