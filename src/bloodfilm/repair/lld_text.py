"""Repair LLD's text labels, of any width, line by line; columns a rule does not touch stay as read.

Every folder of text labels is judged by its own lines, so that a line is deleted because it is
repeated there, not because a box was repeated elsewhere. What only pixels or the whole set can
decide (boxes over red cells, pictures twice, patients in two splits) is taken over from the audit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bloodfilm.core import LLD_SCHEMA
from bloodfilm.core.files import copy_file, write_text
from bloodfilm.core.findings import Finding
from bloodfilm.formats.lld.codes import is_none, text_code
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.lld.raw import TextFolder
from bloodfilm.formats.lld.raw_text import (
    PATCH_ORDERS,
    PATCH_WIDTHS,
    TextLabels,
    class_of,
    line_number,
)
from bloodfilm.formats.shared.yolo_rows import normalise
from bloodfilm.imaging.discovery import walk
from bloodfilm.repair.changes import Change, RepairPlan
from bloodfilm.repair.lld_json import NONE, is_same_origin, leaks_into_test

CLOSE = 1.5  # pixels; text labels are rounded
LINE_CODES = frozenset(
    {
        *("zero-size", "outside", "sliver", "exact-repeat", "same-cell-twice", "two-classes"),
        *("stray-code", "patch-order", "unreadable-labels"),
    }
)
"""Codes of findings that each folder of text labels has of its own lines."""


@dataclass
class TextLabelFile:
    """One text label file under repair.

    Attributes:
        labels: as they were read.
        lines: as they will be written; `None` for a deleted one.
        name: where it will be written, seen from its folder of text labels; `None` to drop it.
        changes: that were made.
    """

    labels: TextLabels
    lines: list[str | None]
    name: Path | None
    changes: list[Change] = field(default_factory=list)

    @classmethod
    def open(cls, labels: TextLabels, folder: Path) -> "TextLabelFile":
        """Begin with a copy of a file's lines."""
        return cls(labels, list(labels.lines), labels.path.relative_to(folder))

    def line(self, id: str) -> str | None:
        """Return the line of an annotation as it stands now; `None` if it is gone."""
        number = line_number(id)
        return None if number is None else self.lines[number - 1]

    def rewrite(
        self, finding: Finding, rule: str, id: str, action: str, change: "LineChange"
    ) -> bool:
        """Replace a line by what `change` makes of its words; `False` if it is gone already.

        `None` from `change` deletes the line.
        """
        number, before = line_number(id), self.line(id)
        if number is None or before is None:
            return False
        words = change(before.replace(",", " ").split())
        after = None if words is None else " ".join(words)
        self.lines[number - 1] = after
        self.log(finding, rule, id, action, (before, after))
        return True

    def log(
        self, finding: Finding, rule: str, id: str, action: str, values: tuple[object, object]
    ) -> None:
        """Note a change of this file."""
        change = Change.of_finding(finding, rule, id, action, values)
        self.changes.append(replace(change, file=str(self.labels.path)))


LineChange = Callable[[list[str]], list[str] | None]

# ---- rules for lines -------------------------------------------------------------------------

LineRepair = Callable[[TextLabelFile, Finding, str], bool]


def _delete_last(file: TextLabelFile, finding: Finding, rule: str) -> bool:
    ids = finding.annotations
    if not ids or any(file.line(i) is None for i in ids):
        return False
    return file.rewrite(finding, rule, ids[-1], "deleted", lambda _: None)


def _name_none(file: TextLabelFile, finding: Finding, rule: str) -> bool:
    id = finding.annotations[0]
    return file.rewrite(finding, rule, id, "named none", lambda words: [str(NONE), *words[1:]])


def _outside(file: TextLabelFile, finding: Finding, rule: str) -> bool:
    """Cut a box at the image's edge; delete one whose centre lies outside."""
    if not finding.data.get("centre_inside"):
        return _delete_last(file, finding, rule)
    width, height = file.labels.size
    x, y, w, h = finding.boxes[0]
    left, top = max(x, 0.0), max(y, 0.0)
    cut = left, top, min(x + w, width) - left, min(y + h, height) - top
    numbers = [f"{v:.6f}" for v in normalise(cut, file.labels.size)]
    (id,) = finding.annotations
    return file.rewrite(
        finding, rule, id, "box cut", lambda words: [words[0], *numbers, *words[5:]]
    )


def _stray_codes(file: TextLabelFile, finding: Finding, rule: str) -> bool:
    """Write "not applicable" for an attribute's code; codes of classes are left."""
    attribute = finding.data.get("attribute")
    if attribute is None:
        return False

    def with_unknown(words: list[str]) -> list[str]:
        first = 9 if len(words) in PATCH_WIDTHS else 5
        names = LLD_SCHEMA.names[-len(words[first:]) :]
        at = first + names.index(attribute)
        return [*words[:at], str(text_code(attribute, None)), *words[at + 1 :]]

    (id,) = finding.annotations
    return file.rewrite(finding, rule, id, f"{attribute} unknown", with_unknown)


def _patch_order(file: TextLabelFile, finding: Finding, rule: str) -> bool:
    """Write a file's patches in the order of most files; one that fits no order is left."""
    orders = finding.data.get("orders")
    if not orders:
        return False
    read, wanted = PATCH_ORDERS[orders[0]], PATCH_ORDERS[finding.data["usual_order"]]

    def reordered(words: list[str]) -> list[str]:
        patch = dict(zip(wanted, (words[5 + i] for i in read), strict=True))
        return [*words[:5], *(patch[i] for i in range(4)), *words[9:]]

    for row in file.labels.patched:
        file.rewrite(finding, rule, row.place, "patch order", reordered)
    return True


LINE_REPAIRS: Mapping[str, LineRepair] = {
    "exact-repeats": _delete_last,
    "same-cell": _delete_last,
    "zero-size": _delete_last,
    "outside": _outside,
    "slivers": _name_none,
    "stray-codes": _stray_codes,
    "patch-order": _patch_order,
}


# ---- rules for findings of the audit ---------------------------------------------------------


def _no_nucleus(files: Sequence[TextLabelFile], finding: Finding, rule: str) -> bool:
    """Name `none` what lies on the box of a finding."""
    x, y, w, h = finding.boxes[0]
    done = False
    for file in files:
        if file.labels.image != Path(finding.file):
            continue
        for row in file.labels.rows:
            rx, ry, rw, rh = row.box
            near = max(abs(rx + rw / 2 - x - w / 2), abs(ry + rh / 2 - y - h / 2)) < CLOSE
            if near and not is_none(class_of(row) or ""):
                done |= _name_none(file, replace(finding, annotations=(row.place,)), rule)
    return done


def _identical(files: Sequence[TextLabelFile], finding: Finding, rule: str) -> bool:
    """Drop the second of two equal pictures, if both are one patient's in one split."""
    if not finding.others or not is_same_origin(finding):
        return False
    doomed = [f for f in files if f.name and f.labels.image == Path(finding.others[0])]
    for file in doomed:
        before, file.name = str(file.name), None
        file.log(finding, rule, "", "field taken out", (before, None))
    return bool(doomed)


def _leaks(files: Sequence[TextLabelFile], finding: Finding, rule: str) -> bool:
    """Move a patient's files from train and val to test, in every subset."""
    patient, done = leaks_into_test(finding), False
    there = {file.name for file in files}
    for file in files if patient is not None else ():
        parts = parse_name(file.labels.image.name)
        if file.name is None or parts is None or parts.patient != patient:
            continue
        if file.labels.split in (None, "test"):
            continue
        target = file.name.parent.parent / "test" / file.name.name
        if target not in there:
            before, file.name, done = str(file.name), target, True
            file.log(finding, rule, "", "field moved", (before, str(target)))
    return done


FIELD_REPAIRS: Mapping[str, Callable[[Sequence[TextLabelFile], Finding, str], bool]] = {
    "no-nucleus": _no_nucleus,
    "identical-fields": _identical,
    "leaks": _leaks,
}


# ---- a folder --------------------------------------------------------------------------------


@dataclass
class TextRepairResult:
    """What was changed in text labels.

    Attributes:
        changes: that were made.
        left: findings on lines that were left.
        carried: findings of the audit that were repaired here.
    """

    changes: list[Change] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    carried: list[Finding] = field(default_factory=list)


def repair_folder(
    folder: TextFolder,
    out: Path,
    plan: RepairPlan,
    line_findings: Sequence[Finding],
    findings: Sequence[Finding],
) -> TextRepairResult:
    """Write a repaired copy of a folder of text labels.

    Args:
        folder: the original.
        out: the folder to write to.
        plan: which findings to repair.
        line_findings: on the lines of this folder.
        findings: of the audit.
    """
    done = TextRepairResult()
    files = [TextLabelFile.open(labels, folder.path) for labels in folder.files]
    done.left += _repair_lines(files, plan, line_findings)
    for finding in findings:
        rule = plan.rule(finding)
        repair = FIELD_REPAIRS.get(rule or "")
        if repair is not None and repair(files, finding, str(rule)):
            done.carried.append(finding)
    _write(files, folder.path, out)
    done.changes += [change for file in files for change in file.changes]
    return done


def _repair_lines(
    files: Sequence[TextLabelFile], plan: RepairPlan, findings: Sequence[Finding]
) -> list[Finding]:
    """Repair what the lines themselves show, and return the findings that were left."""
    by_path = {str(file.labels.path): file for file in files}
    order = {rule: place for place, rule in enumerate(LINE_REPAIRS)}
    left = []
    for finding in sorted(findings, key=lambda f: order.get(plan.rule_of.get(f.code, ""), -1)):
        file, rule = by_path[finding.file], plan.rule(finding)
        repair = LINE_REPAIRS.get(rule or "")
        if repair is not None and file.labels.readable and repair(file, finding, str(rule)):
            continue
        numbered = [i for i in finding.annotations if line_number(i) is not None]
        gone = file.labels.readable and any(file.line(i) is None for i in numbered)
        if finding.severity != "info" and not gone:
            left.append(finding)
    return left


def _write(files: Sequence[TextLabelFile], folder: Path, out: Path) -> None:
    """Write the files; those no rule touched, and those that are no labels, byte for byte."""
    by_path = {file.labels.path: file for file in files}
    for place, names in walk(folder):
        for name in names:
            path = place / name
            file = by_path.get(path)
            if file is not None and file.name is None:
                continue
            target = out / (path.relative_to(folder) if file is None else str(file.name))
            if file is None or not any(c.annotation for c in file.changes):
                copy_file(path, target)
            else:
                text = "".join(f"{line}\n" for line in file.lines if line is not None)
                write_text(target, text, sync=False)
