"""Fields to learn from: opened, brought to canonical pixels once, and kept in memory."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Dataset, Field, Region
from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.core.taxonomy import NUCLEATED, PLATELET, RED_CELL
from bloodfilm.formats import open_dataset
from bloodfilm.imaging.canonical import CanonicalView, canonical_view
from bloodfilm.imaging.corrections import estimate_corrections
from bloodfilm.imaging.scale import RED_CELL_UM, ScalePrior
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.splits.disjoint import check_disjoint, dataset_in_split, group_keys
from bloodfilm.training.config import DatasetConfig

OBJECT_TYPES = CLASSIFIED_TYPE, RULER_TYPE, _ = NUCLEATED, RED_CELL, PLATELET
"""What the detector is trained to find; the classifier names the first, the second is the ruler."""
_log = logging.getLogger(__name__)
Progress = Callable[[Iterable[int], int, str], Iterable[int]]


@dataclass(frozen=True)
class SourcedField:
    """A field, the data set it is of, and how often an epoch draws it.

    `group` names the fields it must stay with, where `split_file` ties some together.
    """

    field: Field
    dataset: Dataset
    repeat: float
    group: str = ""
    split_file: Path | None = None


def open_sources(sources: Sequence[DatasetConfig], root: Path) -> Sequence[SourcedField]:
    """Return the fields of all sources, in order: a list, or a `FieldStream` if one is an index.

    Raises:
        ConfigError: if a source's splits hold no field, or its split file leaks.
        DataError: if a data set or a split file cannot be read.
    """
    from bloodfilm.training.data.sharded import DatasetShard, FieldStream, fields_in

    parts: list[DatasetShard] = []
    for source in sources:
        dataset = open_dataset(root / source.path, format=source.format, **source.options)
        for problem in dataset.problems:
            _log.info("%s: %s", source.path, problem)
        file, split = None, None
        if source.split_file is not None:
            file = root / source.split_file
            dataset, split = dataset_in_split(dataset, file, source.splits)
        fields = fields_in(dataset, source.splits)
        if not fields:
            raise ConfigError(
                f"{root / source.path}: no field in splits {', '.join(source.splits) or '(any)'}"
            )
        groups = group_keys(file, split, fields) if file and split else ()
        parts.append(DatasetShard(fields, dataset, source.repeat, groups, file))
    if any(part.streamed for part in parts):
        return FieldStream(parts)
    return [part.at(i, field) for part in parts for i, field in enumerate(part.fields)]


def check_split_disjoint(
    train: Sequence[SourcedField], validation: Sequence[SourcedField]
) -> dict[str, Any]:
    """Return the proof that both sides share nothing, for the run's record; see `check_disjoint`.

    Raises:
        ConfigError: if a field, a patient, a twin, a physical cell or a file is on both sides.
    """
    from bloodfilm.training.data.sharded import FieldHeaders

    return check_disjoint(FieldHeaders(train), FieldHeaders(validation))


def training_view(field: Field, image: NDArray[np.uint8]) -> CanonicalView:
    """Return a field's canonical view, from its labels where they tell more than its pixels.

    Red-cell boxes that no edge cuts give scale and squeeze; else what the data set states; else
    what the picture shows.
    """
    height, width = image.shape[:2]
    boxes = np.array(
        [c.box for c in field.cells if c.box is not None and c.label == RULER_TYPE], dtype=float
    ).reshape(-1, 4)
    whole = (
        (boxes[:, 0] > 2)
        & (boxes[:, 1] > 2)
        & (boxes[:, 0] + boxes[:, 2] < width - 2)
        & (boxes[:, 1] + boxes[:, 3] < height - 2)
    )
    look, _ = estimate_corrections(image)
    if whole.sum() >= 5:
        across, down = np.median(boxes[whole, 2:], axis=0)
        if abs(np.log(across / down)) < 0.08:  # round pixels: the two axes are one measurement
            across = down = float(np.sqrt(across * down))
        return CanonicalView(
            um_per_px_x=RED_CELL_UM / across,
            um_per_px_y=RED_CELL_UM / down,
            white_point=look.white_point,
            illumination=look.illumination,
            veiling_glare=look.veiling_glare,
            round_field=look.round_field,
            red_cells=int(whole.sum()),
            confidence=1.0,
            scale_source="metadata",
            aspect_source="metadata",
            width=width,
            height=height,
        )
    if field.domain.um_per_px is not None:
        across = field.domain.um_per_px / (field.domain.squeeze or 1.0)
        return CanonicalView(
            um_per_px_x=across,
            um_per_px_y=field.domain.um_per_px,
            white_point=look.white_point,
            illumination=look.illumination,
            veiling_glare=look.veiling_glare,
            round_field=look.round_field,
            red_cells=0,
            confidence=1.0,
            scale_source="metadata",
            aspect_source="metadata",
            width=width,
            height=height,
        )
    return canonical_view(image, ScalePrior.of_domain(field.domain))


@dataclass(frozen=True)
class CanonicalField:
    """A field in canonical pixels, with its truth in the same pixels.

    Attributes:
        image: (H, W, 3) RGB at `um_per_px`.
        boxes: (n, 4) x, y, w, h; kinds: (n,) index into `OBJECT_TYPES`.
        ignore: (m, 4) boxes that are neither cells nor background.
        region: where every cell is known.
        repeat: how often an epoch draws it, relative to others.
        values: (n, values) what is said of each cell's attributes, 1 where a value is given; an
            attribute whose part of a row is all 0 is unknown. `None` says nothing of any.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    kinds: NDArray[np.int64]
    ignore: NDArray[np.float64]
    region: Region
    repeat: float = 1.0
    values: NDArray[np.float32] | None = None


def object_type_of(label: str | None, dataset: Dataset) -> int | None:
    """Return the index of the kind a label falls under, `None` if it could be several."""
    if label is None:
        return None
    path = dataset.taxonomy.path(label)
    return next((i for i, kind in enumerate(OBJECT_TYPES) if kind in path), None)


@dataclass(frozen=True)
class FieldTargets:
    """The boxed objects of a field, in its own pixels: see `CanonicalField`."""

    boxes: NDArray[np.float64]
    kinds: NDArray[np.int64]
    ignore: NDArray[np.float64]


def field_targets(sourced: SourcedField) -> FieldTargets:
    """Return a field's boxes by kind; what is ignored or could be of several kinds is apart."""
    boxes, kinds, ignore = [], [], []
    for cell in sourced.field.cells:
        if cell.box is None:
            continue
        kind = object_type_of(cell.label, sourced.dataset)
        if cell.ignore or kind is None:
            ignore.append(cell.box)
        else:
            boxes.append(cell.box)
            kinds.append(kind)
    return FieldTargets(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(kinds, dtype=np.int64),
        np.array(ignore, dtype=np.float64).reshape(-1, 4),
    )


def load_field(sourced: SourcedField, um_per_px: float) -> CanonicalField:
    """Open one field and bring picture and truth to a scale."""
    image = open_image(sourced.field.path)
    view = training_view(sourced.field, image)
    truth = field_targets(sourced)
    width, height = view.size_at(um_per_px)
    matrix = np.array([[width / view.width, 0, 0], [0, height / view.height, 0]])
    return CanonicalField(
        image=view.render(image, um_per_px),
        boxes=view.to_canonical(truth.boxes, um_per_px),
        kinds=truth.kinds,
        ignore=view.to_canonical(truth.ignore, um_per_px),
        region=sourced.field.region.transform(matrix),
        repeat=sourced.repeat,
    )


def load_fields(
    sourced: Sequence[SourcedField],
    um_per_px: float,
    progress: Progress,
    then: Callable[[CanonicalField, SourcedField], CanonicalField] | None = None,
) -> list[CanonicalField]:
    """Load all fields, and do to each what `then` does; one that fails is reported and left out.

    Raises:
        ConfigError: if none could be opened.
    """
    loaded: list[CanonicalField] = []
    for i in progress(range(len(sourced)), len(sourced), "fields"):
        try:
            item = load_field(sourced[i], um_per_px)
            loaded.append(item if then is None else then(item, sourced[i]))
        except BloodfilmError as error:
            _log.warning("left out: %s", error)
    if not loaded:
        raise ConfigError("data: none of the fields could be opened")
    return loaded
