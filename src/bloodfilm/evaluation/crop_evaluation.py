"""The classifier alone, independent of the detector: crops centred on true cells."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core.arrays import Pixels
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Box, Cell, Field
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import CellResult, CellShape
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.evaluation.cell_matching import MatchedCells, MatchedPair, is_readable
from bloodfilm.imaging.canonical import CanonicalView, view_of
from bloodfilm.imaging.scale import GroupScale, ScalePrior, measure, pool_scale
from bloodfilm.imaging.sources import read_whole
from bloodfilm.imaging.sources.field import open_field
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import Bundle
from bloodfilm.inference.classifier import CellClassification, CellClassifier
from bloodfilm.inference.film_offset import ONE_BY_ONE, FilmNaming, Residuals, offset_of
from bloodfilm.inference.granulocytes import SAMPLE
from bloodfilm.inference.graph_run import batches
from bloodfilm.inference.outlines import CellOutliner

PriorOf = Callable[[Field], ScalePrior | None]

BATCH = 64
RULE = "crops centred on true boxes, or on the image's centre where there is none; no detection"


def read_true_cells(
    fields: Sequence[Field],
    bundle: Bundle,
    taxonomy: Taxonomy,
    prior: PriorOf = lambda _: None,
    device: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[MatchedCells, dict[str, str]]:
    """Classify every true nucleated cell; also returns the fields that failed, and why.

    Scale and white point come from each field's own red cells and, as in an analysis, from those
    of a sample of its folder; `prior` returns the prior of a field. `progress` reports the
    fields that hold such cells. Attributes that follow the shape of cells do so here, too, and
    names that follow the film: a film is the fields of one patient in a folder.
    """
    session = bundle.classifier(device, threads)
    classifier = CellClassifier(bundle.manifest)
    outlines = bundle.manifest.outlines if classifier.follows_shape else None
    outliner = (
        None if outlines is None else CellOutliner(outlines, bundle.outlines(device, threads))
    )
    classified = bundle.manifest.roles.classified
    readable = [[c for c in f.cells if is_readable(c, taxonomy, classified)] for f in fields]
    failures: dict[str, str] = {}
    pairs: list[MatchedPair] = []
    waiting: list[tuple[int, Cell, Box, CellShape | None, Pixels]] = []

    def flush() -> None:
        crops = np.stack([crop for *_, crop in waiting])
        answers = classifier.classify(session, crops, films[waiting[0][0]])
        for (i, cell, box, shape, _), said in zip(waiting, answers, strict=True):
            classified_cell = said if shape is None else classifier.with_shape(said, shape)
            pairs.append(MatchedPair(i, cell, _result(box, classified_cell, classified)))
        waiting.clear()

    scales: dict[Path, GroupScale] = {}
    films = _film_namings(fields, readable, classifier, session, prior, scales)
    cut = cut_cells(fields, readable, classifier, prior, failures, scales)
    count = sum(map(bool, readable))
    for part in track(cut, progress or NoProgress(), "fields", count):
        if waiting and films[waiting[0][0]] is not films[part.field]:
            flush()
        shapes = _shapes(outliner, part)
        places = zip(part.cells, shapes, part.crops, strict=True)
        waiting.extend((part.field, cell, box, shape, crop) for (cell, box), shape, crop in places)
        if len(waiting) >= BATCH:
            flush()
    if waiting:
        flush()
    return MatchedCells(tuple(pairs), sum(map(len, readable)), RULE), failures


def _film_namings(
    fields: Sequence[Field],
    chosen: Sequence[Sequence[Cell]],
    classifier: CellClassifier,
    session: Any,
    prior: PriorOf,
    scales: dict[Path, GroupScale],
) -> list[FilmNaming]:
    """Return how the cells of each field are named by their film, from a sample of its cells.

    The arguments are those of `cut_cells`; what cannot be opened is left for it to report.
    """
    spec = classifier.spec.film_offset
    if spec is None:
        return [ONE_BY_ONE] * len(fields)
    films: dict[tuple[Path, str | None], list[int]] = {}
    for i, item in enumerate(fields):
        films.setdefault((item.path.parent, item.patient), []).append(i)
    namings = [ONE_BY_ONE] * len(fields)
    for members in films.values():
        filled = [i for i in members if chosen[i]]
        sample = [filled[place] for place in evenly_spread(len(filled), SAMPLE).tolist()]
        some = set(sample)
        wanted = [cells if i in some else () for i, cells in enumerate(chosen)]
        residuals: list[Residuals] = []
        for part in cut_cells(fields, wanted, classifier, prior, {}, scales):
            for crops in batches(part.crops, BATCH):
                found = classifier.classify(session, crops, FilmNaming(residuals=residuals))
                residuals += [r.residual[None] for r in found if r.residual is not None]
        naming = FilmNaming(offset_of(residuals, spec))
        for i in members:
            namings[i] = naming
    return namings


def _shapes(outliner: CellOutliner | None, part: "FieldCrops") -> list[CellShape | None]:
    """Return the shape of each cell of a field, where it can be made out."""
    if outliner is None:
        return [None] * len(part.cells)
    boxes = [cell.box for cell, _ in part.cells]
    return outliner.outline_cells(part.view, part.pixels, boxes)


def _result(box: Box, r: CellClassification, classified: str) -> CellResult:
    return CellResult(box, 1.0, classified, r.label, r.label_score, r.probabilities, r.attributes)


@dataclass(frozen=True)
class FieldCrops:
    """The crops of a field's cells.

    Attributes:
        field: its place in the list.
        view: of its image, with the origin of its scale.
        cells: with their boxes, in original pixels; the whole image where there is no box.
        crops: (n, S, S, 3) as the classifier sees them.
        pixels: the image.
    """

    field: int
    view: CanonicalView
    cells: tuple[tuple[Cell, Box], ...]
    crops: Pixels
    pixels: Pixels


def cut_cells(
    fields: Sequence[Field],
    chosen: Sequence[Sequence[Cell]],
    classifier: CellClassifier,
    prior: PriorOf,
    failures: dict[str, str],
    scales: dict[Path, GroupScale] | None = None,
) -> Iterator[FieldCrops]:
    """Yield the crops of chosen cells, field by field; fields without any are passed over.

    Args:
        fields: of a data set.
        chosen: by field, the cells to cut out.
        classifier: that is to see the crops.
        prior: what is known of a field's scale.
        failures: gets the images that cannot be opened, and why.
        scales: of folders that have been measured already; gets those of others.
    """
    scales = {} if scales is None else scales
    for i, (item, cells) in enumerate(zip(fields, chosen, strict=True)):
        if not cells:
            continue
        folder = item.path.parent
        if folder not in scales:
            members = [f.path for f in fields if f.path.parent == folder]
            scales[folder] = pool_scale(members, open_image)
        try:
            source = open_field(item)
            image, scale = read_whole(source), scales[folder]
            known = replace(prior(item) or ScalePrior(), pooled=scale.pooled)
            known = known.with_image(source.pixel_size)
            measurement = scale.measurements.get(item.path)
            measurement = measurement or measure(image, known.illumination_of(image))
            view = view_of(measurement, known)
            boxes = [c.box or _middle(view) for c in cells]
            crops = classifier.crops(view, image, [(x + w / 2, y + h / 2) for x, y, w, h in boxes])
        except DataError as error:
            failures[str(item.path)] = str(error)
            continue
        yield FieldCrops(i, view, tuple(zip(cells, boxes, strict=True)), crops, image)


def _middle(view: CanonicalView) -> Box:
    return (0.0, 0.0, float(view.width), float(view.height))
