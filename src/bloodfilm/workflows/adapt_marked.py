"""Fields of a new microscope in which a person named cells: what is learnt from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.core.errors import DataError
from bloodfilm.core.files import sha256_of
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import PixelSize
from bloodfilm.core.progress import Progress
from bloodfilm.inference.bundle import Bundle
from bloodfilm.workflows.described import (
    OwnCells,
    join_described,
    varied_descriptions,
)
from bloodfilm.workflows.learn_cells import CellSource, TrainingCells, read_cells

if TYPE_CHECKING:
    from bloodfilm.training.marked_correction import ChosenCorrection

REMEDY = (
    "correct the name in the data set, or let the bundle learn the class first: "
    'bloodfilm learn --new "{name}=GROUP"'
)


@dataclass(frozen=True)
class MarkedFields:
    """Marked cells of a new microscope, and the correction that they speak for.

    Attributes:
        cells: as they were read.
        image_shas: SHA-256 of the files they are in.
        allowed: (n, leaves) the classes that each one's label stands for.
        chosen: the correction, and what cross-validation says of it.
        expected: (n, leaves) class probabilities with it.
    """

    cells: TrainingCells
    image_shas: frozenset[str]
    allowed: Bools
    chosen: "ChosenCorrection"
    expected: Floats

    def report(self) -> dict[str, Any]:
        """Return what the record of an adaptation says of them."""
        from bloodfilm.training.marked_correction import MAX_LOSS

        chosen = self.chosen
        return {
            "name": self.cells.name,
            "licence": self.cells.licence,
            "fields": len(set(self.cells.pictures)),
            "cells": len(self.cells),
            "counts": self.cells.counts(),
            "left_out": {why: count for why, count in self.cells.left_out.items() if count},
            "max_loss": MAX_LOSS,
            "corrections": [candidate.to_json() for candidate in chosen.candidates],
            "penalty": chosen.best.penalty,
        }


def read_marked(
    path: Path,
    fields: int | None,
    seed: int,
    bundle: Bundle,
    scales: Mapping[Path, PixelSize],
    progress: Progress,
) -> MarkedFields:
    """Read marked fields and choose a correction by them.

    Args:
        path: of the data set.
        fields: use this many of its fields, drawn by lot; `None` for all.
        seed: of all chance.
        bundle: the original; it must have exemplars.
        scales: pixel sizes of the images that were analysed.
        progress: follows the work.

    Raises:
        BloodfilmError: if there is nothing to use, or a name that the bundle does not know.
    """
    from bloodfilm.export.adaptation import is_balanced
    from bloodfilm.export.class_graph import Describer
    from bloodfilm.export.exemplars import read_exemplars
    from bloodfilm.training.marked_correction import choose_correction

    m = bundle.manifest
    exemplars, describer = read_exemplars(bundle), Describer(bundle)
    source = CellSource(path=path, scale_of=_scale_of(scales), fields=fields, seed=seed)
    found = read_cells(
        source, bundle, m.taxonomy, progress, balanced=is_balanced(bundle), remedy=REMEDY
    )
    cells = _learnt(found, bundle, path)
    for item in found.issues:
        progress.report(item)
    for why, count in cells.left_out.items():
        if count:
            progress.report(Issue("left-out", "info", f"{path}: {count} cells {why}"))
    plain = describer.describe(cells.crops).description
    views, of_cell = varied_descriptions(bundle, cells, describer, seed, progress)
    own = OwnCells(cells.labels, cells.groups, plain, views, of_cell)
    described = join_described((bundle, describer, exemplars), own, m.taxonomy, m.leaves)
    names = [*exemplars.names, *cells.labels]
    progress.update("fitting", 0, 1)
    chosen = choose_correction(described, names, seed)
    progress.update("fitting", 1, 1)
    mine = described.take((described.view == 0) & ~described.old)
    expected = mine.known
    if chosen.correction is not None:
        expected = chosen.correction.log_probabilities(mine.known, mine.description)
    shas = frozenset(map(sha256_of, cells.paths))
    return MarkedFields(cells, shas, mine.allowed, chosen, np.exp(expected))


def _scale_of(scales: Mapping[Path, PixelSize]) -> Callable[[Path], PixelSize | None]:
    """Return what tells the pixel size of an image from those that were analysed."""
    return partial(_nearest_scale, {path.resolve(): size for path, size in scales.items()})


def _nearest_scale(scales: Mapping[Path, PixelSize], path: Path) -> PixelSize | None:
    """Return the size that was found for an image, or else the median of its folder's."""
    place = path.resolve()
    if place in scales:
        return scales[place]
    same = [size for other, size in scales.items() if other.parent == place.parent]
    if not same:
        return None
    x, y = np.median([(size.um_per_px_x, size.um_per_px_y) for size in same], axis=0)
    return PixelSize(float(x), float(y), "pooled")


def _learnt(cells: TrainingCells, bundle: Bundle, path: Path) -> TrainingCells:
    """Return the cells of classes that the bundle can name; the others are counted."""
    trained = set(bundle.manifest.trained_leaves)
    others = {
        name for name in cells.labels if not trained & set(bundle.taxonomy.leaves_under(name))
    }
    if not others:
        return cells
    left = sum(label in others for label in cells.labels)
    why = f"of classes that the bundle has not learnt ({', '.join(sorted(others))})"
    if left == len(cells):
        raise DataError(f"{path}: all {left} cells are {why}; learn them: bloodfilm learn")
    return cells.without(others, why)
