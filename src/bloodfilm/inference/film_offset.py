"""The offset of a film: what its cells have in common, apart from what they are.

Stain, camera and light shift the classifier's description of every cell of a film alike. By how
much follows from the film's own cells, without a label: the mean of how they differ from what the
classes that they seem to be look like in training. A classifier that can tell cells apart without
that offset (`FilmOffsetSpec`) names them by what is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.errors import DataError
from bloodfilm.core.figures import whole
from bloodfilm.inference.manifest import FilmOffsetSpec

Residuals = NDArray[np.float32]
ENOUGH_CELLS = 120
"""Cells of a film: the offset of more is hardly another."""


@dataclass(frozen=True, eq=False)
class FilmOffset:
    """The offset of a film.

    Attributes:
        values: (size,) what is taken from the description of each cell.
        cells: that it rests on.
    """

    values: Residuals
    cells: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"cells": self.cells, "values": self.values.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FilmOffset":
        """Read what `to_json` wrote; `DataError` if it is not an offset."""
        try:
            values = np.array(data["values"], dtype=np.float32)
            cells = whole(data["cells"], "cells", 1)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"film offset: not the record of one ({error!r})") from None
        if values.ndim != 1 or not np.isfinite(values).all():
            raise DataError("film offset: values must be a list of numbers")
        return cls(values, cells)


@dataclass(frozen=True, eq=False)
class FilmNaming:
    """How the cells of a field are named by their film.

    Attributes:
        offset: of the film; `None` names them one by one.
        residuals: gets, of each batch of cells that are reported, by how much they differ from
            what their classes look like in training, (n, size); `None` if nobody asks.
    """

    offset: FilmOffset | None = None
    residuals: list[Residuals] | None = None


ONE_BY_ONE = FilmNaming()


def offset_of(residuals: Sequence[Residuals], spec: FilmOffsetSpec) -> FilmOffset | None:
    """Return the offset of a film; `None` where it shows too few cells.

    Args:
        residuals: (n, size) of some of its cells, of its fields in an order that does not vary, so
            that the sum does not.
        spec: of the classifier.
    """
    cells = sum(map(len, residuals))
    if cells < spec.least_cells:
        return None
    total = np.concatenate(list(residuals)).astype(np.float64).mean(axis=0)
    return FilmOffset(total.astype(np.float32), cells)
