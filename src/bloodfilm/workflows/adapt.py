"""Adapt a bundle to a microscope from unlabelled or marked fields, or return it as it is.

While it works, the output folder holds a subfolder `adapting` with the cells it cut out and
checkpoints; it is removed at the end. A run that was stopped goes on where it was.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm import __version__
from bloodfilm.core.boxes import centres
from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.files import atomic_write_bytes, sha256_of, write_json, write_text
from bloodfilm.core.issue_codes import ADAPTATION_REFUSED, CUT_BY_EDGE, issue
from bloodfilm.core.issues import codes
from bloodfilm.core.locks import LOCK
from bloodfilm.core.pixels import PixelSize
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import FieldFailure, FieldResult
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.core.text import plural
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.discovery import discover
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import Bundle, default_bundle, load_bundle
from bloodfilm.inference.manifest import CORRECTION
from bloodfilm.workflows.adapt_marked import MarkedFields, read_marked
from bloodfilm.workflows.analyze import failed
from bloodfilm.workflows.outputs import (
    check_can_hold,
    hold_folder,
    refuse_bundle_itself,
    require_extra,
)

if TYPE_CHECKING:
    from bloodfilm.export.adaptation import AdaptedClassifier
    from bloodfilm.training.marked_correction import ClassCorrection
    from bloodfilm.training.tasks.adaptation import TargetCells

WORK, KEY, CELLS = "adapting", "job.json", "cells.npz"
REPORT = "adaptation.json"
REPORT_FORMAT, REPORT_VERSION = "bloodfilm-adaptation", 1
MIN_CELLS = 80
HELD_OUT_SHARE = 0.25
MIN_FOLDERS = 5
METHODS = ("self-training", "statistics")


@dataclass(frozen=True, kw_only=True)
class AdaptJob:
    """What to adapt, to what, and how.

    Attributes:
        bundle: folder or name of the original; `None` for the shipped one.
        target: images, folders or glob patterns of the new microscope.
        out: folder of the new bundle.
        method: `self-training`, or `statistics`: batch-norm statistics of the new microscope
            (AdaBN), the baseline of the literature.
        steps: of self-training.
        labelled: a data set with marked fields of the new microscope. The classes are corrected by
            them where that names held-out marked fields better; else they judge the method, which
            does not learn from them.
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
    method: str = "self-training"
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
            raise ConfigError(f"method {self.method!r}: choose {' or '.join(METHODS)}")
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
        accepted: whether the bundle is the adapted one; otherwise it is the original.
        reasons: why it is not.
        report: the whole record, as `adaptation.json` holds it.
        failures: files that could not be analysed.
    """

    out: Path
    accepted: bool
    reasons: tuple[str, ...]
    report: Mapping[str, Any]
    failures: tuple[FieldFailure, ...] = field(default=())


def adapt(job: AdaptJob, progress: Progress | None = None) -> AdaptResult:
    """Adapt a bundle's classifier, and keep the original where that would harm.

    The rule is `evaluation.label_free.reasons_to_refuse`, on cells that were not learnt from.

    Raises:
        BloodfilmError: if it cannot be done as asked; nothing of an earlier run is lost.
        CancelledError: if it was stopped; it can be resumed.
    """
    require_extra("onnx")
    require_extra("torch")
    progress = progress or NoProgress()
    bundle = default_bundle() if job.bundle is None else load_bundle(job.bundle)
    images = _some(discover(job.target).images, job.max_fields)
    _check_out(job, bundle)
    with hold_folder(job.out, "adaptation"):
        work = job.out / WORK
        shas = [sha256_of(path) for path in track(images, progress, "reading", len(images))]
        begun = not work.exists()
        _open_work(job, bundle, work, shas)
        try:
            collected = _collect(job, bundle, images, work, progress)
        except DataError:
            if begun:  # refused for these images: there is nothing to resume
                shutil.rmtree(work)
            raise
        result = _adapt(job, bundle, collected, (images, shas), progress)
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


def _digest(shas: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(shas)).encode()).hexdigest()


# ---- cells -------------------------------------------------------------------------------------


@dataclass
class _Collected:
    """Cells of the new microscope, what came of its fields, and their pixel sizes."""

    cells: "TargetCells"
    fields: int = 0
    uncountable: int = 0
    failures: list[FieldFailure] = field(default_factory=list)
    scales: dict[Path, PixelSize] = field(default_factory=dict)


def _collect(
    job: AdaptJob, bundle: Bundle, images: Sequence[Path], work: Path, progress: Progress
) -> _Collected:
    """Analyse the fields and cut out their cells, or take those of the stopped run."""
    from bloodfilm.training.tasks.adaptation import TargetCells

    place = work / CELLS
    if place.exists():
        with np.load(place) as kept:
            cells = TargetCells(kept["images"], kept["classes"], kept["groups"])
            sizes = zip(kept["scaled"].tolist(), kept["um_per_px"].tolist(), strict=True)
            scales = {Path(name): PixelSize(x, y, "pooled") for name, (x, y) in sizes}
            return _Collected(cells, int(kept["fields"]), int(kept["uncountable"]), [], scales)
    collected = _analyse(job, bundle, images, progress)
    if not collected.failures:  # a file that failed is tried again
        with atomic_write_bytes(place) as file:
            np.savez(
                file,
                images=collected.cells.images,
                classes=collected.cells.classes,
                groups=collected.cells.groups,
                fields=collected.fields,
                uncountable=collected.uncountable,
                scaled=np.array([str(path) for path in collected.scales], dtype=np.str_),
                um_per_px=np.array(
                    [(s.um_per_px_x, s.um_per_px_y) for s in collected.scales.values()]
                ),
            )
    return collected


def _analyse(
    job: AdaptJob, bundle: Bundle, images: Sequence[Path], progress: Progress
) -> _Collected:
    from bloodfilm.inference.model import Model
    from bloodfilm.inference.runner import analyze_many
    from bloodfilm.training.tasks.adaptation import TargetCells

    folders = {path.parent: n for n, path in enumerate(dict.fromkeys(p.parent for p in images))}
    crops: list[NDArray[np.uint8]] = []
    classes: list[NDArray[np.float64]] = []
    groups: list[int] = []
    done = _Collected(TargetCells(*(np.zeros(0) for _ in range(3))))  # type: ignore[arg-type]
    with (
        Model(bundle) as model,
        closing(analyze_many(images, model, workers=job.threads)) as outcomes,
    ):
        followed = track(outcomes, progress, "fields", len(images))
        for number, (path, outcome) in enumerate(zip(images, followed, strict=True)):
            if isinstance(outcome, FieldFailure):
                done.failures.append(outcome)
                progress.report(failed(outcome))
                continue
            if not outcome.countable:
                done.uncountable += 1
                continue
            done.fields += 1
            size = (outcome.view.um_per_px_x, outcome.view.um_per_px_y)
            done.scales[path] = PixelSize(*size, "pooled")
            cut, said = _cells_of(outcome, path, bundle)
            crops.append(cut)
            classes.append(said)
            own = folders[path.parent] if len(folders) >= MIN_FOLDERS else number
            groups += [own] * len(cut)
    total = sum(map(len, crops))
    if total < MIN_CELLS:
        raise DataError(
            f"{job.target[0]}: {total} cells were found in {plural(done.fields, 'usable field')} "
            f"of {len(images)}; adaptation needs {MIN_CELLS}: give more fields"
        )
    cells = TargetCells(np.concatenate(crops), np.concatenate(classes), np.array(groups))
    if total > job.max_cells:
        chosen = np.zeros(total, dtype=bool)
        chosen[np.linspace(0, total - 1, job.max_cells).round().astype(int)] = True
        cells = cells.take(chosen)
    done.cells = cells
    return done


def _cells_of(
    result: FieldResult, path: Path, bundle: Bundle
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return stored crops of a field's whole nucleated cells, and their class probabilities."""
    from bloodfilm.export.adaptation import is_balanced
    from bloodfilm.training.data.cell_crops import STORE_SIZE, STORE_UM

    m = bundle.manifest
    cells = [
        c
        for c in result.cells
        if c.object_type == m.roles.classified and CUT_BY_EDGE not in codes(c.issues)
    ]
    said = np.array([[c.probabilities.get(leaf, 0.0) for leaf in m.leaves] for c in cells])
    if not cells:
        return np.zeros((0, STORE_SIZE, STORE_SIZE, 3), np.uint8), np.zeros((0, len(m.leaves)))
    view = CanonicalView.from_record(result.view)
    at = centres(np.array([c.box for c in cells]))
    image = open_image(path)
    return view.crops(image, at, STORE_SIZE, STORE_UM, balanced=is_balanced(bundle)), said


def hold_out(groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Choose whole groups, a quarter of the cells or little more, to judge by.

    >>> held = hold_out(np.repeat(np.arange(8), 10), 0)
    >>> int(held.sum()), len(set(np.repeat(np.arange(8), 10)[held].tolist()))
    (20, 2)
    """
    held = np.zeros(len(groups), dtype=bool)
    order = np.random.default_rng([seed, 59]).permutation(np.unique(groups))
    for group in order[: max(1, len(order) - 1)]:
        if held.sum() >= HELD_OUT_SHARE * len(groups):
            break
        held |= groups == group
    return held


# ---- adaptation --------------------------------------------------------------------------------


def _adapt(
    job: AdaptJob,
    bundle: Bundle,
    collected: _Collected,
    target: tuple[Sequence[Path], Sequence[str]],
    progress: Progress,
) -> AdaptResult:
    from bloodfilm.export.adapted import copy_bundle, write_adapted, write_corrected

    held = hold_out(collected.cells.groups, job.seed)
    marked = None
    if job.labelled is not None:
        marked = read_marked(
            job.labelled, job.labelled_fields, job.seed, bundle, collected.scales, progress
        )
    tried = _try(job, bundle, collected.cells, held, marked, progress)
    report = _report(job, bundle, collected, held, target, tried, marked)
    adapted, reasons = tried.adapted, tried.reasons
    if reasons:
        copy_bundle(bundle, job.out)
    elif tried.correction is not None and marked is not None:
        named = marked.cells.crops, marked.expected
        write_corrected(bundle, tried.correction, job.out, report, *named)
    else:
        write_adapted(
            bundle,
            adapted.original,
            adapted.model,
            adapted.probes,
            job.out,
            report,
            eight_bit=adapted.eight_bit,
        )
    write_json(job.out / REPORT, report)
    for reason in (*tried.not_corrected, *reasons):
        progress.report(issue(ADAPTATION_REFUSED, reason))
    return AdaptResult(job.out, not reasons, tuple(reasons), report, tuple(collected.failures))


@dataclass(frozen=True)
class _Tried:
    """What was done last, and why it must not be taken over.

    Attributes:
        adapted: its outcome.
        correction: that it is, if it is one.
        reasons: against it.
        not_corrected: why marked fields did not correct the classes, where they did not.
    """

    adapted: "AdaptedClassifier"
    correction: "ClassCorrection | None"
    reasons: Sequence[str]
    not_corrected: Sequence[str]


def _try(
    job: AdaptJob,
    bundle: Bundle,
    cells: "TargetCells",
    held: NDArray[np.bool_],
    marked: MarkedFields | None,
    progress: Progress,
) -> _Tried:
    """Correct the classes by marked fields, or else adapt by the method of the job."""
    from bloodfilm.evaluation.label_free import reasons_by_checks, reasons_to_refuse
    from bloodfilm.export.adaptation import AdaptationSettings, NamedCells, adapt_classifier

    recipe = AdaptationSettings(
        method=job.method,  # type: ignore[arg-type]
        steps=job.steps,
        seed=job.seed,
        source=job.source,
        checks=job.checks,
        marked=None if marked is None else NamedCells(marked.cells.crops, marked.allowed),
    )
    not_corrected: list[str] = []
    if marked is not None:
        correction = marked.chosen.correction
        not_corrected = marked.chosen.reasons()
        if correction is not None:
            corrected = replace(recipe, correction=correction)
            done = adapt_classifier(bundle, cells, held, corrected, job.out / WORK, progress)
            not_corrected = reasons_by_checks(done.checks)
            if not not_corrected:
                return _Tried(done, correction, (), ())
    done = adapt_classifier(bundle, cells, held, recipe, job.out / WORK, progress)
    reasons = reasons_to_refuse(done.before, done.after, done.checks)
    if done.marked is not None and done.marked[1] < done.marked[0]:
        before, after = done.marked
        reasons.append(f"marked cells: balanced accuracy {before:.3f} before, {after:.3f} after")
    return _Tried(done, None, reasons, not_corrected)


def _report(
    job: AdaptJob,
    bundle: Bundle,
    collected: _Collected,
    held: NDArray[np.bool_],
    target: tuple[Sequence[Path], Sequence[str]],
    tried: _Tried,
    marked: MarkedFields | None,
) -> dict[str, Any]:
    images, shas = target
    adapted, reasons = tried.adapted, tried.reasons
    return {
        "format": REPORT_FORMAT,
        "version": REPORT_VERSION,
        "program": f"bloodfilm {__version__}",
        "accepted": not reasons,
        "reasons": list(reasons),
        "parent": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "method": job.method if tried.correction is None else CORRECTION,
        "settings": {"steps": job.steps, "seed": job.seed},
        "target": {
            "images": len(images),
            "sha256": _digest(shas),
            "fields": collected.fields,
            "left_out": collected.uncountable,
            "failed": len(collected.failures),
            "cells": len(held),
            "held_out_cells": int(held.sum()),
        },
        "labelled": _labelled(tried, marked),
        "before": adapted.before.to_json(),
        "after": adapted.after.to_json(),
        "checks": [
            {"name": c.name, "before": round(c.before, 6), "after": round(c.after, 6)}
            for c in adapted.checks
        ],
    }


def _labelled(tried: _Tried, marked: MarkedFields | None) -> dict[str, Any] | None:
    """Return what was marked, and balanced accuracy on it before and after.

    A correction is judged on fields that it was not fitted on; a method learns from none of them.
    """
    if marked is None:
        return None
    chosen = marked.chosen
    pair: tuple[float, ...] = (chosen.original.accuracy, chosen.best.accuracy)
    if tried.correction is None and tried.adapted.marked is not None:
        pair = tried.adapted.marked
    return {
        **marked.report(),
        "not_corrected": list(tried.not_corrected),
        "before": round(pair[0], 6),
        "after": round(pair[1], 6),
    }
