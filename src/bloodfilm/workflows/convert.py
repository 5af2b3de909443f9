"""Summarise an annotated data set, or write it in another format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bloodfilm.audit.statistics import summarise
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import DataError
from bloodfilm.core.files import open_output, refuse_inputs
from bloodfilm.core.issues import Issue
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.core.text import plural
from bloodfilm.formats import detect, open_dataset, save_dataset
from bloodfilm.formats.shared.class_names import draft_class_map, read_class_map
from bloodfilm.workflows.outputs import require_extra


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """How to read a data set.

    Attributes:
        path: a file or folder of annotations.
        format: of the labels, if it is not recognised.
        labels: which of LLD's labels.
        clean_splits: take leaking images of txl or pbc out of a split.
        strict: stop at the first fault instead of leaving it out.
        classes: a file that says which classes the set's own names are.
        all_cells: of an analysis, red cells and platelets as well.
    """

    path: Path
    format: str | None = None
    labels: str | None = None
    clean_splits: bool = False
    strict: bool = False
    classes: Path | None = None
    all_cells: bool = False

    def open(self) -> Dataset:
        """Open the data set."""
        options: dict[str, Any] = {"strict": self.strict}
        if self.labels is not None:
            options["labels"] = self.labels
        if self.all_cells:
            options["all_cells"] = True
        if self.clean_splits:
            options["clean_splits"] = True
        if self.classes is not None:
            options["classes"] = read_class_map(self.classes, DEFAULT_TAXONOMY)
        return open_dataset(self.path, self.format, **options)


def summarise_dataset(source: ReadSettings, draft_classes: Path | None = None) -> dict[str, Any]:
    """Count fields, cells, attributes, splits and patients, and list what is wrong.

    Args:
        source: the data set.
        draft_classes: a file to write: a map of its class names that the taxonomy lacks, to be
            filled in.
    """
    if draft_classes is not None:
        refuse_inputs([draft_classes], [source.path])
    dataset = source.open()
    if draft_classes is not None:
        with open_output(draft_classes) as file:
            file.write(draft_class_map(dataset))
    return {"format": source.format or detect(source.path)} | summarise(dataset)


@dataclass(frozen=True, kw_only=True)
class ConversionJob:
    """What to convert, and to what.

    Attributes:
        source: the data set to read.
        target: the file or new folder to write.
        to: the format to write.
        images: whether images are copied or linked into the target; `None` for neither.
        allow_outside: also images that the labels name outside of the source.
        columns: write LLD's text labels of so many columns, not JSON.
        overwrite: replace files of the same name.
        one_based: count VOC's corners from 1, as the VOC challenge does.
        offer_classes: classes that Label Studio's set-up offers, in this order; `None` for all.
        offer_attributes: attributes that it asks for; `None` for all.
    """

    source: ReadSettings
    target: Path
    to: str
    images: Literal["copy", "link"] | None = None
    allow_outside: bool = False
    columns: int | None = None
    overwrite: bool = False
    one_based: bool = False
    offer_classes: Sequence[str] | None = None
    offer_attributes: Sequence[str] | None = None


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote: fields, what the format could not carry, issues of the source."""

    fields: int
    losses: Sequence[Issue]
    issues: Sequence[Issue]


def convert(job: ConversionJob) -> Conversion:
    """Read a data set and write it in another format.

    Raises:
        DataError: if no field could be read, naming the first problem.
    """
    if job.to in ("index", "parquet"):
        require_extra("pyarrow")
    dataset = job.source.open()
    if not len(dataset):
        first = f": {dataset.issues[0]}" if dataset.issues else ""
        count = plural(len(dataset.issues), "issue")
        raise DataError(
            f"{job.source.path}: no field of it can be used, so nothing is written; {count}{first}"
        )
    options: dict[str, Any] = {"overwrite": job.overwrite}
    options["allow_outside"] = job.allow_outside
    options["images"] = job.images
    if job.columns is not None:
        options |= {"labels": "text", "columns": job.columns}
    if job.one_based:
        options["one_based"] = True
    if job.offer_classes is not None:
        options["offer_classes"] = job.offer_classes
    if job.offer_attributes is not None:
        options["offer_attributes"] = job.offer_attributes
    losses = save_dataset(dataset, job.target, job.to, **options)
    return Conversion(len(dataset), tuple(losses), dataset.issues)
