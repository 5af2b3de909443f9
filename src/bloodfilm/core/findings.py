"""Findings: issues of a data set, with where they are and how certain they are."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Box
from bloodfilm.core.issues import SEVERITIES, Issue, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Issue):
    """One thing that is, or may be, wrong with a data set.

    `code`, `severity`, `message` and `data` are those of an `Issue`: programs read the code and
    the data, never the message.

    Attributes:
        file: the image or label file it is about; the data set's or domain's name if it is about
            all of it.
        advice: what to do about it.
        confidence: in [0, 1].
        annotations: the annotations' own identities, as the label file has them.
        boxes: evidence: (x, y, w, h) in pixels of `file`.
        others: other files it is about.
        other_boxes: evidence in the others, one box per file; none where there is nothing to show.

    >>> leak = Finding("patient-leak", "error", "patient 6 is in train and test",
    ...                {"patient": "6"}, file="6_1.png", advice="split by patient")
    >>> leak.to_json()["data"]
    {'patient': '6'}
    """

    file: str
    advice: str
    confidence: float = 1.0
    annotations: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    others: tuple[str, ...] = ()
    other_boxes: tuple[Box, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads back."""
        return {
            "code": self.code,
            "severity": self.severity,
            "confidence": round(self.confidence, 3),
            "file": self.file,
            "annotations": list(self.annotations),
            "message": self.message,
            "advice": self.advice,
            "data": dict(self.data),
            "boxes": _rounded(self.boxes),
            "others": list(self.others),
            "other_boxes": _rounded(self.other_boxes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Finding":
        """Read what `to_json` wrote; `DataError` if it is no finding."""
        issue = Issue.from_json(data)
        try:
            return cls(
                issue.code,
                issue.severity,
                issue.message,
                issue.data,
                file=str(data["file"]),
                advice=str(data["advice"]),
                confidence=float(data["confidence"]),
                annotations=tuple(map(str, data["annotations"])),
                boxes=tuple(_box(b) for b in data["boxes"]),
                others=tuple(map(str, data["others"])),
                other_boxes=tuple(_box(b) for b in data["other_boxes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"finding: not a record of one ({error!r})") from None


def _rounded(boxes: Iterable[Box]) -> list[list[float]]:
    return [[round(float(v), 2) for v in box] for box in boxes]


def _box(values: Sequence[float]) -> Box:
    x, y, w, h = (float(v) for v in values)
    return x, y, w, h


def finding_at(
    table: CellTable, cells: Sequence[int], issue: Issue, advice: str, confidence: float
) -> Finding:
    """Return a finding on cells of one field, given by their numbers in the table."""
    return Finding(
        issue.code,
        issue.severity,
        issue.message,
        issue.data,
        file=table.rows[int(table.field[cells[0]])].path,
        advice=advice,
        confidence=confidence,
        annotations=tuple(str(table.ids[c]) for c in cells),
        boxes=tuple(table.box_of(c) for c in cells),
    )


def count_by_severity(findings: Iterable[Issue]) -> dict[Severity, int]:
    """Count findings by severity, all severities named."""
    counted = Counter(f.severity for f in findings)
    return {s: counted[s] for s in SEVERITIES}
