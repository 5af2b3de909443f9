"""The unlabelled cells of a new microscope: found, cut out, and kept for a run that resumes."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Bools, Floats, Pixels
from bloodfilm.core.boxes import centres
from bloodfilm.core.files import atomic_write_bytes
from bloodfilm.core.issue_codes import CUT_BY_EDGE
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import PixelSize
from bloodfilm.core.progress import OneStage, Progress, track
from bloodfilm.core.results import FieldFailure, FieldResult
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import Bundle
from bloodfilm.workflows.analyze import failed

if TYPE_CHECKING:
    from bloodfilm.training.tasks.adaptation import TargetCells

HELD_OUT_SHARE = 0.25
MIN_FOLDERS = 5
"""Folders from which on whole folders, and not fields, are held out."""


@dataclass
class TargetFields:
    """What the fields of a new microscope show.

    Attributes:
        cells: whole nucleated cells.
        pictures: (n,) the number of the image that each cell is from.
        fields: how many images were used; uncountable: how many belong in no count.
        failures: images that could not be analysed.
        scales: pixel sizes of the used images.
    """

    cells: "TargetCells"
    pictures: NDArray[np.int64]
    fields: int = 0
    uncountable: int = 0
    failures: list[FieldFailure] = field(default_factory=list)
    scales: dict[Path, PixelSize] = field(default_factory=dict)


def collect_cells(
    bundle: Bundle,
    images: Sequence[Path],
    place: Path,
    progress: Progress,
    *,
    most: int,
    threads: int | None = None,
) -> TargetFields:
    """Analyse fields and cut out their cells, or take those that a stopped run left.

    Args:
        bundle: that finds them.
        images: the fields.
        place: file that keeps what was found.
        progress: follows the work.
        most: so many cells at most are kept, evenly spread.
        threads: fields at work at a time; `None` for one per core.
    """
    from bloodfilm.training.tasks.adaptation import TargetCells

    if place.exists():
        with np.load(place) as kept:
            cells = TargetCells(kept["images"], kept["classes"], kept["groups"])
            sizes = zip(kept["scaled"].tolist(), kept["um_per_px"].tolist(), strict=True)
            scales = {Path(name): PixelSize(x, y, "pooled") for name, (x, y) in sizes}
            counts = int(kept["fields"]), int(kept["uncountable"])
            return TargetFields(cells, kept["pictures"], *counts, [], scales)
    found = _analyse(bundle, images, progress, threads)
    if len(found.cells) > most:
        chosen = np.zeros(len(found.cells), dtype=bool)
        chosen[evenly_spread(len(chosen), most)] = True
        found.cells, found.pictures = found.cells.take(chosen), found.pictures[chosen]
    if not found.failures:  # a file that failed is tried again
        sizes_found = [(s.um_per_px_x, s.um_per_px_y) for s in found.scales.values()]
        with atomic_write_bytes(place) as file:
            np.savez(
                file,
                images=found.cells.images,
                classes=found.cells.classes,
                groups=found.cells.groups,
                pictures=found.pictures,
                fields=found.fields,
                uncountable=found.uncountable,
                scaled=np.array([str(path) for path in found.scales], dtype=np.str_),
                um_per_px=np.array(sizes_found),
            )
    return found


def _analyse(
    bundle: Bundle, images: Sequence[Path], progress: Progress, threads: int | None
) -> TargetFields:
    from bloodfilm.inference.model import Model
    from bloodfilm.inference.runner import SAMPLES, analyze_many
    from bloodfilm.training.tasks.adaptation import TargetCells

    folders = {path.parent: n for n, path in enumerate(dict.fromkeys(p.parent for p in images))}
    crops, classes = [[part] for part in _no_cells(bundle)]
    pictures: list[int] = []
    uncountable, failures, scales = 0, list[FieldFailure](), dict[Path, PixelSize]()
    with (
        Model(bundle) as model,
        closing(
            analyze_many(images, model, workers=threads, progress=OneStage(progress, SAMPLES))
        ) as outcomes,
    ):
        followed = track(outcomes, progress, "fields", len(images))
        for number, (path, outcome) in enumerate(zip(images, followed, strict=True)):
            if isinstance(outcome, FieldFailure):
                failures.append(outcome)
                progress.report(failed(outcome))
                continue
            if not outcome.countable:
                uncountable += 1
                continue
            scales[path] = PixelSize(outcome.view.um_per_px_x, outcome.view.um_per_px_y, "pooled")
            cut, said = _cells_of(outcome, path, bundle)
            crops.append(cut)
            classes.append(said)
            pictures += [number] * len(cut)
    picture = np.array(pictures, dtype=np.int64)
    group = picture
    if len(folders) >= MIN_FOLDERS:
        group = np.array([folders[path.parent] for path in images], dtype=np.int64)[picture]
    cells = TargetCells(np.concatenate(crops), np.concatenate(classes), group)
    return TargetFields(cells, picture, len(scales), uncountable, failures, scales)


def _cells_of(result: FieldResult, path: Path, bundle: Bundle) -> tuple[Pixels, Floats]:
    """Return stored crops of a field's whole nucleated cells, and their class probabilities."""
    from bloodfilm.export.adaptation import is_balanced
    from bloodfilm.training.data.cell_crops import STORE_SIZE, STORE_UM

    m = bundle.manifest
    cells = [
        c
        for c in result.cells
        if c.object_type == m.roles.classified and CUT_BY_EDGE not in codes(c.issues)
    ]
    if not cells:
        return _no_cells(bundle)
    said = np.array([[c.probabilities.get(leaf, 0.0) for leaf in m.leaves] for c in cells])
    view = CanonicalView.from_record(result.view)
    at = centres(np.array([c.box for c in cells]))
    image = open_image(path)
    return view.crops(image, at, STORE_SIZE, STORE_UM, balanced=is_balanced(bundle)), said


def _no_cells(bundle: Bundle) -> tuple[Pixels, Floats]:
    from bloodfilm.training.data.cell_crops import STORE_SIZE

    none = np.zeros((0, STORE_SIZE, STORE_SIZE, 3), np.uint8)
    return none, np.zeros((0, len(bundle.manifest.leaves)))


def hold_out(groups: NDArray[np.int64], seed: int) -> Bools:
    """Choose whole groups, a quarter of the cells or little more, to judge by.

    >>> held = hold_out(np.repeat(np.arange(8), 10), 0)
    >>> int(held.sum()), len(set(np.repeat(np.arange(8), 10)[held].tolist()))
    (20, 2)
    """
    held = np.zeros(len(groups), dtype=bool)
    order = np.random.default_rng([seed, 59]).permutation(np.unique(groups))
    for group in order[: max(1, len(order) - 1)]:
        if held.sum() >= HELD_OUT_SHARE * len(groups):
            break
        held |= groups == group
    return held
