"""What an audit says: findings, and what each kind of finding means."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bloodfilm.core import Box

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is, or may be, wrong.

    Attributes:
        kind: a key of `OBJECT_TYPES`.
        severity: `error` (wrong labels, or a leak), `warning` (look at it), `info` (know it).
        file: the image or label file it is about; the data set's name if it is about all of it.
        annotations: the annotations' own identities, as the label file has them.
        sure: how sure the audit is, in [0, 1].
        what: what was found, in plain words.
        suggestion: what to do about it.
        boxes: evidence: (x, y, w, h) in pixels of `file`.
        others: other files it is about.
        other_boxes: evidence in the others, a box for each; none where there is nothing to show.
    """

    kind: str
    severity: Severity
    file: str
    what: str
    suggestion: str
    sure: float = 1.0
    annotations: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    others: tuple[str, ...] = ()
    other_boxes: tuple[Box, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "sure": round(self.sure, 3),
            "file": self.file,
            "annotations": list(self.annotations),
            "what": self.what,
            "suggestion": self.suggestion,
            "boxes": _rounded(self.boxes),
            "others": list(self.others),
            "other_boxes": _rounded(self.other_boxes),
        }


def _rounded(boxes: Iterable[Box]) -> list[list[float]]:
    return [[round(float(v), 2) for v in box] for box in boxes]


KINDS: Mapping[str, str] = {
    "patient leak": "One patient's fields are in more than one split.",
    "identical fields": "One picture twice, whatever the files are called.",
    "overlapping fields": "Two fields show partly the same glass.",
    "same cell in two fields": "One physical cell is annotated in several fields.",
    "cell named differently": "One physical cell has another class in another field.",
    "repeated image entry": "A label file lists one image several times.",
    "exact repeat": "The same box with the same class, more than once.",
    "same cell twice": "Two boxes of one class on one cell (IoU above 0.5).",
    "two classes": "One box with two classes.",
    "no nucleus": "A box without a nucleus inside: over a red cell, or misplaced.",
    "unmarked white cell": "What looks like a white cell has no box.",
    "sliver": "A box under 8 pixels wide or high.",
    "cut by the edge": "A box within 3 pixels of the field's edge: the cell may be cut.",
    "outside": "A box that lies outside the image or reaches over its edge.",
    "zero size": "A box without area.",
    "stray code": "A class or attribute code that is none of the data set's.",
    "id and name differ": "A class id and the name given with it mean different classes.",
    "patch order": "Patch columns in another order than elsewhere, or that hold no box's centre.",
    "labels differ": "The JSON and the text labels of one field do not agree.",
    "orphan": "An annotation that belongs to no image, or a label file without its image.",
    "missing image": "A label speaks of an image that is not on disk.",
    "unreadable image": "An image that cannot be opened.",
    "odd file name": "A file name that does not follow the data set's pattern.",
    "unlabelled image": "An image that no label speaks of.",
    "empty subset": "A subset folder without any labels.",
    "unreadable labels": "A label file or line that cannot be read.",
    "blurred": "A field is out of focus.",
    "squeeze": "Round cells are not round, or not as the data set states.",
    "mixed scales": "Fields that should share one scale do not.",
    "confounded": "The diagnosis can be told without looking at a white cell.",
    "one slide": "One patient holds much of a class.",
    "few patients": "Too few patients for a claim about a diagnosis.",
    "re-acquisition": "The same fields photographed again: not independent samples.",
    "to ignore": "Objects named `none` hold recognisable white cells.",
    "not checked": "A check that could not be made.",
    "reader": "What the reader had to leave out or mend.",
}


def order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity, kind, file and place."""
    rank = {s: i for i, s in enumerate(SEVERITIES)}
    kinds = {k: i for i, k in enumerate(KINDS)}
    return sorted(
        findings,
        key=lambda f: (rank[f.severity], kinds.get(f.kind, 99), -f.sure, f.file, f.annotations),
    )


def counts(findings: Iterable[Finding]) -> dict[Severity, int]:
    """Count findings by severity, all severities named."""
    counted = Counter(f.severity for f in findings)
    return {s: counted[s] for s in SEVERITIES}
