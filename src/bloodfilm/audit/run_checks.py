"""The audit itself: which checks there are, in what order they run, and on what."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.audit import boxes, confounding, groups, image_quality, nuclei
from bloodfilm.audit.cell_table import Table, table_of
from bloodfilm.audit.detections import detected
from bloodfilm.audit.finding import Finding, order
from bloodfilm.audit.image_statistics import Survey, survey
from bloodfilm.audit.labels import AnnotationSource, read_labels
from bloodfilm.audit.texts import check_texts
from bloodfilm.core import DataError, Dataset
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.duplicates import common_content
from bloodfilm.formats import detect, open_dataset

"""Called with (what is being done, how much is done, of how much)."""
Check = Callable[[Table], Iterator[Finding]]

BOX_CHECKS: tuple[Check, ...] = (
    boxes.zero_size,
    boxes.outside,
    boxes.slivers,
    boxes.cut_by_the_edge,
    boxes.repeats_and_conflicts,
)
GROUP_CHECKS: tuple[Callable[[Sequence[Table]], Iterator[Finding]], ...] = (
    groups.missing_images,
    groups.patient_leaks,
    groups.reacquisitions,
    groups.one_slide,
    groups.few_patients,
    groups.to_ignore,
    groups.reader_problems,
)
PIXEL_CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    image_quality.blurred,
    image_quality.squeezed,
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


def open_source(
    path: Path, format: str | None = None, labels: str | None = None
) -> AnnotationSource:
    """Open what is to be audited: LLD's labels as they stand, other formats by their reader.

    `DataError` if nothing is recognised or a label file is ill-formed.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist; check the path")
    name = format or detect(path)
    if name == "lld" and path.is_dir() and labels in (None, "json"):
        source = read_labels(path)
        if source.files or (source.texts and labels is None):
            source.findings += check_texts(source)
            return source
    options = {} if labels is None else {"labels": labels}
    dataset = open_dataset(path, name, missing="keep", **options)
    return AnnotationSource(table_of(dataset))


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
    return order(found)


def _pixels(table: Table, options: Options, progress: Progress) -> Iterator[Finding]:
    seen = survey(table, progress)
    yield from seen.findings
    for check in PIXEL_CHECKS:
        yield from check(seen)
    told = nuclei.find_chromatin(seen)
    yield from nuclei.no_nucleus(seen, told)
    if options.bundle is not None:
        yield from detected(table, options.bundle, told, progress)
    else:
        yield from nuclei.unmarked(seen, told)
    judged = len(told)
    if judged < len(seen.looks):
        what = (
            f"in {len(seen.looks) - judged} of {len(seen.looks)} fields nuclei cannot be told from "
            "red cells by colour, or too few boxes say how nuclei look"
        )
        yield Finding("not checked", "info", table.name, what, "look at those boxes by eye")
    if options.overlaps and len(seen.looks) > 1:
        common = common_content.search(seen, progress, options.thorough)
        yield from common_content.content_findings(seen, common)


def same_glass(
    table: Table, progress: Progress | None = None, thorough: bool = False
) -> list[tuple[int, int]]:
    """Return pairs of fields that show common glass, numbered as in the table."""
    seen = survey(table, progress)
    common = common_content.search(seen, progress, thorough)
    return [(o.first, o.second) for o in common.overlaps]
