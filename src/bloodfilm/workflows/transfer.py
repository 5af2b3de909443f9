"""Transfer a data set's annotations to other images of the same fields."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bloodfilm import __version__
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.dataset_codes import NOT_TRANSFERRED, dataset_issue
from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.files import write_json
from bloodfilm.core.issues import Issue
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.formats import WRITERS, open_dataset, save_dataset
from bloodfilm.imaging.discovery import find_images
from bloodfilm.registration.pairing import by_name, from_file
from bloodfilm.registration.transfer import Transfer, TransferRecord
from bloodfilm.registration.visualize import draw
from bloodfilm.workflows.outputs import hold_folder, require_extra

RECORD = "transfer.json"


@dataclass(frozen=True, kw_only=True)
class TransferJob:
    """What to transfer, and how pairs are found.

    Attributes:
        source: the annotated data set.
        targets: images, or folders of them.
        out: the folder for results.
        to: the format to write.
        match: pairs by file `name`, or by `content` (slow).
        pairs: a CSV file of pairs in columns source, target.
        min_confidence: pairs less sure than this are refused, [0, 1].
        pictures: folder for a picture of every pair.
        source_format: of the labels, if it is not recognised.
        labels: which of LLD's labels.
        copy_images: whether the targets are copied into `out`.
        overwrite: replace files of the same name.
    """

    source: Path
    targets: Sequence[Path]
    out: Path
    to: str = "bloodfilm"
    match: str = "name"
    pairs: Path | None = None
    min_confidence: float = 0.5
    pictures: Path | None = None
    source_format: str | None = None
    labels: str | None = None
    copy_images: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class TransferResult:
    """What was transferred.

    Attributes:
        records: one per target, in order.
        min_confidence: below which pairs were refused.
        losses: what the format that was written could not carry.
        path: the file of the records.
    """

    records: Sequence[TransferRecord]
    min_confidence: float
    losses: Sequence[Issue]
    path: Path

    @property
    def aligned(self) -> int:
        """How many targets got annotations."""
        return sum(r.alignment.aligned for r in self.records)

    def to_json(self) -> dict[str, Any]:
        """Return the records as plain data."""
        cells: Counter[str] = Counter()
        for record in self.records:
            if record.counts is not None:
                cells.update(asdict(record.counts))
        return {
            "program": f"bloodfilm {__version__}",
            "targets": len(self.records),
            "aligned": self.aligned,
            "min_confidence": self.min_confidence,
            "cells": dict(cells),
            "pairs": [record.to_json() for record in self.records],
        }


def transfer(job: TransferJob, progress: Progress | None = None) -> TransferResult:
    """Register every pair and write the targets with the annotations that could be transferred."""
    progress = progress or NoProgress()
    if job.to.replace("-", "_") not in WRITERS:
        raise ConfigError(f"format {job.to}: choose from {', '.join(WRITERS)}")
    if job.to == "index":
        require_extra("pyarrow")
    if job.match not in ("name", "content"):
        raise ConfigError(f"match {job.match}: choose name or content")
    if (job.out / RECORD).exists() and not job.overwrite:
        raise OutputError(f"{job.out / RECORD}: exists", ["other-output", "overwrite"])
    dataset = open_dataset(
        job.source, job.source_format, **({"labels": job.labels} if job.labels else {})
    )
    images = find_images(job.targets)
    pairs = _pairs(dataset, images, job)
    with hold_folder(job.out, "transfer"):
        work = Transfer(dataset, images, pairs, job.min_confidence)
        work.measure(progress)
        cells = {field.path: field.cells for field in work.fields}
        for record in track(work, progress, "aligning", len(images)):
            if job.pictures is not None and record.source is not None:
                draw(record, cells[record.source], job.pictures)
        how: Literal["copy"] | None = "copy" if job.copy_images else None
        if len(work.dataset):
            losses = save_dataset(
                work.dataset, job.out, job.to, overwrite=job.overwrite, images=how
            )
        else:
            what = "nothing could be transferred: no data set is written"
            losses = [dataset_issue(NOT_TRANSFERRED, what)]
        result = TransferResult(work.records, job.min_confidence, losses, job.out / RECORD)
        write_json(result.path, result.to_json())
    return result


def _pairs(
    dataset: Dataset, images: Sequence[Path], job: TransferJob
) -> list[tuple[int, int]] | None:
    """Return pairs of (field, image); `None` where they are to be found by content."""
    sources = [field.path for field in dataset]
    if job.pairs is not None:
        return from_file(job.pairs, sources, list(images))
    if job.match == "content":
        return None
    found = by_name(sources, images)
    if not found:
        raise DataError(
            f"no target is named like a field of {dataset.name} (LLD: patient_field_..., else the "
            "same stem); list the pairs in a file, or match by content"
        )
    return found
