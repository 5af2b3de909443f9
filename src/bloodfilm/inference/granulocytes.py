"""Measure how large a folder's red cells are, by its segmented granulocytes.

The scale of a folder follows from its red cells, at 7.5 um. But red cells are smaller where iron
is short and larger in many diseases of the marrow, and a rim that refracts or a thick stain moves
the border that is measured. Segmented granulocytes, neutrophils and eosinophils, measure nearly the
same in everybody and in every stain: so where there are enough of them, they tell how large the red
cells really are, and the scale is corrected by as much.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import RED_CELL_UM
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.imaging.scale import Pooled

SEGMENTED = ("neutrophil", "eosinophil")
GRANULOCYTE_UM = 13.2
"""Diameter of the disc with the area of a segmented granulocyte's outline: 13.2 um on PBC, 13.3 on
LMU (both of devices whose scale is known), 13.1 to 13.6 on KRD-WBC, Raabin and the pig films."""
LEAST_PROBABILITY = 0.8
LEAST_LOBES = 2
LEAST_CELLS = 5
ENOUGH_GRANULOCYTES = 60
"""Of a group of fields: their median then has an error of 2 %, less than what films differ by."""
SAMPLE = 72
"""Most fields of a folder that are analysed for it: many hold a single white cell."""
RED_CELL_ERROR = 0.08
"""Standard deviation of the log of a scale that follows from a folder's red cells."""
FILM_SPREAD = 0.03
"""Standard deviation of the log diameter of granulocytes from film to film."""
CELL_SPREAD = 0.13
"""Standard deviation of the log diameter of granulocytes from cell to cell of a film."""
AGREEMENT = 0.03
"""A smaller difference (natural logarithm) is left: red cells of healthy people differ as much."""
MOST_DIFFERENCE = 0.35
"""At a larger one (natural logarithm) these are no granulocytes, or those no red cells."""


def segmented_diameters(cells: Iterable[CellResult], taxonomy: Taxonomy) -> list[float]:
    """Return the diameters, um, of the certain and whole segmented granulocytes among cells."""
    known = [name for name in SEGMENTED if name in taxonomy]
    return [
        cell.shape.diameter_um
        for cell in cells
        if cell.shape is not None
        and cell.shape.lobes >= LEAST_LOBES
        and issue_codes.CUT_BY_EDGE not in codes(cell.issues)
        and sum(taxonomy.sum_under(cell.probabilities, name) for name in known) >= LEAST_PROBABILITY
    ]


def diameters_in(result: FieldResult, taxonomy: Taxonomy) -> list[float]:
    """Return the diameters, um, of a field's segmented granulocytes.

    None unless the field's scale is that of its folder, or where it shows no blood film.
    """
    if result.view.scale_source != "pooled" or issue_codes.NOT_A_FILM in codes(result.issues):
        return []
    return segmented_diameters(result.cells, taxonomy)


def red_cell_size(diameters: Sequence[float]) -> float:
    """Return the diameter of red cells, um, at whose 7.5 um granulocytes have these diameters.

    What the granulocytes say is weighed against what is known beforehand: that red cells measure
    7.5 um, give or take `RED_CELL_ERROR`.

    >>> round(red_cell_size([11.9] * 40), 2), red_cell_size([13.0] * 40), red_cell_size([11.9] * 3)
    (8.17, 7.5, 7.5)
    """
    if len(diameters) < LEAST_CELLS:
        return RED_CELL_UM
    off = float(np.log(GRANULOCYTE_UM / np.median(diameters)))
    if abs(off) > MOST_DIFFERENCE:
        return RED_CELL_UM
    spread = max(CELL_SPREAD, float(np.std(np.log(diameters))))
    error = FILM_SPREAD**2 + spread**2 / len(diameters)
    off *= RED_CELL_ERROR**2 / (RED_CELL_ERROR**2 + error)
    return RED_CELL_UM if abs(off) < AGREEMENT else RED_CELL_UM * float(np.exp(off))


def with_red_cell_sizes(pooled: Pooled, diameters: Iterable[Sequence[float]]) -> Pooled:
    """Return the groups of a folder with the size of their red cells.

    Args:
        pooled: the groups, at red cells of 7.5 um.
        diameters: of the granulocytes of each group, um.
    """
    sized = [
        replace(group, red_cell_um=red_cell_size(found))
        for group, found in zip(pooled.groups, diameters, strict=True)
    ]
    return replace(pooled, groups=tuple(sized))
