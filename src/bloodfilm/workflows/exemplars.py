"""Describe training cells of a bundle, so that classes can be added to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.workflows.outputs import (
    check_data_folder,
    check_new_folder,
    hold_folder,
    refuse_bundle_itself,
)

PER_LABEL = 120


@dataclass(frozen=True, kw_only=True)
class ExemplarJob:
    """Which bundle to describe cells for.

    Attributes:
        bundle: folder or name of the bundle.
        data: folder from which the data paths of its training start.
        out: folder of the new bundle.
        per_label: the most cells of a class, or of a group of classes, that are described.
    """

    bundle: Path
    data: Path
    out: Path
    per_label: int = PER_LABEL


@dataclass(frozen=True)
class ExemplarResult:
    """The new bundle, the cells that it describes by label, and the bytes they take."""

    out: Path
    labels: Mapping[str, int]
    size: int


def add_exemplars(job: ExemplarJob, progress: Progress | None = None) -> ExemplarResult:
    """Write a copy of a bundle with descriptions of cells it was trained on.

    Raises:
        BloodfilmError: if the bundle, its training data or the folder cannot be used.
    """
    from bloodfilm.export.exemplars import EXEMPLARS_FILE, collect_exemplars, write_with_exemplars

    check_data_folder(job.data)
    if job.per_label < 1:
        raise ConfigError(f"per_label {job.per_label}: describe one cell of a class or more")
    bundle = load_bundle(job.bundle)
    refuse_bundle_itself(job.out, bundle.path)
    check_new_folder(job.out)
    exemplars = collect_exemplars(bundle, job.data, job.per_label, progress or NoProgress())
    with hold_folder(job.out, "exemplars"):
        manifest = write_with_exemplars(bundle, exemplars, job.out)
    spec = manifest.exemplars
    assert spec is not None
    return ExemplarResult(job.out, spec.labels, (job.out / EXEMPLARS_FILE).stat().st_size)
