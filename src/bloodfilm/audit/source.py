"""Open what is to be audited: LLD's labels as they stand, data sets of other formats as read."""

from dataclasses import dataclass, field
from pathlib import Path

from bloodfilm.audit.lld_labels import judge
from bloodfilm.core import DataError
from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.formats import detect, open_dataset
from bloodfilm.formats.lld.raw import RawLabels, read_raw
from bloodfilm.formats.parquet.columns import table_of


@dataclass
class AnnotationSource:
    """A data set as the audit sees it.

    Attributes:
        table: its fields and cells.
        findings: on the label files themselves.
        labels: the label files, if they are of LLD's layout.
    """

    table: CellTable
    findings: list[Finding] = field(default_factory=list)
    labels: RawLabels | None = None


def open_source(
    path: Path, format: str | None = None, labels: str | None = None
) -> AnnotationSource:
    """Open a data set for an audit: LLD's labels as they stand, other formats by their reader.

    Args:
        path: a file or a folder.
        format: its format, if it is not to be recognised.
        labels: of LLD: which labels to take, as its reader has it.

    Raises:
        DataError: if nothing is recognised or a label file is ill-formed.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist; check the path")
    name = format or detect(path)
    if name == "lld" and path.is_dir() and labels in (None, "json"):
        raw = read_raw(path)
        if raw.json or (labels is None and any(folder.files for folder in raw.texts)):
            table, findings = judge(raw)
            return AnnotationSource(table, findings, raw)
    options = {} if labels is None else {"labels": labels}
    dataset = open_dataset(path, name, missing="keep", **options)
    return AnnotationSource(table_of(dataset))
