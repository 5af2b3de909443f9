"""How findings are repaired in LLD's JSON labels: one function per rule."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodfilm.core.arrays import Json
from bloodfilm.core.findings import Finding
from bloodfilm.formats.lld.codes import CLASSES, JSON_KEYS, NOT_APPLICABLE_JSON, is_none
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.lld.raw_json import JsonLabels
from bloodfilm.formats.shared.parsing import to_int
from bloodfilm.repair.changes import Change

NONE = 0
_IDS = {name: ident for ident, name in sorted(CLASSES.items(), reverse=True)}
_OTHER_NONE = 14


@dataclass
class JsonLabelFile:
    """A label file under repair: what was read, what will be written, image names by id."""

    labels: JsonLabels
    content: Json
    names: dict[str, str]
    renumbered: bool = False

    @classmethod
    def open(cls, labels: JsonLabels) -> "JsonLabelFile":
        """Begin with a copy of a file's content."""
        file = cls(labels, copy.deepcopy(labels.content), {})
        file.index_images()
        return file

    def index_images(self) -> None:
        """Look up the image names anew, after the image entries were changed."""
        self.names = {str(i.get("id")): str(i.get("file_name")) for i in self.images}

    @property
    def images(self) -> list[Json]:
        """The image entries."""
        return self._entries("images")

    @property
    def annotations(self) -> list[Json]:
        """The annotations."""
        return self._entries("annotations")

    @property
    def categories(self) -> list[Json]:
        """The categories."""
        return self._entries("categories")

    def _entries(self, key: str) -> list[Json]:
        """Return the entries of a list of COCO's that are entries; what else is there stays."""
        return [item for item in self.content.get(key, ()) if isinstance(item, dict)]

    def image_of(self, annotation: Json) -> str:
        """Return the name of an annotation's image; empty if it has none."""
        return self.names.get(str(annotation.get("image_id")), "")

    def find(self, image: str, id: str) -> Json | None:
        """Return an annotation of an image by its id, `None` if it is not, or no longer, there."""
        name = Path(image).name
        return next(
            (
                a
                for a in self.annotations
                if str(a.get("id")) == id and Path(self.image_of(a)).name == name
            ),
            None,
        )


def find_annotation(
    files: Sequence[JsonLabelFile], image: str, id: str
) -> tuple[JsonLabelFile, Json] | None:
    """Return an annotation and the label file it is in, `None` if it is gone."""
    for file in files:
        if file.labels.subset.path in Path(image).parents:
            found = file.find(image, id)
            if found is not None:
                return file, found
    return None


def _file_of(files: Sequence[JsonLabelFile], finding: Finding) -> JsonLabelFile | None:
    return next((f for f in files if str(f.labels.path) == finding.file), None)


# ---- one repair per rule ---------------------------------------------------------------------

Repair = Callable[[Sequence[JsonLabelFile], Finding, str], list[Change]]


def _delete_last(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Delete the last of the annotations a finding names, if the others are still there."""
    found = [(i, find_annotation(files, finding.file, i)) for i in finding.annotations]
    there = [(i, hit) for i, hit in found if hit is not None]
    if len(there) < len(found) or not there:
        return []
    id, (file, item) = there[-1]
    file.content["annotations"].remove(item)
    return [Change.of_finding(finding, rule, id, "deleted", (item, None))]


def _outside(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Cut a box at the image's edge; delete one whose centre lies outside."""
    if not finding.data.get("centre_inside"):
        return _delete_last(files, finding, rule)
    (id,) = finding.annotations
    hit = find_annotation(files, finding.file, id)
    if hit is None:
        return []
    file, item = hit
    same = (i for i in file.images if str(i.get("id")) == str(item.get("image_id")))
    entry = next(same, {})
    width, height = to_int(entry.get("width")), to_int(entry.get("height"))
    if not width or not height:
        return []
    x, y, w, h = (float(v) for v in item["bbox"])
    left, top = max(x, 0.0), max(y, 0.0)
    before = list(item["bbox"])
    item["bbox"] = [left, top, min(x + w, width) - left, min(y + h, height) - top]
    values = (before, list(item["bbox"]))
    return [Change.of_finding(finding, rule, id, "box cut", values)]


def _name_none(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    id = finding.annotations[0]
    hit = find_annotation(files, finding.file, id)
    if hit is None:
        return []
    file, item = hit
    before = {"category_id": item.get("category_id"), "bbox": item.get("bbox")}
    item["category_id"] = _none_id(file)
    if "category_name" in item:
        item["category_name"] = "none"
    after = {"category_id": item["category_id"]}
    return [Change.of_finding(finding, rule, id, "named none", (before, after))]


def _none_id(file: JsonLabelFile) -> int:
    for item in file.categories:
        ident = to_int(item.get("id"))
        if ident is not None and is_none(str(item.get("name", ""))):
            return ident
    file.content.setdefault("categories", []).append({"id": NONE, "name": "none"})
    return NONE


def _stray_codes(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Write "not applicable" for an attribute's code; codes of classes are left."""
    attribute = finding.data.get("attribute")
    if attribute is None or len(finding.annotations) != 1:
        return []
    (id,) = finding.annotations
    hit = find_annotation(files, finding.file, id)
    key = None if hit is None else next((k for k in JSON_KEYS[attribute] if k in hit[1]), None)
    if hit is None or key is None:
        return []
    _, item = hit
    before, item[key] = item[key], NOT_APPLICABLE_JSON
    values = (before, item[key])
    return [Change.of_finding(finding, rule, id, f"{attribute} unknown", values)]


def _names(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Give a cell the id of its name; where a file numbers classes otherwise, renumber it."""
    if not finding.annotations:
        renumbered = _file_of(files, finding)
        return [] if renumbered is None else _renumber(renumbered, finding, rule)
    (id,) = finding.annotations
    hit = find_annotation(files, finding.file, id)
    if hit is None:
        return []
    file, item = hit
    by_name = {str(c.get("name")): c.get("id") for c in file.categories}
    wanted = by_name.get(str(item.get("category_name")))
    if wanted is None:
        return []
    before, item["category_id"] = item["category_id"], wanted
    return [Change.of_finding(finding, rule, id, "class id", (before, wanted))]


def _renumber(file: JsonLabelFile, finding: Finding, rule: str) -> list[Change]:
    """Give a whole file LLD's ids for the names it uses; not where two classes would become one."""
    mapping: dict[int, int] = {}
    idents = [to_int(item.get("id")) for item in file.categories]
    for item in file.categories:
        ident, name = to_int(item.get("id")), str(item.get("name"))
        known = ident is not None and name in _IDS and ident != _OTHER_NONE
        if ident is not None and known and _IDS[name] != ident:
            mapping[ident] = _IDS[name]
    after = [mapping.get(ident, ident) for ident in idents if ident is not None]
    if not mapping or len(set(after)) < len(after):
        return []
    file.renumbered = True
    for listed, key in ((file.categories, "id"), (file.annotations, "category_id")):
        for item in listed:
            ident = to_int(item.get(key))
            if ident in mapping:
                item[key] = mapping[ident]
    if len(file.categories) == len(file.content["categories"]):
        file.content["categories"].sort(key=lambda c: to_int(c.get("id")) or 0)
    values = (list(mapping), list(mapping.values()))
    return [Change.of_finding(finding, rule, "", "class ids", values)]


def _repeated_entries(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    file = _file_of(files, finding)
    if file is None:
        return []
    first: dict[str, Any] = {}
    target: dict[str, Any] = {}
    for item in file.images:
        name = str(item.get("file_name"))
        target[str(item.get("id"))] = first.setdefault(name, item).get("id")
    before = len(file.images)
    if before == len(first):
        return []
    file.content["images"] = list(first.values())
    for item in file.annotations:
        item["image_id"] = target.get(str(item.get("image_id")), item.get("image_id"))
    file.index_images()
    return [Change.of_finding(finding, rule, "", "image entries", (before, len(first)))]


def _orphans(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    file = _file_of(files, finding)
    changes = []
    for item in [] if file is None else file.annotations:
        if file and str(item.get("id")) in finding.annotations and not file.image_of(item):
            file.content["annotations"].remove(item)
            id = str(item.get("id"))
            changes.append(Change.of_finding(finding, rule, id, "deleted", (item, None)))
    return changes


def _identical(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Take the second of two equal pictures out, if both are one patient's in one split."""
    if not finding.others or not is_same_origin(finding):
        return []
    doomed = Path(finding.others[0])
    for file in files:
        if file.labels.subset.path not in doomed.parents:
            continue
        gone = [i for i in file.images if Path(str(i.get("file_name"))).name == doomed.name]
        if gone:
            ids = {str(i.get("id")) for i in gone}
            cells = [a for a in file.annotations if str(a.get("image_id")) in ids]
            for key, listed in (("images", gone), ("annotations", cells)):
                for item in listed:
                    file.content[key].remove(item)
            values = ({"image": doomed.name, "annotations": len(cells)}, None)
            return [Change.of_finding(finding, rule, "", "field taken out", values)]
    return []


def is_same_origin(finding: Finding) -> bool:
    """Whether the two fields of a finding are one patient's in one split."""
    return bool(finding.data.get("same_patient") and finding.data.get("same_split"))


def leaks_into_test(finding: Finding) -> str | None:
    """Return the patient of a leak that has test on one side, `None` for any other finding."""
    return str(finding.data["patient"]) if "test" in finding.data.get("fields", ()) else None


def _leaks(files: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Move a patient's fields from train and val to test, in every subset."""
    patient = leaks_into_test(finding)
    if patient is None:
        return []
    changes = []
    for file in list(files):
        if file.labels.split not in (None, "test"):
            images = [i for i in file.images if _patient_of(i) == patient]
            changes += _move(files, file, images, finding, rule) if images else []
    return changes


def _patient_of(entry: Json) -> str | None:
    parts = parse_name(str(entry.get("file_name", "")))
    return parts.patient if parts else None


def _move(
    files: Sequence[JsonLabelFile],
    file: JsonLabelFile,
    images: list[Json],
    finding: Finding,
    rule: str,
) -> list[Change]:
    """Move images and their annotations to the test file of the same subset, with new ids."""
    subset = file.labels.subset.path
    others = (f for f in files if f.labels.split == "test" and f.labels.subset.path == subset)
    test = next(others, None)
    if test is None:
        return []
    changes = []
    start = max((to_int(i.get("id")) or 0 for i in test.images), default=0) + 1
    ident = max((to_int(a.get("id")) or 0 for a in test.annotations), default=0) + 1
    for number, entry in enumerate(images, start):
        image_id = str(entry.get("id"))
        cells = [a for a in file.annotations if str(a.get("image_id")) == image_id]
        for annotation in cells:
            file.content["annotations"].remove(annotation)
            test.content["annotations"].append(annotation | {"id": ident, "image_id": number})
            ident += 1
        file.content["images"].remove(entry)
        test.content["images"].append(entry | {"id": number})
        test.names[str(number)] = str(entry["file_name"])
        values = (
            {"split": file.labels.split, "image": entry["file_name"]},
            {"split": "test", "annotations": len(cells)},
        )
        changes.append(Change.of_finding(finding, rule, "", "field moved", values))
    return changes


REPAIRS: dict[str, Repair] = {
    "repeated-entries": _repeated_entries,
    "exact-repeats": _delete_last,
    "same-cell": _delete_last,
    "zero-size": _delete_last,
    "outside": _outside,
    "slivers": _name_none,
    "stray-codes": _stray_codes,
    "names": _names,
    "no-nucleus": _name_none,
    "orphans": _orphans,
    "identical-fields": _identical,
    "leaks": _leaks,
}
