"""Complete the annotation of a data set whose fields are annotated in part."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from bloodfilm.active_learning.completion import CompletionRules, complete_field, labelled_types
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.field import Field
from bloodfilm.core.progress import NoProgress, OneStage, Progress, track
from bloodfilm.core.results import FieldFailure, FieldResult
from bloodfilm.formats import save_dataset
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.model import load_model
from bloodfilm.inference.runner import SAMPLES, analyze_many, by_folder
from bloodfilm.workflows.analyze import failed
from bloodfilm.workflows.outputs import check_can_hold, dataset_target, hold_folder
from bloodfilm.workflows.selection import open_annotated, select_fields


@dataclass(frozen=True, kw_only=True)
class CompletionJob:
    """A data set to complete.

    Attributes:
        dataset: annotated in part.
        out: folder for the completed set.
        format: of the labels, if it is not recognised.
        splits: use fields of these splits only; empty uses all.
        bundle: the model; `None` for the shipped one.
        every: use every n-th field only.
        sure: lowest confidence of a nucleated cell that gets a box.
        workers: fields at a time; `None` for the number of cores.
        overwrite: replace a completed set in `out`.
    """

    dataset: Path
    out: Path
    format: str | None = None
    splits: tuple[str, ...] = ()
    bundle: Path | None = None
    every: int = 1
    sure: float = 0.6
    workers: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class CompletionResult:
    """What was completed.

    Attributes:
        fields: how many fields the completed set has.
        annotated: boxes that were there.
        added: boxes that the model added, by object type.
        ignored: doubtful detections.
        left_out: fields without a scale, or whose centred cell was not found.
        failures: files that could not be opened.
    """

    fields: int
    annotated: int
    added: dict[str, int]
    ignored: int
    left_out: int
    failures: tuple[FieldFailure, ...]


def complete(job: CompletionJob, progress: Progress | None = None) -> CompletionResult:
    """Analyse every field and write the set with what the model adds; images stay in place."""
    progress = progress or NoProgress()
    if not 0 < job.sure <= 1 or job.every < 1:
        raise ConfigError(
            "complete: sure must lie above 0 and at most at 1, every must be 1 or more"
        )
    target = dataset_target(job.out, overwrite=job.overwrite)
    dataset = open_annotated(job.dataset, job.format)
    fields = select_fields(dataset.fields, job.dataset, splits=job.splits)[:: job.every]
    check_can_hold(job.out)
    model = load_model(job.bundle, score_floor=CompletionRules.doubtful)
    rules = CompletionRules(
        classified=model.classified_type, sure={model.classified_type: job.sure}
    )
    labelled = labelled_types(dataset.fields, dataset.taxonomy, model.bundle.manifest.object_types)
    outcomes = analyze_many(
        [f.path for f in fields],
        model,
        workers=job.workers,
        scale_group=by_folder,
        prior=[ScalePrior.of_domain(f.domain) for f in fields],
        progress=OneStage(progress, SAMPLES),
    )
    done: list[Field] = []
    failures: list[FieldFailure] = []
    counts: Counter[str] = Counter()
    ignored = left_out = annotated = 0
    for item, outcome in zip(fields, track(outcomes, progress, "fields", len(fields)), strict=True):
        if not isinstance(outcome, FieldResult):
            failures.append(outcome)
            progress.report(failed(outcome))
            continue
        whole = complete_field(item, outcome, labelled, rules)
        if whole is None:
            left_out += 1
            continue
        done.append(whole)
        annotated += len(item.cells)
        for cell in whole.cells[len(item.cells) :]:
            ignored += cell.ignore
            if cell.label is not None:
                counts[cell.label] += 1
    if not done:
        raise DataError(f"{job.dataset}: none of its {len(fields)} fields could be completed")
    with hold_folder(job.out, "completed data set"):
        whole_set = replace(dataset, name=f"{dataset.name}, completed", fields=tuple(done))
        save_dataset(whole_set, target, "bloodfilm", overwrite=job.overwrite)
    return CompletionResult(
        len(done), annotated, dict(counts.most_common()), ignored, left_out, tuple(failures)
    )
