"""With a bundle: nucleated cells that a model finds and nobody marked."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bloodfilm.audit.nuclei import Chromatin
from bloodfilm.core import Box
from bloodfilm.core.arrays import BoxArray
from bloodfilm.core.boxes import intersection
from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.core.issues import Severity
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import FieldResult
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.model import Model, load_model
from bloodfilm.inference.runner import analyze_many

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
        bundle: a folder, or the name of a shipped bundle, unless there is a folder of that name.
        chromatin: of the fields in which colour separates nuclei from red cells.
        progress: follows the fields that are analysed.

    Raises:
        BundleError: if the bundle cannot be used.
    """
    model = load_model(bundle)
    classified = model.classified_type
    outcomes = _analysed(table, model)
    total = sum(row.is_on_disk for row in table.rows)
    stage = "looking for unmarked cells"
    for number, result in track(outcomes, progress or NoProgress(), stage, total):
        boxes = np.nan_to_num(table.box[table.cells_of(number)])
        for cell in result.cells:
            score = cell.confidence
            if cell.object_type != classified or score < MIN_SCORE or _is_covered(cell.box, boxes):
                continue
            message = f"the model finds a {classified} ({cell.label}, {score:.2f}) without a box"
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
                file=table.rows[number].path,
                advice="look at it: box it, or mark it `none`",
                confidence=confidence,
                boxes=(cell.box,),
            )


def _analysed(table: CellTable, model: Model) -> Iterator[tuple[int, FieldResult]]:
    """Yield (number of the field, result) as an analysis of the files gives them.

    Scale is pooled by folder, and measured unless the data set provides it. What cannot be opened
    is left out: the survey reports it.
    """
    numbers = [number for number, row in enumerate(table.rows) if row.is_on_disk]
    outcomes = analyze_many(
        [Path(table.rows[number].path) for number in numbers],
        model,
        prior=[ScalePrior.of_domain(table.rows[number].domain) for number in numbers],
    )
    for number, outcome in zip(numbers, outcomes, strict=True):
        if isinstance(outcome, FieldResult):
            yield number, outcome


def _is_covered(box: Box, boxes: BoxArray) -> bool:
    area = max(box[2] * box[3], 1e-9)
    return len(boxes) > 0 and float(intersection([box], boxes).max()) > COVERED * area
