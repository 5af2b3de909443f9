"""Ground truth of a rendered image, and its conversion to a `Field`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.domain import Domain
from bloodfilm.core.field import Box, Cell, Field
from bloodfilm.core.polygons import Region
from bloodfilm.synthetic.morphology import CellObject

MIN_VISIBLE_FRACTION = 0.15
"""Cut cells with less than this fraction of their area in the image are marked `ignore`."""


@dataclass(frozen=True)
class VisibleObject:
    """One object in the image.

    Attributes:
        item: the physical object.
        box: the tight box of the part in the image, (x, y, w, h) in pixels.
        full_box: the box without the cut at the image edge.
        visible_fraction: fraction of its area inside the image.
    """

    item: CellObject
    box: Box
    full_box: Box
    visible_fraction: float

    @property
    def cut(self) -> bool:
        """Whether the image edge cuts it."""
        return self.visible_fraction < 1

    @property
    def ignore(self) -> bool:
        """Whether it is neither a cell to find nor background: slivers at the edge."""
        return self.visible_fraction < MIN_VISIBLE_FRACTION

    @property
    def cell(self) -> Cell:
        """The annotation."""
        t = self.item
        return Cell(self.box, t.label, t.values, self.ignore, t.id)


@dataclass(frozen=True)
class GroundTruth:
    """All objects in a rendered image.

    Attributes:
        width, height: pixels.
        visible: all objects except debris, cut ones included.
        domain: scale and pixel aspect ratio included.
        matrix: 2x3, from um on the glass to pixels.
        instances: (H, W) uint16, k where the k-th (from 1) of `visible` is a nucleated cell.
        nuclei: (H, W) bool, true in the nuclei.
        region: the annotated region.
    """

    width: int
    height: int
    visible: tuple[VisibleObject, ...]
    domain: Domain
    matrix: NDArray[np.float64]
    instances: NDArray[np.uint16]
    nuclei: NDArray[np.bool_]
    region: Region = Region.everything()  # noqa: RUF009 - frozen

    def of_kind(self, *kinds: str) -> tuple[VisibleObject, ...]:
        """Return the objects of some kinds: white, erythroblast, artefact, red, platelet."""
        return tuple(s for s in self.visible if s.item.kind in kinds)

    @property
    def white(self) -> tuple[VisibleObject, ...]:
        """The white cells."""
        return self.of_kind("white")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Annotations of the nucleated cells and of what may pass for one (smudge cells, ...)."""
        return tuple(s.cell for s in self.of_kind("white", "erythroblast", "artefact"))

    @property
    def red_boxes(self) -> NDArray[np.float64]:
        """Boxes of the red cells that the edge does not cut, (n, 4)."""
        return np.array([s.box for s in self.of_kind("red") if not s.cut]).reshape(-1, 4)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """The visible mask of `visible[index]`, a nucleated cell; (H, W) bool."""
        return np.asarray(self.instances == index + 1)

    def limited(self, region: Region) -> "GroundTruth":
        """Return the ground truth restricted to objects centred in `region`."""
        kept = tuple(
            s
            for s in self.visible
            if region.contains([[s.box[0] + s.box[2] / 2, s.box[1] + s.box[3] / 2]])[0]
        )
        index = {id(s): k for k, s in enumerate(self.visible, start=1)}
        lookup = np.zeros(len(self.visible) + 1, np.uint16)
        for new, s in enumerate(kept, start=1):
            lookup[index[id(s)]] = new
        return replace(self, visible=kept, instances=lookup[self.instances], region=region)

    def field(
        self, path: Path, small: bool = False, meta: Mapping[str, str] | None = None
    ) -> Field:
        """Return the image as a `Field`; with `small`, red cells and platelets are included."""
        cells = self.cells
        if small:
            cells += tuple(s.cell for s in self.of_kind("red", "platelet"))
        return Field(
            path,
            self.width,
            self.height,
            cells,
            self.region,
            self.domain,
            meta=dict(meta or {}),
        )
