"""Mend what is sure, in a copy of LLD's labels, JSON and text; log every change, list the rest."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bloodfilm.audit.finding import Finding
from bloodfilm.audit.labels import AnnotationSource
from bloodfilm.core import ConfigError, DataError
from bloodfilm.core.files import write_json, write_text
from bloodfilm.formats import lld
from bloodfilm.formats.lld.names import parse_subset
from bloodfilm.formats.lld.zipped import NAME as ZIPPED
from bloodfilm.repair.lld_json import REPAIRS, Change, JsonLabelFile, where
from bloodfilm.repair.lld_text import OWN_KINDS, RepairPlan, repair_texts

RULES: dict[str, tuple[str, str]] = {
    "repeated-entries": ("repeated image entry", "list each image once"),
    "exact-repeats": ("exact repeat", "delete exact repeats of a box"),
    "same-cell": ("same cell twice", "of two boxes of one class on one cell, keep the first"),
    "zero-size": ("zero size", "delete boxes without area"),
    "outside": ("outside", "delete boxes outside the image; cut boxes at its edge"),
    "slivers": ("sliver", "name boxes under 8 px `none`"),
    "stray-codes": ("stray code", "write 4 (not applicable) for attribute codes that mean nothing"),
    "names": ("id and name differ", "give a cell the id of the name it bears"),
    "no-nucleus": ("no nucleus", "name boxes over red cells `none`"),
    "patch-order": ("patch order", "write patch columns in the order of most text files"),
    "orphans": ("orphan", "delete annotations that belong to no image"),
    "identical-fields": ("identical fields", "of one picture twice in one split, keep the first"),
    "leaks": ("patient leak", "move a patient's fields to test everywhere"),
}
"""Rule -> (kind of finding it mends, what it does), in the order in which they are applied: fields
are moved last, because annotations get new ids by it."""


@dataclass
class RepairResult:
    """What was changed, and the findings that were left."""

    changes: list[Change] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)


def refuse(source: AnnotationSource, root: Path, out: Path, off: Iterable[str] = ()) -> None:
    """Raise what `fix_labels` would, so that nobody waits for an audit in vain."""
    if unknown := set(off) - set(RULES):
        raise ConfigError(f"no rule {min(unknown)!r}; rules: {', '.join(RULES)}")
    if not source.files and not source.texts:
        raise ConfigError(
            f"{root}: only labels of LLD's layout can be mended; convert the set first: "
            "bloodfilm data convert SRC DST --to lld"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is not empty; name a new folder")
    if out.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{out}: lies in the original; name a folder outside of it")


def fix_labels(
    source: AnnotationSource,
    findings: Sequence[Finding],
    root: Path,
    out: Path,
    off: Iterable[str] = (),
    sure: float = 0.85,
    link_images: bool = True,
) -> RepairResult:
    """Write a mended copy of LLD's labels to a new folder; the original is never touched.

    Args:
        source: what was audited, with its label files.
        findings: of the audit.
        root: the original.
        out: a new or empty folder. `changes.jsonl` and `left.jsonl` go there too.
        off: rules not to apply.
        sure: findings less sure than this are left.
        link_images: link the image folders, so that the copy can be read as it is.

    Raises:
        ConfigError: if a rule is not known, or the set is not of LLD's layout.
        DataError: if `out` is not empty or lies in the original.
    """
    skipped = set(off)
    refuse(source, root, out, skipped)
    books = [JsonLabelFile.open(loaded) for loaded in source.files]
    mended = RepairResult()
    rule_of = {kind: rule for rule, (kind, _) in RULES.items() if rule not in skipped}
    places = {rule: place for place, rule in enumerate(RULES)}
    orders = RepairPlan(rule_of, sure, findings)
    texts = {str(text.image) for text in source.texts}
    for finding in sorted(findings, key=lambda f: places.get(rule_of.get(f.kind, ""), -1)):
        if _of_texts(finding, texts):
            continue  # each folder of text labels is asked for these itself
        rule = orders.rule(finding)
        mender = REPAIRS.get(rule or "")
        changes = mender(books, finding, str(rule)) if mender is not None else []
        mended.changes += changes
        if not changes and finding.severity != "info" and not _gone(books, finding):
            mended.left.append(finding)
    _write_books(books, root, out)
    for subset in _subsets(source):
        place = _place(subset, root, out)
        done = repair_texts(subset, place, orders)
        mended.changes += done.changes
        mended.left = [f for f in mended.left if f not in done.carried] + done.left
        if link_images:
            _link_images(subset, place)
    _write_logs(mended, out)
    return mended


def _of_texts(finding: Finding, images: set[str]) -> bool:
    """Whether a finding is on lines of text labels: of their own file, or of an image's."""
    return finding.kind in OWN_KINDS and (
        finding.file.lower().endswith(".txt") or finding.file in images
    )


def _subsets(source: AnnotationSource) -> list[lld.Subset]:
    listed = [f.subset for f in source.files] + [t.subset for t in source.texts]
    return list({subset.path: subset for subset in listed}.values())


def _gone(books: Sequence[JsonLabelFile], finding: Finding) -> bool:
    """Whether an earlier change took away what a finding is about."""
    if finding.kind == "id and name differ" and not finding.annotations:
        return any(b.renumbered and str(b.loaded.path) == finding.file for b in books)
    here = any(b.loaded.subset.path in Path(finding.file).parents for b in books)
    if not here or not finding.annotations or not finding.boxes:
        return False
    return all(where(books, finding.file, i) is None for i in finding.annotations)


# ---- writing ---------------------------------------------------------------------------------


def _write_books(books: Sequence[JsonLabelFile], root: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for book in books:
        subset, name = book.loaded.subset, book.loaded.path.relative_to(book.loaded.subset.path)
        if name.parts[0] == ZIPPED:  # the copy has it unpacked
            name = Path("json_labels") / name.name
        target = _place(subset, root, out) / name
        write_json(target, book.content, indent=None)


def _place(subset: lld.Subset, root: Path, out: Path) -> Path:
    """Return a subset's folder in the copy; it keeps its name, which says what microscope it is."""
    if subset.path == root and parse_subset(root.resolve().name) is not None:
        return out / root.resolve().name
    return out / subset.path.relative_to(root)


def _link_images(subset: lld.Subset, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for folder in subset.folders("images"):
        (place / folder.name).symlink_to(folder.resolve())


def _write_logs(mended: RepairResult, out: Path) -> None:
    for name, rows in (("changes", mended.changes), ("left", mended.left)):
        lines = "".join(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in rows)
        write_text(out / f"{name}.jsonl", lines)
