"""Split data sets into train, val and test: a split file, and the fields with their splits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bloodfilm.audit import open_source
from bloodfilm.core import Dataset
from bloodfilm.core.progress import Progress
from bloodfilm.duplicates.common_content import overlapping_fields
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.splits.planning import SplitPlan, plan_split
from bloodfilm.splits.split_file import Split, apply_split
from bloodfilm.workflows.audit import images_of
from bloodfilm.workflows.outputs import refuse_inputs, require_extra, write_json_output


@dataclass(frozen=True, kw_only=True)
class SplitJob:
    """What to split, how, and what to write.

    Attributes:
        roots: data sets, split together.
        out: the split file (JSON).
        plan: shares, seed, what is left out.
        content: whether fields that show common glass are kept together, too.
        dataset: also write the fields with their splits: JSON, or an index (`.parquet`).
        format: of the labels, if it is not recognised.
    """

    roots: Sequence[Path]
    out: Path
    plan: SplitPlan = field(default_factory=SplitPlan)
    content: bool = False
    dataset: Path | None = None
    format: str | None = None


@dataclass(frozen=True)
class SplitResult:
    """The split that was made, and how many fields went to the data set (0 if none was asked)."""

    split: Split
    written: int = 0


def split(job: SplitJob, progress: Progress | None = None) -> SplitResult:
    """Split by patient over all data sets, spread classes evenly, refuse to leak."""
    if is_index(job.dataset):
        require_extra("pyarrow")
    refuse_inputs((job.out, job.dataset), job.roots)
    tables = [open_source(root, job.format).table for root in job.roots]
    refuse_inputs((job.out, job.dataset), images_of(tables))
    pairs = [overlapping_fields(t, progress) for t in tables] if job.content else []
    made = plan_split(tables, job.plan, pairs)
    write_json_output(job.out, made.to_json(job.out.parent))
    if job.dataset is None:
        return SplitResult(made)
    return SplitResult(made, _write_dataset(job.dataset, job, made))


def is_index(path: Path | None) -> bool:
    """Return whether a data set of this name is written as an index (Parquet)."""
    return path is not None and path.suffix == ".parquet"


def _write_dataset(path: Path, job: SplitJob, made: Split) -> int:
    """Write the fields of all data sets with their new splits; return how many there are."""
    parts = [apply_split(open_dataset(root, job.format), made) for root in job.roots]
    joined = Dataset.concat(parts)
    if is_index(path):  # field by field: it may be larger than memory
        from bloodfilm.formats.parquet import index

        index.write_fields(joined, path, index.Header.of(joined), overwrite=True)
    else:
        save_dataset(joined, path, "bloodfilm", overwrite=True)
    return len(joined)
