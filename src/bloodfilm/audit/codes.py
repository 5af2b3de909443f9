"""The codes of an audit's findings: what each of them means, and their order."""

from collections.abc import Iterable, Mapping

from bloodfilm.core.findings import Finding
from bloodfilm.core.issues import SEVERITIES

CODES: Mapping[str, str] = {
    "patient-leak": "One patient's fields are in more than one split.",
    "identical-fields": "One image twice, whatever the files are called.",
    "augmented-copy": "One field is another, mirrored or turned by 90 degrees.",
    "overlapping-fields": "Two fields show partly the same glass.",
    "same-cell-in-two-fields": "One physical cell is annotated in several fields.",
    "cell-named-differently": "One physical cell has another class in another field.",
    "repeated-image-entry": "A label file lists one image several times.",
    "exact-repeat": "The same box with the same class, more than once.",
    "same-cell-twice": "Two boxes of one class on one cell (IoU above 0.5).",
    "two-classes": "One box with two classes.",
    "no-nucleus": "A box without a nucleus inside: over a red cell, or misplaced.",
    "unmarked-white-cell": "What looks like a white cell has no box.",
    "sliver": "A box under 8 pixels wide or high.",
    "cut-by-edge": "A box within 3 pixels of the field's edge: the cell may be cut.",
    "outside": "A box that lies outside the image or reaches over its edge.",
    "zero-size": "A box without area.",
    "stray-code": "A class or attribute code that the data set does not define.",
    "id-and-name-differ": "A class id and the name given with it mean different classes.",
    "patch-order": "Patch columns in another order than elsewhere, or that hold no box's centre.",
    "labels-differ": "The JSON and the text labels of one field do not agree.",
    "orphan": "An annotation that belongs to no image, or a label file without its image.",
    "missing-image": "A label refers to an image that is not on disk.",
    "unreadable-image": "An image that cannot be opened.",
    "odd-file-name": "A file name that does not follow the data set's pattern.",
    "unlabelled-image": "An image that no label refers to.",
    "empty-subset": "A subset folder without any labels.",
    "unreadable-labels": "A label file or line that cannot be read.",
    "blurred": "A field is out of focus.",
    "pixel-aspect-ratio": "Round cells are not round, or not as the data set states.",
    "mixed-scales": "Fields that should share one scale do not.",
    "confounded": "The diagnosis can be predicted without looking at a white cell.",
    "one-slide": "One patient holds much of a class.",
    "few-patients": "Too few patients for a claim about a diagnosis.",
    "reacquisition": "The same fields photographed again: not independent samples.",
    "to-ignore": "Objects named `none` hold recognisable white cells.",
    "not-checked": "A check that could not be made.",
    "reader-problem": "What the reader had to leave out or correct.",
}
"""Code -> meaning, in the order in which findings of one severity are listed."""


def title_of(code: str) -> str:
    """Return a code as words: `patient-leak` is "patient leak"."""
    return code.replace("-", " ")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity, code, confidence (highest first), file and annotations."""
    severity = {s: i for i, s in enumerate(SEVERITIES)}
    code = {c: i for i, c in enumerate(CODES)}
    return sorted(
        findings,
        key=lambda f: (severity[f.severity], code[f.code], -f.confidence, f.file, f.annotations),
    )
