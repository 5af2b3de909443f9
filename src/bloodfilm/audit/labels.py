"""LLD's labels as they stand on disk, unmended, and the faults of the files themselves.

The reader in `formats` mends what it can; an audit must see what there is. Boxes, repeats and
classes go into the table as the file has them; what a table cannot hold becomes a finding here.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bloodfilm.audit.cell_table import IGNORE, UNNAMED, Builder, FieldRow, Table
from bloodfilm.audit.finding import Finding
from bloodfilm.audit.textlabels import TextFile, add_files, text_files
from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA
from bloodfilm.formats import lld
from bloodfilm.formats.lld import text as _lldtext
from bloodfilm.formats.lld.codes import CLASSES, JSON_KEYS, NOT_APPLICABLE_JSON
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.shared.context import IGNORE_NAMES
from bloodfilm.formats.shared.images import ImageIndex, image_size, is_image
from bloodfilm.formats.shared.parsing import read_json, to_floats, to_int
from bloodfilm.formats.shared.paths import split_of

_ODD = re.compile(r"[^0-9A-Za-z_.\-]")
Json = Mapping[str, Any]


@dataclass
class Loaded:
    """One label file: where it is, its split, its content."""

    path: Path
    split: str | None
    content: dict[str, Any]
    subset: lld.Subset


@dataclass
class AnnotationSource:
    """A data set as the audit sees it: columns, and what was found while reading."""

    table: Table
    findings: list[Finding] = field(default_factory=list)
    files: list[Loaded] = field(default_factory=list)
    texts: list[TextFile] = field(default_factory=list)
    """Text labels of the subsets that have no JSON."""


def read_labels(root: Path) -> AnnotationSource:
    """Read LLD's layout below a root, subset by subset: JSON labels, or the fullest text labels.

    `DataError` where a JSON file is ill-formed.
    """
    builder = Builder("LLD", LLD_SCHEMA, DEFAULT_TAXONOMY)
    files: list[Loaded] = []
    texts: list[TextFile] = []
    findings: list[Finding] = []
    seen: set[Path] = set()
    for subset in lld.subsets(root):
        loaded = list(_json_files(subset, findings))
        index = ImageIndex(subset.path)
        for one in loaded:
            seen |= _File(one, builder, findings, index).read()
        files += loaded
        folders = _lldtext.folders(subset.path)
        if not loaded and not folders:
            what, hint = "this subset holds no labels", "unpack it again, or take it out"
            findings.append(Finding("empty subset", "warning", str(subset.path), what, hint))
        if not loaded and folders:
            found = text_files(subset, _lldtext.richest(folders))
            add_files(builder, found, by_image=True)
            for text in found:
                findings += [*text.faults, *_missing(text.image, text.path.name)]
                findings += _odd_name(text.image)
            seen |= {text.image for text in found}
            texts += found
    findings += _unlabelled(root, seen)
    return AnnotationSource(builder.table(source=str(root)), findings, files, texts)


def _json_files(subset: lld.Subset, findings: list[Finding]) -> Iterator[Loaded]:
    def twin(file: Path, other: Path) -> None:
        what = f"labels of this name are in {other.parent.name}/ too, which are taken"
        findings.append(Finding("labels differ", "error", str(file), what, "keep one of them"))

    for file, read in lld.json_labels(subset, twin):
        content = read_json(file) if read is None else read
        lists = ("images", "annotations", "categories")
        if (
            not isinstance(content, dict)
            or "images" not in content
            or not all(isinstance(content.setdefault(key, []), list) for key in lists)
        ):
            what = f"{', '.join(lists)} are not all lists; it is no COCO file"
            findings.append(
                Finding("unreadable labels", "error", str(file), what, "export it again")
            )
        else:
            yield Loaded(file, split_of(file.stem), content, subset)


def _unlabelled(root: Path, seen: set[Path]) -> Iterator[Finding]:
    for subset in lld.subsets(root):
        for base in subset.folders("images"):
            for image in sorted(p for p in base.rglob("*") if is_image(p) and p not in seen):
                what = "no label file speaks of this image"
                hint = "label it, or take it out: nothing in it counts as background"
                yield Finding("unlabelled image", "info", str(image), what, hint)


@dataclass
class _File:
    """One JSON label file being read."""

    loaded: Loaded
    builder: Builder
    findings: list[Finding]
    index: ImageIndex

    def read(self) -> set[Path]:
        """Add its images and annotations to the table; return the images it speaks of."""
        names = self._categories()
        by_id: dict[str, str] = {}
        entries: dict[str, list[Json]] = {}
        for item in self.loaded.content["images"]:
            name = str(item.get("file_name", "")) if isinstance(item, dict) else ""
            if not name:
                self._file_fault("unreadable labels", "an image entry has no file name")
                continue
            entries.setdefault(name, []).append(item)
            if by_id.setdefault(str(item.get("id")), name) != name:
                self._file_fault("unreadable labels", f"image id {item.get('id')} is used twice")
        grouped = self._annotations(by_id)
        return {self._field(n, listed, grouped.get(n, []), names) for n, listed in entries.items()}

    def _annotations(self, by_id: Mapping[str, str]) -> dict[str, list[Json]]:
        grouped: dict[str, list[Json]] = {}
        for item in self.loaded.content.get("annotations", []):
            name = by_id.get(str(item.get("image_id"))) if isinstance(item, dict) else None
            if name is None:
                ident = item.get("id", "?") if isinstance(item, dict) else "?"
                what = f"annotation {ident} belongs to no image of the file"
                self._file_fault("orphan", what, annotations=(str(ident),))
            else:
                grouped.setdefault(name, []).append(item)
        return grouped

    def _categories(self) -> dict[int, str]:
        """Return class names by id; ids whose name is not LLD's are reported."""
        names: dict[int, str] = {}
        for item in self.loaded.content.get("categories", []):
            ident = to_int(item.get("id")) if isinstance(item, dict) else None
            if ident is None:
                continue
            name = str(item.get("name", ""))
            if names.setdefault(ident, name) != name:
                what = f"category {ident} is listed as {names[ident]!r} and as {name!r}"
                hint = "find out which is meant, and give each class an id of its own"
                path = str(self.loaded.path)
                self.findings.append(Finding("id and name differ", "error", path, what, hint, 1.0))
                continue
            usual = CLASSES.get(ident)
            if usual is not None and _class(name) != _class(usual):
                what = f"category {ident} is {name!r} in this file, {usual!r} in LLD's list"
                hint = "the name is believed; check one cell of it, then renumber"
                self.findings.append(
                    Finding("id and name differ", "error", str(self.loaded.path), what, hint, 0.9)
                )
        return dict(CLASSES) | names

    def _field(
        self, name: str, entries: list[Json], annotations: list[Json], names: Mapping[int, str]
    ) -> Path:
        path = self._locate(name)
        if len(entries) > 1:
            what = f"{name} is listed {len(entries)} times, with different image ids"
            self._file_fault("repeated image entry", what, severity="warning")
        present = path.is_file()
        self.findings += [*_missing(path, self.loaded.path.name), *_odd_name(path)]
        parts = parse_name(name)
        self.builder.add(
            FieldRow(
                str(path),
                *_size(entries[0], path),
                parts.patient if parts else None,
                self.loaded.split,
                parts.diagnosis if parts else None,
                self.loaded.subset.domain,
                parts.field if parts else None,
                parts.photograph if parts else None,
                present,
                lld=True,
            )
        )
        for item in annotations:
            self._cell(path, item, names)
        return path

    def _locate(self, name: str) -> Path:
        near = self.loaded.subset.path / "Images" / (self.loaded.split or "") / name
        return near if near.is_file() else self.index.find(name, near=near) or near

    def _cell(self, path: Path, item: Json, names: Mapping[int, str]) -> None:
        ident = str(item.get("id", "?"))
        number = to_int(item.get("category_id"))
        by_id = names.get(-1 if number is None else number)
        stated = item.get("category_name")
        name = str(stated or by_id or "unnamed")

        def fault(kind: str, what: str, hint: str) -> None:
            box = to_floats(item.get("bbox"), 4)
            boxes = () if box is None else ((box[0], box[1], box[2], box[3]),)
            self.findings.append(
                Finding(kind, "error", str(path), what, hint, 1.0, (ident,), boxes)
            )

        if by_id is None:
            fault("stray code", f"class {item.get('category_id')!r} has no name", "look it up")
        if stated and by_id and _class(str(stated)) != _class(by_id):
            what = f"class {number} is {by_id!r} in this file, but the cell is named {stated!r}"
            fault("id and name differ", what, "the name is believed; mend the id")
        if _class(name) == UNNAMED and name != "unnamed":
            fault("stray code", f"class {name!r} is none of the taxonomy", "say what it is")
        attributes = _attributes(item, fault)
        box = to_floats(item.get("bbox"), 4)
        if box is None:
            fault("unreadable labels", "the annotation has no box of four numbers", "delete it")
            return
        self.builder.cell(box, _class(name), attributes, ident)

    def _file_fault(
        self, kind: str, what: str, severity: str = "error", annotations: tuple[str, ...] = ()
    ) -> None:
        hints = {
            "repeated image entry": "list it once: `bloodfilm data fix` does",
            "orphan": "delete it, or restore the image entry",
        }
        self.findings.append(
            Finding(
                kind,
                "warning" if severity == "warning" else "error",
                str(self.loaded.path),
                what,
                hints.get(kind, "mend the file"),
                annotations=annotations,
            )
        )


def _missing(image: Path, labels: str) -> Iterator[Finding]:
    if not image.is_file():
        what = f"{labels} speaks of this image; it is not on disk"
        hint = "unpack the archive it came in again: such losses come in thousands"
        yield Finding("missing image", "error", str(image), what, hint)


def _odd_name(image: Path) -> Iterator[Finding]:
    parts = parse_name(image.name)
    if parts is None or _ODD.search(image.name):
        what = "the file name holds stray characters" if parts else "the file name says nothing"
        hint = "rename image and labels together"
        yield Finding("odd file name", "warning", str(image), what, hint)


def _size(entry: Json, path: Path) -> tuple[int | None, int | None]:
    width, height = to_int(entry.get("width")), to_int(entry.get("height"))
    if width and height and width > 0 and height > 0:
        return width, height
    if path.is_file():
        try:
            return image_size(path)
        except Exception:
            return None, None  # the check that opens it will say why
    return None, None


def _class(name: str) -> str:
    """Return what a class name means: a node, to ignore, or unnamed."""
    if name.strip().lower() in IGNORE_NAMES:
        return IGNORE
    return DEFAULT_TAXONOMY.find(name) or UNNAMED


def _attributes(item: Json, fault: Callable[[str, str, str], None]) -> dict[str, str]:
    """Decode attribute codes; stray ones are reported."""
    known: dict[str, str] = {}
    for name, keys in JSON_KEYS.items():
        raw = next((item[key] for key in keys if key in item), None)
        code = to_int(raw)
        values = LLD_SCHEMA[name].values
        if raw is None or code == NOT_APPLICABLE_JSON:
            continue
        if code is not None and 0 <= code < len(values):
            known[name] = values[code]
        else:
            what = f"{name} has code {raw!r}; known: 0 to {len(values) - 1}, and 4"
            fault("stray code", what, "look at the cell, or write 4 (not applicable)")
    return known
