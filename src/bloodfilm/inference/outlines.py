"""Outlines of cell and nucleus: crops for the outline graph, and shapes from its maps."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.core.boxes import iou
from bloodfilm.core.field import Box
from bloodfilm.core.results import CellShape
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.colour_normalisation import normalise
from bloodfilm.imaging.resample import box_step
from bloodfilm.inference.graph_run import batches, run_graph
from bloodfilm.inference.manifest import OutlineSpec
from bloodfilm.inference.morphometry import (
    Contour,
    Mask,
    Region,
    body_of,
    bounds,
    contour_of,
    lobe_count,
    mean_colour,
    middle_half,
    pieces_of,
)

FINE = 2
"""Masks are interpolated to so many times the resolution of the crop."""
LEAST = 0.15
"""A cell fills at least this share of its box; less is no outline of it."""
STRIDE = 2
"""The graph's maps have half the resolution of its crops."""
ENLARGED = FINE * STRIDE
MARGIN = 2
"""Places of the graph's maps around a cell that its outline may reach by interpolation."""
BATCH = 8
USUAL_UM = 16.0
"""Side of the box of a cell whose box is not known."""


class CellOutliner:
    """Outlines cells with an outline graph.

    Args:
        spec: of the graph.
        session: the graph, opened.
    """

    def __init__(self, spec: OutlineSpec, session: object) -> None:
        self.spec, self._session = spec, session

    def outline(self, view: CanonicalView, image: Pixels, boxes: Floats) -> list[CellShape | None]:
        """Return the shape of each cell; `None` where its outline cannot be made out.

        Args:
            view: of the image.
            image: (H, W, 3).
            boxes: (n, 4) x, y, w, h of nucleated cells, px.
        """
        shapes: list[CellShape | None] = []
        for some in batches(boxes, BATCH):
            crops = np.stack([self._crop(view, image, box) for box in some])
            standard = self.spec.colours.standard
            seen = np.stack([normalise(crop, standard) for crop in crops])
            side = self.spec.size // STRIDE
            wanted = {"maps": (len(seen), 2, side, side)}
            (maps,) = run_graph(self._session, self.spec.file, {"crops": seen}, wanted)
            shapes += [
                self._shape(view, crop, box, logits)
                for crop, box, logits in zip(crops, some, maps, strict=True)
            ]
        return shapes

    def settled_box(self, box: Box, shape: CellShape | None) -> Box:
        """Return a cell's box in view of its outline.

        Where the two differ much, as under a lens that the detector has not seen, neither alone is
        right: see `box_agreement` of the manifest.

        Args:
            box: of the detector, px.
            shape: of the cell; `None` leaves the box as it is.
        """
        if shape is None:
            return box
        corners = np.array(shape.outline)
        low, high = corners.min(axis=0), corners.max(axis=0)
        around = np.concatenate([low, high - low])
        if iou([box], [around])[0, 0] >= self.spec.box_agreement:
            return box
        x, y, w, h = ((np.array(box) + around) / 2).tolist()
        return x, y, w, h

    def outline_cells(
        self, view: CanonicalView, image: Pixels, boxes: Sequence[Box | None]
    ) -> list[CellShape | None]:
        """Return the shapes of labelled cells; one without a box is in the middle of the image."""
        known = np.array([box for box in boxes if box is not None], dtype=np.float64)
        boxed = iter(self.outline(view, image, known.reshape(-1, 4)))
        return [self.outline_middle(view, image) if box is None else next(boxed) for box in boxes]

    def outline_middle(self, view: CanonicalView, image: Pixels) -> CellShape | None:
        """Return the shape of the cell in the middle of an image, whose box is not known.

        It is outlined in a box of usual size, and again in that of the outline.
        """
        middle = np.array([view.width, view.height]) / 2
        sides = USUAL_UM / np.array([view.um_per_px_x, view.um_per_px_y])
        box = np.concatenate([middle - sides / 2, sides])
        (first,) = self.outline(view, image, box[None])
        if first is None:
            return None
        corners = np.array(first.outline)
        low, high = corners.min(axis=0), corners.max(axis=0)
        (shape,) = self.outline(view, image, np.concatenate([low, high - low])[None])
        return shape

    def _scale(self, view: CanonicalView, box: Sequence[float] | Floats) -> float:
        """Return um per pixel of a cell's crop."""
        um = view.um_per_px_x, view.um_per_px_y
        step, _ = box_step((float(box[2]), float(box[3])), um, self.spec.share * self.spec.size)
        return step * um[0]

    def _crop(self, view: CanonicalView, image: Pixels, box: Floats) -> Pixels:
        middle = [box[:2] + box[2:] / 2]
        (crop,) = view.crops(image, middle, self.spec.size, self._scale(view, box), balanced=False)
        return np.asarray(crop)

    def _shape(
        self, view: CanonicalView, crop: Pixels, box: Floats, logits: NDArray[np.float32]
    ) -> CellShape | None:
        where = _region(logits[0] > 0)
        if where is None:
            return None
        inside, nucleus_map = (_enlarged(m[where]) for m in logits)
        corner = np.array([where[1].start, where[0].start]) * ENLARGED
        side = self.spec.size * FINE
        cell = body_of(inside, _moved(middle_half(side, side), corner))
        contour = None if cell is None else contour_of(cell)
        um = self._scale(view, box) / FINE
        steps = np.array([um / view.um_per_px_x, um / view.um_per_px_y])
        if cell is None or contour is None:
            return None
        if contour.area * steps.prod() < LEAST * box[2] * box[3]:
            return None
        pieces = [(p, contour_of(p)) for p in pieces_of(nucleus_map & cell)]
        nuclei = [(mask, line) for mask, line in pieces if line is not None]
        nucleus = _union([mask for mask, _ in nuclei], cell.shape)
        origin = box[:2] + box[2:] / 2 + (corner - side / 2) * steps
        nucleus_area = float(np.count_nonzero(nucleus))

        def placed(line: Contour) -> tuple[tuple[float, float], ...]:
            xy = line.points * steps + origin
            np.minimum(np.maximum(xy, 0, out=xy), (view.width, view.height), out=xy)
            return tuple(map(tuple, xy.tolist()))

        return CellShape(
            outline=placed(contour),
            nucleus=tuple(placed(line) for _, line in nuclei),
            area_um2=contour.area * um**2,
            nucleus_area_um2=nucleus_area * um**2,
            diameter_um=2 * float(np.sqrt(contour.area / np.pi)) * um,
            length_um=contour.sides[0] * um,
            width_um=contour.sides[1] * um,
            nucleus_ratio=nucleus_area / contour.area,
            circularity=contour.circularity,
            nucleus_circularity=nuclei[0][1].circularity if len(nuclei) == 1 else None,
            lobes=lobe_count(nucleus),
            **_colours(view.balance(_part(crop, where)), cell, nucleus),
        )


def _region(mask: Mask) -> Region | None:
    """Return the part of the graph's map that holds a mask and what lies next to it."""
    if not mask.any():
        return None
    rows, columns = (
        slice(max(0, span.start - MARGIN), min(length, span.stop + MARGIN))
        for span, length in zip(bounds(mask), mask.shape, strict=True)
    )
    return rows, columns


def _union(masks: list[Mask], shape: tuple[int, ...]) -> Mask:
    """Return where one of several masks is."""
    if len(masks) == 1:
        return masks[0]
    return np.logical_or.reduce(masks) if masks else np.zeros(shape, np.bool_)


def _enlarged(logits: NDArray[np.float32]) -> Mask:
    """Return where a part of the graph's map is positive, interpolated."""
    rows, columns = logits.shape
    size = columns * ENLARGED, rows * ENLARGED
    return np.asarray(cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR) > 0)


def _moved(region: Region, corner: NDArray[np.intp]) -> Region:
    """Return rows and columns counted from a corner x, y."""
    rows, columns = (
        slice(max(0, span.start - start), max(0, span.stop - start))
        for span, start in zip(region, (int(corner[1]), int(corner[0])), strict=True)
    )
    return rows, columns


def _part(crop: Pixels, where: Region) -> Pixels:
    """Return the pixels of a crop that a part of the graph's map shows."""
    rows, columns = (slice(span.start * STRIDE, span.stop * STRIDE) for span in where)
    return crop[rows, columns]


def _colours(balanced: Pixels, cell: Mask, nucleus: Mask) -> dict[str, tuple[int, int, int] | None]:
    """Return mean colours of nucleus and cytoplasm, from pixels half as fine as the masks."""
    coarse = slice(FINE // 2, None, FINE)
    return {
        "nucleus_rgb": mean_colour(balanced, nucleus[coarse, coarse]),
        "cytoplasm_rgb": mean_colour(balanced, (cell & ~nucleus)[coarse, coarse]),
    }
