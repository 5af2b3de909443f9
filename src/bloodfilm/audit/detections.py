"""With a bundle: what a model finds and nobody marked, and what was marked where it finds none."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bloodfilm.audit.cell_table import Table
from bloodfilm.audit.finding import Finding, Severity
from bloodfilm.audit.nuclei import Chromatin, holds_nucleus
from bloodfilm.core import BloodfilmError, Domain
from bloodfilm.core.boxes import intersection
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.bundle import default_bundle, load_bundle

COVERED = 0.3  # share of a detection that lies on boxes
SURE_SCORE = 0.6
LOOK: Severity = "warning"
KNOW: Severity = "info"


def detected(
    table: Table,
    bundle: Path,
    told: Mapping[int, Chromatin],
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Yield nucleated cells that a bundle finds where no box is.

    Where colour tells nuclei from red cells (`told`, by field), it is asked too: a detection
    without anything as dark as a nucleus in it is a remark, and half as sure.

    `default` is the shipped bundle, unless there is a folder of that name. `BundleError` if the
    bundle cannot be used. Ignored boxes count as marked.
    """
    shipped = bundle == Path("default") and not bundle.exists()
    analyzer = Analyzer(default_bundle() if shipped else load_bundle(bundle))
    classified = analyzer.bundle.manifest.roles.classified
    rows = track(
        table.rows, progress or NoProgress(), "looking for unmarked cells", len(table.rows)
    )
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
            if cell.object_type != classified or cell.confidence < SURE_SCORE:
                continue
            area = max(cell.box[2] * cell.box[3], 1e-9)
            if len(boxes) and float(intersection([cell.box], boxes).max()) > COVERED * area:
                continue
            score = f"{cell.confidence:.2f}"
            what = f"the model finds a nucleated cell ({cell.label}, {score}) without a box"
            hint = "look at it: box it, or mark it `none`"
            sure, severity = min(0.95, cell.confidence), LOOK
            if number in told and not holds_nucleus(told[number], cell.box):
                what += ", but nothing in it is as dark as a nucleus"
                sure, severity = sure / 2, KNOW
            yield Finding(
                "unmarked white cell", severity, row.path, what, hint, sure, boxes=(cell.box,)
            )
