"""With a bundle: nucleated cells that a model finds and nobody marked."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bloodfilm.audit.nuclei import Chromatin
from bloodfilm.core import BloodfilmError, Box, Domain
from bloodfilm.core.arrays import BoxArray
from bloodfilm.core.boxes import intersection
from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.core.issues import Severity
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.bundle import default_bundle, load_bundle

COVERED = 0.3  # share of a detection that lies on boxes
MIN_SCORE = 0.6


def unmarked_by_model(
    table: CellTable,
    bundle: Path,
    chromatin: Mapping[int, Chromatin],
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Yield nucleated cells that a bundle finds where no box is.

    Where colour separates nuclei from red cells, a detection without anything as dark as a nucleus
    in it is a remark, of half the confidence. Ignored boxes count as marked.

    Args:
        table: the fields to analyse.
        bundle: a folder; `default` is the shipped bundle, unless there is a folder of that name.
        chromatin: of the fields in which colour separates nuclei from red cells.
        progress: told how many fields are done.

    Raises:
        BundleError: if the bundle cannot be used.
    """
    progress = progress or NoProgress()
    shipped = bundle == Path("default") and not bundle.exists()
    analyzer = Analyzer(default_bundle() if shipped else load_bundle(bundle))
    classified = analyzer.bundle.manifest.roles.classified
    rows = track(table.rows, progress, "looking for unmarked cells", len(table.rows))
    for number, row in enumerate(rows):
        if not row.present:
            continue
        stated = row.domain if row.domain != Domain() else None
        try:
            result = analyzer.analyze(open_image(row.path), row.path, stated)
        except BloodfilmError:
            continue  # the survey reports what cannot be opened
        boxes = np.nan_to_num(table.box[table.cells_of(number)])
        for cell in result.cells:
            score = cell.confidence
            if cell.object_type != classified or score < MIN_SCORE or _is_covered(cell.box, boxes):
                continue
            message = f"the model finds a nucleated cell ({cell.label}, {score:.2f}) without a box"
            severity: Severity = "warning"
            confidence = min(0.95, score)
            data = {"found_by": "model", "class": cell.label, "score": round(score, 4)}
            if number in chromatin and not chromatin[number].holds_nucleus(cell.box):
                message += ", but nothing in it is as dark as a nucleus"
                severity, confidence = "info", confidence / 2
            yield Finding(
                "unmarked-white-cell",
                severity,
                message,
                data,
                file=row.path,
                advice="look at it: box it, or mark it `none`",
                confidence=confidence,
                boxes=(cell.box,),
            )


def _is_covered(box: Box, boxes: BoxArray) -> bool:
    area = max(box[2] * box[3], 1e-9)
    return len(boxes) > 0 and float(intersection([box], boxes).max()) > COVERED * area
