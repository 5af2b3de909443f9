"""The reader alone: crops centred on true cells, so that no detection stands in between."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Box, Cell, Field
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.evaluation.cell_matching import NUCLEATED, MatchedCells, Pair, is_readable
from bloodfilm.imaging.canonical import CanonicalView, view_of
from bloodfilm.imaging.illumination import EVEN
from bloodfilm.imaging.scale import Pooled, measure, measure_fields
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import Bundle
from bloodfilm.inference.classifier import CellClassification, CellClassifier
from bloodfilm.inference.graph_run import run_graph

Pixels = NDArray[np.uint8]
Stated = Callable[[Field], Domain | None]

BATCH = 64
POOL_SAMPLE = 24
RULE = "crops centred on true boxes, or on the image's centre where there is none; no detection"


def read_true_cells(
    fields: Sequence[Field],
    bundle: Bundle,
    taxonomy: Taxonomy,
    stated: Stated = lambda _: None,
    device: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[MatchedCells, dict[str, str]]:
    """Read every true nucleated cell; also returns the fields that could not be read, and why.

    Scale and white point come from each field's own red cells and, as in an analysis, from those
    of `POOL_SAMPLE` fields of its folder; `stated` says what is told of a field beforehand.
    `progress` follows the fields that hold such cells.
    """
    session = bundle.classifier(device, threads)
    reader = CellClassifier(bundle.manifest)
    readable = [[c for c in f.cells if is_readable(c, taxonomy)] for f in fields]
    failures: dict[str, str] = {}
    pairs: list[Pair] = []
    waiting: list[tuple[int, Cell, Box, Pixels]] = []

    def flush() -> None:
        crops = np.stack([crop for *_, crop in waiting])
        shapes = reader.shapes(len(crops))
        outputs = run_graph(session, reader.spec.file, {"crops": crops}, shapes)
        for (i, cell, box, _), reading in zip(waiting, reader.read(*outputs), strict=True):
            pairs.append(Pair(i, cell, _result(box, reading)))
        waiting.clear()

    cuts_of = _crops(fields, readable, reader, stated, failures)
    count = sum(map(bool, readable))
    for cuts in track(cuts_of, progress or NoProgress(), "fields", count):
        waiting.extend(cuts)
        if len(waiting) >= BATCH:
            flush()
    if waiting:
        flush()
    return MatchedCells(tuple(pairs), sum(map(len, readable)), RULE), failures


def _result(box: Box, r: CellClassification) -> CellResult:
    return CellResult(box, 1.0, NUCLEATED, r.label, r.label_score, r.probabilities, r.attributes)


def _crops(
    fields: Sequence[Field],
    readable: Sequence[Sequence[Cell]],
    classifier: CellClassifier,
    stated: Stated,
    failures: dict[str, str],
) -> Iterator[list[tuple[int, Cell, Box, Pixels]]]:
    """Yield each field's (field, cell, box, crop); `failures` gets what cannot be opened."""
    scales: dict[Path, Pooled | None] = {}
    for i, (item, cells) in enumerate(zip(fields, readable, strict=True)):
        if not cells:
            continue
        folder = item.path.parent
        if folder not in scales:
            scales[folder] = pool_folder([f for f in fields if f.path.parent == folder])
        try:
            image = open_image(item.path)
            pooled = scales[folder]
            measurement = measure(image, pooled.illumination if pooled else EVEN)
            view = view_of(measurement, stated(item), pooled)
        except DataError as error:
            failures[str(item.path)] = str(error)
            continue
        boxes = [c.box or _middle(view) for c in cells]
        centres = [(x + w / 2, y + h / 2) for x, y, w, h in boxes]
        crops = classifier.crops(view, image, centres)
        yield list(zip([i] * len(cells), cells, boxes, crops, strict=True))


def _middle(view: CanonicalView) -> Box:
    return (0.0, 0.0, float(view.width), float(view.height))


def pool_folder(fields: Sequence[Field]) -> Pooled | None:
    """Pool the red cells of a sample of one folder's fields; `None` if there is but one field."""
    if len(fields) < 2:
        return None
    places = np.unique(np.linspace(0, len(fields) - 1, min(POOL_SAMPLE, len(fields))).round())
    paths = [fields[int(place)].path for place in places]
    return measure_fields(paths, _readable_image)[0]


def _readable_image(path: Path) -> Pixels | None:
    try:
        return open_image(path)
    except DataError:
        return None  # its own turn will say what is wrong with it
