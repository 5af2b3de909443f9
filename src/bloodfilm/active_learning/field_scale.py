"""The scale of annotated fields, as an analysis of them found it."""

from dataclasses import replace
from typing import Literal

import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.field import Field
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import ScaleSource
from bloodfilm.core.results import FieldResult
from bloodfilm.core.taxonomy import NUCLEATED, Taxonomy

Origin = ScaleSource | Literal["corrected", "close-up", "stated"]
"""Where a field's scale comes from: as in `ViewRecord`, or `corrected` by the red cells that were
detected, of a `close-up` that one cell fills, or `stated` by the data set."""

SIZES_UM = 4.0, 30.0
"""Least and largest diameter of a nucleated cell that is believed, micrometres: the smallest
lymphocytes and bare nuclei measure 6, the largest blasts 25."""
ORIGIN_KEY = "scale_source"
"""Property of a field (`Field.meta`) that keeps where its scale comes from."""


def origin_of(result: FieldResult) -> Origin:
    """Return where the scale comes from at which a field was analysed."""
    found = codes(result.issues)
    if issue_codes.SCALE_ASSUMED in found:
        # A close-up is analysed again at the scale at which its cell is found.
        return "close-up" if issue_codes.SCALE_CORRECTED in found else "assumed"
    if issue_codes.SCALE_CORRECTED in found:
        return "corrected"
    return result.view.scale_source


def with_scale(field: Field, result: FieldResult) -> Field:
    """Return a field whose acquisition has the scale at which it was analysed.

    `um_per_px` is that along y, `pixel_aspect_ratio` the ratio of both axes, and the property
    `scale_source` says where they come from.
    """
    view = result.view
    domain = replace(
        field.domain,
        um_per_px=view.um_per_px_y,
        pixel_aspect_ratio=view.um_per_px_y / view.um_per_px_x,
    )
    return replace(field, domain=domain, meta={**field.meta, ORIGIN_KEY: origin_of(result)})


def is_implausible(field: Field, tree: Taxonomy, size: tuple[int, int]) -> bool:
    """Whether a field's nucleated cells would be larger or smaller than any is, at its scale.

    The diameter of a cell is the geometric mean of the sides of its box; the median over cells that
    no edge cuts decides, so that one box drawn wrongly does not.

    Args:
        field: with a scale and boxes.
        tree: of its labels.
        size: width and height of the image, px.

    >>> from bloodfilm.core import DEFAULT_TAXONOMY, Cell, Domain
    >>> cell = Cell((50, 50, 120, 120), "monocyte")
    >>> at = [Field("a.png", cells=(cell,), domain=Domain(um_per_px=um)) for um in (0.1, 0.3)]
    >>> [is_implausible(field, DEFAULT_TAXONOMY, (400, 300)) for field in at]
    [False, True]
    """
    um_per_px = field.domain.um_per_px
    if um_per_px is None or NUCLEATED not in tree:
        return False
    boxes = np.array(
        [
            c.box
            for c in field.cells
            if c.box is not None
            and not c.ignore
            and c.label is not None
            and tree.is_under(c.label, NUCLEATED)
        ],
        dtype=np.float64,
    ).reshape(-1, 4)
    whole = (boxes[:, :2] > 1).all(axis=1)
    whole &= (boxes[:, :2] + boxes[:, 2:] < np.array(size) - 1).all(axis=1)
    if not whole.any():
        return False
    across = um_per_px / (field.domain.pixel_aspect_ratio or 1.0)
    diameters = np.sqrt(boxes[whole, 2:].prod(axis=1) * across * um_per_px)
    least, largest = SIZES_UM
    return not least <= float(np.median(diameters)) <= largest
