"""Analyse the tiles of a slide, and combine their results into that of the slide."""

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.boxes import centres
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.progress import NoProgress, Progress, counter
from bloodfilm.core.results import (
    CellResult,
    FieldFailure,
    FieldOutcome,
    FieldResult,
    ImageRef,
    SlideRecord,
    with_ids,
)
from bloodfilm.core.results.slide import sum_counts
from bloodfilm.core.text import plural
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources.slide import Damage, SlideSource
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.film_offset import FilmNaming
from bloodfilm.inference.film_score import MIN_FILM_SCORE, FilmScore
from bloodfilm.inference.issues import field_issues, not_a_film
from bloodfilm.inference.runner import AHEAD, default_workers, one_opencv_thread
from bloodfilm.inference.slides.plan import SlidePlan, SlideSelection, plan_slide
from bloodfilm.inference.slides.tiles import SlideTile
from bloodfilm.inference.stage_timer import StageTimer

SHOWN_AREAS = 5


def analyze_slide(
    source: SlideSource,
    analyzer: Analyzer,
    selection: SlideSelection | None = None,
    *,
    prior: ScalePrior | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> FieldResult:
    """Analyse a slide; its cells are in px of level 0, red cells and platelets are counted.

    Args:
        source: the slide; it stays open.
        analyzer: of a bundle.
        selection: the part to analyse; the zone of morphology if left out.
        prior: what is known of the pixel size.
        workers: tiles in parallel; by default one per core, at most 8.
        progress: follows the work, can stop it.

    Raises:
        DataError: if there is nothing to analyse.
    """
    wanted = selection or SlideSelection()
    with ThreadPoolExecutor(workers or default_workers(), "slide") as executor, one_opencv_thread():
        plan = plan_slide(
            source, analyzer, wanted, prior=prior, progress=progress, map_=executor.map
        )
    outcomes = analyze_tiles(source, analyzer, plan, plan.tiles, workers=workers)
    count = counter(progress or NoProgress(), "tiles", len(plan.tiles))
    found = []
    for number, outcome in enumerate(outcomes, 1):
        found.append(outcome)
        count(number)
    return combined(source, plan, found, analyzer.classified)


def analyze_tiles(
    source: SlideSource,
    analyzer: Analyzer,
    plan: SlidePlan,
    tiles: Sequence[SlideTile],
    *,
    workers: int | None = None,
) -> Generator[FieldOutcome, None, None]:
    """Analyse tiles side by side; yield one outcome per tile, in their order, in flat memory.

    Args:
        source: the slide.
        analyzer: of a bundle.
        plan: of the slide.
        tiles: of the plan.
        workers: tiles in parallel; by default one per core, at most 8.
    """
    workers = workers or default_workers()
    waiting: deque[Future[FieldOutcome]] = deque()
    with one_opencv_thread(), ThreadPoolExecutor(workers, "tile") as executor:
        try:
            for tile in tiles:
                waiting.append(executor.submit(_outcome, source, analyzer, plan, tile))
                if len(waiting) >= workers + AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def tile_name(source: SlideSource, tile: SlideTile) -> str:
    """Return what a tile is called in messages."""
    x, y, w, h = tile.core
    return f"{source.name} [{x}, {y}, {w} x {h}]"


def _outcome(
    source: SlideSource, analyzer: Analyzer, plan: SlidePlan, tile: SlideTile
) -> FieldOutcome:
    try:
        return _analyze_tile(source, analyzer, plan, tile)
    except Exception as error:  # one tile must not end the analysis of a slide
        return FieldFailure.from_error(tile_name(source, tile), error)


def _analyze_tile(
    source: SlideSource, analyzer: Analyzer, plan: SlidePlan, tile: SlideTile
) -> FieldResult:
    clock = StageTimer()
    x, y, width, height = tile.region
    with clock("open"):
        pixels = source.read_region(x, y, width, height)
    view = plan.view.of_region(width, height)
    red = None if plan.view.red_cell is None else np.array(plan.view.red_cell)
    film = FilmNaming(plan.view.film)
    part = analyzer.analyze_part(pixels, view, red, clock, plan.view.is_unfamiliar, film)
    damage = source.damage_in(x, y, width, height)
    moved = [_moved(cell, x, y) for cell in part.cells]
    points = centres(np.array([c.box for c in moved]).reshape(-1, 4))
    kept = np.flatnonzero(tile.owns(points) & plan.zone.contains(points)).tolist()
    owned = [_beside_damage(moved[i], damage) for i in kept]
    counts = Counter(cell.object_type for cell in owned)
    record = SlideRecord(
        zone=plan.zone.origin,
        zone_mm2=0.0,
        analyzed_mm2=plan.zone.area_mm2([tile.core]),
        counts=dict(counts),
        tiles=1,
    )
    listed = [c for c in owned if c.object_type == analyzer.classified]
    score = part.film_score
    film_score = None if score is None else round(score.score, 3)
    return FieldResult(
        ImageRef(source.name, *source.size, source.identity),
        _record(plan, view, _rounded(part.sharpness, 2), film_score),
        tuple(listed),
        tuple(_tile_issues(damage, part.left_out, score)),
        dict(clock.seconds),
        record,
    )


def _record(
    plan: SlidePlan, view: CanonicalView, sharpness: float | None, score: float | None
) -> ViewRecord:
    film = plan.view.film
    return replace(view.record(sharpness, score), film_cells=0 if film is None else film.cells)


def _tile_issues(
    damage: Sequence[Damage], left_out: int, score: FilmScore | None
) -> Iterable[Issue]:
    if damage:
        yield _unreadable(damage)
    if left_out:
        message = f"{left_out} detections that score least are left out"
        yield issue(issue_codes.DETECTIONS_LIMITED, message, left_out=left_out)
    if score is not None and score.score < MIN_FILM_SCORE:
        yield not_a_film(score)


def _unreadable(damage: Sequence[Damage]) -> Issue:
    names = [d.name for d in damage]
    shown = ", ".join(f"{d.name} ({d.reason})" for d in damage[:SHOWN_AREAS])
    more = f", and {len(damage) - SHOWN_AREAS} more" if len(damage) > SHOWN_AREAS else ""
    message = f"{plural(len(damage), 'part')} of the slide cannot be decoded: {shown}{more}"
    areas = [list(d.area) for d in damage]
    reasons = [d.reason for d in damage]
    return issue(issue_codes.AREA_UNREADABLE, message, names=names, areas=areas, reasons=reasons)


def _moved(cell: CellResult, x: int, y: int) -> CellResult:
    left, top, w, h = cell.box
    shape = None if cell.shape is None else cell.shape.moved(x, y)
    return replace(cell, box=(left + x, top + y, w, h), shape=shape)


def _beside_damage(cell: CellResult, damage: Sequence[Damage]) -> CellResult:
    """Mark a cell that what cannot be decoded cuts."""
    x, y, w, h = cell.box
    cut = any(
        x < d.area[0] + d.area[2]
        and d.area[0] < x + w
        and y < d.area[1] + d.area[3]
        and d.area[1] < y + h
        for d in damage
    )
    if not cut or any(found.code == issue_codes.CUT_BY_EDGE for found in cell.issues):
        return cell
    mark = issue(issue_codes.CUT_BY_EDGE, "cut by a part of the slide that cannot be decoded")
    return replace(cell, issues=(*cell.issues, mark))


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def combined(
    source: SlideSource,
    plan: SlidePlan,
    outcomes: Iterable[FieldOutcome],
    classified: str,
) -> FieldResult:
    """Return the result of a slide from those of its tiles, in the order of the tiles.

    Only cells of the classified type are listed.
    """
    total = _Total(classified)
    for outcome in outcomes:
        total.add(outcome)
    image = ImageRef(source.name, *source.size, source.identity)
    listed = with_ids(sorted(total.cells, key=_place), image.sha256)
    sharp = float(np.median(total.sharpness)) if total.sharpness else float("inf")
    score = round(float(np.median(total.scores)), 3) if total.scores else None
    view = plan.view.view
    issues = [*source.issues, *plan.view.issues, *plan.zone.issues, *plan.issues]
    issues += field_issues(replace(view, issues=()), listed, sharp)
    if score is not None and score < MIN_FILM_SCORE and total.no_film is not None:
        issues.append(total.no_film)
    issues += total.issues()
    record = SlideRecord(
        zone=plan.zone.origin,
        zone_mm2=plan.zone.area_mm2(),
        analyzed_mm2=sum(r.analyzed_mm2 for r in total.records),
        counts=sum_counts(total.records),
        tiles=len(total.records),
        failed_tiles=len(total.failures),
        fields=plan.fields,
        seed=plan.seed,
    )
    kept = _record(plan, view, None if np.isinf(sharp) else round(sharp, 2), score)
    return FieldResult(image, kept, listed, tuple(issues), dict(total.seconds), record)


@dataclass
class _Total:
    """Sums the results of tiles."""

    classified: str
    cells: list[CellResult] = field(default_factory=list)
    records: list[SlideRecord] = field(default_factory=list)
    failures: list[FieldFailure] = field(default_factory=list)
    damage: dict[str, Damage] = field(default_factory=dict)
    sharpness: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    seconds: Counter[str] = field(default_factory=Counter)
    no_film: Issue | None = None
    left_out: int = 0

    def add(self, outcome: FieldOutcome) -> None:
        """Take the result of one tile."""
        if isinstance(outcome, FieldFailure):
            self.failures.append(outcome)
            return
        self.cells += [c for c in outcome.cells if c.object_type == self.classified]
        if outcome.slide is not None:
            self.records.append(outcome.slide)
        self.seconds.update(outcome.timings)
        view = outcome.view
        self.sharpness += [] if view.sharpness is None else [view.sharpness]
        self.scores += [] if view.film_score is None else [view.film_score]
        for found in outcome.issues:
            if found.code == issue_codes.AREA_UNREADABLE:
                self.damage |= _damage_of(found)
            elif found.code == issue_codes.NOT_A_FILM:
                self.no_film = self.no_film or found
            self.left_out += int(found.data.get("left_out", 0))

    def issues(self) -> Iterator[Issue]:
        """Yield what could not be decoded or analysed, and what was left out."""
        if self.damage:
            yield _unreadable(list(self.damage.values()))
        if self.failures:
            yield _failed(self.failures)
        if self.left_out:
            message = f"{self.left_out} detections that score least are left out"
            yield issue(issue_codes.DETECTIONS_LIMITED, message, left_out=self.left_out)


def _place(cell: CellResult) -> tuple[float, float, str, float]:
    x, y = cell.box[:2]
    return round(y, 1), round(x, 1), cell.object_type, -cell.confidence


def _damage_of(found: Issue) -> dict[str, Damage]:
    data = found.data
    return {
        str(name): Damage(str(name), (area[0], area[1], area[2], area[3]), str(reason))
        for name, area, reason in zip(data["names"], data["areas"], data["reasons"], strict=True)
    }


def _failed(failures: Sequence[FieldFailure]) -> Issue:
    shown = "; ".join(f"{f.path}: {f.reason}" for f in failures[:SHOWN_AREAS])
    more = f"; and {len(failures) - SHOWN_AREAS} more" if len(failures) > SHOWN_AREAS else ""
    message = f"{plural(len(failures), 'tile')} of the slide failed: {shown}{more}"
    names = [f.path for f in failures]
    return issue(issue_codes.TILES_FAILED, message, tiles=names)
