"""Plan which regions of fields to annotate; count what annotating regions costs and saves."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bloodfilm.active_learning.budget import Budget, expected, plan_within
from bloodfilm.active_learning.costs import Cost, Rates, cost_of
from bloodfilm.active_learning.fields import blob_scores, bundle_scores, plan_dataset
from bloodfilm.active_learning.plan_files import NATIVE, write_plan
from bloodfilm.active_learning.planning import PLANNERS, RegionScores
from bloodfilm.core.dataset_codes import PLANNED
from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.issues import codes
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import FieldFailure
from bloodfilm.formats import open_dataset
from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.workflows.analyze import failed
from bloodfilm.workflows.outputs import check_can_hold, hold_folder


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """Which fields to plan for, and how much may be annotated.

    Attributes:
        folder: unlabelled fields.
        out: the folder for the plan.
        budget: `10%` of the area, `30min` or `2h`.
        by: `uncertainty`, `random` or `cells`.
        bundle: model that is asked; `None` for the shipped one, for cells dark spots.
        um_per_px: micrometres per pixel along y, where known.
        pixel_aspect_ratio: width / height of a round cell in pixels, where known.
        rates: annotation time.
        seed: of what is random.
        overwrite: replace a plan in `out`.
    """

    folder: Path
    out: Path
    budget: str = "10%"
    by: str = "uncertainty"
    bundle: Path | None = None
    um_per_px: float | None = None
    pixel_aspect_ratio: float | None = None
    rates: Rates = field(default_factory=Rates)
    seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class PlanResult:
    """What was planned.

    Attributes:
        fields: how many fields could be opened.
        regions: in how many of them something is to be annotated.
        area_share: of all fields' area.
        expected_cells: in the regions.
        total_cells: expected in all fields.
        minutes: annotation time.
        failures: files that could not be opened.
        counted: what the expected cells are: all that a model finds, red cells too, or nuclei.
    """

    fields: int
    regions: int
    area_share: float
    expected_cells: float
    total_cells: float
    minutes: float
    failures: Sequence[FieldFailure]
    counted: str


def plan(job: PlanJob, progress: Progress | None = None) -> PlanResult:
    """Choose a region of each field and write the plan; files that fail are left out and named."""
    progress = progress or NoProgress()
    planner = next((p for p in PLANNERS if p == job.by), None)
    if planner is None:
        raise ConfigError(f"planner {job.by}: choose from {', '.join(PLANNERS)}")
    if (job.out / NATIVE).exists() and not job.overwrite:
        raise OutputError(f"{job.out}: holds a plan", ["other-output", "overwrite"])
    budget, provided = (
        Budget.parse(job.budget),
        ScalePrior(job.um_per_px, job.pixel_aspect_ratio),
    )
    paths = find_images([job.folder])
    if job.bundle is None and planner != "uncertainty":
        gathered, counted = blob_scores(paths), "nuclei, by their colour"
    else:
        asked = default_bundle() if job.bundle is None else load_bundle(job.bundle)
        gathered = bundle_scores(paths, asked, provided)
        counted = f"cells of all types ({', '.join(asked.manifest.object_types)})"
    check_can_hold(job.out)
    opened: dict[Path, RegionScores] = {}
    failures: list[FieldFailure] = []
    followed = track(gathered, progress, "fields", len(paths))
    for path, outcome in zip(paths, followed, strict=True):
        if isinstance(outcome, RegionScores):
            opened[path] = outcome
        else:
            failures.append(outcome)
            progress.report(failed(outcome))
    if not opened:
        raise DataError(f"{job.folder}: none of its {len(paths)} files could be opened; see above")
    scores = list(opened.values())
    shares, regions = plan_within(scores, budget, job.rates, planner, job.seed)
    dataset = plan_dataset(list(opened), scores, regions, job.folder.name)
    with hold_folder(job.out, "annotation plan"):
        write_plan(dataset, job.out, job.overwrite)
    cells, marked = expected(scores, regions), sum(s > 0 for s in shares)
    return PlanResult(
        len(opened),
        marked,
        sum(shares) / max(len(shares), 1),
        cells,
        float(sum(e.cells.sum() for e in scores)),
        job.rates.minutes(cells, marked),
        failures,
        counted,
    )


def annotation_cost(
    dataset: Path, rates: Rates, full: Path | None = None, format: str | None = None
) -> Cost:
    """Count what annotating only regions of a data set took, and what it saved.

    Args:
        dataset: the annotated data set.
        rates: annotation time.
        full: the same fields, annotated in full.
        format: of the labels, if it is not recognised.
    """
    whole = None if full is None else open_dataset(full, format)
    opened = open_dataset(dataset, format)
    return replace(cost_of(opened, rates, whole), planned=PLANNED in codes(opened.issues))
