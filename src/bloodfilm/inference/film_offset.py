"""The offset of a film: what its cells have in common, apart from what they are.

Stain, camera and light shift the classifier's description of every cell of a film alike. By how
much follows from the film's own cells, without a label: the mean of how they differ from what the
classes that they seem to be look like in training. A classifier that can tell cells apart without
that offset (`FilmOffsetSpec`) names them by what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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

    def to_json(self) -> dict[str, object]:
        """Return it as plain data."""
        return {"cells": self.cells, "values": [float(v) for v in self.values]}

    @classmethod
    def from_json(cls, data: dict[str, object]) -> "FilmOffset":
        """Read what `to_json` wrote."""
        values, cells = data["values"], data["cells"]
        assert isinstance(values, list)
        assert isinstance(cells, int)
        return cls(np.array(values, dtype=np.float32), cells)


@dataclass(frozen=True, eq=False)
class FilmNaming:
    """How the cells of a field are named by their film.

    Attributes:
        offset: of the film; `None` names them one by one.
        residuals: gets, of each batch of cells that are reported, by how much they differ from
            what their classes look like in training, (n, size); `None` if nobody asks.
    """

    offset: FilmOffset | None = None
    residuals: list[Residuals] | None = field(default=None)


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
