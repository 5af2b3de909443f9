"""Many files, one after another: a few at work at a time, results in order, memory flat."""

import os
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.domain import Domain
from bloodfilm.core.results import FieldFailure, FieldOutcome
from bloodfilm.imaging.scale import Measurement, Pooled, measure_fields, regroup
from bloodfilm.imaging.sources.image_file import open_image, open_with_notes
from bloodfilm.inference.analyzer import Analyzer, StageTimer

POOL_SAMPLE = 24
SILENT = 0.67
"""With more than this share of a sample's fields silent, the detector measures some of them."""
DETECTED_SAMPLE = 8
AHEAD = 2
MOST_WORKERS = 8


@dataclass(frozen=True)
class FolderScale:
    """What a folder's fields show together, and the measurements that told it, by path."""

    pooled: Pooled | None
    measured: dict[Path, Measurement]


def default_workers() -> int:
    """How many fields to work on at a time: the cores this process may use, 8 at most."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, min(cores, MOST_WORKERS))


def analyze_paths(
    paths: Sequence[Path],
    analyzer: Analyzer,
    stated: Domain | None = None,
    workers: int | None = None,
    todo: Sequence[int] | None = None,
    unpooled: Collection[Path] = (),
) -> Generator[FieldOutcome, None, None]:
    """Analyse image files; yields one outcome per file, in order.

    Before the first field of a folder, up to `POOL_SAMPLE` of its fields, spread over all of
    them, are measured and their red cells pooled: every field of a microscope gains by the others.
    A file that cannot be analysed yields a `FieldFailure`.

    Args:
        paths: all files of the run.
        analyzer: with its bundle.
        stated: what is known of scale and pixel aspect ratio.
        workers: fields at work at a time; `None` for one per core.
        todo: which of `paths` to analyse, rising; all if left out. The sample to pool is drawn
            from all of them, so a run that is resumed comes to the same results.
        unpooled: files that do not bear on the pooled scale, although they are in the sample.
    """
    workers = workers or default_workers()
    order = [paths[i] for i in (range(len(paths)) if todo is None else todo)]
    folders = by_folder(paths)
    last = {path.parent: place for place, path in enumerate(order)}
    scales: dict[Path, FolderScale] = {}
    waiting: deque[Future[FieldOutcome]] = deque()
    with _one_opencv_thread(), ThreadPoolExecutor(workers, "field") as executor:
        try:
            for place, path in enumerate(order):
                if path.parent not in scales:
                    folder = folders[path.parent]
                    scales[path.parent] = _folder_scale(folder, unpooled, analyzer, executor)
                waiting.append(
                    executor.submit(_one_field, path, analyzer, stated, scales[path.parent])
                )
                if place == last[path.parent]:
                    del scales[path.parent]
                if len(waiting) >= workers + AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Also when the caller stops early (Ctrl-C, disk full): drop what has not begun.
            executor.shutdown(wait=True, cancel_futures=True)


def _one_field(
    path: Path, analyzer: Analyzer, stated: Domain | None, scale: FolderScale
) -> FieldOutcome:
    clock = StageTimer()
    try:
        with clock("open"):
            opened = open_with_notes(path)
        result = analyzer.analyze(
            opened.pixels,
            path,
            stated,
            scale.pooled,
            scale.measured.get(path),
            opened.sha256,
        )
    except Exception as error:
        # One field must not end a run of thousands; the failure is named in the results.
        return FieldFailure.from_error(path, error)
    return replace(
        result,
        issues=(*opened.issues, *result.issues),
        timings={**clock.seconds, **result.timings},
    )


def by_folder(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Return files by their folder, in order."""
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    return folders


def pool_sample(paths: Sequence[Path]) -> list[Path]:
    """Return the files of one folder that are measured together; none if there is but one file."""
    if len(paths) < 2:
        return []
    places = np.unique(np.linspace(0, len(paths) - 1, min(POOL_SAMPLE, len(paths))).round())
    return [paths[int(i)] for i in places]


def _folder_scale(
    paths: Sequence[Path],
    unpooled: Collection[Path],
    analyzer: Analyzer,
    executor: ThreadPoolExecutor,
) -> FolderScale:
    """Measure a sample of a folder's fields and pool their light and their red cells.

    Where outlines tell the scale of few of them, some of the others are measured by the red cells
    that the detector finds.
    """
    if len(paths) < 2:
        return FolderScale(None, {})
    sample = [path for path in pool_sample(paths) if path not in unpooled]
    pooled, measured = measure_fields(sample, _readable, executor.map)
    silent = [path for path, found in measured.items() if not found.speaks]
    if len(silent) > SILENT * len(measured):
        chosen = silent[:: -(-len(silent) // DETECTED_SAMPLE)]

        def again(path: Path) -> Measurement:
            image = _readable(path)
            return (
                measured[path] if image is None else analyzer.measure_again(image, measured[path])
            )

        measured |= dict(zip(chosen, executor.map(again, chosen), strict=True))
        pooled = regroup(pooled, list(measured.values()))
    return FolderScale(pooled, measured)


def _readable(path: Path) -> NDArray[np.uint8] | None:
    try:
        return open_image(path)
    except Exception:
        return None  # its own turn will say what is wrong with it


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Fields run side by side already; OpenCV's own threads would only fight over the cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
