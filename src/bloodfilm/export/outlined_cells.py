"""Training cells of a bundle, outlined by its own network."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Cell
from bloodfilm.core.arrays import Pixels
from bloodfilm.core.errors import BloodfilmError, ConfigError
from bloodfilm.core.progress import Progress, track
from bloodfilm.core.results import CellShape
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.sources import read_whole
from bloodfilm.imaging.sources.field import open_field
from bloodfilm.inference.bundle import Bundle
from bloodfilm.inference.outlines import CellOutliner
from bloodfilm.training.data.canonical_fields import training_view
from bloodfilm.training.data.cell_crops import trainable_cells
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.vocabulary import Vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutlinedField:
    """Cells of a field with their shapes; `None` where an outline cannot be made out.

    Attributes:
        item: the field.
        image: (H, W, 3).
        view: of it.
        cells: those wanted.
        boxes: (n, 4) x, y, w, h of the cells, px; the whole image where a cell has none.
        shapes: of the cells.
    """

    item: SourcedField
    image: Pixels
    view: CanonicalView
    cells: tuple[Cell, ...]
    boxes: NDArray[np.float64]
    shapes: tuple[CellShape | None, ...]


def outlined_cells(
    bundle: Bundle,
    words: Vocabulary,
    fields: Sequence[SourcedField],
    wanted: Callable[[SourcedField, Cell], bool],
    progress: Progress,
) -> Iterator[OutlinedField]:
    """Outline cells of fields as the runtime does, in the boxes that the data set gives them.

    A cell without a box is in the middle of its image.

    Fields without a cell that is wanted are skipped; those that cannot be read are named in the
    log.

    Args:
        bundle: with an outline network.
        words: which cells can be learnt from.
        fields: of data sets.
        wanted: which of their cells are outlined.
        progress: follows the work.

    Raises:
        ConfigError: if the bundle has no outline network.
    """
    spec = bundle.manifest.outlines
    if spec is None:
        raise ConfigError(f"{bundle.path}: cannot measure cells; give it an outline network first")
    outliner = CellOutliner(spec, bundle.outlines("cpu", 1))
    for i in track(range(len(fields)), progress, "outlines", len(fields)):
        item = fields[i]
        cells = tuple(
            cell
            for cell in trainable_cells(item.field.cells, words, item.dataset.taxonomy)
            if wanted(item, cell)
        )
        if not cells:
            continue
        try:
            source = open_field(item.field)
            view = training_view(item.field, source, words.roles.ruler)
            image = read_whole(source)
            whole = (0.0, 0.0, float(view.width), float(view.height))
            boxes = np.array([cell.box or whole for cell in cells], dtype=np.float64)
            shapes = outliner.outline_cells(view, image, [cell.box for cell in cells])
        except BloodfilmError as error:
            _log.warning("left out: %s", error)
            continue
        yield OutlinedField(item, image, view, cells, boxes, tuple(shapes))


def check_measurable(bundle: Bundle, attribute: str) -> None:
    """Refuse an attribute that a bundle does not have."""
    m = bundle.manifest
    if attribute not in m.attributes:
        raise ConfigError(
            f"{bundle.path}: has no attribute {attribute!r}; it has {', '.join(m.attributes.names)}"
        )
