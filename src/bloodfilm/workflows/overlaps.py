"""Find fields that show the same glass, and name every physical cell once."""

from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core.progress import Progress
from bloodfilm.duplicates.identity import CellIdentities, identify, with_identities
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.formats.parquet.columns import table_of
from bloodfilm.workflows.outputs import refuse_inputs, require_extra, write_json_output
from bloodfilm.workflows.split import is_index


@dataclass(frozen=True, kw_only=True)
class OverlapsJob:
    """Where to look for common glass, and what to write.

    Attributes:
        root: the data set.
        json: pairs and physical cells.
        dataset: the set with each cell named by the physical cell it is: JSON, or `.parquet`.
        subsets: whether images of one field in several subsets are registered.
        thorough: whether all fields are compared at all shifts, however many there are.
        format: of the labels, if it is not recognised.
    """

    root: Path
    json: Path | None = None
    dataset: Path | None = None
    subsets: bool = True
    thorough: bool = False
    format: str | None = None


def find_overlaps(job: OverlapsJob, progress: Progress | None = None) -> CellIdentities:
    """Find overlapping fields and repeated cells; write what the job names."""
    if is_index(job.dataset):
        require_extra("pyarrow")
    refuse_inputs((job.json, job.dataset), [job.root])
    opened = open_dataset(job.root, job.format)
    refuse_inputs((job.json, job.dataset), (item.path for item in opened))
    found = identify(table_of(opened), progress, thorough=job.thorough, reacquired=job.subsets)
    if job.json is not None:
        write_json_output(job.json, found.to_json())
    if job.dataset is not None:
        kind = "index" if is_index(job.dataset) else "bloodfilm"
        save_dataset(with_identities(opened, found), job.dataset, kind, overwrite=True)
    return found
