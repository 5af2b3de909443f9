"""The audit itself: which checks there are, in what order they run, and on what."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.audit import boxes, confounding, groups, image_quality, nuclei
from bloodfilm.audit.codes import in_order
from bloodfilm.audit.detections import unmarked_by_model
from bloodfilm.audit.image_statistics import Survey, survey_fields
from bloodfilm.audit.source import AnnotationSource
from bloodfilm.core import Dataset
from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.duplicates.common_content import content_findings, find_common_content
from bloodfilm.formats.parquet.columns import table_of

BOX_CHECKS: tuple[Callable[[CellTable], Iterator[Finding]], ...] = (
    boxes.zero_size,
    boxes.outside,
    boxes.slivers,
    boxes.cut_by_the_edge,
    boxes.repeats_and_conflicts,
)
GROUP_CHECKS: tuple[Callable[[Sequence[CellTable]], Iterator[Finding]], ...] = (
    groups.missing_images,
    groups.patient_leaks,
    groups.reacquisitions,
    groups.one_slide,
    groups.few_patients,
    groups.to_ignore,
    groups.reader_issues,
)
PIXEL_CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    image_quality.blurred,
    image_quality.aspect_ratio,
    confounding.confounded,
)


@dataclass(frozen=True)
class Options:
    """What to check.

    Attributes:
        pixels: open the images; without, only labels are checked.
        overlaps: compare the fields' content.
        thorough: compare all fields at all shifts, however many there are.
        bundle: a model to find unmarked cells with.
    """

    pixels: bool = True
    overlaps: bool = True
    thorough: bool = False
    bundle: Path | None = None


def audit(
    datasets: Dataset | AnnotationSource | Sequence[Dataset | AnnotationSource],
    options: Options | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Return everything that is, or may be, wrong with data sets, the worst first.

    Args:
        datasets: one or several; leaks are looked for across all of them.
        options: what to check.
        progress: follows the fields that are looked at and compared.

    Raises:
        BundleError: if a bundle is given and cannot be used.
    """
    listed = [datasets] if isinstance(datasets, Dataset | AnnotationSource) else list(datasets)
    sources = [AnnotationSource(table_of(d)) if isinstance(d, Dataset) else d for d in listed]
    options = options or Options()
    tables = [s.table for s in sources]
    found = [f for s in sources for f in s.findings]
    for table in tables:
        found += [f for check in BOX_CHECKS for f in check(table)]
    found += [f for group_check in GROUP_CHECKS for f in group_check(tables)]
    if options.pixels:
        for table in tables:
            found += _pixels(table, options, progress or NoProgress())
    return in_order(found)


def _pixels(table: CellTable, options: Options, progress: Progress) -> Iterator[Finding]:
    survey = survey_fields(table, progress)
    yield from survey.findings
    for check in PIXEL_CHECKS:
        yield from check(survey)
    chromatin = nuclei.find_chromatin(survey)
    yield from nuclei.no_nucleus(survey, chromatin)
    if options.bundle is not None:
        yield from unmarked_by_model(table, options.bundle, chromatin, progress)
    else:
        yield from nuclei.unmarked(survey, chromatin)
    unjudged = len(survey.fields) - len(chromatin)
    if unjudged:
        message = (
            f"in {unjudged} of {len(survey.fields)} fields nuclei cannot be told from "
            "red cells by colour, or too few boxes say how nuclei look"
        )
        yield Finding(
            "not-checked",
            "info",
            message,
            {"check": "no-nucleus", "fields": unjudged},
            file=table.name,
            advice="look at those boxes by eye",
        )
    if options.overlaps and len(survey.fields) > 1:
        content = find_common_content(survey.fingerprints, progress, options.thorough)
        yield from content_findings(content)
