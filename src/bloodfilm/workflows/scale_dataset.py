"""Give the fields of a data set the scale at which `analyze` would analyse them."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bloodfilm.active_learning.field_scale import (
    SIZES_UM,
    Origin,
    is_implausible,
    origin_of,
    with_scale,
)
from bloodfilm.core import issue_codes
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.core.files import refuse_inputs
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue, codes
from bloodfilm.core.progress import NoProgress, OneStage, Progress, track
from bloodfilm.core.results import FieldFailure, FieldOutcome, FieldResult
from bloodfilm.core.taxonomy import NUCLEATED
from bloodfilm.core.text import plural
from bloodfilm.formats import save_dataset
from bloodfilm.imaging.discovery import natural_key
from bloodfilm.imaging.sources.field import check_size
from bloodfilm.inference.model import Model, load_model
from bloodfilm.inference.runner import SAMPLES, RunPlan, analyze_many
from bloodfilm.workflows.analyze import failed
from bloodfilm.workflows.outputs import check_can_hold, dataset_target, hold_folder
from bloodfilm.workflows.selection import SelectionJob

MOST_NAMED = 10
"""Files that one message names."""


@dataclass(frozen=True, kw_only=True)
class ScalingJob(SelectionJob):
    """A data set whose fields are to get their scale from an analysis; see `SelectionJob`, too.

    Attributes:
        keep_stated: leave fields as they are whose scale the set states.
        workers: fields at a time; `None` for the number of cores.
    """

    keep_stated: bool = False
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class FieldScale:
    """The scale of one field of the set that was written.

    Attributes:
        path: of its image.
        group: its microscope and folder, for people.
        origin: where its scale comes from.
        um_per_px: micrometres per pixel along y.
        pixel_aspect_ratio: width / height, in pixels, of what is round on the glass.
    """

    path: Path
    group: str
    origin: Origin
    um_per_px: float
    pixel_aspect_ratio: float

    def to_json(self) -> dict[str, Any]:
        """Return the scale as plain data."""
        return {
            "image": str(self.path),
            "group": self.group,
            "origin": self.origin,
            "um_per_px": self.um_per_px,
            "pixel_aspect_ratio": self.pixel_aspect_ratio,
        }


@dataclass(frozen=True, slots=True)
class GroupScales:
    """The scales of the fields of one microscope in one folder, micrometres per pixel along y."""

    group: str
    fields: int
    median: float
    least: float
    largest: float

    def to_json(self) -> dict[str, Any]:
        """Return the scales as plain data."""
        return {
            "group": self.group,
            "fields": self.fields,
            "median_um_per_px": self.median,
            "least_um_per_px": self.least,
            "largest_um_per_px": self.largest,
        }


@dataclass(frozen=True)
class ScalingResult:
    """What scales the fields of a set got.

    Attributes:
        fields: those that were written, in their order in the set.
        left_out: images whose scale the analysis could only assume.
        implausible: images whose nucleated cells would be larger or smaller than any is.
        contradicted: images whose red cells contradict the scale of their folder, which they got.
        failures: files that could not be opened, or are not the images that were labelled.
    """

    fields: tuple[FieldScale, ...]
    left_out: tuple[Path, ...]
    implausible: tuple[Path, ...]
    contradicted: tuple[Path, ...]
    failures: tuple[FieldFailure, ...]

    @property
    def origins(self) -> dict[Origin, int]:
        """Fields by where their scale comes from, the commonest first."""
        return dict(Counter(f.origin for f in self.fields).most_common())

    @property
    def groups(self) -> tuple[GroupScales, ...]:
        """The scales by microscope and folder."""
        scales: dict[str, list[float]] = defaultdict(list)
        for item in self.fields:
            scales[item.group].append(item.um_per_px)
        return tuple(
            GroupScales(name, len(own), median(own), min(own), max(own))
            for name, own in scales.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "origins": self.origins,
            "groups": [group.to_json() for group in self.groups],
            "fields": [item.to_json() for item in self.fields],
            "left_out": [str(path) for path in self.left_out],
            "implausible": [str(path) for path in self.implausible],
            "contradicted": [str(path) for path in self.contradicted],
            "failures": [failure.to_json() for failure in self.failures],
        }


def scale_dataset(
    job: ScalingJob, progress: Progress | None = None, model: Model | None = None
) -> ScalingResult:
    """Analyse the fields of a set, and write the set with the scales at which they were analysed.

    Images of one folder share a scale, as in `analyze`. What the set states of its own scale is no
    part of the analysis. Fields whose scale could only be assumed are left out; cells, splits and
    all else stay as they are, and so do the images in their place.

    Args:
        job: what to do.
        progress: follows the work. It is told of files that fail, and once each of fields that are
            left out and of scales that look wrong.
        model: a loaded model, in place of the job's bundle.

    Raises:
        BloodfilmError: if it cannot be done as asked, or no field has a scale.
    """
    progress = progress or NoProgress()
    target = dataset_target(job.out, overwrite=job.overwrite)
    dataset = job.open()
    refuse_inputs([target], [job.dataset])
    check_can_hold(job.out)
    todo = [f for f in dataset.fields if not (job.keep_stated and f.domain.um_per_px is not None)]
    if not todo:
        raise DataError(
            f"{job.dataset}: states the scale of all its fields; leave out --keep-stated to have "
            "it measured"
        )
    used = model or load_model(job.bundle)
    outcomes = _analyse(dataset.fields, {f.path for f in todo}, used, job.workers, progress)
    of_field = {id(f): _checked(f, outcomes[f.path]) for f in todo}
    scaled, result = _scaled(dataset, [of_field.get(id(f)) for f in dataset.fields])
    for found in (*map(failed, result.failures), *_issues(result)):
        progress.report(found)
    if not scaled:
        raise DataError(_why_none(job.dataset, result))
    with hold_folder(job.out, "data set with scales"):
        whole = replace(dataset, name=f"{dataset.name}, scaled", fields=scaled)
        save_dataset(whole, target, "bloodfilm", overwrite=job.overwrite)
    return result


def _analyse(
    fields: Sequence[Field],
    wanted: set[Path],
    model: Model,
    workers: int | None,
    progress: Progress,
) -> dict[Path, FieldOutcome]:
    """Analyse the wanted images among those of fields, in the order of `analyze`."""
    images = sorted({f.path for f in fields}, key=lambda path: natural_key(str(path)))
    todo = [number for number, path in enumerate(images) if path in wanted]
    outcomes: dict[Path, FieldOutcome] = {}
    sampled = OneStage(progress, SAMPLES)
    plan = RunPlan(todo=todo)
    with closing(
        analyze_many(images, model, workers=workers, progress=sampled, plan=plan)
    ) as found:
        for number, outcome in zip(todo, track(found, progress, "fields", len(todo)), strict=True):
            outcomes[images[number]] = (
                replace(outcome, cells=())  # its scale is all that is needed
                if isinstance(outcome, FieldResult)
                else outcome
            )
    return outcomes


def _checked(item: Field, outcome: FieldOutcome) -> FieldOutcome:
    """Return what came of a field's image; a failure, if it is not the image that was labelled."""
    if isinstance(outcome, FieldResult):
        try:
            check_size(item, (outcome.image.width, outcome.image.height))
        except DataError as error:
            return FieldFailure.from_error(item.path, error)
    return outcome


def _scaled(
    dataset: Dataset, outcomes: Sequence[FieldOutcome | None]
) -> tuple[tuple[Field, ...], ScalingResult]:
    """Return the fields that have a scale, and what is to be said of all of them.

    `outcomes` are those of the fields; `None` for one that keeps the scale that the set states.
    """
    written: list[Field] = []
    scales: list[FieldScale] = []
    left_out: list[Path] = []
    implausible: list[Path] = []
    contradicted: list[Path] = []
    failures: list[FieldFailure] = []
    groups = _Groups(dataset.fields)
    for before, outcome in zip(dataset.fields, outcomes, strict=True):
        if isinstance(outcome, FieldFailure):
            failures.append(outcome)
            continue
        item = before
        origin: Origin = "stated"
        if outcome is not None:
            item, origin = with_scale(before, outcome), origin_of(outcome)
            if origin == "assumed":
                left_out.append(item.path)
                continue
            if is_implausible(item, dataset.taxonomy, (outcome.image.width, outcome.image.height)):
                implausible.append(item.path)
            if issue_codes.SCALE_CONFLICT in codes(outcome.issues):
                contradicted.append(item.path)
        written.append(item)
        scales.append(_scale_of(item, groups.name_of(item), origin))
    return tuple(written), ScalingResult(
        tuple(scales), tuple(left_out), tuple(implausible), tuple(contradicted), tuple(failures)
    )


def _scale_of(item: Field, group: str, origin: Origin) -> FieldScale:
    um_per_px = item.domain.um_per_px
    assert um_per_px is not None  # measured, or stated by the set
    return FieldScale(item.path, group, origin, um_per_px, item.domain.pixel_aspect_ratio or 1.0)


class _Groups:
    """Names for people of fields that come from one microscope and lie in one folder."""

    def __init__(self, fields: Sequence[Field]) -> None:
        folders = {f.path.parent for f in fields}
        try:
            self.root = Path(os.path.commonpath(folders)).parent
        except ValueError:  # of several drives
            self.root = Path()

    def name_of(self, item: Field) -> str:
        folder = item.path.parent
        if folder.is_relative_to(self.root):
            folder = folder.relative_to(self.root)
        microscope = item.domain.name
        return f"{folder}" if microscope == "unknown" else f"{microscope}, {folder}"


def _issues(result: ScalingResult) -> list[Issue]:
    """Return what a person should know of fields without a scale, or with a doubtful one."""
    found = []
    if result.left_out:
        message = (
            f"{plural(len(result.left_out), 'field')} left out, whose scale can only be assumed: "
            f"{_listed(result.left_out)}"
        )
        found.append(_of(issue_codes.SCALE_ASSUMED, message, result.left_out))
    if result.implausible:
        least, largest = SIZES_UM
        message = (
            f"{plural(len(result.implausible), 'field')} where a {NUCLEATED} would be under "
            f"{least:g} or over {largest:g} um across: the scale may be wrong; look at "
            f"{_listed(result.implausible)}"
        )
        found.append(_of(issue_codes.SCALE_UNCERTAIN, message, result.implausible))
    return found


def _of(code: str, message: str, paths: Sequence[Path]) -> Issue:
    return issue(code, message, paths=[str(path) for path in paths])


def _listed(paths: Sequence[Path]) -> str:
    more = len(paths) - MOST_NAMED
    names = ", ".join(map(str, paths[:MOST_NAMED]))
    return names if more <= 0 else f"{names} and {more} more"


def _why_none(place: Path, result: ScalingResult) -> str:
    """Return, in a line, why no field of a set has a scale."""
    parts = []
    if result.left_out:
        parts.append(f"the scale of {plural(len(result.left_out), 'field')} can only be assumed")
    if result.failures:
        parts.append(f"{plural(len(result.failures), 'file')} cannot be used")
    return f"{place}: no field has a scale: {', '.join(parts)}"
