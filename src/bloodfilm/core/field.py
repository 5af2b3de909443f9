"""An annotated field: its cells, the region in which all cells are annotated, its origin."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bloodfilm.core.domain import Domain
from bloodfilm.core.polygons import Region

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of a cell beyond its name; a cell that has one was annotated by nobody.

    Attributes:
        object_type: the detector's class.
        score: confidence that there is such a cell.
        class_score: probability of the cell's label.
        uncertain: whether a person should look at it: its label is not as close as the tree goes,
            or an issue warns of it.
        issues: codes of what to know before trusting it.
    """

    object_type: str
    score: float
    class_score: float
    uncertain: bool = False
    issues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One annotated cell.

    Attributes:
        box: (x, y, w, h) in pixels of the original image; x, y is the top left corner. `None` for
            the centred cell of a single-cell image without a box (PBC).
        label: a node of the data set's taxonomy; `None` for an object without a name.
        attributes: attribute name -> value; an attribute that is absent is unknown.
        ignore: neither a cell to detect nor background (LLD's `none`, doubtful objects).
        id: of the annotation, if the data set has ids.
        source_label: the data set's own name of the class, where the taxonomy has no node for it;
            `label` is `None` then.
        outline: the shape that was drawn, where it is more than the box; its polygons add up.
        prediction: of a cell that a model proposes.
    """

    box: Box | None
    label: str | None
    attributes: Mapping[str, str] = field(default_factory=dict)
    ignore: bool = False
    id: str | None = None
    source_label: str | None = None
    outline: Region | None = None
    prediction: Prediction | None = None

    @property
    def class_name(self) -> str | None:
        """The class as the data set names it: the taxonomy's name, else the set's own."""
        return self.label or self.source_label


@dataclass(frozen=True, slots=True)
class Field:
    """One image of a blood film with its annotations.

    Attributes:
        path: the image file.
        width, height: its size in pixels; `None` if not yet read.
        cells: the annotated cells.
        region: where every cell is annotated; outside it nothing is known.
        domain: the acquisition.
        patient: whose film it is; fields of one patient are never put into two splits.
        split: `train`, `val`, `test`, or `None`.
        diagnosis: of the patient, if stated.
        meta: further properties that the data set records (e.g. LLD's photograph number).
    """

    path: Path
    width: int | None = None
    height: int | None = None
    cells: tuple[Cell, ...] = ()
    region: Region = field(default_factory=Region.everything)
    domain: Domain = field(default_factory=Domain)
    patient: str | None = None
    split: str | None = None
    diagnosis: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    def moved(self, path: Path) -> "Field":
        """Return the same field with its image in another place."""
        return replace(self, path=path)

    def with_cells(self, cells: tuple[Cell, ...]) -> "Field":
        """Return the same field with other cells."""
        return replace(self, cells=cells)
