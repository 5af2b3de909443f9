"""From the fields of a film to a case: each physical cell once, in its sharpest view."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from bloodfilm.cases.cameras import several_cameras
from bloodfilm.cases.candidates import CandidatePair, find_candidates
from bloodfilm.cases.edges import FieldEdges, edge_candidates, field_edges
from bloodfilm.cases.landmarks import (
    ALL_KEYPOINTS,
    MAX_KEYPOINTS,
    Details,
    FieldDetail,
    FieldLandmarks,
    SeenFields,
    cell_sharpness,
    common_scale,
    field_detail,
    find_landmarks,
)
from bloodfilm.cases.layout import Layout, lay_out, predicted_pairs
from bloodfilm.cases.pairs import (
    EDGE_DEVIATIONS,
    KEYPOINT_DEVIATIONS,
    FieldPair,
    verify_pair,
)
from bloodfilm.cases.physical_cells import Junction, inside, inverted, join, same_boxes
from bloodfilm.cases.scales import scale_factors
from bloodfilm.cases.setting_aside import (
    Repeat,
    copies,
    pixel_copies,
    same_pictures,
    same_places,
    unusable,
)
from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import BoxArray, Image
from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.field import Box
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import (
    CaseCell,
    CaseResult,
    CellResult,
    CellView,
    FieldPlacement,
    FieldResult,
    ModelInfo,
)
from bloodfilm.core.results.case import Matrix, pick
from bloodfilm.core.text import plural
from bloodfilm.imaging.picture_key import pixel_digest
from bloodfilm.imaging.sources.image_file import open_image

EdgeRule = Literal["two-sides", "whole", "all"]
EDGE_RULES: tuple[EdgeRule, ...] = ("two-sides", "whole", "all")
"""Which cells count that an edge cuts in every field that shows them: those that the top or left
edge cuts and neither the bottom nor the right one (the counting rule of a chamber's square); none;
all."""
EDGE_UM = 0.4
EDGE_PX = 1.0
"""A box this near to the edge belongs to a cell that is cut."""

Loader = Callable[[FieldResult], Image]


@dataclass(frozen=True)
class CaseFiles:
    """Which results belong to a case.

    Attributes:
        name: of the case.
        numbers: of its fields in the run, rising.
        failures: paths of its files without a result.
        issues: what is known of the case before its pictures are compared.
    """

    name: str
    numbers: tuple[int, ...]
    failures: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class AssemblyOptions:
    """How the fields of a case are taken together.

    Attributes:
        edges: which cells count that an edge cuts in every field.
        workers: fields at work at a time.
        load: returns the pixels of a field.
        seen: details of fields that need not be loaded.
    """

    edges: EdgeRule = "two-sides"
    workers: int = 1
    load: Loader = field(default=lambda result: open_image(result.path))
    seen: SeenFields = field(default_factory=SeenFields)


def assemble_case(
    files: CaseFiles,
    fields: Sequence[FieldResult],
    model: ModelInfo,
    options: AssemblyOptions | None = None,
    progress: Progress | None = None,
) -> CaseResult:
    """Take the fields of a case together: set aside what repeats, count every cell once.

    The same fields give the same case, whatever the workers.

    Args:
        files: which results of the run belong to the case.
        fields: all results of the run.
        model: of the run.
        options: edge rule, workers, and how pixels are loaded.
        progress: follows the fields that are looked at and compared.
    """
    kept = pick(fields, files.numbers)
    leans = [_lean(result, model.classified) for result in kept]
    factors = scale_factors([lean for lean, _ in leans])
    results = [_at_scale(lean, factor) for (lean, _), factor in zip(leans, factors, strict=True)]
    others = [
        {name: listed * factor for name, listed in boxes.items()}
        for (_, boxes), factor in zip(leans, factors, strict=True)
    ]
    options, progress = options or AssemblyOptions(), progress or NoProgress()
    return _Assembly(files, tuple(results), tuple(others), model, options, progress).case(kept)


def _lean(result: FieldResult, classified: str) -> tuple[FieldResult, dict[str, BoxArray]]:
    """Return a result with what joining its cells needs, and the boxes of other types, um.

    A thousand fields hold some hundred thousand red cells: they stay arrays.
    """
    cells = tuple(
        replace(c, probabilities={}, attributes={})
        for c in result.cells
        if c.object_type == classified
    )
    boxes: dict[str, list[Box]] = {}
    for cell in result.cells:
        if cell.object_type != classified:
            boxes.setdefault(cell.object_type, []).append(cell.box)
    lean = replace(result, cells=cells)
    return lean, {name: in_um(lean, listed) for name, listed in boxes.items()}


def _at_scale(result: FieldResult, factor: float) -> FieldResult:
    """Return a result whose micrometres per pixel are multiplied by a factor."""
    view = result.view
    if factor == 1:
        return result
    across, down = view.um_per_px_x * factor, view.um_per_px_y * factor
    return replace(result, view=replace(view, um_per_px_x=across, um_per_px_y=down))


def in_um(result: FieldResult, boxes: Sequence[Box]) -> BoxArray:
    """Return boxes (n, 4) in micrometres of the field's plane."""
    scale = np.tile([result.view.um_per_px_x, result.view.um_per_px_y], 2)
    return np.array(boxes, dtype=np.float64).reshape(-1, 4) * scale


@dataclass
class _Assembly:
    """One case at work. A field's place is its position among the results."""

    files: CaseFiles
    results: tuple[FieldResult, ...]
    others: tuple[dict[str, BoxArray], ...]
    model: ModelInfo
    options: AssemblyOptions
    progress: Progress
    aside: dict[int, Issue] = field(default_factory=dict)
    not_compared: dict[int, Issue] = field(default_factory=dict)
    landmarks: dict[int, FieldLandmarks] = field(default_factory=dict)
    edges: dict[int, FieldEdges | None] = field(default_factory=dict)
    sharpness: dict[tuple[int, str], float] = field(default_factory=dict)
    usable: list[int] = field(default_factory=list)
    layout: Layout = field(default_factory=lambda: Layout((), (), ()))
    junctions: list[Junction] = field(default_factory=list)

    def case(self, kept: Sequence[FieldResult]) -> CaseResult:
        """Return the case; `kept` are its fields as it refers to them."""
        # What cannot count is not compared, and neither is a copy, which shows nothing new.
        self.aside = unusable(self.results)
        self._add_copies(copies(self.results))
        self._add_copies(same_pictures(self.results, self.aside, self.model.classified))
        self._compare()
        cells = self._cells()
        return CaseResult(
            name=self.files.name,
            fields=kept,
            placements=tuple(self._placement(place) for place in range(len(self.results))),
            cells=cells,
            other=self._other(),
            failures=self.files.failures,
            issues=self._issues(),
            model=self.model,
        )

    def _add_copies(self, found: Mapping[int, Repeat]) -> None:
        for place, repeat in found.items():
            if place not in self.aside:
                self.aside[place] = repeat.issue
                self.junctions.append(Junction(repeat.original, place, repeat.matrix))

    # ---- which fields lie where ------------------------------------------------------------------

    def _compare(self) -> None:
        """Find out how the fields lie, and set aside those that repeat others."""
        places = [k for k in range(len(self.results)) if k not in self.aside]
        for place in places if len(places) > 1 else ():
            if self.results[place].slide is not None:
                message = "not compared with the other fields: it is a slide"
                self.not_compared[place] = issue(issue_codes.NOT_COMPARED, message)
        places = [k for k in places if self.results[k].slide is None]
        if len(places) < 2:
            return
        um_per_px = common_scale([self.results[k] for k in places])
        details = Details(lambda place: self._detail(place, um_per_px))
        with ThreadPoolExecutor(self.options.workers, "case") as executor:
            self._look(places, um_per_px, details, executor)
            self._add_copies(pixel_copies(self.results, self.landmarks))
            self.usable = [k for k in sorted(self.landmarks) if k not in self.aside]
            if len(self.usable) < 2:
                return
            self._lay_out(um_per_px, details, executor)
        again = same_places(self.results, self.usable, self.landmarks, self.layout)
        self.aside |= again

    def _look(
        self, places: list[int], um_per_px: float, details: Details, executor: ThreadPoolExecutor
    ) -> None:
        keypoints = min(MAX_KEYPOINTS, max(60, ALL_KEYPOINTS // len(places)))

        def look(place: int) -> FieldLandmarks | BloodfilmError:
            result = self.results[place]
            detail, digest = self.options.seen.detail(result, um_per_px), result.image.pixels
            if detail is None or not digest:
                try:
                    image = self._pixels(place)
                except BloodfilmError as error:
                    return error
                detail = field_detail(image, result, um_per_px)
                details.keep(place, detail)
                digest = digest or pixel_digest(image)
            self.edges[place] = field_edges(detail, um_per_px)
            return find_landmarks(detail, um_per_px, keypoints, digest)

        seen = track(executor.map(look, places), self.progress, "looking at fields", len(places))
        for place, marks in zip(places, seen, strict=True):
            if isinstance(marks, BloodfilmError):
                text = str(marks).removeprefix(f"{self.results[place].path}: ")
                message = f"not compared with the other fields: {text}"
                self.not_compared[place] = issue(issue_codes.NOT_COMPARED, message)
            else:
                self.landmarks[place] = marks

    def _detail(self, place: int, um_per_px: float) -> FieldDetail:
        result = self.results[place]
        known = self.options.seen.detail(result, um_per_px)
        return known or field_detail(self._pixels(place), result, um_per_px)

    def _pixels(self, place: int) -> Image:
        result = self.results[place]
        image = self.options.load(result)
        if image.shape[:2] != (result.image.height, result.image.width):
            raise BloodfilmError("the image has changed since it was analysed")
        return image

    def _lay_out(self, um_per_px: float, details: Details, executor: ThreadPoolExecutor) -> None:
        usable, marks = self.usable, [self.landmarks[k] for k in self.usable]

        def verify(candidate: CandidatePair, min_deviations: float) -> FieldPair | None:
            one, two = (details[usable[k]] for k in (candidate.first, candidate.second))
            pair = verify_pair(candidate, one, two, um_per_px, min_deviations)
            return None if pair is None or self._contradicts(pair) else pair

        def verified(
            candidates: Sequence[CandidatePair],
            stage: str,
            min_deviations: float = KEYPOINT_DEVIATIONS,
        ) -> list[FieldPair]:
            if not candidates:
                return []
            judged = executor.map(verify, candidates, itertools.repeat(min_deviations))
            done = track(judged, self.progress, stage, len(candidates))
            return _best([pair for pair in done if pair is not None])

        sizes = [m.size_um for m in marks]
        pairs = verified(find_candidates(marks, self.progress, executor.map), "verifying overlaps")
        self.layout = lay_out(sizes, pairs)
        edges = [self.edges[k] for k in usable]
        narrow = edge_candidates(edges, self.layout.parts, self.progress, executor.map)
        more_pairs = verified(narrow, "verifying narrow overlaps", EDGE_DEVIATIONS)
        if more_pairs:
            pairs = _best([*pairs, *more_pairs])
            self.layout = lay_out(sizes, pairs)
        predicted = [
            CandidatePair(first, second, matrix, 0)
            for first, second, matrix in predicted_pairs(self.layout, sizes)
        ]
        more = verified(predicted, "verifying predicted overlaps")
        known = {(p.first, p.second) for p in more}
        self.junctions += [
            Junction(usable[p.first], usable[p.second], p.matrix)
            for p in (*self.layout.pairs, *more)
        ] + [
            Junction(usable[c.first], usable[c.second], c.matrix, predicted=True)
            for c in predicted
            if (c.first, c.second) not in known
        ]

    def _contradicts(self, pair: FieldPair) -> bool:
        """Whether both fields show whole cells on common glass, and not one of them in both.

        Red cells in rows look alike everywhere; nucleated cells are few, and do not move.
        """
        first, second = self.usable[pair.first], self.usable[pair.second]
        whole = {k: self._whole_boxes(k) for k in (first, second)}
        sizes = self._size(first), self._size(second)
        junction = Junction(first, second, pair.matrix)
        here, there = (
            inside(whole[first], pair.matrix, sizes[1]),
            inside(whole[second], inverted(pair.matrix), sizes[0]),
        )
        if not len(here) or not len(there):
            return False
        matched, _, _ = same_boxes(whole[first], whole[second], junction, sizes)
        return not len(matched)

    def _whole_boxes(self, place: int) -> BoxArray:
        result = self.results[place]
        return in_um(result, [c.box for c in result.cells if not self.sides(place, c)])

    # ---- which cells are one ---------------------------------------------------------------------

    def _size(self, place: int) -> tuple[float, float]:
        image, view = self.results[place].image, self.results[place].view
        return image.width * view.um_per_px_x, image.height * view.um_per_px_y

    def _joined(self, boxes: Mapping[int, BoxArray]) -> list[int]:
        """Return the number of the object that each box shows, field by field.

        Args:
            boxes: of fields, by place, rising.
        """
        starts, total = {}, 0
        for place, listed in boxes.items():
            starts[place] = total
            total += len(listed)
        matches = []
        for j in self.junctions:
            if j.first in boxes and j.second in boxes:
                sizes = self._size(j.first), self._size(j.second)
                one, two, value = same_boxes(boxes[j.first], boxes[j.second], j, sizes)
                pairs = zip(one.tolist(), two.tolist(), value.tolist(), strict=True)
                matches += [(starts[j.first] + a, starts[j.second] + b, v) for a, b, v in pairs]
        owner = [place for place, listed in boxes.items() for _ in listed]
        numbers: list[int] = join(owner, matches).tolist()
        return numbers

    def _cells(self) -> tuple[CaseCell, ...]:
        listed = [(place, c) for place, r in enumerate(self.results) for c in r.cells]
        boxes = {k: in_um(r, [c.box for c in r.cells]) for k, r in enumerate(self.results)}
        objects = self._joined(boxes)
        groups: dict[int, list[tuple[int, CellResult]]] = {}
        for view, number in zip(listed, objects, strict=True):
            groups.setdefault(number, []).append(view)
        self._compare_sharpness([views for views in groups.values() if len(views) > 1])
        return tuple(self._cell(views) for _, views in sorted(groups.items()))

    def _compare_sharpness(self, groups: Iterable[list[tuple[int, CellResult]]]) -> None:
        """Measure the sharpness of cells that several fields show: most of a film's need none."""
        shown: dict[int, list[CellResult]] = {}
        for place, cell in (view for views in groups for view in views):
            if place in self.landmarks:
                shown.setdefault(place, []).append(cell)

        def look(place: int) -> list[float]:
            cells = shown[place]
            try:
                image = self._pixels(place)
            except BloodfilmError:  # removed since its landmarks were found
                return [0.0] * len(cells)
            return cell_sharpness(image, self.results[place], cells)

        if not shown:
            return
        with ThreadPoolExecutor(self.options.workers, "case") as executor:
            done = executor.map(look, shown)
            seen = track(done, self.progress, "comparing views of cells", len(shown))
            for place, values in zip(shown, seen, strict=True):
                for cell, value in zip(shown[place], values, strict=True):
                    self.sharpness[place, cell.id] = value

    def _cell(self, views: list[tuple[int, CellResult]]) -> CaseCell:
        """Return one physical cell: its best view first, and whether it counts."""
        counted = [v for v in views if v[0] not in self.aside]
        # A plane of a focus series, or a copy, may show whole what its sharper fellow cuts.
        fellows = [
            v
            for v in views
            if v[0] in self.aside
            and self.aside[v[0]].code in (issue_codes.SAME_PLACE, issue_codes.COPIED_FIELD)
        ]
        whole = [v for v in counted if not self.sides(*v)] or [
            v for v in fellows if counted and not self.sides(*v)
        ]
        best = min(whole or counted or views, key=self._rank)
        order = [best, *(v for v in views if v is not best)]
        counts, issues = True, []
        if not counted:
            counts, issues = False, [self.aside[best[0]]]
        elif not whole:
            counts = self._counts_though_cut(self.sides(*best))
            message = "cut by the edge of every field that shows it"
            sides = sorted(self.sides(*best))
            issues = [issue(issue_codes.CUT_BY_EDGE, message, sides=sides)]
        names = sorted({cell.label for _, cell in counted})
        if len(names) > 1:
            message = f"overlapping fields name it {' and '.join(names)}"
            issues.append(issue(issue_codes.VIEWS_DISAGREE, message, classes=names))
        seen = tuple(CellView(self.files.numbers[place], cell.id) for place, cell in order)
        return CaseCell(seen, counts, tuple(issues))

    def _rank(self, view: tuple[int, CellResult]) -> tuple[float, float, int]:
        """Order of views: the largest visible box of cut ones, the sharpest of whole ones."""
        place, cell = view
        cut = bool(self.sides(place, cell))
        sharp = self.sharpness.get((place, cell.id), 0.0)
        area = float(np.prod(in_um(self.results[place], [cell.box])[0, 2:])) if cut else 0.0
        return -area, -sharp, place

    def sides(self, place: int, cell: CellResult) -> frozenset[str]:
        """Return the edges of a field that cut a cell: left, top, right, bottom, rim."""
        result = self.results[place]
        view, (x, y, w, h) = result.view, cell.box
        across = max(EDGE_PX, EDGE_UM / view.um_per_px_x)
        down = max(EDGE_PX, EDGE_UM / view.um_per_px_y)
        near = {
            "left": x <= across,
            "top": y <= down,
            "right": x + w >= result.image.width - across,
            "bottom": y + h >= result.image.height - down,
        }
        found = {side for side, cut in near.items() if cut}
        if not found and any(i.code == issue_codes.CUT_BY_EDGE for i in cell.issues):
            found.add(_rim_side(result, cell))
        return frozenset(found)

    def _counts_though_cut(self, sides: frozenset[str]) -> bool:
        if self.options.edges == "two-sides":
            return not sides & {"right", "bottom"}
        return self.options.edges == "all"

    def _other(self) -> dict[str, int]:
        """Count distinct objects of the other types in the fields that count."""
        counted = [k for k in range(len(self.results)) if k not in self.aside]
        found = {}
        for name in sorted({name for k in counted for name in self.others[k]}):
            nothing = np.zeros((0, 4))
            boxes = {k: self.others[k].get(name, nothing) for k in counted}
            found[name] = len(set(self._joined(boxes)))
        # Those of slides are counted, not listed.
        for slide in (self.results[k].slide for k in counted):
            for name, count in slide.counts.items() if slide is not None else ():
                if name != self.model.classified:
                    found[name] = found.get(name, 0) + count
        return dict(sorted(found.items()))

    # ---- what is known ---------------------------------------------------------------------------

    def _placement(self, place: int) -> FieldPlacement:
        part, matrix = None, None
        if place in self.usable and self.layout.parts:
            number = self.usable.index(place)
            part = self.layout.parts[number]
            matrix = self._to_part(place, number)
        issues = [self.aside[place]] if place in self.aside else []
        issues += [self.not_compared[place]] if place in self.not_compared else []
        return FieldPlacement(
            self.files.numbers[place], place not in self.aside, part, matrix, tuple(issues)
        )

    def _to_part(self, place: int, number: int) -> Matrix:
        view = self.results[place].view
        scale = np.diag([view.um_per_px_x, view.um_per_px_y, 1.0])
        rows = (self.layout.matrices[number] @ scale)[:2].round(6).tolist()
        (a, b, c), (d, e, f) = rows
        return (a, b, c), (d, e, f)

    def _issues(self) -> tuple[Issue, ...]:
        found = list(self.files.issues)
        cameras = several_cameras([r for r in self.results if r.slide is None])
        if cameras is not None:
            found.append(cameras)
        if self.files.failures:
            count = len(self.files.failures)
            message = f"{plural(count, 'file')} could not be analysed"
            facts = {"paths": list(self.files.failures)}
            found.append(issue(issue_codes.FAILED_FIELDS, message, **facts))
        if self.results and len(self.aside) == len(self.results):
            reasons = dict(sorted(Counter(i.code for i in self.aside.values()).items()))
            message = "no field of the case can be counted"
            found.append(issue(issue_codes.NOTHING_COUNTED, message, reasons=reasons))
        return tuple(found)


def _rim_side(result: FieldResult, cell: CellResult) -> str:
    """Return on which side the rim of a round field cuts a cell, as an edge would."""
    if result.view.round_field is None:
        return "rim"
    x, y, _ = result.view.round_field
    across, down = cell.box[0] + cell.box[2] / 2 - x, cell.box[1] + cell.box[3] / 2 - y
    if abs(across) >= abs(down):
        return "right" if across > 0 else "left"
    return "bottom" if down > 0 else "top"


def _best(pairs: Iterable[FieldPair]) -> list[FieldPair]:
    """Keep the better of several ways in which two fields may fit."""
    best: dict[tuple[int, int], FieldPair] = {}
    for pair in pairs:
        key = pair.first, pair.second
        if key not in best or pair.weight > best[key].weight:
            best[key] = pair
    return [best[key] for key in sorted(best)]
