"""Export two training runs as a bundle that can be analysed with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import read_regular_file
from bloodfilm.workflows.outputs import check_can_hold, hold_folder

if TYPE_CHECKING:
    from bloodfilm.export.outlines import OutlinePart

MAX_NOTES_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """Which runs to export, and what the bundle says of itself.

    Attributes:
        detector: folder of a detector's run, or of a bundle whose detector is taken over.
        classifier: folder of a classifier's run.
        out: the bundle's folder.
        data: folder from which the runs' data paths start.
        name: what results call the bundle.
        licence: of the weights.
        int8: whether the networks are stored in eight-bit integers.
        priors: by class, how much rarer than in training it is in use.
        calibration: a record with a class calibration fitted on sites left out of training.
        operating_point: a configuration of the sites on which evidence is weighed and the threshold
            of white cells is chosen, or `default`; `None` takes the detector's validation fields.
        metrics: records of evaluations to keep in the bundle.
        notes: a Markdown file that ends the model card.
        films: whether stain and optics of the training films are measured, so that films far from
            all of them are noticed.
        outlines: folder of an outline network's run, or of a bundle whose outline network is taken
            over; `None` takes that of the shipped bundle.
        without_outlines: leave outlines out.
        diameters: attribute whose values follow the measured diameter, as the training cells'
            do; `None`: none.
    """

    detector: Path
    classifier: Path
    out: Path
    data: Path
    name: str = "bloodfilm"
    licence: str = "not stated"
    int8: bool = False
    priors: Mapping[str, float] = field(default_factory=dict)
    calibration: Path | None = None
    operating_point: Path | None = None
    metrics: Sequence[Path] = ()
    notes: Path | None = None
    films: bool = False
    outlines: Path | None = None
    without_outlines: bool = False
    diameters: str | None = None


@dataclass(frozen=True)
class ExportResult:
    """The bundle, its size in bytes, and the largest differences from torch by output."""

    path: Path
    size: int
    parity: Mapping[str, float]


def export(job: ExportJob) -> ExportResult:
    """Write a bundle: ONNX graphs compared with torch, manifest, model card."""
    from bloodfilm.export.diameters import add_diameters
    from bloodfilm.export.film_statistics import add_film_statistics
    from bloodfilm.export.manifest_writer import BundleInfo, refuse_other_content
    from bloodfilm.export.operating_point import load_operating_point
    from bloodfilm.export.outlines import set_outlines
    from bloodfilm.export.publish import export_bundle, read_calibration, read_evaluations
    from bloodfilm.export.trained import IntendedUse

    if not job.data.is_dir():
        raise ConfigError(f"{job.data}: no such folder; name the one the data paths start from")
    notes = "" if job.notes is None else _read_text(job.notes)
    check_can_hold(job.out)
    refuse_other_content(job.out)
    info = BundleInfo(job.name, job.licence, notes, read_evaluations(job.metrics))
    calibration = None if job.calibration is None else read_calibration(job.calibration)
    operating_point = (
        None if job.operating_point is None else load_operating_point(job.operating_point)
    )
    outlines = _outlines(job)
    with hold_folder(job.out, "export"):
        parity = export_bundle(
            job.detector,
            job.classifier,
            job.data,
            job.out,
            info,
            int8=job.int8,
            use=IntendedUse(job.priors, calibration, operating_point),
        )
        if job.films:
            add_film_statistics(job.out, job.data)
        set_outlines(job.out, outlines, notes)
        if job.diameters is not None:
            add_diameters(job.out, job.data, job.diameters)
    size = sum(f.stat().st_size for f in job.out.iterdir() if f.is_file())
    return ExportResult(job.out, size, parity)


def _outlines(job: ExportJob) -> "OutlinePart":
    from bloodfilm.export.outlines import NO_OUTLINES, open_outlines
    from bloodfilm.inference.bundle import default_bundle

    if job.without_outlines:
        if job.outlines is not None:
            raise ConfigError("--no-outlines: leave --outlines out, or take an outline network")
        return NO_OUTLINES
    if job.outlines is not None:
        return open_outlines(job.outlines, int8=job.int8)
    shipped = default_bundle()
    return NO_OUTLINES if shipped.manifest.outlines is None else open_outlines(shipped.path)


def _read_text(path: Path) -> str:
    try:
        return read_regular_file(path, MAX_NOTES_BYTES).decode("utf-8")
    except DataError as error:
        raise ConfigError(str(error)) from None
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
