"""Analyse many images in parallel, with results in order and constant memory."""

import math
import os
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import JsonView
from bloodfilm.core.errors import DataError
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import RED_CELL_UM, ViewRecord
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.core.results import FieldFailure, FieldOutcome, FieldResult
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.imaging.scale import Group, GroupScale, Pooled, ScalePrior, pool_sample, pool_scale
from bloodfilm.imaging.sources import ImageInput, ImageSource, name_of, open_source, read_whole
from bloodfilm.imaging.sources.slide import SlideSource
from bloodfilm.inference.film_offset import (
    ENOUGH_CELLS,
    ONE_BY_ONE,
    FilmNaming,
    FilmOffset,
    Residuals,
    offset_of,
)
from bloodfilm.inference.granulocytes import (
    ENOUGH_GRANULOCYTES,
    SAMPLE,
    diameters_in,
    with_red_cell_sizes,
)
from bloodfilm.inference.model import Model
from bloodfilm.inference.stage_timer import StageTimer

AHEAD = 2
AT_A_TIME = 6
"""Fields of a sample that are analysed before their granulocytes are counted."""
MOST_WORKERS = 8

SAMPLES = "scale"
"""The stage in which the sample of a group is analysed."""

ScaleGroup = Callable[[ImageInput], Hashable]
FieldHook = Callable[[ImageSource, FieldResult], None]
"""Called in the worker with a field's pixels, still decoded, and its result."""


@dataclass(frozen=True)
class RunPlan:
    """What a run does besides analysing all images.

    Attributes:
        todo: numbers of the images to analyse, rising; all, if left out. The sample whose scale is
            pooled is still drawn from all images, so that a resumed run comes to the same results.
        unpooled: numbers of images of the sample that are excluded from the pooled scale.
        films: the film of each image, where a folder may hold several; a film is what an analysis
            learns to name cells by, and lies in one group of fields that share their scale.
        on_field: makes what else is made of the pixels, so that no file is decoded twice: by the
            stage that its time counts for. It runs in several threads; what it raises ends the run.
        samples: what samples of fields told in the run that is resumed, by name: these are not
            analysed again.
        on_sample: gets the name of a new sample and what it tells, as plain data, to be kept.
    """

    todo: Sequence[int] | None = None
    unpooled: Collection[int] = ()
    films: Sequence[Hashable] | None = None
    on_field: Mapping[str, FieldHook] = field(default_factory=dict)
    samples: Mapping[str, JsonView] = field(default_factory=dict)
    on_sample: Callable[[str, JsonView], None] = lambda _name, _told: None


def default_workers() -> int:
    """Default number of workers: the cores available to this process, at most 8."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, min(cores, MOST_WORKERS))


def by_folder(image: ImageInput) -> Hashable:
    """Group image files by folder, and images in memory into one group."""
    return Path(image).parent if isinstance(image, str | os.PathLike) else None


def analyze_many(
    images: Iterable[ImageInput],
    model: Model,
    *,
    workers: int | None = None,
    scale_group: ScaleGroup | None = by_folder,
    prior: ScalePrior | Sequence[ScalePrior | None] | None = None,
    progress: Progress | None = None,
    plan: RunPlan | None = None,
) -> Generator[FieldOutcome, None, None]:
    """Analyse images; yields one outcome per image to do, in their order.

    Fields of one microscope share their scale: before the first field of a group is analysed, a
    sample of the group is measured and its red cells are pooled. How large they are is then
    measured by the segmented granulocytes of the sample, see `inference.granulocytes`; where the
    bundle names cells by their film, so is what the cells of the group, its film, have in common.

    Args:
        images: paths, arrays, PIL images, sources: see `Model.analyze`.
        model: the model; it stays open.
        workers: number of fields in parallel; by default one per core, at most 8.
        scale_group: how fields that share a scale are grouped; `None` measures each field
            alone.
        prior: prior of the pixel size: one for all images, or one for each.
        progress: reports finished images (`fields`) and those of samples (`SAMPLES`); can request a
            stop. Who counts the outcomes passes on `OneStage` of its own.
        plan: what is left of a resumed run, and what else to do with each field.

    Yields:
        `FieldResult`, or `FieldFailure` for an image that cannot be analysed; the others continue.
    """
    items = list(images)
    if isinstance(prior, Sequence) and len(prior) != len(items):
        raise ValueError(f"{len(prior)} priors for {len(items)} images")
    workers = workers or default_workers()
    followed = progress or NoProgress()
    plan = plan or RunPlan()
    numbers = range(len(items)) if plan.todo is None else plan.todo
    groups = _Groups(items, scale_group, plan.films)

    def known(index: int, pooled: Pooled | None) -> ScalePrior:
        own = prior if prior is None or isinstance(prior, ScalePrior) else prior[index]
        return replace(own or ScalePrior(), pooled=pooled)

    scales = _Scales(groups, numbers, model, known, plan, followed)
    waiting: deque[Future[FieldOutcome]] = deque()
    done = len(items) - len(numbers)

    def finished() -> FieldOutcome:
        nonlocal done
        outcome = waiting.popleft().result()
        done += 1
        followed.update("fields", done, len(items))
        return outcome

    with one_opencv_thread(), ThreadPoolExecutor(workers, "field") as executor:
        try:
            for index in numbers:
                followed.check_cancelled()
                waiting.append(scales.start(index, executor, plan.on_field))
                if len(waiting) >= workers + AHEAD:
                    yield finished()
            while waiting:
                yield finished()
        finally:
            # Also when the caller stops early (Ctrl-C, disk full): cancel pending fields.
            executor.shutdown(wait=True, cancel_futures=True)


class _Groups:
    """Which images share a scale, and which are of one film, by their place in the list."""

    def __init__(
        self,
        items: Sequence[ImageInput],
        scale_group: ScaleGroup | None,
        films: Sequence[Hashable] | None = None,
    ) -> None:
        if films is not None and len(films) != len(items):
            raise ValueError(f"{len(films)} films for {len(items)} images")
        self.items = items
        self.films = films
        self.of = [i if scale_group is None else scale_group(x) for i, x in enumerate(items)]
        self.members: dict[Hashable, list[int]] = {}
        for index, group in enumerate(self.of):
            self.members.setdefault(group, []).append(index)
        self._first: dict[Hashable, int] = {}
        for index in range(len(items)):
            self._first.setdefault(self._film_of(index), index)

    def _film_of(self, index: int) -> Hashable:
        return self.of[index], None if self.films is None else self.films[index]

    def first_of_film(self, index: int) -> int:
        """Return the first image of the film that an image is of."""
        return self._first[self._film_of(index)]

    def of_film(self, index: int) -> list[int]:
        """Return the images of the film that an image is of: those of its group at most."""
        members, film = self.members[self.of[index]], self._film_of(index)
        return [i for i in members if self._film_of(i) == film]

    def load(self, index: int) -> NDArray[np.uint8] | None:
        """Return the pixels of an image."""
        image = self.items[index]
        source = open_source(image)
        try:
            # A slide is measured for itself, by windows.
            return None if isinstance(source, SlideSource) else read_whole(source)
        finally:
            if source is not image:
                source.close()


@dataclass(frozen=True)
class _Sample:
    """What the analysis of some fields of a group tells of others.

    Attributes:
        diameters: of segmented granulocytes, um, by scale of the group.
        residuals: of the cells of each field, by number; see `inference.film_offset`.
        results: by number.
    """

    diameters: list[list[float]]
    residuals: dict[int, Residuals] = field(default_factory=dict)
    results: dict[int, FieldResult] = field(default_factory=dict)

    def add(
        self,
        number: int,
        result: FieldResult,
        film: FilmNaming,
        groups: Sequence[Group],
        taxonomy: Taxonomy,
    ) -> None:
        """Add a field's result and the residuals of its cells."""
        self.results[number] = result
        if groups:
            found = diameters_in(result, taxonomy)
            self.diameters[_nearest_group(groups, result.view)] += found
        if film.residuals and issue_codes.NOT_A_FILM not in codes(result.issues):
            self.residuals[number] = np.concatenate(film.residuals)

    def of(self, numbers: Iterable[int]) -> list[Residuals]:
        """Return the residuals of the cells of some fields, in their order."""
        return [self.residuals[number] for number in numbers if number in self.residuals]


@dataclass(frozen=True)
class _GroupAnalysis:
    """How the fields of a group are analysed.

    Attributes:
        scale: of the group.
        sample: of it, analysed at this scale, its cells named one by one.
        films: how cells are named, by the first image of each film.
    """

    scale: GroupScale
    sample: _Sample
    films: dict[int, FilmNaming] = field(default_factory=dict)


def _known_result(result: FieldResult, source: ImageSource, *, name: str) -> FieldResult:
    return result


def _of_field(
    analyze: Callable[..., FieldResult], source: ImageSource, *, name: str
) -> FieldResult:
    if isinstance(source, SlideSource):
        raise DataError("a slide is measured by itself")
    return analyze(source, name=name)


class _Scales:
    """Analyses images, at the scale of their group: it is kept from the first of them to the last.

    Args:
        groups: the images.
        numbers: of those to analyse, rising.
        model: that analyses them.
        known: returns what is known of the pixel size of an image, given that of its group.
        plan: which images have no say in the scale of others, and what is known of samples.
        progress: follows the analysis of the samples, can stop it.
    """

    def __init__(
        self,
        groups: _Groups,
        numbers: Sequence[int],
        model: Model,
        known: Callable[[int, Pooled | None], ScalePrior],
        plan: RunPlan,
        progress: Progress,
    ) -> None:
        self.groups, self.model, self.known, self.plan = groups, model, known, plan
        self.progress = progress
        self.last = {groups.of[number]: number for number in numbers}
        self.films = {group: set[int]() for group in self.last}
        for number in numbers:
            self.films[groups.of[number]].add(groups.first_of_film(number))
        self.current: dict[Hashable, _GroupAnalysis] = {}

    def start(
        self, index: int, executor: Executor, on_field: Mapping[str, FieldHook]
    ) -> Future[FieldOutcome]:
        """Start the analysis of an image; measures a sample of a group that is new."""
        group = self.groups.of[index]
        if group not in self.current:
            self.current[group] = self._sized(group, self._pooled(group, executor), executor)
        known = self.current[group]
        film = self._film(known, index, executor)
        if index == self.last[group]:
            del self.current[group]
        result = known.sample.results.pop(index, None)
        work: Callable[..., FieldResult] = (
            self._work(index, known.scale, film)
            if result is None or film.offset is not None
            else partial(_known_result, result)
        )
        return self._submit(index, executor, work, on_field)

    def _work(self, index: int, scale: GroupScale, film: FilmNaming) -> Callable[..., FieldResult]:
        return partial(
            self.model.analyze,
            prior=self.known(index, scale.pooled),
            measurement=scale.measurements.get(index),
            film=film,
        )

    def _submit(
        self,
        index: int,
        executor: Executor,
        work: Callable[..., FieldResult],
        on_field: Mapping[str, FieldHook],
    ) -> Future[FieldOutcome]:
        image = self.groups.items[index]
        return executor.submit(_one_field, image, name_of(image, index), work, on_field)

    def _pooled(self, group: Hashable, executor: Executor) -> GroupScale:
        if self.model.fixed_input is not None:
            return GroupScale()  # nothing is measured
        return pool_scale(
            self.groups.members[group],
            self.groups.load,
            remeasure=self.model.remeasure,
            without=self.plan.unpooled,
            map_=executor.map,
        )

    def _sized(self, group: Hashable, scale: GroupScale, executor: Executor) -> _GroupAnalysis:
        """Measure how large the red cells of a group are, by the granulocytes of a sample.

        Where that changes nothing, the results of the sample are kept: it is not analysed again.
        """
        pooled = scale.pooled
        if pooled is None or not pooled.groups or not self.model.outlines_cells:
            return _GroupAnalysis(scale, _Sample([]))
        name = f"scale of the group of {self.groups.members[group][0]}"
        if (told := self._told(name, group)) is not None:
            sizes = zip(pooled.groups, told["red_cell_um"], strict=True)
            resized = tuple(replace(g, red_cell_um=float(size)) for g, size in sizes)
            pooled = replace(pooled, groups=resized)
            return _GroupAnalysis(replace(scale, pooled=pooled), _Sample([]))
        sample = _Sample([[] for _ in pooled.groups])

        def is_enough() -> bool:
            return min(map(len, sample.diameters)) >= ENOUGH_GRANULOCYTES

        self._analyze(
            self._spread_over(self.groups.members[group]), scale, sample, is_enough, executor
        )
        sized = with_red_cell_sizes(pooled, sample.diameters)
        self.plan.on_sample(name, {"red_cell_um": [g.red_cell_um for g in sized.groups]})
        if sized.groups == pooled.groups:
            return _GroupAnalysis(scale, sample)
        return _GroupAnalysis(replace(scale, pooled=sized), _Sample([]))

    def _told(self, name: str, group: Hashable) -> JsonView | None:
        """Return what a sample told of the scale of a group in the run that is resumed.

        Its fields also tell of films: where one of these is still unknown, they are needed.
        """
        told = self.plan.samples
        films = () if self.model.film_offset is None else self.films[group]
        return told.get(name) if all(_film_name(first) in told for first in films) else None

    def _film(self, known: _GroupAnalysis, index: int, executor: Executor) -> FilmNaming:
        """Return how the cells of an image are named; learns it from a sample of a film."""
        spec = self.model.film_offset
        if spec is None:
            return ONE_BY_ONE
        first = self.groups.first_of_film(index)
        if first in known.films:
            return known.films[first]
        if (told := self.plan.samples.get(_film_name(first))) is not None:
            values = told["offset"]
            offset = None if values is None else FilmOffset.from_json(values)
        else:
            numbers, sample = self._spread_over(self.groups.of_film(index)), known.sample

            def is_enough() -> bool:
                return sum(map(len, sample.of(numbers))) >= ENOUGH_CELLS

            self._analyze(numbers, known.scale, sample, is_enough, executor)
            offset = offset_of(sample.of(numbers), spec)
            values = None if offset is None else offset.to_json()
            self.plan.on_sample(_film_name(first), {"offset": values})
        known.films[first] = FilmNaming(offset)
        return known.films[first]

    def _spread_over(self, members: Sequence[int]) -> list[int]:
        return [number for number in _sample_numbers(members) if number not in self.plan.unpooled]

    def _analyze(
        self,
        numbers: Sequence[int],
        scale: GroupScale,
        sample: _Sample,
        is_enough: Callable[[], bool],
        executor: Executor,
    ) -> None:
        """Analyse images, those first that are spread over all of them, until they are enough."""
        groups = () if scale.pooled is None or not sample.diameters else scale.pooled.groups
        follows = self.model.film_offset is not None
        done = 0
        for part in _spread(numbers):
            if is_enough():
                break
            self.progress.check_cancelled()
            started = []
            for number in part:
                if number not in sample.results:
                    film = FilmNaming(residuals=[] if follows else None)
                    work = partial(_of_field, self._work(number, scale, film))
                    started.append((number, film, self._submit(number, executor, work, {})))
            for number, film, future in started:
                outcome = future.result()
                # A failure is reported when the field itself is analysed.
                if isinstance(outcome, FieldResult):
                    sample.add(number, outcome, film, groups, self.model.taxonomy)
            done += len(part)
            self.progress.update(SAMPLES, done, len(numbers))
        self.progress.update(SAMPLES, len(numbers), len(numbers))


def _film_name(first: int) -> str:
    """Return the name of the sample of a film, by the number of its first image."""
    return f"film of {first}"


def _spread(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield a sample in parts, each of them spread over all of it."""
    parts = -(-len(numbers) // AT_A_TIME)
    yield from (numbers[start::parts] for start in range(parts))


def _sample_numbers(members: Sequence[int]) -> list[int]:
    """Return the images of a group whose cells tell of all."""
    return [members[i] for i in evenly_spread(len(members), SAMPLE).tolist()]


def _nearest_group(groups: Sequence[Group], view: ViewRecord) -> int:
    """Return the place of the group whose scale a field has."""
    diameter = RED_CELL_UM / math.sqrt(view.um_per_px_x * view.um_per_px_y)
    apart = [abs(math.log(group.diameter / diameter)) for group in groups]
    return apart.index(min(apart))


def pooled_images(
    images: Sequence[ImageInput], scale_group: ScaleGroup | None = by_folder
) -> list[int]:
    """Return the numbers of the images that affect the scale of others."""
    groups = [m for m in _Groups(images, scale_group).members.values() if len(m) > 1]
    return sorted({n for m in groups for n in (*pool_sample(m), *_sample_numbers(m))})


def _one_field(
    image: ImageInput,
    name: str,
    work: Callable[..., FieldResult],
    on_field: Mapping[str, FieldHook],
) -> FieldOutcome:
    clock = StageTimer()
    try:
        with clock("open"):
            source = open_source(image, name)
    except Exception as error:
        # One field must not end a run of thousands; the failure is named in the results.
        return FieldFailure.from_error(name, error)
    try:
        try:
            result = work(source, name=name)
        except Exception as error:
            return FieldFailure.from_error(name, error)
        for stage, hook in on_field.items():
            with clock(stage):
                hook(source, result)
        return replace(result, timings={**result.timings, **clock.seconds})
    finally:
        if source is not image:
            source.close()


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Fields run side by side already; OpenCV's own threads would oversubscribe the cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
