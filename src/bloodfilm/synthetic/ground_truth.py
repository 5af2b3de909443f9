"""The exact truth about a rendered picture, and how it becomes a `Field`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.domain import Domain
from bloodfilm.core.field import Box, Cell, Field
from bloodfilm.core.polygons import Region
from bloodfilm.synthetic.morphology import CellObject

LEAST_VISIBLE = 0.15
"""Cut cells of which less than this share is in the picture are marked `ignore`."""


@dataclass(frozen=True)
class VisibleObject:
    """One object in the picture.

    Attributes:
        thing: the physical object.
        box: the tight box of what is in the picture, (x, y, w, h) in pixels.
        full_box: the box it would have if the picture went on.
        visible: share of its area inside the picture.
    """

    thing: CellObject
    box: Box
    full_box: Box
    visible: float

    @property
    def cut(self) -> bool:
        """Whether the edge of the picture cuts it."""
        return self.visible < 1

    @property
    def ignore(self) -> bool:
        """Whether it is neither a cell to find nor background: slivers at the edge."""
        return self.visible < LEAST_VISIBLE

    @property
    def cell(self) -> Cell:
        """The annotation."""
        t = self.thing
        return Cell(self.box, t.label, t.values, self.ignore, t.id)


@dataclass(frozen=True)
class GroundTruth:
    """Everything that is in a rendered picture.

    Attributes:
        width, height: pixels.
        seen: all objects but debris, cut ones too.
        domain: scale and squeeze included.
        matrix: 2x3, from um on the glass to pixels.
        instances: (H, W) uint16, k where the k-th (from 1) of `seen` is a nucleated cell.
        nuclei: (H, W) bool, true in the nuclei.
        region: where the annotation counts.
    """

    width: int
    height: int
    seen: tuple[VisibleObject, ...]
    domain: Domain
    matrix: NDArray[np.float64]
    instances: NDArray[np.uint16]
    nuclei: NDArray[np.bool_]
    region: Region = Region.everything()  # noqa: RUF009 - frozen

    def of_kind(self, *kinds: str) -> tuple[VisibleObject, ...]:
        """Return the objects of some kinds: white, erythroblast, artefact, red, platelet."""
        return tuple(s for s in self.seen if s.thing.kind in kinds)

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

    @property
    def platelet_boxes(self) -> NDArray[np.float64]:
        """Boxes of the platelets, (n, 4)."""
        return np.array([s.box for s in self.of_kind("platelet")]).reshape(-1, 4)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """The visible mask of `seen[index]`, a nucleated cell; (H, W) bool."""
        return np.asarray(self.instances == index + 1)

    def limited(self, region: Region) -> "GroundTruth":
        """Return the truth an annotator would give who marked only what is centred in `region`."""
        kept = tuple(
            s
            for s in self.seen
            if region.contains([[s.box[0] + s.box[2] / 2, s.box[1] + s.box[3] / 2]])[0]
        )
        index = {id(s): k for k, s in enumerate(self.seen, start=1)}
        lookup = np.zeros(len(self.seen) + 1, np.uint16)
        for new, s in enumerate(kept, start=1):
            lookup[index[id(s)]] = new
        return replace(self, seen=kept, instances=lookup[self.instances], region=region)

    def field(
        self, path: Path, small: bool = False, meta: Mapping[str, str] | None = None
    ) -> Field:
        """Return the picture as a `Field`; with `small`, red cells and platelets are in it too."""
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
