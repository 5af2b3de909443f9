"""Analyse image files into a folder: a table of cells, the full record, a report.

While a run works, `results.part.jsonl` and `cells.part.csv` grow file by file; at the end they
become `result.json` and `cells.csv`, and `report.html` is written from the first. A run that was
stopped can be resumed, and one folder belongs to one run at a time.
"""

import io
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TextIO

from bloodfilm import __version__
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import OutputError
from bloodfilm.core.files import atomic_write, open_new, refuse_inputs, remove_leftovers
from bloodfilm.core.issues import Issue
from bloodfilm.core.locks import lock_folder
from bloodfilm.core.progress import CancelledError, NoProgress, Progress, track
from bloodfilm.core.results import AnalysisRun, FieldFailure, FieldOutcome, FieldResult
from bloodfilm.core.results.tables import CellTableWriter
from bloodfilm.imaging.sources.image_file import find_images
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.inference.model_info import model_info
from bloodfilm.inference.repeats import RepeatedImages
from bloodfilm.inference.results_log import ResultsLog
from bloodfilm.inference.runner import analyze_paths
from bloodfilm.workflows.outputs import make_folder

RESULT, CELLS, REPORT = "result.json", "cells.csv", "report.html"
LOG, CELLS_PART = "results.part.jsonl", "cells.part.csv"

Existing = Literal["refuse", "resume", "overwrite"]
"""What to do where the folder holds results of a run: nothing, go on with it, replace it."""


@dataclass(frozen=True, kw_only=True)
class AnalysisJob:
    """What to analyse, how, and where the results go.

    Attributes:
        paths: image files, folders or glob patterns.
        out: the folder for results; made if missing.
        bundle: folder of the model; `None` for the shipped one.
        device: `auto`, `cpu` or `cuda`.
        min_score: lowest score of a nucleated cell, [0, 1]; `None` for the bundle's own.
        um_per_px: micrometres per pixel along y, where known.
        squeeze: width / height of a round cell in pixels, where known.
        workers: fields at work at a time; `None` for one per core.
        all_cells: whether `cells.csv` also lists red cells and platelets.
        report: whether to write `report.html`.
        existing: what to do with results that are there.
    """

    paths: Sequence[str | Path]
    out: Path
    bundle: Path | None = None
    device: str = "auto"
    min_score: float | None = None
    um_per_px: float | None = None
    squeeze: float | None = None
    workers: int | None = None
    all_cells: bool = False
    report: bool = True
    existing: Existing = "refuse"

    @property
    def provided(self) -> Domain:
        """What the user says of scale and pixel aspect ratio; `DataError` if it cannot be."""
        return Domain(um_per_px=self.um_per_px, squeeze=self.squeeze)

    @property
    def settings(self) -> dict[str, Any]:
        """What bears on the results, as plain data."""
        return {
            "paths": [str(path) for path in self.paths],
            "device": self.device,
            "min_score": self.min_score,
            "um_per_px": self.um_per_px,
            "squeeze": self.squeeze,
        }


@dataclass
class AnalysisSummary:
    """What a run did.

    Attributes:
        out: the folder of the results.
        files: what was written, by name (`result`, `cells`, `report`).
        bundle: identity of the model.
        images: how many files were to be analysed.
        classified: the object type that is classified, e.g. `nucleated cell`.
        fields: how many gave a result.
        failures: files without a result, in order.
        with_problems: fields with something to know before trusting them.
        kinds: cells by what the detector took them for.
        classes: cells of that type by class.
        stages: seconds by stage, summed over fields that were at work at the same time.
        seconds: wall-clock time.
    """

    out: Path
    files: dict[str, Path]
    bundle: Mapping[str, str]
    images: int
    classified: str
    fields: int = 0
    failures: list[FieldFailure] = field(default_factory=list)
    with_problems: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, outcome: FieldOutcome) -> None:
        """Count one file."""
        if isinstance(outcome, FieldFailure):
            self.failures.append(outcome)
            return
        self.fields += 1
        self.with_problems += outcome.needs_attention
        for cell in outcome.cells:
            self.kinds[cell.object_type] += 1
            if cell.object_type == self.classified:
                self.classes[cell.label] += 1
        for stage, seconds in outcome.timings.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        return {
            "program": f"bloodfilm {__version__}",
            "bundle": dict(self.bundle),
            "out": str(self.out),
            "files": {name: str(path) for name, path in self.files.items()},
            "images": self.images,
            "fields": self.fields,
            "failures": len(self.failures),
            "fields_with_problems": self.with_problems,
            "cells": dict(sorted(self.kinds.items())),
            "classes": dict(sorted(self.classes.items())),
            "seconds": round(self.seconds, 3),
            "seconds_by_stage": {k: round(v, 3) for k, v in self.stages.items()},
        }


def analyze(
    job: AnalysisJob, progress: Progress | None = None, model: Analyzer | None = None
) -> AnalysisSummary:
    """Analyse every file of a job, keep results as they come, write the final files at the end.

    A file that fails is reported as an issue `field-failed` and named in the results.

    Args:
        job: what to do.
        progress: follows the work.
        model: a loaded model, in place of the job's bundle, device and lowest score.

    Raises:
        BloodfilmError: before any work, if the job cannot be done as it is.
        OutputError: if the folder holds results that the job does not say what to do with, or
            another process works there.
        CancelledError: if the run was stopped; it can be resumed.
    """
    begin = time.perf_counter()
    progress = progress or NoProgress()
    provided = job.provided
    images = find_images(job.paths)
    analyzer = model or _load(job)
    refuse_inputs([job.out / name for name in (CELLS, RESULT, REPORT)], images)
    make_folder(job.out)
    with lock_folder(job.out, "analysis"):
        remove_leftovers(job.out)
        check_existing(job.out, job.existing)
        summary = _run(job, images, analyzer, provided, progress)
    summary.seconds = time.perf_counter() - begin
    return summary


def _load(job: AnalysisJob) -> Analyzer:
    bundle = load_bundle(job.bundle) if job.bundle else default_bundle()
    return Analyzer(bundle, job.device, 1, job.min_score)


def check_existing(out: Path, existing: Existing) -> None:
    """See that a folder holds no results that nobody means to touch; remove them if wanted.

    Raises:
        OutputError: if it does.
    """
    there = [n for n in (RESULT, CELLS, REPORT, LOG, CELLS_PART) if os.path.lexists(out / n)]
    if not there:
        return
    if existing == "overwrite":
        for name in there:
            (out / name).unlink()
        return
    if links := [n for n in there if (out / n).is_symlink()]:
        raise OutputError(
            f"{out / links[0]}: is a link, and results are not written through links; remove it",
            ["other-output"],
        )
    if LOG not in there:
        what = "is complete, there is nothing to resume" if existing == "resume" else None
        raise OutputError(
            f"{out}: {what or f'holds {there[0]} already'}", ["other-output", "overwrite"]
        )
    if existing == "refuse":
        raise OutputError(f"{out}: holds a run that was stopped", ["resume", "overwrite"])


def _run(
    job: AnalysisJob,
    images: Sequence[Path],
    analyzer: Analyzer,
    provided: Domain,
    progress: Progress,
) -> AnalysisSummary:
    bundle = analyzer.bundle
    names = "\n".join(str(p) for p in images).encode("utf-8", "surrogateescape")
    head = {
        "program": __version__,
        "bundle": bundle.identity(),
        "settings": job.settings,
        "files": len(images),
        "names": sha256(names).hexdigest(),
    }
    written = [RESULT, CELLS, *([REPORT] if job.report else [])]
    files = {name.partition(".")[0]: job.out / name for name in written}
    classified = bundle.manifest.roles.classified
    summary = AnalysisSummary(job.out, files, bundle.identity(), len(images), classified)
    with ResultsLog(job.out / LOG, head, job.existing == "resume") as log:
        with _open_table(job.out / CELLS_PART) as file:
            table = CellTableWriter(file, bundle.schema)

            def add(outcome: FieldOutcome) -> None:
                summary.add(outcome)
                if isinstance(outcome, FieldResult):
                    shown = (
                        cell
                        for cell in outcome.cells
                        if job.all_cells or cell.object_type == summary.classified
                    )
                    table.write(outcome.path, shown)
                    file.flush()

            repeats = RepeatedImages()
            for failure in log.failures:
                add(failure)
            for result in log.fields:
                repeats.add(result)
                add(result)
            outcomes = analyze_paths(images, analyzer, provided, job.workers, start=log.done)
            checked = map(repeats.check, outcomes)
            with closing(outcomes), _saying_how_far(log, len(images), progress):
                for outcome in track(checked, progress, "fields", len(images), log.done):
                    log.append(outcome)
                    add(outcome)
                    if isinstance(outcome, FieldFailure):
                        progress.report(failed(outcome))
        run = AnalysisRun(
            __version__,
            model_info(bundle),
            job.settings,
            log.fields,
            tuple(log.failures),
        )
        _finish(job, run, progress)
    (job.out / LOG).unlink()
    return summary


def failed(failure: FieldFailure) -> Issue:
    """Return a failed file as an issue."""
    data = {"path": failure.path, "reason": failure.reason}
    return Issue("field-failed", "error", f"{failure.path}: {failure.reason}", data)


def _finish(job: AnalysisJob, run: AnalysisRun, progress: Progress) -> None:
    """Write the final files; the results log goes only when all of them are there."""
    with _naming(job.out / RESULT), atomic_write(job.out / RESULT) as file:
        run.write_json(file)
    (job.out / CELLS_PART).replace(job.out / CELLS)
    if job.report:
        from bloodfilm.report.html.report import write_report

        with _naming(job.out / REPORT):
            write_report(run, job.out, progress=progress)


@contextmanager
def _open_table(path: Path) -> Iterator[TextIO]:
    with _naming(path):
        path.unlink(missing_ok=True)  # of the run that is resumed
        raw = io.BufferedWriter(open_new(path))
        with io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline="") as file:
            yield file


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Writing that fails (disk full) says where, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, BrokenPipeError):
            raise
        raise OutputError(
            f"{path}: {error.strerror}; what is done is kept: mend that", ["resume"]
        ) from None


@contextmanager
def _saying_how_far(log: ResultsLog, total: int, progress: Progress) -> Iterator[None]:
    """If the run is stopped, report how far it went."""
    try:
        yield
    except (KeyboardInterrupt, CancelledError):
        done = log.done
        message = f"{done} of {total} files are done and kept"
        progress.report(Issue("run-stopped", "info", message, {"done": done, "total": total}))
        raise
