"""Mend LLD's text labels, of any width, line by line; columns a rule does not touch stay as read.

Every folder of text labels is judged by its own lines, so that a line is deleted because it is
repeated there, not because a box was repeated elsewhere. What only pixels or the whole set can
tell (boxes over red cells, pictures twice, patients on both sides) is carried over from the audit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bloodfilm.audit.boxes import (
    outside,
    repeats_and_conflicts,
    slivers,
    zero_size,
)
from bloodfilm.audit.cell_table import Builder
from bloodfilm.audit.finding import Finding
from bloodfilm.audit.textlabels import TextFile, add_files, text_files
from bloodfilm.core import LLD_SCHEMA
from bloodfilm.core.files import copy_file, write_text
from bloodfilm.formats import lld
from bloodfilm.formats.lld.codes import CLASSES, is_none, text_code
from bloodfilm.formats.lld.text import PATCH_ORDERS, PATCH_WIDTHS, folders
from bloodfilm.formats.shared.images import walk
from bloodfilm.formats.shared.yolo_rows import normalise
from bloodfilm.repair.lld_json import NONE, Change

CLOSE = 1.5  # pixels; text labels are rounded
OWN_CHECKS = (zero_size, outside, slivers, repeats_and_conflicts)
OWN_KINDS = frozenset(
    {
        *("zero size", "outside", "sliver", "exact repeat", "same cell twice", "two classes"),
        *("stray code", "patch order", "unreadable labels"),
    }
)
"""Kinds of findings that each folder of text labels is asked for itself."""


@dataclass
class TextLabelFile:
    """One text label file being mended.

    Attributes:
        file: as it was read.
        lines: as they will be written; `None` for a deleted one.
        name: where it will be written, seen from its folder of text labels; `None` to drop it.
    """

    file: TextFile
    lines: list[str | None]
    name: Path | None
    changes: list[Change] = field(default_factory=list)

    @classmethod
    def open(cls, file: TextFile, folder: Path) -> "TextLabelFile":
        """Begin with a copy of a file's lines."""
        return cls(file, list(file.lines), file.path.relative_to(folder))

    def log(self, rule: str, finding: Finding, place: str, action: str, was: object) -> None:
        """Note a change; what stands there now is looked up."""
        now = self.lines[_number(place)] if place.startswith("line ") else None
        after = str(self.name) if action == "field moved" else now
        self.changes.append(
            Change(
                rule,
                str(self.file.path),
                place,
                action,
                was,
                after,
                finding.what,
                round(finding.sure, 3),
            )
        )


def _number(place: str) -> int:
    """Return the index of the line a finding calls `line 3`."""
    return int(place.removeprefix("line ")) - 1


# ---- one rule each ---------------------------------------------------------------------------

LineMender = Callable[[TextLabelFile, Finding, str], bool]


def _delete_last(sheet: TextLabelFile, finding: Finding, rule: str) -> bool:
    places = finding.annotations
    if not places or any(sheet.lines[_number(p)] is None for p in places):
        return False
    was, sheet.lines[_number(places[-1])] = sheet.lines[_number(places[-1])], None
    sheet.log(rule, finding, places[-1], "deleted", was)
    return True


def _as_none(sheet: TextLabelFile, finding: Finding, rule: str) -> bool:
    return _rewrite(sheet, finding, rule, "named none", lambda words: [str(NONE), *words[1:]])


def _outside(sheet: TextLabelFile, finding: Finding, rule: str) -> bool:
    if finding.severity == "error":
        return _delete_last(sheet, finding, rule)
    width, height = sheet.file.size
    x, y, w, h = finding.boxes[0]
    left, top = max(x, 0.0), max(y, 0.0)
    cut = left, top, min(x + w, width) - left, min(y + h, height) - top
    numbers = [f"{v:.6f}" for v in normalise(cut, sheet.file.size)]
    return _rewrite(sheet, finding, rule, "box cut", lambda words: [words[0], *numbers, *words[5:]])


def _codes(sheet: TextLabelFile, finding: Finding, rule: str) -> bool:
    """Write "not applicable" for the attribute a finding names; classes are left."""
    name = next((n for n in LLD_SCHEMA.names if f" has {n} " in f" {finding.what}"), None)

    def mended(words: list[str]) -> list[str]:
        first = 9 if len(words) in PATCH_WIDTHS else 5
        names = LLD_SCHEMA.names[-len(words[first:]) :]
        at = first + names.index(str(name))
        return [*words[:at], str(text_code(str(name), None)), *words[at + 1 :]]

    action = f"{name} unknown"
    return name is not None and _rewrite(sheet, finding, rule, action, mended)


def _patch_order(sheet: TextLabelFile, finding: Finding, rule: str) -> bool:
    """Write a file's patches in the order of most files; one that fits no order is left."""
    if finding.severity == "error":
        return False
    one, other = PATCH_ORDERS
    order = sheet.file.orders[0]
    wanted = other if order == one else one
    for row in sheet.file.patched:

        def swapped(words: list[str]) -> list[str]:
            corners = [words[5 + i] for i in PATCH_ORDERS[order]]
            patch = dict(zip(PATCH_ORDERS[wanted], corners, strict=True))
            return [*words[:5], *(patch[i] for i in range(4)), *words[9:]]

        _rewrite(sheet, finding, rule, "patch order", swapped, row.place)
    return True


def _rewrite(
    sheet: TextLabelFile,
    finding: Finding,
    rule: str,
    action: str,
    change: Callable[[list[str]], list[str]],
    place: str = "",
) -> bool:
    """Replace a line by what `change` makes of its words; `False` if it is gone already."""
    place = place or finding.annotations[0]
    was = sheet.lines[_number(place)]
    if was is None:
        return False
    sheet.lines[_number(place)] = " ".join(change(was.replace(",", " ").split()))
    sheet.log(rule, finding, place, action, was)
    return True


LINE_REPAIRS: Mapping[str, LineMender] = {
    "exact-repeats": _delete_last,
    "same-cell": _delete_last,
    "zero-size": _delete_last,
    "outside": _outside,
    "slivers": _as_none,
    "stray-codes": _codes,
    "patch-order": _patch_order,
}


# ---- carried over ----------------------------------------------------------------------------


def _no_nucleus(sheets: Sequence[TextLabelFile], finding: Finding, rule: str) -> bool:
    """Name `none` what lies on the box of a finding, in every folder of text labels."""
    x, y, w, h = finding.boxes[0]
    done = False
    for sheet in sheets:
        if sheet.file.image != Path(finding.file):
            continue
        for row in sheet.file.rows:
            rx, ry, rw, rh = row.box
            near = max(abs(rx + rw / 2 - x - w / 2), abs(ry + rh / 2 - y - h / 2)) < CLOSE
            if near and not is_none(CLASSES.get(row.class_id, "")):
                done |= _as_none(sheet, replace(finding, annotations=(row.place,)), rule)
    return done


def _identical(sheets: Sequence[TextLabelFile], finding: Finding, rule: str) -> bool:
    """Drop the second of two equal pictures, if both are one patient's in one split."""
    if finding.severity == "error" or not finding.others:
        return False
    doomed = [s for s in sheets if s.name and s.file.image == Path(finding.others[0])]
    for sheet in doomed:
        was, sheet.name = str(sheet.name), None
        sheet.log(rule, finding, "", "field taken out", was)
    return bool(doomed)


def _leaks(sheets: Sequence[TextLabelFile], finding: Finding, rule: str) -> bool:
    """Move a patient's files from train and val to test, in every subset."""
    patient, done = finding.what.split(" ")[1], False
    there = {sheet.name for sheet in sheets}
    for sheet in sheets if "test" in finding.what else ():
        theirs = sheet.file.image.name.split("_", 1)[0] == patient
        if sheet.name is None or not theirs or sheet.file.split in (None, "test"):
            continue
        target = sheet.name.parent.parent / "test" / sheet.name.name
        if target not in there:
            was, sheet.name, done = str(sheet.name), target, True
            sheet.log(rule, finding, "", "field moved", was)
    return done


CARRIERS: Mapping[str, Callable[[Sequence[TextLabelFile], Finding, str], bool]] = {
    "no-nucleus": _no_nucleus,
    "identical-fields": _identical,
    "leaks": _leaks,
}


# ---- a subset --------------------------------------------------------------------------------


@dataclass(frozen=True)
class RepairPlan:
    """What is to be mended: rules by kind of finding, how sure it must be, the audit's findings."""

    rule_of: Mapping[str, str]
    sure: float
    findings: Sequence[Finding]

    def rule(self, finding: Finding) -> str | None:
        """Return the rule for a finding; `None` if it is to be left."""
        rule = self.rule_of.get(finding.kind)
        certain = finding.sure >= self.sure or finding.kind == "identical fields"
        return rule if certain else None


@dataclass
class TextRepairResult:
    """What was changed in text labels, their findings that were left, and the audit's mended."""

    changes: list[Change] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    carried: set[Finding] = field(default_factory=set)


def repair_texts(subset: lld.Subset, out: Path, orders: RepairPlan) -> TextRepairResult:
    """Write a mended copy of a subset's text labels; return what was done."""
    done = TextRepairResult()
    for folder in folders(subset.path):
        sheets = [TextLabelFile.open(file, folder) for file in text_files(subset, folder)]
        done.left += _mend_own(sheets, orders)
        for finding in orders.findings:
            rule = orders.rule(finding)
            if rule in CARRIERS and CARRIERS[str(rule)](sheets, finding, str(rule)):
                done.carried.add(finding)
        _write(sheets, folder, out / folder.relative_to(subset.path))
        done.changes += [change for sheet in sheets for change in sheet.changes]
    return done


def _mend_own(sheets: Sequence[TextLabelFile], orders: RepairPlan) -> list[Finding]:
    """Mend what the files themselves tell, and return the findings that were left."""
    by_path = {str(sheet.file.path): sheet for sheet in sheets}
    left = []
    places = list(LINE_REPAIRS)
    own = sorted(
        _own_findings(sheets),
        key=lambda f: places.index(r) if (r := orders.rule_of.get(f.kind)) in places else -1,
    )
    for finding in own:
        sheet, rule = by_path[finding.file], orders.rule(finding)
        mender = LINE_REPAIRS.get(rule or "")
        if mender is not None and sheet.file.readable and mender(sheet, finding, str(rule)):
            continue
        gone = any(
            sheet.lines[_number(p)] is None for p in finding.annotations if p.startswith("line ")
        )
        if finding.severity != "info" and not gone:
            left.append(finding)
    return left


def _own_findings(sheets: Sequence[TextLabelFile]) -> list[Finding]:
    builder = Builder("text labels", LLD_SCHEMA)
    files = [sheet.file for sheet in sheets]
    add_files(builder, files, by_image=False)
    table = builder.table()
    found = [fault for file in files for fault in file.faults]
    return found + [f for check in OWN_CHECKS for f in check(table)]


def _write(sheets: Sequence[TextLabelFile], folder: Path, out: Path) -> None:
    """Write the sheets; files no rule touched, and files that are no labels, byte for byte."""
    by_path = {sheet.file.path: sheet for sheet in sheets}
    for place, names in walk(folder):
        for name in names:
            path = place / name
            sheet = by_path.get(path)
            if sheet is not None and sheet.name is None:
                continue
            target = out / (path.relative_to(folder) if sheet is None else str(sheet.name))
            if sheet is None or not any(c.annotation for c in sheet.changes):
                copy_file(path, target)
            else:
                text = "".join(f"{line}\n" for line in sheet.lines if line is not None)
                write_text(target, text, sync=False)
