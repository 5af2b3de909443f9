"""Analyse many images in parallel, with results in order and constant memory."""

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

from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.core.results import FieldFailure, FieldOutcome, FieldResult
from bloodfilm.imaging.scale import GroupScale, ScalePrior, pool_sample, pool_scale
from bloodfilm.imaging.sources import ImageInput, ImageSource, name_of, open_source, read_whole
from bloodfilm.imaging.sources.slide import SlideSource
from bloodfilm.inference.model import Model
from bloodfilm.inference.stage_timer import StageTimer

AHEAD = 2
MOST_WORKERS = 8

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
        on_field: makes what else is made of the pixels, so that no file is decoded twice: by the
            stage that its time counts for. It runs in several threads; what it raises ends the run.
    """

    todo: Sequence[int] | None = None
    unpooled: Collection[int] = ()
    on_field: Mapping[str, FieldHook] = field(default_factory=dict)


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
    sample of the group is measured and its red cells are pooled.

    Args:
        images: paths, arrays, PIL images, sources: see `Model.analyze`.
        model: the model; it stays open.
        workers: number of fields in parallel; by default one per core, at most 8.
        scale_group: how fields that share a scale are grouped; `None` measures each field
            alone.
        prior: prior of the pixel size: one for all images, or one for each.
        progress: reports finished images; can request a stop.
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
    groups = _Groups(items, scale_group)
    scales = _Scales(groups, numbers, model, plan.unpooled)
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
                scale = scales.of(index, executor)
                known = prior if prior is None or isinstance(prior, ScalePrior) else prior[index]
                known = replace(known or ScalePrior(), pooled=scale.pooled)
                measured = scale.measurements.get(index)
                work = partial(model.analyze, prior=known, measurement=measured)
                name = name_of(items[index], index)
                waiting.append(executor.submit(_one_field, items[index], name, work, plan.on_field))
                if len(waiting) >= workers + AHEAD:
                    yield finished()
            while waiting:
                yield finished()
        finally:
            # Also when the caller stops early (Ctrl-C, disk full): cancel pending fields.
            executor.shutdown(wait=True, cancel_futures=True)


class _Groups:
    """Which images share a scale, by their place in the list."""

    def __init__(self, items: Sequence[ImageInput], scale_group: ScaleGroup | None) -> None:
        self.items = items
        self.of = [i if scale_group is None else scale_group(x) for i, x in enumerate(items)]
        self.members: dict[Hashable, list[int]] = {}
        for index, group in enumerate(self.of):
            self.members.setdefault(group, []).append(index)

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


class _Scales:
    """The scale of each group, from the first of its images that is analysed until the last."""

    def __init__(
        self, groups: _Groups, numbers: Sequence[int], model: Model, unpooled: Collection[int]
    ) -> None:
        self.groups, self.model, self.unpooled = groups, model, unpooled
        self.last = {groups.of[number]: number for number in numbers}
        self.known: dict[Hashable, GroupScale] = {}

    def of(self, index: int, executor: Executor) -> GroupScale:
        """Return the scale of an image's group; measures a sample of a group that is new."""
        group = self.groups.of[index]
        if group not in self.known:
            self.known[group] = self._pooled(group, executor)
        return self.known.pop(group) if index == self.last[group] else self.known[group]

    def _pooled(self, group: Hashable, executor: Executor) -> GroupScale:
        if self.model.fixed_input is not None:
            return GroupScale()  # nothing is measured
        return pool_scale(
            self.groups.members[group],
            self.groups.load,
            remeasure=self.model.remeasure,
            without=self.unpooled,
            map_=executor.map,
        )


def pooled_images(
    images: Sequence[ImageInput], scale_group: ScaleGroup | None = by_folder
) -> list[int]:
    """Return the numbers of the images that affect the scale of others."""
    members = _Groups(images, scale_group).members.values()
    return sorted(number for group in members for number in pool_sample(group))


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
