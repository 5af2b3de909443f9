"""Repair what is certain in a copy of LLD's labels, JSON and text; log changes, list the rest."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bloodfilm.core import ConfigError, DataError
from bloodfilm.core.files import write_json, write_text
from bloodfilm.core.findings import Finding
from bloodfilm.core.locks import is_empty
from bloodfilm.formats.lld import Subset
from bloodfilm.formats.lld.names import parse_subset
from bloodfilm.formats.lld.raw import RawLabels
from bloodfilm.formats.lld.zipped import NAME as ZIPPED
from bloodfilm.repair.changes import Change, RepairPlan
from bloodfilm.repair.lld_json import REPAIRS, JsonLabelFile, find_annotation
from bloodfilm.repair.lld_text import LINE_CODES, repair_folder

RULES: dict[str, tuple[str, str]] = {
    "repeated-entries": ("repeated-image-entry", "list each image once"),
    "exact-repeats": ("exact-repeat", "delete exact repeats of a box"),
    "same-cell": ("same-cell-twice", "of two boxes of one class on one cell, keep the first"),
    "zero-size": ("zero-size", "delete boxes without area"),
    "outside": ("outside", "delete boxes outside the image; cut boxes at its edge"),
    "slivers": ("sliver", "name boxes under 8 px `none`"),
    "stray-codes": ("stray-code", "write 4 (not applicable) for attribute codes without a meaning"),
    "names": ("id-and-name-differ", "give a cell the id of the name it bears"),
    "no-nucleus": ("no-nucleus", "name boxes over red cells `none`"),
    "patch-order": ("patch-order", "write patch columns in the order of most text files"),
    "orphans": ("orphan", "delete annotations that belong to no image"),
    "identical-fields": ("identical-fields", "of one picture twice in one split, keep the first"),
    "leaks": ("patient-leak", "move a patient's fields to test everywhere"),
}
"""Rule -> (code of the findings it repairs, what it does), in the order in which they are applied:
fields are moved last, because annotations get new ids by it."""


@dataclass
class RepairResult:
    """What was changed, and the findings that were left."""

    changes: list[Change] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)


def check_request(
    labels: RawLabels | None, root: Path, out: Path, off: Iterable[str] = ()
) -> RawLabels:
    """Return the labels if `repair_labels` can repair them; before an audit is made in vain.

    Raises:
        ConfigError: if a rule is not known, or the set is not of LLD's layout.
        DataError: if `out` is not empty or lies in the original.
    """
    if unknown := set(off) - set(RULES):
        raise ConfigError(f"no rule {min(unknown)!r}; rules: {', '.join(RULES)}")
    if labels is None:
        raise ConfigError(
            f"{root}: only labels of LLD's layout can be repaired; convert the set first: "
            "bloodfilm data convert SRC DST --to lld"
        )
    if out.exists() and not (out.is_dir() and is_empty(out)):
        raise DataError(f"{out}: is not empty; name a new folder")
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{out}: lies in the original; name a folder outside of it")
    return labels


def repair_labels(
    labels: RawLabels,
    findings: Sequence[Finding],
    out: Path,
    *,
    line_findings: Sequence[Finding],
    off: Iterable[str] = (),
    min_confidence: float = 0.85,
    link_images: bool = True,
) -> RepairResult:
    """Write a repaired copy of LLD's labels to a new folder; the original is never touched.

    Args:
        labels: of the original, as they stand.
        findings: of its audit.
        out: a new or empty folder. `changes.jsonl` and `left.jsonl` go there too.
        line_findings: on the lines of its text labels (`audit.lld_labels.line_findings`).
        off: rules not to apply.
        min_confidence: findings of less are left.
        link_images: link the image folders, so that the copy can be read as it is.

    Raises:
        ConfigError: if a rule is not known.
        DataError: if `out` is not empty or lies in the original.
    """
    skipped, root = set(off), labels.root
    check_request(labels, root, out, skipped)
    plan = RepairPlan({c: r for r, (c, _) in RULES.items() if r not in skipped}, min_confidence)
    result = _repair_json(labels, findings, plan, out)
    for folder in labels.texts:
        files = {str(file.path) for file in folder.files}
        here = [f for f in line_findings if f.file in files]
        target = _place(folder.subset, root, out) / folder.path.relative_to(folder.subset.path)
        done = repair_folder(folder, target, plan, here, findings)
        result.changes += done.changes
        carried = {id(f) for f in done.carried}
        result.left = [f for f in result.left if id(f) not in carried] + done.left
    if link_images:
        for subset in _labelled(labels):
            _link_images(subset, _place(subset, root, out))
    _write_logs(result, out)
    return result


def _labelled(labels: RawLabels) -> list[Subset]:
    """Return the subsets that have labels."""
    paths = {file.subset.path for file in labels.json}
    paths |= {file.subset.path for folder in labels.texts for file in folder.files}
    return [subset for subset in labels.subsets if subset.path in paths]


def _repair_json(
    labels: RawLabels, findings: Sequence[Finding], plan: RepairPlan, out: Path
) -> RepairResult:
    files = [JsonLabelFile.open(file) for file in labels.json]
    result = RepairResult()
    order = {rule: place for place, rule in enumerate(RULES)}
    texts = {str(file.path) for folder in labels.texts for file in folder.files}
    texts |= {str(file.image) for file in labels.main_texts}
    for finding in sorted(findings, key=lambda f: order.get(plan.rule_of.get(f.code, ""), -1)):
        if finding.code in LINE_CODES and finding.file in texts:
            continue  # the findings on lines have it, folder by folder
        rule = plan.rule(finding)
        repair = REPAIRS.get(rule or "")
        changes = repair(files, finding, str(rule)) if repair is not None else []
        result.changes += changes
        if not changes and finding.severity != "info" and not _is_gone(files, finding):
            result.left.append(finding)
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        subset = file.labels.subset
        name = file.labels.path.relative_to(subset.path)
        if name.parts[0] == ZIPPED:  # the copy has it unpacked
            name = Path("json_labels") / name.name
        write_json(_place(subset, labels.root, out) / name, file.content, indent=None)
    return result


def _is_gone(files: Sequence[JsonLabelFile], finding: Finding) -> bool:
    """Whether an earlier change took away what a finding is about."""
    if finding.code == "id-and-name-differ" and not finding.annotations:
        return any(f.renumbered and str(f.labels.path) == finding.file for f in files)
    here = any(f.labels.subset.path in Path(finding.file).parents for f in files)
    if not here or not finding.annotations or not finding.boxes:
        return False
    return all(find_annotation(files, finding.file, i) is None for i in finding.annotations)


# ---- writing ---------------------------------------------------------------------------------


def _place(subset: Subset, root: Path, out: Path) -> Path:
    """Return a subset's folder in the copy; it keeps its name, which states its microscope."""
    if subset.path == root and parse_subset(root.resolve().name) is not None:
        return out / root.resolve().name
    return out / subset.path.relative_to(root)


def _link_images(subset: Subset, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for folder in subset.folders("images"):
        (place / folder.name).symlink_to(folder.resolve())


def _write_logs(result: RepairResult, out: Path) -> None:
    for name, rows in (("changes", result.changes), ("left", result.left)):
        lines = "".join(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in rows)
        write_text(out / f"{name}.jsonl", lines)
