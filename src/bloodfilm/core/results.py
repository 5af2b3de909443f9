"""What an analysis says of a field: cells with class, attributes and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bloodfilm.core.field import Box


@dataclass(frozen=True, slots=True)
class AttributeResult:
    """One attribute of one cell.

    Attributes:
        value: the answer; `None` where the model abstains or never learnt the attribute.
        probability: of the most likely answer, calibrated; 0 if never learnt.
        probabilities: of every answer.
    """

    value: str | None
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CellResult:
    """One cell that was found.

    Attributes:
        box: (x, y, w, h) in pixels of the original image.
        score: how sure the model is that there is such a cell, in [0, 1]: the detector, and for a
            nucleated cell its stain beside the red cells' and a closer look.
        kind: what the detector took it for: `nucleated cell`, `red cell` or `platelet`.
        label: the deepest node of the taxonomy the model is sure enough of.
        label_score: the probability of that node, calibrated.
        probabilities: of every leaf the model knows; empty for red cells and platelets.
        attributes: by name.
        flags: doubts in plain words, e.g. `cut by the edge`, `unlike anything learnt`.
        diameter_um: (w + h) / 2 of the box in micrometres.
        confirmed: the probability, by the closer look alone, that it is a nucleated cell; `None`
            where nothing looked closer.
        stain_contrast: of a nucleated cell, what it absorbs apart from the colour of the field's
            red cells, natural logarithm; `None` where too few red cells, or no colour, can tell.
    """

    box: Box
    score: float
    kind: str
    label: str
    label_score: float
    probabilities: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, AttributeResult] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    diameter_um: float | None = None
    confirmed: float | None = None
    stain_contrast: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the full record as plain data, numbers rounded to what they are good for."""
        return {
            "box": [round(v, 1) for v in self.box],
            "score": round(self.score, 4),
            "kind": self.kind,
            "class": self.label,
            "class_score": round(self.label_score, 4),
            "probabilities": {k: round(v, 4) for k, v in self.probabilities.items()},
            "attributes": {
                name: {
                    "value": a.value,
                    "probability": round(a.probability, 4),
                    "probabilities": {k: round(v, 4) for k, v in a.probabilities.items()},
                }
                for name, a in self.attributes.items()
            },
            "flags": list(self.flags),
            "diameter_um": _rounded(self.diameter_um, 2),
            "confirmed": _rounded(self.confirmed, 4),
            "stain_contrast": _rounded(self.stain_contrast, 3),
        }


@dataclass(frozen=True)
class FieldResult:
    """What was found in one field.

    Attributes:
        path: the image, as the user named it.
        width, height: of the original image, pixels.
        view: the canonical view's own record (scale, squeeze, white point, how they were got).
        cells: by position, top to bottom, then left to right.
        problems: what a reader should know before trusting this field.
        seconds: time by stage.
    """

    path: str
    width: int
    height: int
    view: Mapping[str, Any]
    cells: tuple[CellResult, ...]
    problems: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the full record as plain data (times left out: they differ from run to run)."""
        return {
            "image": self.path,
            "width": self.width,
            "height": self.height,
            "view": dict(self.view),
            "cells": [cell.to_json() for cell in self.cells],
            "problems": list(self.problems),
        }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
