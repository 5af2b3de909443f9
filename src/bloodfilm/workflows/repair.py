"""Write a repaired copy of a data set's labels; log every change, list what was left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.audit import Options, audit, open_source
from bloodfilm.audit.lld_labels import line_findings
from bloodfilm.core.progress import Progress
from bloodfilm.repair import RepairResult, check_request, repair_labels
from bloodfilm.workflows.outputs import hold_folder


@dataclass(frozen=True, kw_only=True)
class RepairJob:
    """What to repair, and by which rules.

    Attributes:
        root: a data set in LLD's layout; never changed.
        out: a new folder for the copy.
        off: rules not to apply.
        min_confidence: findings of less are left, [0, 1].
        pixels: whether images are opened, too.
        link_images: whether the image folders are linked into the copy.
    """

    root: Path
    out: Path
    off: Sequence[str] = ()
    min_confidence: float = 0.85
    pixels: bool = True
    link_images: bool = True


def repair(job: RepairJob, progress: Progress | None = None) -> RepairResult:
    """Audit a data set and write a copy of its labels with what can be repaired repaired."""
    source = open_source(job.root)
    labels = check_request(source.labels, job.root, job.out, job.off)
    with hold_folder(job.out, "repair"):
        check_request(labels, job.root, job.out)  # another process may have been there
        findings = audit(source, Options(pixels=job.pixels), progress)
        return repair_labels(
            labels,
            findings,
            job.out,
            line_findings=line_findings(labels),
            off=job.off,
            min_confidence=job.min_confidence,
            link_images=job.link_images,
        )
