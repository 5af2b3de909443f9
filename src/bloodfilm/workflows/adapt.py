"""Adapt a bundle to a microscope from unlabelled or marked fields, or return it as it is.

What is tried, and how it is judged, is in `adapt_candidates`.

While it works, the output folder holds a subfolder `adapting` with the cells it cut out and
checkpoints; it is removed at the end. A run that was stopped goes on where it was.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm import __version__
from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.files import sha256_of, write_json, write_text
from bloodfilm.core.issue_codes import ADAPTATION_REFUSED, ADAPTATION_UNPROVEN, issue
from bloodfilm.core.locks import LOCK
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import FieldFailure
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.core.text import plural
from bloodfilm.evaluation.label_free import LabelFreeFigures
from bloodfilm.imaging.discovery import discover
from bloodfilm.inference.bundle import Bundle, default_bundle, load_bundle
from bloodfilm.inference.manifest import CORRECTION
from bloodfilm.workflows.adapt_candidates import (
    Candidate,
    UnlabelledCells,
    choose,
    judge_correction,
    judge_method,
)
from bloodfilm.workflows.adapt_cells import TargetFields, collect_cells, hold_out
from bloodfilm.workflows.adapt_marked import MarkedFields, read_marked
from bloodfilm.workflows.outputs import (
    check_can_hold,
    hold_folder,
    refuse_bundle_itself,
    require_extra,
)

WORK, KEY, CELLS = "adapting", "job.json", "cells.npz"
REPORT = "adaptation.json"
REPORT_FORMAT, REPORT_VERSION = "bloodfilm-adaptation", 2
MIN_CELLS = 80
"""Unlabelled cells that self-training, or statistics, needs; a correction needs marked ones."""
METHODS = (CORRECTION, "self-training", "statistics")
ORIGINAL = "original"


@dataclass(frozen=True, kw_only=True)
class AdaptJob:
    """What to adapt, to what, and how.

    Attributes:
        bundle: folder or name of the original; `None` for the shipped one.
        target: images, folders or glob patterns of the new microscope.
        out: folder of the new bundle.
        method: `correction`: of the classes, by marked fields; or what is tried beside it:
            `self-training`, or `statistics`: batch-norm statistics of the new microscope (AdaBN),
            the baseline of the literature.
        steps: of self-training.
        labelled: a data set with marked fields of the new microscope. A correction is fitted on
            them, and they judge it and the method, which does not learn from them.
        labelled_fields: use this many of its fields, drawn by lot; `None` for all.
        source: labelled or unlabelled cells of the original microscopes; with `statistics` every
            batch norm is aligned then, and not only the last.
        checks: labelled data sets that must not become worse.
        max_fields, max_cells: at most so many are used, evenly spread.
        seed: of all chance.
        threads: fields at work at a time; `None` for one per core.
        restart: begin anew instead of resuming the run in `out`.
    """

    bundle: Path | None
    target: Sequence[str | Path]
    out: Path
    method: str = CORRECTION
    steps: int = 400
    labelled: Path | None = None
    labelled_fields: int | None = None
    source: Path | None = None
    checks: Sequence[Path] = ()
    max_fields: int = 400
    max_cells: int = 4000
    seed: int = 0
    threads: int | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r}: choose from {', '.join(METHODS)}")
        if self.labelled_fields is not None and self.labelled is None:
            raise ConfigError("labelled fields: name the data set that has them")
        if self.source is not None and self.method != "statistics":
            raise ConfigError("source: only the method `statistics` uses it")
        for name in ("steps", "max_fields", "max_cells", "labelled_fields"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name.replace('_', ' ')} {value}: must be 1 or more")


@dataclass(frozen=True)
class AdaptResult:
    """What came of it.

    Attributes:
        out: folder of the bundle.
        accepted: whether the bundle is an adapted one; otherwise it is the original.
        reasons: why it is not, by candidate.
        report: the whole record, as `adaptation.json` holds it.
        failures: files that could not be analysed.
    """

    out: Path
    accepted: bool
    reasons: tuple[str, ...]
    report: Mapping[str, Any]
    failures: tuple[FieldFailure, ...] = field(default=())


def adapt(job: AdaptJob, progress: Progress | None = None) -> AdaptResult:
    """Adapt a bundle's classifier, and keep the original where nothing speaks for a change.

    The rules are in `workflows.adapt_candidates`; all of them are about cells that were not learnt
    from.

    Raises:
        BloodfilmError: if it cannot be done as asked; nothing of an earlier run is lost.
        CancelledError: if it was stopped; it can be resumed.
    """
    require_extra("onnx")
    require_extra("torch")
    from bloodfilm.export.recovered import check_unchanged

    progress = progress or NoProgress()
    bundle = default_bundle() if job.bundle is None else load_bundle(job.bundle)
    check_unchanged(bundle)
    images = _some(discover(job.target).images, job.max_fields)
    _check_out(job, bundle)
    with hold_folder(job.out, "adaptation"):
        work = job.out / WORK
        shas = [sha256_of(path) for path in track(images, progress, "reading", len(images))]
        begun = not work.exists()
        _open_work(job, bundle, work, shas)
        try:
            found = collect_cells(
                bundle,
                images,
                work / CELLS,
                progress,
                most=job.max_cells,
                threads=job.threads,
            )
            _check_enough(job, found, len(images))
        except DataError:
            if begun:  # refused for these images: there is nothing to resume
                shutil.rmtree(work)
            raise
        result = _adapt(job, bundle, found, (images, shas), progress)
        shutil.rmtree(work)
    return result


def _some(images: Sequence[Path], most: int) -> list[Path]:
    return [images[i] for i in evenly_spread(len(images), most).tolist()]


def _check_out(job: AdaptJob, bundle: Bundle) -> None:
    """Refuse an output folder that holds something else than a stopped run of this command."""
    refuse_bundle_itself(job.out, bundle.path)
    check_can_hold(job.out)
    there = [p.name for p in job.out.iterdir() if p.name != LOCK] if job.out.is_dir() else []
    if there and WORK not in there:
        raise OutputError(f"{job.out}: holds {sorted(there)[0]} already", ["other-output"])


def _open_work(job: AdaptJob, bundle: Bundle, work: Path, shas: Sequence[str]) -> None:
    """Make the folder of the run, or see that the run there is this one."""
    facts = {
        "program": __version__,
        "bundle": bundle.sha256,
        "images": _digest(shas),
        **{
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(job).items()
            if name not in ("bundle", "target", "out", "threads", "restart", "checks")
        },
        "checks": [str(path) for path in job.checks],
    }
    from bloodfilm.export.adaptation import job_key

    key = job_key(**facts)
    if job.restart and work.exists():
        shutil.rmtree(work)
    if (work / KEY).exists() and (work / KEY).read_text("utf-8") != key:
        raise OutputError(
            f"{job.out}: holds a stopped adaptation of other images or settings; give --restart to "
            "begin anew",
            ["other-output"],
        )
    work.mkdir(exist_ok=True)
    write_text(work / KEY, key)


def _check_enough(job: AdaptJob, found: TargetFields, images: int) -> None:
    """Refuse fields that hold too few cells for all that could be tried."""
    least = MIN_CELLS if job.method != CORRECTION and job.labelled is None else 1
    if len(found.cells) < least:
        raise DataError(
            f"{job.target[0]}: {_few(found, images)}; {job.method} needs {least}: give more fields"
        )


def _few(found: TargetFields, images: int) -> str:
    count = plural(len(found.cells), "cell")
    verb = "was" if len(found.cells) == 1 else "were"
    return f"{count} {verb} found in {plural(found.fields, 'usable field')} of {images}"


def _digest(shas: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(shas)).encode()).hexdigest()


def _adapt(
    job: AdaptJob,
    bundle: Bundle,
    found: TargetFields,
    target: tuple[Sequence[Path], Sequence[str]],
    progress: Progress,
) -> AdaptResult:
    from bloodfilm.export.adapted import copy_bundle

    marked = None
    if job.labelled is not None:
        marked = read_marked(
            job.labelled, job.labelled_fields, job.seed, bundle, found.scales, progress
        )
    judged = _candidates(job, bundle, found, target, marked, progress)
    best = choose(judged.candidates)
    report = _report(job, bundle, found, target, judged, best, marked)
    if best is None or best.write is None:
        copy_bundle(bundle, job.out)
    else:
        best.write(job.out, report)
    write_json(job.out / REPORT, report)
    refused = [f"{c.name}: {reason}" for c in judged.candidates for reason in c.reasons]
    for reason in refused:
        progress.report(issue(ADAPTATION_REFUSED, reason))
    if best is not None and best.unjudged:
        progress.report(
            issue(
                ADAPTATION_UNPROVEN,
                f"{best.name}: no labelled cell says whether it still names "
                f"{', '.join(best.unjudged)}; give --check a set that has them",
            )
        )
    reasons = () if best is not None else tuple(refused)
    return AdaptResult(job.out, best is not None, reasons, report, tuple(found.failures))


@dataclass(frozen=True)
class _Judged:
    """What was tried.

    Attributes:
        candidates: each way, judged.
        original: figures without labels of the original, on cells that nothing was learnt from.
    """

    candidates: tuple[Candidate, ...]
    original: LabelFreeFigures | None


def _candidates(
    job: AdaptJob,
    bundle: Bundle,
    found: TargetFields,
    target: tuple[Sequence[Path], Sequence[str]],
    marked: MarkedFields | None,
    progress: Progress,
) -> _Judged:
    """Try and judge a correction, where fields are marked, and the method of the job."""
    from bloodfilm.export.adaptation import AdaptationSettings

    candidates, original = [], None
    if marked is not None or job.method == CORRECTION:
        marks = frozenset() if marked is None else marked.image_shas
        fields = [number for number, sha in enumerate(target[1]) if sha not in marks]
        unmarked = found.cells.take(np.isin(found.pictures, fields))
        cells = UnlabelledCells(bundle, unmarked, job.seed, progress)
        candidates.append(judge_correction(bundle, marked, cells, job.checks, progress))
        original = cells.figures()
    if job.method != CORRECTION and (reason := _untried(bundle, found, len(target[0]))):
        candidates.append(Candidate(job.method, (reason,)))
    elif job.method != CORRECTION:
        recipe = AdaptationSettings(
            method=job.method,  # type: ignore[arg-type]
            steps=job.steps,
            seed=job.seed,
            source=job.source,
            checks=job.checks,
            marked=None if marked is None else marked.cells.crops,
        )
        cells_and_held = found.cells, hold_out(found.cells.groups, job.seed)
        tried = judge_method(bundle, cells_and_held, recipe, marked, job.out / WORK, progress)
        candidates.append(tried)
        if marked is None and tried.unlabelled is not None:
            original = tried.unlabelled[0]
    return _Judged(tuple(candidates), original)


def _untried(bundle: Bundle, found: TargetFields, images: int) -> str:
    """Return why a method that changes the network is not tried; nothing if it is."""
    if bundle.manifest.classifier.film_offset is not None:
        return (
            "the bundle names cells by their film, which was fitted to its network: a changed one "
            "would name them one by one"
        )
    if len(found.cells) < MIN_CELLS:
        return f"{_few(found, images)}; it needs {MIN_CELLS}"
    return ""


def _report(
    job: AdaptJob,
    bundle: Bundle,
    found: TargetFields,
    target: tuple[Sequence[Path], Sequence[str]],
    judged: _Judged,
    best: Candidate | None,
    marked: MarkedFields | None,
) -> dict[str, Any]:
    images, shas = target
    refused = [f"{c.name}: {reason}" for c in judged.candidates for reason in c.reasons]
    return {
        "format": REPORT_FORMAT,
        "version": REPORT_VERSION,
        "program": f"bloodfilm {__version__}",
        "accepted": best is not None,
        "reasons": refused if best is None else [],
        "parent": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "method": ORIGINAL if best is None else best.name,
        "settings": {"method": job.method, "steps": job.steps, "seed": job.seed},
        "target": {
            "images": len(images),
            "sha256": _digest(shas),
            "fields": found.fields,
            "left_out": found.uncountable,
            "failed": len(found.failures),
            "cells": len(found.cells),
        },
        "labelled": None if marked is None else marked.report(),
        "original": None if judged.original is None else judged.original.to_json(),
        "candidates": [c.to_json(returned=c is best) for c in judged.candidates],
    }
