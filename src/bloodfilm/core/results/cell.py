"""One detected cell: box, object type, label, attributes, confidences, issues."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bloodfilm.core import issue_codes
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Box
from bloodfilm.core.figures import number, number_or_none, share, shares
from bloodfilm.core.issues import Issue
from bloodfilm.core.results.shape import CellShape

_VERSION_1_FLAGS = {
    "cut by the edge": issue_codes.CUT_BY_EDGE,
    "unlike anything learnt": issue_codes.UNFAMILIAR,
    "absorbs little that the red cells around it do not": issue_codes.LOW_STAIN_CONTRAST,
    "a closer look doubts that it is a nucleated cell": issue_codes.LOW_NUCLEATED_PROBABILITY,
}


@dataclass(frozen=True, slots=True)
class AttributeResult:
    """One attribute of one cell.

    Attributes:
        value: `None` where no value is probable enough, or the model is not trained for it.
        probability: of the most probable value, calibrated; 0 if the model is not trained for it.
        probabilities: of every value.
    """

    value: str | None
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CellResult:
    """One detected cell.

    Attributes:
        box: (x, y, w, h) in pixels of the original image; x, y is the top left corner.
        confidence: that there is such a cell, in [0, 1]: the detector's score; of a nucleated cell
            combined with its stain contrast and the classifier's verification head.
        object_type: the detector's class, e.g. `nucleated cell`, `red cell`, `platelet`.
        label: the deepest node of the taxonomy whose probability is high enough.
        label_confidence: the probability of that node, calibrated.
        probabilities: of every leaf of the taxonomy that the model is trained for; empty for
            objects that the classifier does not see.
        attributes: by name.
        issues: what to know before trusting this cell.
        diameter_um: (w + h) / 2 of the box in micrometres.
        nucleated_probability: of being a nucleated cell according to the classifier's
            verification head alone; `None` without one.
        stain_contrast: of a nucleated cell, absorbance apart from the colour of the field's red
            cells, natural logarithm; `None` where too few red cells or no colour were measured.
        shape: outlines of cell and nucleus, and what is measured on them; `None` for objects that
            are not outlined.
        id: the same for the same image and bundle, unique within a run; see `with_ids`.
    """

    box: Box
    confidence: float
    object_type: str
    label: str
    label_confidence: float
    probabilities: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, AttributeResult] = field(default_factory=dict)
    issues: tuple[Issue, ...] = ()
    diameter_um: float | None = None
    nucleated_probability: float | None = None
    stain_contrast: float | None = None
    shape: CellShape | None = None
    id: str = ""

    def __repr__(self) -> str:
        x, y, w, h = self.box
        parts = [f"{self.label_confidence:.2f}", f"box ({x:.0f}, {y:.0f}, {w:.0f}, {h:.0f})"]
        parts += [issue.code for issue in self.issues]
        name = self.label if self.label == self.object_type else f"{self.object_type}: {self.label}"
        return f"<CellResult {name} {', '.join(parts)}>"

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """The box as left, top, right, bottom; right and bottom are exclusive.

        >>> CellResult((10, 20, 5, 6), 0.9, "red cell", "red cell", 0.9).xyxy
        (10, 20, 15, 26)
        """
        x, y, w, h = self.box
        return x, y, x + w, y + h

    def to_json(self) -> dict[str, Any]:
        """Return the cell as plain data, numbers rounded to meaningful precision."""
        return {
            "id": self.id,
            "box": [round(v, 1) for v in self.box],
            "score": round(self.confidence, 4),
            "object_type": self.object_type,
            "class": self.label,
            "class_score": round(self.label_confidence, 4),
            "probabilities": {k: round(v, 4) for k, v in self.probabilities.items()},
            "attributes": {
                name: {
                    "value": a.value,
                    "probability": round(a.probability, 4),
                    "probabilities": {k: round(v, 4) for k, v in a.probabilities.items()},
                }
                for name, a in self.attributes.items()
            },
            "issues": [issue.to_json() for issue in self.issues],
            "diameter_um": _rounded(self.diameter_um, 2),
            "nucleated_probability": _rounded(self.nucleated_probability, 4),
            "stain_contrast": _rounded(self.stain_contrast, 3),
            **({} if self.shape is None else {"shape": self.shape.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CellResult":
        """Read a cell of version 2 (`to_json`) or 1.

        Raises:
            DataError: if a score is no probability, or a box or figure no finite number.
            KeyError, TypeError, ValueError: if it is neither version.
        """
        first = "kind" in data
        x, y, w, h = (number(v, "box") for v in data["box"])
        if w < 0 or h < 0:
            raise DataError(f"box: {w:g} x {h:g} px")
        nucleated = data.get("confirmed") if first else data["nucleated_probability"]
        return cls(
            box=(x, y, w, h),
            confidence=share(data["score"], "score"),
            object_type=str(data["kind" if first else "object_type"]),
            label=str(data["class"]),
            label_confidence=share(data["class_score"], "class_score"),
            probabilities=shares(data["probabilities"]),
            attributes={
                str(name): AttributeResult(
                    None if a["value"] is None else str(a["value"]),
                    share(a["probability"], str(name)),
                    shares(a["probabilities"], str(name)),
                )
                for name, a in data["attributes"].items()
            },
            issues=_version_1_issues(data["flags"])
            if first
            else tuple(Issue.from_json(item) for item in data["issues"]),
            diameter_um=number_or_none(data["diameter_um"], "diameter_um"),
            nucleated_probability=None
            if nucleated is None
            else share(nucleated, "nucleated_probability"),
            stain_contrast=number_or_none(data.get("stain_contrast"), "stain_contrast"),
            shape=CellShape.from_json(data["shape"]) if data.get("shape") else None,
            id="" if first else str(data["id"]),
        )


def with_ids(cells: Iterable[CellResult], image: str) -> tuple[CellResult, ...]:
    """Give cells their ids: 16 hexadecimal digits of image, object type and rounded box.

    Args:
        cells: of one image, in order.
        image: what identifies the image in the run, its SHA-256.

    >>> cell = CellResult((10.04, 20, 5, 6), 0.9, "red cell", "red cell", 0.9)
    >>> [c.id for c in with_ids([cell, cell], "ab12")]
    ['f118da87532700b6', 'f118da87532700b6-2']
    """
    met: Counter[str] = Counter()
    given = []
    for cell in cells:
        box = "{:.1f} {:.1f} {:.1f} {:.1f}".format(*cell.box)
        text = f"{image}\n{cell.object_type}\n{box}".encode("utf-8", "surrogateescape")
        name = hashlib.sha256(text).hexdigest()[:16]
        met[name] += 1
        given.append(replace(cell, id=name if met[name] == 1 else f"{name}-{met[name]}"))
    return tuple(given)


def _version_1_issues(flags: Iterable[str]) -> tuple[Issue, ...]:
    """Version 1 had a sentence for each of four conditions."""
    return tuple(
        issue_codes.issue(_VERSION_1_FLAGS.get(flag, issue_codes.UNCODED), str(flag))
        for flag in flags
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
