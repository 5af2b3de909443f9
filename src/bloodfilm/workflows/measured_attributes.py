"""Let the attributes of a bundle follow measured shape and colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.workflows.outputs import (
    check_data_folder,
    check_new_folder,
    hold_folder,
    refuse_bundle_itself,
)


@dataclass(frozen=True, kw_only=True)
class MeasuredJob:
    """Which bundle gets measured attributes.

    Attributes:
        bundle: folder or name of the bundle.
        data: folder from which the data paths of its training start.
        out: folder of the new bundle.
        attributes: which ones; none means all that enough cells are measured of.
        calibration: a record with temperatures fitted on patients left out of training; `None` fits
            them on patients that the classifier has seen.
    """

    bundle: Path
    data: Path
    out: Path
    attributes: Sequence[str] = ()
    calibration: Path | None = None


@dataclass(frozen=True)
class MeasuredResult:
    """The new bundle, and what became of the attributes.

    Attributes:
        out: the bundle.
        attributes: by name, the cells it was fitted to and its temperature.
        alone: those that are better left to the network.
    """

    out: Path
    attributes: Mapping[str, tuple[int, float]]
    alone: tuple[str, ...]


def measure_attributes(job: MeasuredJob, progress: Progress | None = None) -> MeasuredResult:
    """Write a copy of a bundle whose attributes follow measured shape and colour.

    Raises:
        BloodfilmError: if the bundle, its training data or the folder cannot be used.
    """
    from bloodfilm.export.measured_attributes import (
        NO_CALIBRATION,
        fit_bundle,
        read_measured_calibration,
        write_with_measured,
    )

    check_data_folder(job.data)
    bundle = load_bundle(job.bundle)
    refuse_bundle_itself(job.out, bundle.path)
    check_new_folder(job.out)
    calibration = (
        NO_CALIBRATION if job.calibration is None else read_measured_calibration(job.calibration)
    )
    fitted = fit_bundle(bundle, job.data, job.attributes, calibration, progress or NoProgress())
    with hold_folder(job.out, "attributes"):
        write_with_measured(bundle, fitted.spec, job.out, calibration)
    models = fitted.spec.attributes.items()
    found = {name: (model.cells, model.temperature) for name, model in models}
    return MeasuredResult(job.out, found, fitted.alone)
