"""The result of one field, and the record of a file that gave none."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Image
from bloodfilm.core.boxes import centres
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import BloodfilmError, DataError, is_out_of_memory
from bloodfilm.core.field import Cell, Field, Prediction
from bloodfilm.core.figures import MOST_PIXELS, whole
from bloodfilm.core.issues import Issue, codes
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.polygons import Region
from bloodfilm.core.results import interop
from bloodfilm.core.results.cell import CellResult
from bloodfilm.core.results.slide import SlideRecord
from bloodfilm.core.results.tables import data_frame
from bloodfilm.core.text import plural

_DIGEST = re.compile("[0-9a-f]{64}")
_VERSION_1_SOURCES = {"stated": "user"}


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Which image a result is of.

    Attributes:
        path: of the file, as the user named it; what the caller called an array.
        width, height: of the original image, pixels.
        sha256: of the file's bytes, of an array's pixels; empty in results of version 1.
        pixels: SHA-256 of the decoded pixels; equal for one picture in several file formats.
        appearance: hash of how the picture looks, 64 hexadecimal digits; differs little where it
            was compressed or resized anew (`imaging.picture_key`). Both are empty in results of
            versions 1 and 2, and where they were not taken.
    """

    path: str
    width: int
    height: int
    sha256: str = ""
    pixels: str = ""
    appearance: str = ""


@dataclass(frozen=True)
class FieldResult:
    """What was detected in one field.

    Attributes:
        image: the image.
        view: scale, pixel aspect ratio and white point, and where they come from.
        cells: by position, top to bottom, then left to right.
        issues: what to know before trusting this field.
        timings: seconds by stage.
        slide: which part of a slide was analysed; `None` for a photograph of a field.
    """

    image: ImageRef
    view: ViewRecord
    cells: tuple[CellResult, ...]
    issues: tuple[Issue, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    slide: SlideRecord | None = None

    def __repr__(self) -> str:
        types = Counter(cell.object_type for cell in self.cells)
        parts = [plural(n, kind) for kind, n in types.most_common()] or ["no cells"]
        parts += [issue.code for issue in self.issues]
        return f"<FieldResult {self.path!r}: {', '.join(parts)}>"

    @property
    def path(self) -> str:
        """The image's path, as the user named it."""
        return self.image.path

    @property
    def needs_attention(self) -> bool:
        """Whether an issue is a warning or an error."""
        return any(issue.severity != "info" for issue in self.issues)

    @property
    def countable(self) -> bool:
        """Whether the field's cells may enter a count.

        Its scale is known, it shows a film, and its picture was not analysed before in the run.
        """
        return not (codes(self.issues) & issue_codes.UNCOUNTABLE)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data (without timings, which differ from run to run).

        `problems` repeats the messages of `issues`, for people and for readers of version 1.
        """
        return {
            "image": self.image.path,
            "sha256": self.image.sha256,
            "pixels": self.image.pixels,
            "appearance": self.image.appearance,
            "width": self.image.width,
            "height": self.image.height,
            "view": self.view.to_json(),
            "cells": [cell.to_json() for cell in self.cells],
            "issues": [issue.to_json() for issue in self.issues],
            "problems": [issue.message for issue in self.issues],
            **({} if self.slide is None else {"slide": self.slide.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FieldResult":
        """Read a field of version 2 (`to_json`) or 1; `DataError` if it is neither."""
        try:
            first = "issues" not in data
            width = whole(data["width"], "width", 1, MOST_PIXELS)
            height = whole(data["height"], "height", 1, MOST_PIXELS)
            return cls(
                image=ImageRef(
                    str(data["image"]),
                    width,
                    height,
                    "" if first else str(data["sha256"]),
                    _hexadecimal(data.get("pixels", "")),
                    _hexadecimal(data.get("appearance", "")),
                ),
                view=_version_1_view(data["view"]) if first else ViewRecord.from_json(data["view"]),
                cells=_cells(data["cells"], width, height),
                issues=tuple(
                    issue_codes.issue(issue_codes.UNCODED, str(p)) for p in data["problems"]
                )
                if first
                else tuple(Issue.from_json(item) for item in data["issues"]),
                slide=SlideRecord.from_json(data["slide"]) if data.get("slide") else None,
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"result: not the record of a field ({error!r})") from None

    def to_dataframe(self, attributes: Sequence[str] | None = None) -> Any:
        """Return a pandas DataFrame: one row per cell, the columns of cells.csv.

        Args:
            attributes: names of the attribute columns; `None` takes those of the cells.

        Raises:
            MissingPackageError: without pandas (`pip install 'bloodfilm[dataframe]'`).
        """
        return data_frame([(self.path, self.cells)], attributes)

    def to_coco(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Return the cells in COCO's detection format, with scores.

        Args:
            labels: names of the first categories, in order; others follow as they occur.
        """
        return interop.coco_document([(self.coco_image, self.cells)], labels)

    @property
    def coco_image(self) -> dict[str, Any]:
        """The image's entry in a COCO document, without its id."""
        i = self.image
        return {"file_name": i.path, "width": i.width, "height": i.height, "sha256": i.sha256}

    def to_supervision(self, labels: Sequence[str] = ()) -> Any:
        """Return `supervision.Detections`.

        Args:
            labels: the names that class ids count; `()` takes those that occur, sorted.

        Raises:
            MissingPackageError: without supervision (`pip install supervision`).
        """
        return interop.supervision_detections(self.cells, labels)

    def plot(self, image: Image | None = None, axes: Any = None) -> Any:
        """Draw the field and its cells with matplotlib; return the axes.

        Args:
            image: the field's pixels; read from its path if left out.
            axes: matplotlib axes to draw on; new ones if left out.

        Raises:
            MissingPackageError: without matplotlib (`pip install 'bloodfilm[plot]'`).
            DataError: if the image cannot be read or has another size.
        """
        size = self.image.width, self.image.height
        return interop.draw(self.path, size, self.cells, image, axes)

    def to_field(
        self,
        reviewed_region: Region | None = None,
        sure_labels: Collection[str] | None = None,
    ) -> Field:
        """Return the result as an annotated field, for correction or training.

        Cells get their label, their outline and every attribute that has a value. Outside the
        reviewed region nothing is known of the field, so cells with their centre there are left
        out.

        Args:
            reviewed_region: where a person has checked that every cell is marked and named rightly;
                `None`: nothing has been checked, all cells are kept as proposals, with their
                `prediction`, and the field's region is empty.
            sure_labels: labels that are as close as the tree goes; proposals of others are marked
                as uncertain, as are those with a warning. `None` takes all labels for such.
        """
        cells = self.cells
        if reviewed_region is not None and cells:
            inside = reviewed_region.contains(centres([c.box for c in cells]))
            cells = tuple(c for c, kept in zip(cells, inside, strict=True) if kept)
        return Field(
            path=Path(self.path),
            width=self.image.width,
            height=self.image.height,
            cells=tuple(
                _annotated(cell)
                if reviewed_region is not None
                else replace(_annotated(cell), prediction=_prediction(cell, sure_labels))
                for cell in cells
            ),
            region=Region.nothing() if reviewed_region is None else reviewed_region,
            domain=_domain(self.view),
        )


@dataclass(frozen=True, slots=True)
class FieldFailure:
    """A file that could not be analysed: its path as the user named it, and why."""

    path: str
    issue: Issue

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return self.issue.message

    @classmethod
    def from_error(cls, path: str | Path, error: Exception) -> "FieldFailure":
        """Return the record of an error; the message does not repeat the path."""
        text = " ".join(str(error).split())
        if isinstance(error, BloodfilmError):
            code, message = issue_codes.UNREADABLE_IMAGE, text.removeprefix(f"{path}: ")
        elif is_out_of_memory(error):
            code = issue_codes.OUT_OF_MEMORY
            message = "not enough memory for this field; work on fewer fields at a time, or crop it"
        else:
            code = issue_codes.INTERNAL_ERROR
            message = f"internal error ({type(error).__name__}: {text[:200]}); please report it"
        return cls(str(path), issue_codes.issue(code, message))

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data; `reason` is the message of the issue."""
        return {"image": self.path, "reason": self.reason, "issue": self.issue.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FieldFailure":
        """Read a failure of version 2 (`to_json`) or 1; `DataError` if it is neither."""
        try:
            if "issue" in data:
                return cls(str(data["image"]), Issue.from_json(data["issue"]))
            found = issue_codes.issue(issue_codes.UNCODED, str(data["reason"]))
            return cls(str(data["image"]), found)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"result: not the record of a failure ({error!r})") from None


FieldOutcome = FieldResult | FieldFailure


def _cells(data: Sequence[Any], width: int, height: int) -> tuple[CellResult, ...]:
    """Read the cells of a field; a `DataError` says which one is wrong."""
    cells: list[CellResult] = []
    for item in data:
        try:
            cell = CellResult.from_json(item)
            x, y, w, h = cell.box
            if x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1:
                at = f"{x:g}, {y:g}, {w:g} x {h:g} px"
                raise DataError(f"box: {at} reaches beyond the image of {width} x {height} px")
            for key, polygon in () if cell.shape is None else cell.shape.polygons:
                xs, ys = zip(*polygon, strict=True)
                low, high = (min(xs), min(ys)), (max(xs), max(ys))
                if min(low) < -1 or high[0] > width + 1 or high[1] > height + 1:
                    raise DataError(f"{key}: reaches beyond the image of {width} x {height} px")
        except DataError as error:
            raise DataError(f"cell {len(cells)}: {error}") from None
        cells.append(cell)
    return tuple(cells)


def _hexadecimal(text: Any) -> str:
    """Return a digest as it was written: nothing, or 64 hexadecimal digits."""
    if text and not _DIGEST.fullmatch(text):
        raise ValueError("a digest that is none")
    return str(text)


def _annotated(cell: CellResult) -> Cell:
    known = {n: a.value for n, a in cell.attributes.items() if a.value is not None}
    outline = None if cell.shape is None else Region((cell.shape.outline,))
    return Cell(cell.box, cell.label, known, id=cell.id or None, outline=outline)


def _prediction(cell: CellResult, sure_labels: Collection[str] | None) -> Prediction:
    named = sure_labels is None or not cell.probabilities or cell.label in sure_labels
    return Prediction(
        object_type=cell.object_type,
        score=round(cell.confidence, 4),
        class_score=round(cell.label_confidence, 4),
        uncertain=not named or any(issue.severity != "info" for issue in cell.issues),
        issues=tuple(issue.code for issue in cell.issues),
    )


def _domain(view: ViewRecord) -> Domain:
    return Domain(
        um_per_px=None if view.scale_source == "assumed" else view.um_per_px_y,
        pixel_aspect_ratio=None if view.aspect_source == "assumed" else view.pixel_aspect_ratio,
    )


def _version_1_view(data: Mapping[str, Any]) -> ViewRecord:
    """Version 1 called a provided scale "stated", and kept its notes in the view as well."""
    kept = {k: v for k, v in data.items() if k not in ("note", "squeeze_source")}
    kept["aspect_source"] = data["squeeze_source"]
    for key in ("scale_source", "aspect_source"):
        kept[key] = _VERSION_1_SOURCES.get(kept[key], kept[key])
    return ViewRecord.from_json(kept)
