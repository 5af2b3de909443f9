"""Fields and their labels in canonical pixels, loaded once and kept in memory."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Field, Region
from bloodfilm.core.attributes import Schema, known_values
from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.core.pixels import RED_CELL_UM
from bloodfilm.core.progress import Progress, track
from bloodfilm.imaging.canonical import CanonicalView, canonical_view
from bloodfilm.imaging.corrections import estimate_corrections
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources import ImageSource, read_whole
from bloodfilm.imaging.sources.field import open_field
from bloodfilm.training.data.domains import UNKNOWN_DOMAIN, DomainTable
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.vocabulary import BACKGROUND_LABEL, Vocabulary

NO_DOMAINS = DomainTable(())
_log = logging.getLogger(__name__)


def training_view(field: Field, source: ImageSource, ruler: str | None) -> CanonicalView:
    """Return a field's canonical view, from its labels where these are better than its pixels.

    Boxes of the ruler (red cells) not cut by the edge give scale and pixel aspect ratio; else the
    metadata of the data set; else a measurement on the image.

    Args:
        field: with its labels.
        source: its image.
        ruler: label of the objects that are 7.5 um across and round, if any.
    """
    width, height = source.size
    boxes = np.array(
        [c.box for c in field.cells if c.box is not None and c.label == ruler], dtype=float
    ).reshape(-1, 4)
    whole = (
        (boxes[:, 0] > 2)
        & (boxes[:, 1] > 2)
        & (boxes[:, 0] + boxes[:, 2] < width - 2)
        & (boxes[:, 1] + boxes[:, 3] < height - 2)
    )
    um_per_px = field.domain.um_per_px
    if whole.sum() >= 5:
        across, down = np.median(boxes[whole, 2:], axis=0)
        if abs(np.log(across / down)) < 0.08:  # round pixels: the two axes are one measurement
            across = down = float(np.sqrt(across * down))
        size = RED_CELL_UM / across, RED_CELL_UM / down
    elif um_per_px is not None:
        size = um_per_px / (field.domain.pixel_aspect_ratio or 1.0), um_per_px
    else:
        prior = ScalePrior.of_domain(field.domain).with_image(source.pixel_size)
        return canonical_view(read_whole(source), prior)
    corrections, _ = estimate_corrections(read_whole(source))
    return CanonicalView(
        um_per_px_x=size[0],
        um_per_px_y=size[1],
        white_point=corrections.white_point,
        illumination=corrections.illumination,
        veiling_glare=corrections.veiling_glare,
        round_field=corrections.round_field,
        red_cells=int(whole.sum()) if whole.sum() >= 5 else 0,
        confidence=1.0,
        scale_source="metadata",
        aspect_source="metadata",
        width=width,
        height=height,
    )


@dataclass(frozen=True)
class CanonicalField:
    """A field in canonical pixels, with its labels in the same pixels.

    Attributes:
        image: (H, W, 3) RGB at `um_per_px`.
        boxes: (n, 4) x, y, w, h; type_ids: (n,) index of each object type.
        ignore: (m, 4) boxes that are neither cells nor background.
        region: where every cell is known.
        repeat: how often an epoch draws it, relative to others.
        domain: index of its domain in the run's `DomainTable`, -1 if unknown.
        values: (n, values) attribute targets of each cell, one-hot by attribute; an attribute whose
            part of a row is all 0 is unknown. `None`: no attribute is known.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    type_ids: NDArray[np.int64]
    ignore: NDArray[np.float64]
    region: Region
    repeat: float = 1.0
    domain: int = UNKNOWN_DOMAIN
    values: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class FieldTargets:
    """The boxed objects of a field, in its own pixels: see `CanonicalField`."""

    boxes: NDArray[np.float64]
    type_ids: NDArray[np.int64]
    ignore: NDArray[np.float64]
    values: NDArray[np.float32]


def field_targets(sourced: SourcedField, vocabulary: Vocabulary) -> FieldTargets:
    """Return a field's boxes by object type, and their attributes.

    Boxes that are ignored, or could be of several types, are returned separately.
    """
    tree, schema = sourced.dataset.taxonomy, vocabulary.schema
    boxes, type_ids, ignore = [], [], []
    values: list[NDArray[np.float32]] = []
    for cell in sourced.field.cells:
        if cell.box is None:
            continue
        number = vocabulary.object_type_of(cell.label, tree)
        if not cell.ignore and vocabulary.counted_as(cell.label, tree) == BACKGROUND_LABEL:
            continue
        if cell.ignore or number is None:
            ignore.append(cell.box)
        else:
            boxes.append(cell.box)
            type_ids.append(number)
            values.append(one_hot(schema, known_values(schema, cell.attributes)))
    return FieldTargets(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(type_ids, dtype=np.int64),
        np.array(ignore, dtype=np.float64).reshape(-1, 4),
        np.array(values, dtype=np.float32).reshape(-1, schema.width),
    )


def one_hot(schema: Schema, values: dict[str, str]) -> NDArray[np.float32]:
    """Return attribute values as a row (schema.width,): 1 at each value, 0 where unknown.

    Raises:
        DataError: for a value that the schema does not have.
    """
    row = np.zeros(schema.width, np.float32)
    for code, where in zip(schema.codes(values), schema.slices.values(), strict=True):
        if code is not None:
            row[where.start + code] = 1.0
    return row


@dataclass(frozen=True)
class FieldLoader:
    """Opens fields and rescales image and labels to one scale.

    Attributes:
        vocabulary: of the run.
        um_per_px: the scale.
        domains: of the run.
        attributes: whether attribute targets are needed.
    """

    vocabulary: Vocabulary
    um_per_px: float
    domains: DomainTable = NO_DOMAINS
    attributes: bool = False

    def load(self, sourced: SourcedField) -> CanonicalField:
        """Open one field.

        Raises:
            BloodfilmError: if its image cannot be opened.
        """
        source = open_field(sourced.field)
        image = read_whole(source)
        view = training_view(sourced.field, source, self.vocabulary.roles.ruler)
        targets = field_targets(sourced, self.vocabulary)
        width, height = view.size_at(self.um_per_px)
        matrix = np.array([[width / view.width, 0, 0], [0, height / view.height, 0]])
        return CanonicalField(
            image=view.render(image, self.um_per_px),
            boxes=view.to_canonical(targets.boxes, self.um_per_px),
            type_ids=targets.type_ids,
            ignore=view.to_canonical(targets.ignore, self.um_per_px),
            region=sourced.field.region.transform(matrix),
            repeat=sourced.repeat,
            domain=self.domains.index(sourced.domain),
            values=targets.values if self.attributes else None,
        )

    def load_all(self, sourced: Sequence[SourcedField], progress: Progress) -> list[CanonicalField]:
        """Open all fields; one that fails is reported and left out.

        Raises:
            ConfigError: if none could be opened.
        """
        loaded: list[CanonicalField] = []
        for i in track(range(len(sourced)), progress, "fields", len(sourced)):
            try:
                loaded.append(self.load(sourced[i]))
            except BloodfilmError as error:
                _log.warning("left out: %s", error)
        if not loaded:
            raise ConfigError("data: none of the fields could be opened")
        return loaded


def refuse_empty_validation(fields: Sequence[CanonicalField]) -> None:
    """Raise `ConfigError` if no validation field has a box to evaluate a detector."""
    if not any(len(f.boxes) for f in fields):
        raise ConfigError(
            "data.validation: no field has an annotated box of an object type; average precision "
            "cannot be measured, choose other data or splits"
        )
