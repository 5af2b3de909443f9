"""The first page of a report as plain data: who, what, how sure, what is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from bloodfilm.core import issue_codes
from bloodfilm.core.attributes import Attribute
from bloodfilm.core.taxonomy import BLAST
from bloodfilm.core.text import printable, sentence
from bloodfilm.evaluation.differential import DifferentialRow, Proportion
from bloodfilm.evaluation.film_differential import BLAST_LIMIT, CELLS
from bloodfilm.evaluation.patterns import Reason
from bloodfilm.report.html import formatting
from bloodfilm.report.html.content import NOT_SURE, ReportCell, ReportContent, ReportField
from bloodfilm.report.html.palette import CellStyle

_AXES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
# Where most of a film is unlike the training data, its names mislead together, not cell by cell.
_MANY_UNDECIDED = 0.25
_MANY_UNFAMILIAR = 0.1
_MANY_BASOPHILS = 0.05
_ENOUGH_TO_JUDGE = 20
_TOO_WIDE = 0.4
"""Width of an interval beyond which a corrected share says nothing but its interval."""


def cells_link(**filters: str | int) -> str:
    """Return the address of the cells that fit filters.

    >>> cells_link(**{"class": "band neutrophil"}, counted=1)
    '#cells?class=band%20neutrophil&counted=1'
    """
    return f"#cells?{urlencode(filters, quote_via=quote)}"


@dataclass(frozen=True)
class BarRow:
    """One line of the differential; lengths in percent of the axis.

    Attributes:
        link: address of its cells.
        lower_limit: the model cannot name a class below this one, so the sum is a lower limit.
        corrected: the share corrected for the classifier's errors, with its interval.
    """

    name: str
    depth: int
    kind: str
    style: CellStyle
    link: str
    count: int
    share: str
    interval: str
    length: float
    low: float
    high: float
    lower_limit: bool
    corrected: str = ""


@dataclass(frozen=True)
class SuggestedPattern:
    """A pattern that the film suggests, as page one shows it.

    Attributes:
        title: what it is.
        urgent: whether it must be acted on at once.
        loud: whether it stands above all else.
        support: how likely its conditions hold, in percent.
        reasons: one per condition, in words.
        cells: how many cells it rests on.
        link: address of those.
        note: what to know of it.
    """

    title: str
    urgent: bool
    support: str
    reasons: tuple[str, ...]
    cells: int
    link: str
    note: str
    loud: bool


@dataclass(frozen=True)
class LikelyClass:
    """Undecided cells whose likeliest class is the same.

    Attributes:
        name: the class.
        style: how it is drawn.
        cells: how many.
        link: address of those.
        probability: of that class, on average.
    """

    name: str
    style: CellStyle
    cells: int
    link: str
    probability: str


@dataclass(frozen=True)
class Caution:
    """Something that limits how far the page can be trusted.

    Attributes:
        severity: `error` or `warning`.
        text: a sentence.
        link: address of the cells or the section it is about; empty for none.
    """

    severity: str
    text: str
    link: str = ""

    @property
    def short(self) -> str:
        """Its first sentence, for a list of cases.

        >>> Caution("warning", "3 of 9 cells are left undecided. Shares are limits.").short
        '3 of 9 cells are left undecided.'
        """
        return f"{self.text.partition('. ')[0].removesuffix('.')}."


@dataclass(frozen=True)
class BlastScale:
    """Blasts against the limit; lengths in percent of the axis.

    Attributes:
        verdict: where the interval lies.
        limit, share, low, high: places on the axis.
        axis: the share at its right end.
    """

    verdict: str
    limit: float
    share: float
    low: float
    high: float
    axis: str


class Summary:
    """What page one shows of a report's content."""

    def __init__(self, content: ReportContent) -> None:
        self.content = content
        self.counted = content.differential
        # Links lead to what was counted, and only where something was not is that said in them.
        all_counted = all(cell.counted and not cell.beside for cell in content.shown)
        self._counted: dict[str, int] = {} if all_counted else {"counted": 1}

    def link(self, **filters: str | int) -> str:
        """Return the address of counted cells that fit filters."""
        return cells_link(**filters, **self._counted)

    @property
    def axis(self) -> float:
        """The share at the right end of the chart: round, and no interval beyond it."""
        rows = self.counted.rows
        shares = [r.proportion for r in rows if r.depth and r.proportion]
        shares += [
            Proportion.of(r.undecided, r.proportion.total)
            for r in rows
            if r.proportion and not r.leaf and r.undecided
        ]
        longest = max((share.high for share in shares), default=1.0)
        return next(end for end in _AXES if longest <= end or end == 1.0)

    @property
    def bars(self) -> list[BarRow]:
        """The lines of the differential: sums, classes, and cells not named more closely."""
        lines = []
        for row in self.counted.rows:
            kind = "leaf" if row.leaf else "total" if row.depth == 0 else "sum"
            if row.proportion is None:
                continue
            one = {"only": f"stopped:{BLAST}"} if row.name == BLAST else {"class": row.name}
            link = self.link(**one)
            lines.append(self._bar(row, kind, row.proportion, link))
            if not row.leaf and row.undecided:
                share = Proportion.of(row.undecided, row.proportion.total)
                stopped = replace(
                    row,
                    name=f"{row.name}, not named more closely",
                    depth=row.depth + 1,
                    untrained=(),
                )
                link = self.link(only=f"stopped:{row.name}")
                style = self.content.style(row.name)
                lines.append(self._bar(stopped, "stopped", share, link, style))
        return lines

    @property
    def nameless(self) -> list[str]:
        """Classes that the model cannot name: they have no count, no share and no interval."""
        return [row.name for row in self.counted.rows if row.proportion is None and row.leaf]

    def _bar(
        self,
        row: DifferentialRow,
        kind: str,
        share: Proportion,
        link: str,
        style: CellStyle | None = None,
    ) -> BarRow:
        end = self.axis
        # A sum over classes of which some cannot be named is a lower limit: it has no interval.
        lower = bool(row.untrained) and kind == "sum"
        low, high = (share.share, share.share) if lower else (share.low, share.high)
        text = formatting.percent(share.share)
        return BarRow(
            name=formatting.class_title(row.name),
            depth=row.depth,
            kind=kind,
            style=style or self.content.style(row.name),
            link=link,
            count=share.count,
            share=(f"≥ {text}" if share.count else "–") if lower else text,
            interval="" if lower or kind == "total" else formatting.interval(low, high),
            length=_place(share.share, end),
            low=_place(low, end),
            high=_place(high, end),
            lower_limit=lower,
            corrected="" if kind == "stopped" else self._corrected(row.name),
        )

    def _corrected(self, name: str) -> str:
        share = self.content.film.corrected.get(name)
        if share is None:
            return ""
        interval = formatting.interval(share.low, share.high)
        if share.high - share.low > _TOO_WIDE:
            return interval
        return f"{formatting.percent(share.share)} ({interval})"

    @property
    def corrected(self) -> bool:
        """Whether shares are corrected for the classifier's measured errors."""
        return self.content.film.correction == "measured"

    @property
    def patterns(self) -> list[SuggestedPattern]:
        """What the film suggests, urgent patterns first."""
        flags = self.flags
        return [
            SuggestedPattern(
                title=_capital(printable(pattern.title)),
                urgent=pattern.urgent,
                support=formatting.percent(pattern.support),
                reasons=tuple(_reason_text(reason) for reason in pattern.reasons),
                cells=len(flags[pattern.code]),
                link=cells_link(flag=pattern.code),
                note=printable(pattern.note),
                loud=pattern in self.content.patterns.loud,
            )
            for pattern in self.content.patterns.patterns
        ]

    @property
    def first_patterns(self) -> list[SuggestedPattern]:
        """Those that stand above all else; all where none does."""
        return [p for p in self.patterns if p.loud] or self.patterns

    @property
    def flags(self) -> dict[str, list[str]]:
        """Ids of the cells behind each pattern, by its code."""
        content, tree = self.content, self.content.model.taxonomy
        return {
            pattern.code: [
                shown.cell.id
                for shown in content.cells
                if shown.counted and pattern.rests_on(content.with_probabilities(shown), tree)
            ]
            for pattern in content.patterns.patterns
        }

    @property
    def blasts(self) -> BlastScale | None:
        """Blasts against 20 %; `None` where that cannot be said.

        It cannot where none can be named or no white cell is counted. With kinds of blast that the
        model cannot name the share is a lower limit, which may lie above 20 % but never below; and
        undecided cells that may be blasts leave open what they could change.
        """
        share, side = self.counted.blasts, self.content.film.blast.side
        if share is None or not share.total:
            return None
        if self.counted.untrained_blasts and side != "above":
            return None
        end = next(end for end in _AXES if max(share.high, 2 * BLAST_LIMIT) <= end or end == 1.0)
        if side == "above":
            verdict = "the interval lies above 20 %"
        elif side == "below":
            verdict = "the interval lies below 20 %"
        elif share.high < BLAST_LIMIT:
            verdict = "below 20 % unless undecided cells are blasts"
        else:
            verdict = "the interval includes 20 %"
        low, high = _place(share.low, end), _place(share.high, end)
        place = _place(share.share, end)
        axis = formatting.percent(end)
        return BlastScale(verdict, _place(BLAST_LIMIT, end), place, low, high, axis)

    @property
    def likely_blasts(self) -> str:
        """How many blasts there are if undecided cells are what is likely; empty if none is.

        With kinds of blast that the model cannot name it is a lower limit, as the count is.
        """
        share, likely = self.likely_blast_share, self.content.film.likely
        if not share or likely is None or likely.blasts is None:
            return ""
        about = formatting.number(round(likely.blasts))
        found = f"{about} of {formatting.number(self.counted.white)}"
        limit = "at least" if self.counted.untrained_blasts else "about"
        return f"{limit} {found} ({share})"

    @property
    def likely_blast_share(self) -> str:
        """The share of white cells that these are; empty where `likely_blasts` is."""
        likely, white = self.content.film.likely, self.counted.white
        if likely is None or likely.blasts is None or not white:
            return ""
        lower = bool(self.counted.untrained_blasts)
        if not self.counted.possible_blasts or (lower and not round(likely.blasts)):
            return ""
        share = formatting.percent(min(1.0, likely.blasts / white))
        return f"≥ {share}" if lower else share

    @property
    def likely_classes(self) -> list[LikelyClass]:
        """Undecided white cells by their likeliest class, the most frequent first."""
        likely = self.content.film.likely
        return [
            LikelyClass(
                name=formatting.class_title(name),
                style=self.content.style(name),
                cells=found.cells,
                link=self.link(
                    likely=name, only="undecided", **{"class": self.counted.rows[0].name}
                ),
                probability=formatting.percent(found.probability),
            )
            for name, found in (likely.likeliest if likely is not None else {}).items()
        ]

    @property
    def adequacy(self) -> str:
        """How the number of white cells compares with what a differential is made of."""
        white = self.counted.white
        if white < CELLS[0]:
            return f"fewer than the {CELLS[0]} of a customary differential"
        reached = max(n for n in CELLS if n <= white)
        return f"enough for a differential of {reached}"

    @property
    def cautions(self) -> list[Caution]:
        """What limits how far the page can be trusted, the gravest first."""
        found = [*self._run_cautions(), *self._film_cautions(), *self._field_cautions()]
        return sorted(found, key=lambda caution: caution.severity != "error")

    def _run_cautions(self) -> list[Caution]:
        case, failures = self.content.case, self.content.failures
        linked = {issue_codes.FAILED_FIELDS} if failures else set()
        found = [
            Caution("error" if i.severity == "error" else "warning", sentence(i.message))
            for i in (*self.content.run.issues, *(case.issues if case is not None else ()))
            if i.severity != "info" and i.code not in linked
        ]
        if failures:
            text = f"{formatting.many(len(failures), 'file')} gave no result."
            found.append(Caution("error", text, "#failures"))
        return found

    def _film_cautions(self) -> list[Caution]:
        cells = [cell for cell in self.content.shown if cell.counted and not cell.beside]
        found: list[Caution] = []
        if len(cells) < _ENOUGH_TO_JUDGE:
            return found
        undecided = self.counted.undecided
        unlike = sum(issue_codes.UNFAMILIAR in c.codes for c in cells)
        basophils = sum(c.label == "basophil" for c in cells)
        total = len(cells)
        if unlike >= _MANY_UNFAMILIAR * total:
            text = (
                f"This film is far from what the model was trained on: {unlike} of {total} cells "
                "are unlike its training cells. Doubt every name on this page."
            )
            found.append(Caution("error", text, self.link(issue=issue_codes.UNFAMILIAR)))
        if undecided >= _MANY_UNDECIDED * total:
            text = (
                f"{undecided} of {total} cells are left undecided. Shares of classes are lower "
                "limits, and the film may hold cells that the model does not know."
            )
            found.append(Caution("warning", text, self.link(only="undecided")))
        if basophils > _MANY_BASOPHILS * total:
            text = (
                f"Basophils are {formatting.percent(basophils / total)} of the cells, which is "
                "rare. On films unlike the training data, other dark cells are named so: look at "
                "them."
            )
            found.append(Caution("warning", text, self.link(**{"class": "basophil"})))
        return found

    def _field_cautions(self) -> list[Caution]:
        total = len(self.content.fields)
        tally = Counter(
            code for field in self.content.fields for code in {i.code for i in field.issues}
        )
        found = []
        for code, severity, what in _FIELD_CAUTIONS:
            if tally[code]:
                of = f"{tally[code]} of {formatting.many(total, 'field')}"
                found.append(Caution(severity, f"{of} {what}", "#problems"))
        return found

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """What is not in the counts and why, with an address."""
        counted, said = self.counted, []
        reasons: dict[str, list[ReportField]] = {}
        for field in self.content.fields:
            if not field.counted:
                reasons.setdefault(_reason(field), []).append(field)
        for why, fields in sorted(reasons.items()):
            cells = formatting.many(sum(f.cells for f in fields), "cell")
            said.append(
                (f"{formatting.many(len(fields), 'field')} with {cells}: {why}", "#problems")
            )
        if uncounted := sum(not (c.counted or c.other_view) for c in self.content.cells):
            held = {f.number: f.counted for f in self.content.fields}
            cut = sum(held[c.field] and not (c.counted or c.other_view) for c in self.content.cells)
            text = f"{formatting.many(uncounted, 'cell')} not counted"
            if cut == uncounted:
                text += ", which the edge cuts in every field that shows them"
            elif cut:
                text += f" in all, {cut} of them cut by the edge in every field that shows them"
            else:
                text += " in all"
            said.append((text, cells_link(counted=0)))
        if views := sum(cell.other_view for cell in self.content.cells):
            text = f"{formatting.many(views, 'further view')} of cells that are counted once"
            said.append((text, cells_link(counted=3)))
        if counted.unplaced:
            text = (
                f"{formatting.many(counted.unplaced, 'nucleated cell')} not decided to be white "
                "cell or erythroblast"
            )
            said.append((text, self.link(only="unplaced")))
        if failures := self.content.failures:
            said.append((f"{formatting.many(len(failures), 'file')} without a result", "#failures"))
        return said

    def issue_counts(self) -> list[tuple[str, int, str]]:
        """Issues of counted cells with how often they occur and an address, most frequent first."""
        cells = [cell for cell in self.content.shown if cell.counted and not cell.beside]
        tally = Counter(code for cell in cells for code in cell.codes)
        found = sorted(tally.items(), key=lambda item: (-item[1], item[0]))
        return [(formatting.issue_title(code), n, self.link(issue=code)) for code, n in found]


_FIELD_CAUTIONS = (
    (issue_codes.NOT_A_FILM, "error", "may show no blood film; their cells are not counted."),
    (issue_codes.SCALE_ASSUMED, "error", "have no known scale; their cells are not counted."),
    (
        issue_codes.UNFAMILIAR_FILM,
        "warning",
        "are far in stain or optics from every film that the model was trained on; fewer of their "
        "cells are named.",
    ),
    (issue_codes.LOW_SHARPNESS, "warning", "are blurred."),
)


def _reason_text(reason: Reason) -> str:
    interval = formatting.interval(reason.low, reason.high)
    how = ", corrected" if reason.corrected else ""
    share = f"{formatting.percent(reason.share)} ({interval}{how})"
    named = f"{reason.count} of {reason.total}"
    if reason.likely:
        share += " with what undecided cells are likely to be"
        named += " named so"
    return f"{_capital(reason.what)}: {share}, {named}; {reason.condition}"


def _capital(text: str) -> str:
    """Return a text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def _reason(field: ReportField) -> str:
    """Return why a field is not counted."""
    codes = [issue.code for issue in field.issues]
    known = next((code for code in codes if code in issue_codes.UNCOUNTABLE), None)
    code = known or (codes[-1] if codes else "")
    return _UNCOUNTABLE.get(code) or issue_codes.CODES.meaning(code) or "it is set aside"


_UNCOUNTABLE = {
    issue_codes.NOT_A_FILM: "no blood film is shown",
    issue_codes.SCALE_ASSUMED: "the scale is assumed",
    issue_codes.DUPLICATE_IMAGE: "the picture was analysed before",
}
"""Why a field is not counted, where its issue's meaning is too long."""


def _place(value: float, end: float) -> float:
    return round(100 * min(value / end, 1.0), 2)


@dataclass(frozen=True)
class AttributeAnswer:
    """What the cells of one class look like in one attribute.

    Attributes:
        value: the commonest value; `not sure` where no cell has one.
        share: of the cells with a value.
        link: address of the cells with that value.
        sure: cells with a value.
        parts: start and length of each value's share of all cells, percent.
    """

    value: str
    share: str
    link: str
    sure: int
    parts: tuple[tuple[str, float, float], ...]


def attribute_table(
    content: ReportContent, attributes: Sequence[Attribute]
) -> list[tuple[str, CellStyle, int, list[AttributeAnswer]]]:
    """Return, per class met (in tree order), the answers for some attributes."""
    cells: dict[str, list[ReportCell]] = {}
    for cell in content.shown:
        cells.setdefault(cell.label, []).append(cell)
    places = {a.name: place for place, a in enumerate(content.model.schema.attributes)}
    return [
        (
            label,
            content.style(label),
            len(cells[label]),
            [_answer(a, places[a.name], cells[label]) for a in attributes],
        )
        for label in content.in_tree_order(set(cells))
    ]


def _answer(attribute: Attribute, place: int, cells: Sequence[ReportCell]) -> AttributeAnswer:
    tally = Counter(cell.answers[place] for cell in cells)
    sure = sum(n for code, n in tally.items() if code >= 0)
    parts, start = [], 0.0
    for code, value in enumerate(attribute.values):
        length = 100 * tally[code] / len(cells)
        if length:
            parts.append((value, round(start, 1), round(length, 1)))
        start += length
    label = cells[0].label
    if not sure:
        link = _value_link(label, attribute, "?") if tally[NOT_SURE] else ""
        return AttributeAnswer("not sure", "", link, 0, tuple(parts))
    code = max(range(len(attribute.values)), key=lambda v: tally[v])
    value = attribute.values[code]
    share = formatting.percent(tally[code] / sure)
    return AttributeAnswer(value, share, _value_link(label, attribute, value), sure, tuple(parts))


def _value_link(label: str, attribute: Attribute, value: str) -> str:
    return cells_link(only=f"stopped:{label}", attr=f"{attribute.name}:{value}")


def scale_summary(content: ReportContent) -> list[str]:
    """Return, in a sentence or two, where scales come from and how they spread."""
    views = [f.view for f in content.fields]
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
            "the pictures are stretched so that round cells are round."
        )
    if tally["assumed"]:
        said.append(
            "Where the scale is assumed, every size in µm is a guess, and cells were classified at "
            "a size the model may not know: doubt their names."
        )
    return said


def flat(data: Mapping[str, Any], most: int = 40) -> list[tuple[str, str]]:
    """Return nested plain data as lines of name and value, cut after `most`."""
    lines: list[tuple[str, str]] = []

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key in value:
                walk(f"{name} › {key}" if name else str(key), value[key])
        elif isinstance(value, float):
            lines.append((printable(name), f"{value:.4g}"))
        elif isinstance(value, list | tuple):
            lines.append((printable(name), printable(", ".join(map(str, value)))))
        else:
            lines.append((printable(name), printable(value)))

    walk("", data)
    if len(lines) > most:
        rest = len(lines) - most
        lines = [*lines[:most], ("…", f"{rest} more in the bundle's manifest.json")]
    return lines
