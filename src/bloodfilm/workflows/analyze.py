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
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO

from bloodfilm import __version__
from bloodfilm.cases.assembly import EDGE_RULES, AssemblyOptions, EdgeRule
from bloodfilm.cases.grouping import FOLDERS, ONE, Grouping, group_images
from bloodfilm.cases.landmarks import SeenFields
from bloodfilm.cases.run import RunOutcomes, assemble_cases
from bloodfilm.core import issue_codes
from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.files import (
    atomic_write,
    open_new,
    refuse_inputs,
    remove_leftovers,
    sha256_of,
)
from bloodfilm.core.issues import Issue
from bloodfilm.core.progress import CancelledError, NoProgress, OneStage, Progress, track
from bloodfilm.core.results import AnalysisRun, FieldFailure, FieldOutcome, FieldResult
from bloodfilm.core.results.tables import CELLS_TABLE, CellTableWriter
from bloodfilm.core.text import plural
from bloodfilm.imaging.discovery import Discovery, discover, mark_drawings
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources import ImageSource
from bloodfilm.imaging.sources.open_slide import content_digest, is_slide
from bloodfilm.inference.bundle import choose_providers
from bloodfilm.inference.model import Model, load_model
from bloodfilm.inference.model_info import model_info
from bloodfilm.inference.repeats import RepeatedImages
from bloodfilm.inference.results_log import ResultsLog
from bloodfilm.inference.runner import (
    SAMPLES,
    FieldHook,
    RunPlan,
    analyze_many,
    default_workers,
    pooled_images,
)
from bloodfilm.inference.slides import SlideSelection
from bloodfilm.report.pictures import remove_pictures
from bloodfilm.workflows.cases import CASES, CASES_FOLDER, remove_case_files, write_cases
from bloodfilm.workflows.outputs import hold_folder
from bloodfilm.workflows.slides import (
    SLIDES,
    TILES,
    SlideJob,
    finish_slide,
    region_of,
    run_slide,
    slide_folders,
)

RESULT, REPORT, PICTURES = "result.json", "report.html", "report_files"
LOG, CELLS_PART = "results.part.jsonl", "cells.part.csv"
LOG_NEW = "results.part.jsonl.new"
SHOWN_REPEATS = 10

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
        pixel_aspect_ratio: width / height of a round cell in pixels, where known.
        workers: fields at work at a time; `None` for one per core.
        all_cells: whether `cells.csv` also lists red cells and platelets.
        report: whether to write `report.html`.
        single_file: whether the report holds its pictures, instead of a folder beside it.
        explain: for how many cells, the least certain ones, the report has occlusion maps.
        save_crops: whether to write each classified cell as a picture, by class.
        save_images: whether to write each field with its cells drawn on it.
        existing: what to do with results that are there.
        cases: which images are one case: `folders`, `one`, or a table; see `group_images`.
        edges: which cells count that an edge cuts in every field: see `EDGE_RULES`.
        region: of slides, what to analyse: `all`, `x,y,width,height`, or a GeoJSON file; the zone
            of morphology if left out.
        fields: of slides, size of a random sample of fields; `None` for all of the zone.
        seed: of the sample.
    """

    paths: Sequence[str | Path]
    out: Path
    bundle: Path | None = None
    device: str = "auto"
    min_score: float | None = None
    um_per_px: float | None = None
    pixel_aspect_ratio: float | None = None
    workers: int | None = None
    all_cells: bool = False
    report: bool = True
    single_file: bool = False
    explain: int = 0
    save_crops: bool = False
    save_images: bool = False
    existing: Existing = "refuse"
    cases: str = FOLDERS
    edges: EdgeRule = "two-sides"
    region: str | None = None
    fields: int | None = None
    seed: int = 0

    @property
    def selection(self) -> SlideSelection:
        """Which part of slides to analyse; `ConfigError` or `DataError` if it cannot be."""
        return SlideSelection(region=region_of(self.region), fields=self.fields, seed=self.seed)

    @property
    def prior(self) -> ScalePrior:
        """What the user says of scale and pixel aspect ratio; `DataError` if it cannot be."""
        return ScalePrior(self.um_per_px, self.pixel_aspect_ratio)

    @property
    def settings(self) -> dict[str, Any]:
        """What bears on the results, as plain data."""
        return {
            "paths": [str(path) for path in self.paths],
            "device": self.device,
            "min_score": self.min_score,
            "um_per_px": self.um_per_px,
            "squeeze": self.pixel_aspect_ratio,
            "cases": self.cases,
            "edges": self.edges,
            **self.of_slides,
        }

    @property
    def of_slides(self) -> dict[str, Any]:
        """What the user chose for slides; nothing where nothing was chosen."""
        chosen: dict[str, Any] = {}
        if self.region is not None:
            chosen["region"] = self.region
        if self.fields is not None:
            chosen |= {"fields": self.fields, "seed": self.seed}
        return chosen


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
        failed_tiles: parts of slides without a result.
        with_problems: fields with something to know before trusting them.
        kinds: cells by what the detector took them for.
        classes: cells of that type by class.
        stages: seconds by stage, summed over fields that were at work at the same time.
        seconds: wall-clock time.
        cases: how many cases there are.
        issues: what a table of cases said that could not be used.
        repeats: other names by which files were reached, with the name they are listed by.
        nothing_to_do: whether the run was complete before.
    """

    out: Path
    files: dict[str, Path]
    bundle: Mapping[str, str]
    images: int
    classified: str
    fields: int = 0
    failures: list[FieldFailure] = field(default_factory=list)
    failed_tiles: int = 0
    with_problems: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cases: int = 0
    issues: Sequence[Issue] = ()
    repeats: Sequence[tuple[Path, Path]] = ()
    nothing_to_do: bool = False

    def add(self, outcome: FieldOutcome) -> None:
        """Count one file."""
        if isinstance(outcome, FieldFailure):
            self.failures.append(outcome)
            return
        self.fields += 1
        if outcome.slide is not None:
            self.failed_tiles += outcome.slide.failed_tiles
        self.with_problems += outcome.needs_attention
        for cell in outcome.cells:
            self.kinds[cell.object_type] += 1
            if cell.object_type == self.classified:
                self.classes[cell.label] += 1
        for stage, seconds in outcome.timings.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    @property
    def incomplete(self) -> bool:
        """Whether something that the user asked for is missing."""
        failed = bool(self.failures or self.failed_tiles)
        return failed or any(i.severity == "error" for i in self.issues)

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
            **({"failed_tiles": self.failed_tiles} if self.failed_tiles else {}),
            "repeated_names": len(self.repeats),
            "fields_with_problems": self.with_problems,
            "cases": self.cases,
            "table_issues": [issue.to_json() for issue in self.issues],
            "cells": dict(sorted(self.kinds.items())),
            "classes": dict(sorted(self.classes.items())),
            "seconds": round(self.seconds, 3),
            "seconds_by_stage": {k: round(v, 3) for k, v in self.stages.items()},
        }


def analyze(
    job: AnalysisJob, progress: Progress | None = None, model: Model | None = None
) -> AnalysisSummary:
    """Analyse every file of a job, keep results as they come, write the final files at the end.

    A file that fails is reported as an issue `field-failed` and named in the results; a file that
    was reached by several names is analysed once, and reported as `repeated-image`.

    Args:
        job: what to do.
        progress: follows the work.
        model: a loaded model, in place of the job's bundle, device and lowest score.

    Raises:
        BloodfilmError: before any work, if the job cannot be done as it is.
        OutputError: if the folder holds results that the job does not say what to do with, a run
            to resume differs from the job, or another process works there.
        CancelledError: if the run was stopped; it can be resumed.
    """
    begin = time.perf_counter()
    progress = progress or NoProgress()
    prior, selection = job.prior, job.selection
    found = discover(job.paths)
    grouping = group_images(found.images, job.paths, job.cases, found.repeats)
    used = model or load_model(job.bundle, device=job.device, min_score=job.min_score)
    table = [] if job.cases in (FOLDERS, ONE) else [Path(job.cases)]
    outputs = [job.out / name for name in (CELLS_TABLE, RESULT, REPORT, CASES)]
    refuse_inputs(outputs, [*found.images, *table])
    with hold_folder(job.out, "analysis"):
        remove_leftovers(job.out)
        (job.out / LOG_NEW).unlink(missing_ok=True)
        check_existing(job.out, job.existing)
        for issue in (*_repeated(found), *grouping.issues):
            progress.report(issue)
        run = _Run(job, grouping, used, prior, progress)
        run.selection = selection
        summary = run.execute()
    summary.repeats = found.repeats
    summary.cases, summary.issues = len(grouping.cases), grouping.issues
    summary.seconds = time.perf_counter() - begin
    return summary


def edge_rule(name: str) -> EdgeRule:
    """Return the rule of a name; `ConfigError` if there is none."""
    for rule in EDGE_RULES:
        if rule == name:
            return rule
    raise ConfigError(f"--edges {name}: give one of {', '.join(EDGE_RULES)}")


def check_existing(out: Path, existing: Existing) -> None:
    """See that a folder holds no results that nobody means to touch; remove them if wanted.

    Raises:
        OutputError: if it does.
    """
    if (out / PICTURES).is_symlink() or (out / PICTURES).is_file():
        raise OutputError(
            f"{out / PICTURES}: is no folder of pictures, and is not replaced; remove it",
            ["other-output"],
        )
    names = (RESULT, CELLS_TABLE, REPORT, LOG, CELLS_PART, CASES)
    there = [n for n in names if os.path.lexists(out / n)]
    if not there:
        return
    if existing == "overwrite":
        for name in there:
            (out / name).unlink()
        remove_pictures(out / PICTURES)
        remove_case_files(out)
        for tiles in sorted((out / SLIDES).glob(f"*/{TILES}")):
            tiles.unlink()
        return
    if links := [n for n in there if (out / n).is_symlink()]:
        raise OutputError(
            f"{out / links[0]}: is a link, and results are not written through links; remove it",
            ["other-output"],
        )
    if existing == "resume":
        if LOG not in there and RESULT not in there:
            raise OutputError(
                f"{out}: holds {there[0]}, but neither {RESULT} nor {LOG} to resume from",
                ["other-output", "overwrite"],
            )
    elif LOG in there:
        raise OutputError(f"{out}: holds a run that was stopped", ["resume", "overwrite"])
    else:
        raise OutputError(f"{out}: holds {there[0]} already", ["other-output", "overwrite"])


def _repeated(found: Discovery) -> Iterator[Issue]:
    """Yield issues that name files which were reached more than once, or are drawings."""
    if found.drawings:
        listed = ", ".join(map(str, found.drawings[:SHOWN_REPEATS]))
        message = f"passed over, for bloodfilm drew what is there: {listed}"
        paths = [str(path) for path in found.drawings]
        yield issue_codes.issue(issue_codes.OWN_DRAWINGS, message, paths=paths)
    for path, first in found.repeats[:SHOWN_REPEATS]:
        message = f"{path}: is the same file as {first}, and is analysed once"
        facts = {"path": str(path), "first": str(first)}
        yield issue_codes.issue(issue_codes.REPEATED_IMAGE, message, **facts)
    if len(found.repeats) > SHOWN_REPEATS:
        more = len(found.repeats) - SHOWN_REPEATS
        message = f"{plural(more, 'more name leads', 'more names lead')} to files that are listed"
        yield issue_codes.issue(issue_codes.REPEATED_IMAGE, message, names=len(found.repeats))


class _Run:
    """One run of a job: from what is there already to the final files."""

    def __init__(
        self,
        job: AnalysisJob,
        grouping: Grouping,
        model: Model,
        prior: ScalePrior,
        progress: Progress,
    ) -> None:
        self.job = job
        self.grouping = grouping
        self.images = images = grouping.images
        self.model = model
        self.prior = prior
        self.progress = progress
        self.settings = job.settings
        self.selection = SlideSelection()
        slides = [path for path in images if is_slide(path)]
        if not slides and job.of_slides:
            raise ConfigError(
                f"{', '.join(job.of_slides)}: is for slides, and none of the images is one; leave "
                "it out"
            )
        self.slides = slide_folders(job.out, slides)
        self.fields = [n for n, path in enumerate(images) if path not in self.slides]
        self.seen = SeenFields(grouping.compared)
        bundle = model.bundle
        written = [RESULT, CELLS_TABLE, CASES, *([REPORT] if job.report else [])]
        files = {name.partition(".")[0]: job.out / name for name in written}
        classified = model.classified_type
        self.summary = AnalysisSummary(job.out, files, bundle.identity(), len(images), classified)

    @property
    def record(self) -> dict[str, Any]:
        """What the run is, as plain data: a run that is resumed must be the same."""
        return {
            "program": __version__,
            "bundle": dict(self.model.bundle.identity()),
            "settings": self.settings,
            "device": choose_providers(self.job.device)[0],
            "images": [str(path) for path in self.images],
            "cases": [[case.name, list(case.images)] for case in self.grouping.cases],
        }

    def execute(self) -> AnalysisSummary:
        """Do what is left to do; returns the summary of all."""
        resume = self.job.existing == "resume"
        if resume and not (self.job.out / LOG).exists() and (self.job.out / RESULT).exists():
            finished = AnalysisRun.read(self.job.out / RESULT)
            self._check_same(_record_of(finished))
            self._check_contents(_inputs_of(finished, self.images))
            if not finished.failures and finished.cases:
                for result in finished:
                    self.summary.add(result)
                self.summary.nothing_to_do = True
                return self.summary
            self._reopen(finished)
        with ResultsLog(self.job.out / LOG, self.record, resume) as log:
            if log.done or log.inputs:
                self._check_same(log.run)
                known = {n: d for n, d in log.inputs.items() if n not in log.failures}
                self._check_contents(known)
                self.settings = dict(log.run["settings"])
            else:
                log.add_inputs(self._sampled())
            self._analyze(log)
            self._finish(log)
        (self.job.out / LOG).unlink()
        for folder in self.slides.values():
            finish_slide(folder)
        return self.summary

    def _analyze(self, log: ResultsLog) -> None:
        """Analyse what has no result yet; the table of all cells grows in the order of files."""
        total = len(self.images)
        todo = [number for number in range(total) if not log.has(number)]
        # A file that failed before did not bear on the others' scale, and must not do so now.
        # Slides are measured for themselves; fields are numbered without them.
        if self.slides:
            mark_drawings(self.job.out, [SLIDES])
        place = {number: at for at, number in enumerate(self.fields)}
        pictures = self._pictures()
        remaining = [place[number] for number in todo if number in place]
        films = self.grouping.films
        unpooled = {place[number] for number in log.failures if number in place}
        outcomes = analyze_many(
            [self.images[number] for number in self.fields],
            self.model,
            workers=self.job.workers,
            prior=self.prior,
            progress=OneStage(self.progress, SAMPLES),
            plan=RunPlan(
                remaining,
                unpooled,
                [films[n] for n in self.fields],
                self._hooks(pictures),
                log.samples,
                log.add_sample,
            ),
        )
        schema = self.model.bundle.schema
        done = total - len(todo)
        with (
            _open_table(self.job.out / CELLS_PART) as file,
            closing(outcomes),
            _saying_how_far(log, total, self.progress),
        ):
            table = CellTableWriter(file, schema)
            repeats = RepeatedImages(self.summary.classified)
            self.progress.update("fields", done, total)
            for number in range(total):
                if log.has(number):
                    result = log.field(number)
                    repeats.add(result)
                    outcome: FieldOutcome = result
                else:
                    self.progress.check_cancelled()
                    slide = self.images[number] in self.slides
                    new = self._slide(self.images[number], pictures) if slide else next(outcomes)
                    outcome = repeats.check(new)
                    log.append(number, outcome)
                    done += 1
                    self.progress.update("fields", done, total)
                    if isinstance(outcome, FieldFailure):
                        self.progress.report(failed(outcome))
                self._add(outcome, table)
                file.flush()

    def _pictures(self) -> FieldHook | None:
        """Return what makes pictures of a field while its pixels are at hand."""
        from bloodfilm.report.html.report import picture_store
        from bloodfilm.report.saved import CROPS, IMAGES, CropWriter, ImageWriter

        job, info = self.job, model_info(self.model.bundle)
        hooks: dict[str, FieldHook] = {}
        if job.report:
            store = picture_store(job.out, info.classified, info.crop_um, len(self.images))
            hooks[PICTURES] = store.write
        if job.save_crops:
            hooks[CROPS] = CropWriter(job.out, info.classified, info.crop_um)
        if job.save_images:
            hooks[IMAGES] = ImageWriter(job.out, info.classified, info.taxonomy)
        if not hooks:
            return None
        mark_drawings(job.out, hooks)

        def make(source: ImageSource, result: FieldResult) -> None:
            for hook in hooks.values():
                hook(source, result)

        return make

    def _hooks(self, pictures: FieldHook | None) -> dict[str, FieldHook]:
        """Return what else is made of the pixels of a field, by stage."""
        hooks: dict[str, FieldHook] = {"landmarks": self.seen.see}
        return hooks if pictures is None else {"pictures": pictures, **hooks}

    def _slide(self, path: Path, on_field: FieldHook | None) -> FieldOutcome:
        record = {key: self.record[key] for key in ("program", "bundle", "settings", "device")}
        if self.selection.region is not None:
            # A file of shapes may change between two runs, its name does not.
            record["region"] = self.selection.region.to_json()
        slide = SlideJob(
            path=path,
            folder=self.slides[path],
            selection=self.selection,
            prior=self.prior,
            workers=self.job.workers,
            record={**record, "image": str(path)},
        )
        return run_slide(slide, self.model, self.progress, on_field)

    def _add(self, outcome: FieldOutcome, table: CellTableWriter) -> None:
        self.summary.add(outcome)
        if isinstance(outcome, FieldResult):
            every, wanted = self.job.all_cells, self.summary.classified
            table.write(
                outcome.path, (c for c in outcome.cells if every or c.object_type == wanted)
            )

    def _finish(self, log: ResultsLog) -> None:
        """Write the final files; the results log goes only when all of them are there."""
        out = self.job.out
        failures = tuple(failure for _, failure in sorted(log.failures.items()))
        model = model_info(self.model.bundle)
        workers = self.job.workers or default_workers()
        cases = assemble_cases(
            self.grouping.cases,
            _outcomes(log, len(self.images)),
            model,
            AssemblyOptions(self.job.edges, workers, seen=self.seen),
            self.progress,
        )
        run = AnalysisRun(__version__, model, self.settings, log.fields, failures, cases=cases)
        with _naming(out / RESULT), atomic_write(out / RESULT) as file:
            run.write_json(file)
        (out / CELLS_PART).replace(out / CELLS_TABLE)
        with _naming(out / CASES_FOLDER):
            write_cases(run, out)
        if self.job.report:
            self._write_report(run)

    def _write_report(self, run: AnalysisRun) -> None:
        from bloodfilm.report.html.report import write_report
        from bloodfilm.workflows.report import explain

        out, most = self.job.out, self.job.explain
        maps = explain(run, self.model, most, self.progress) if most else None
        with _naming(out / REPORT):
            write_report(
                run, out, single_file=self.job.single_file, maps=maps, progress=self.progress
            )

    # ---- resuming ----------------------------------------------------------------------------

    def _sampled(self) -> dict[int, str]:
        """Return the SHA-256 of files that are pooled for the scale of others, by number."""
        found: dict[int, str] = {}
        fields = [self.images[number] for number in self.fields]
        sample = [self.fields[at] for at in pooled_images(fields)]
        for number in track(sample, self.progress, "reading inputs", len(sample)):
            path = self.images[number]
            with suppress(OSError):  # its own turn says what is wrong with it
                if path.is_file():
                    found[number] = sha256_of(path)
        return found

    def _check_same(self, found: Mapping[str, Any]) -> None:
        """Raise `OutputError` if a run is not that of the job, naming the first difference."""
        wanted = self.record
        before, now = found.get("settings", {}), wanted["settings"]
        pairs = [("the program", found.get("program"), wanted["program"])]
        bundles = found.get("bundle", {}), wanted["bundle"]
        pairs.append(("the bundle", *(b.get("sha256") for b in bundles)))
        names = [name for name in now if name not in ("paths", "device") and name in before]
        pairs += [(name, before.get(name), now[name]) for name in names]
        if "device" in found:
            pairs.append(("the device", found["device"], wanted["device"]))
        for name, one, two in pairs:
            if one != two:
                self._refuse(f"{name} was {_shown(one)}, now it is {_shown(two)}")
        missing = _first_missing(found["images"], wanted["images"])
        added = _first_missing(wanted["images"], found["images"])
        if missing is not None or added is not None:
            what = (
                f"{added} was not among its files" if missing is None else f"{missing} is missing"
            )
            self._refuse(f"{what} ({len(found['images'])} files then, {len(self.images)} now)")
        if "device" in found and found["images"] != wanted["images"]:
            self._refuse("its files were given in another order")
        if found.get("cases", wanted["cases"]) != wanted["cases"]:
            self._refuse("its images were in other cases")

    def _check_contents(self, known: Mapping[int, str]) -> None:
        """Raise `OutputError` if a file is no longer what it was when it was used."""
        changed: list[Path] = []
        numbers = sorted(n for n, digest in known.items() if digest and n < len(self.images))
        for number in track(numbers, self.progress, "checking inputs", len(numbers)):
            path = self.images[number]
            try:
                same = content_digest(path) == known[number]
            except (OSError, DataError):
                same = False
            if not same:
                changed.append(path)
        if changed:
            more = f", and so have {len(changed) - 1} more" if len(changed) > 1 else ""
            self._refuse(f"{changed[0]} has changed since it was analysed{more}")

    def _refuse(self, what: str) -> NoReturn:
        raise OutputError(
            f"{self.job.out}: the run there is another one: {what}", ["other-output", "overwrite"]
        )

    def _reopen(self, finished: AnalysisRun) -> None:
        """Make the results log of a finished run again, to try its failed files once more."""
        numbers = {str(path): number for number, path in enumerate(self.images)}
        record = {**self.record, "settings": dict(finished.settings)}
        # Under another name until it is complete: half of it would lose results.
        place = self.job.out / LOG_NEW
        with ResultsLog(place, record) as log:
            for result in finished:
                log.append(numbers[result.path], result)
            for failure in finished.failures:
                log.append(numbers[failure.path], failure)
        place.replace(self.job.out / LOG)


def _outcomes(log: ResultsLog, images: int) -> RunOutcomes:
    there = [number for number in range(images) if log.has(number)]
    numbers = {image: field for field, image in enumerate(there)}
    checksums = {image: log.inputs[image] for image in there}
    return RunOutcomes(log.fields, numbers, log.failures, checksums)


def _record_of(run: AnalysisRun) -> dict[str, Any]:
    """Return what a finished run was, as far as its results tell."""
    names = [result.path for result in run] + [failure.path for failure in run.failures]
    return {
        "program": run.version,
        "bundle": dict(run.model.identity),
        "settings": dict(run.settings),
        "images": names,
    }


def _inputs_of(run: AnalysisRun, images: Sequence[Path]) -> dict[int, str]:
    numbers = {str(path): number for number, path in enumerate(images)}
    return {numbers[r.path]: r.image.sha256 for r in run}


def _first_missing(names: Sequence[str], among: Sequence[str]) -> str | None:
    there = set(among)
    return next((name for name in names if name not in there), None)


def _shown(value: object) -> str:
    text = "not given" if value is None else str(value)
    return text[:12] if len(text) == 64 else text  # a SHA-256


def failed(failure: FieldFailure) -> Issue:
    """Return a failed file as an issue."""
    facts = {"path": failure.path, "reason": failure.reason}
    message = f"{failure.path}: {failure.reason}"
    return issue_codes.issue(issue_codes.FIELD_FAILED, message, **facts)


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
            f"{path}: {error.strerror}; what is done is kept; correct that", ["resume"]
        ) from None


@contextmanager
def _saying_how_far(log: ResultsLog, total: int, progress: Progress) -> Iterator[None]:
    """If the run is stopped, report how far it went."""
    try:
        yield
    except (KeyboardInterrupt, CancelledError):
        done = log.done
        message = f"{done} of {total} files are done and kept"
        facts = {"done": done, "total": total}
        progress.report(issue_codes.issue(issue_codes.RUN_STOPPED, message, **facts))
        raise
