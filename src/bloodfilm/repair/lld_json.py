"""One function a rule: how each sure finding is mended in LLD's JSON labels."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodfilm.audit.finding import Finding
from bloodfilm.audit.labels import Loaded
from bloodfilm.formats.lld.codes import CLASSES, JSON_KEYS, NOT_APPLICABLE_JSON
from bloodfilm.formats.shared.context import IGNORE_NAMES
from bloodfilm.formats.shared.parsing import to_int

Json = dict[str, Any]
NONE = 0
_IDS = {name: ident for ident, name in sorted(CLASSES.items(), reverse=True)}


@dataclass(frozen=True)
class Change:
    """One line of the log."""

    rule: str
    file: str
    annotation: str
    action: str
    before: Any
    after: Any
    why: str
    sure: float

    def to_json(self) -> Json:
        """Return plain data."""
        return {k: getattr(self, k) for k in self.__dataclass_fields__}


@dataclass
class JsonLabelFile:
    """A label file being mended: what was read, what will be written, image names by id."""

    loaded: Loaded
    content: Json
    names: dict[str, str]
    renumbered: bool = False

    @classmethod
    def open(cls, loaded: Loaded) -> "JsonLabelFile":
        """Begin with a copy of a file's content."""
        book = cls(loaded, copy.deepcopy(loaded.content), {})
        book.names = {str(i.get("id")): str(i.get("file_name")) for i in book.images}
        return book

    @property
    def images(self) -> list[Json]:
        """The image entries; what is none, a person must mend."""
        return entries(self.content, "images")

    @property
    def annotations(self) -> list[Json]:
        """The annotations."""
        return entries(self.content, "annotations")

    @property
    def categories(self) -> list[Json]:
        """The categories."""
        return entries(self.content, "categories")

    def of_image(self, annotation: Json) -> str:
        """Return the name of an annotation's image."""
        return self.names.get(str(annotation.get("image_id")), "")

    def find(self, image: str, ident: str) -> Json | None:
        """Return an annotation of an image by its id, `None` if it is not, or no longer, there."""
        name = Path(image).name
        return next(
            (
                a
                for a in self.annotations
                if str(a.get("id")) == ident and Path(self.of_image(a)).name == name
            ),
            None,
        )


def entries(content: Json, key: str) -> list[Json]:
    """Return the entries of a list of COCO's that are entries; what else stands there stays."""
    return [item for item in content.get(key, ()) if isinstance(item, dict)]


def where(
    books: Sequence[JsonLabelFile], image: str, ident: str
) -> tuple[JsonLabelFile, Json] | None:
    """Return an annotation and the label file it is in, `None` if it is gone."""
    for book in books:
        if book.loaded.subset.path not in Path(image).parents:
            continue
        found = book.find(image, ident)
        if found is not None:
            return book, found
    return None


# ---- one mender a rule -----------------------------------------------------------------------

Mender = Callable[[Sequence[JsonLabelFile], Finding, str], list[Change]]


def _change(
    finding: Finding, rule: str, ident: str, action: str, values: tuple[Any, Any]
) -> Change:
    before, after = values
    return Change(
        rule, finding.file, ident, action, before, after, finding.what, round(finding.sure, 3)
    )


def _delete_last(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Delete the last of the annotations a finding names, if the others are still there."""
    found = [(i, where(books, finding.file, i)) for i in finding.annotations]
    there = [(i, hit) for i, hit in found if hit is not None]
    if len(there) < len(found) or not there:
        return []
    ident, (book, item) = there[-1]
    book.content["annotations"].remove(item)
    return [_change(finding, rule, ident, "deleted", (item, None))]


def _outside(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    if finding.severity == "error":
        return _delete_last(books, finding, rule)
    hit = where(books, finding.file, finding.annotations[0])
    if hit is None:
        return []
    book, item = hit
    same = (i for i in book.images if str(i.get("id")) == str(item.get("image_id")))
    entry = next(same, {})
    width, height = to_int(entry.get("width")), to_int(entry.get("height"))
    if not width or not height:
        return []
    x, y, w, h = (float(v) for v in item["bbox"])
    left, top = max(x, 0.0), max(y, 0.0)
    before = list(item["bbox"])
    item["bbox"] = [left, top, min(x + w, width) - left, min(y + h, height) - top]
    ident = finding.annotations[0]
    return [_change(finding, rule, ident, "box cut", (before, list(item["bbox"])))]


def _as_none(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    hit = where(books, finding.file, finding.annotations[0])
    if hit is None:
        return []
    book, item = hit
    before = {"category_id": item.get("category_id"), "bbox": item.get("bbox")}
    item["category_id"] = _none_id(book)
    if "category_name" in item:
        item["category_name"] = "none"
    after = {"category_id": item["category_id"]}
    return [_change(finding, rule, finding.annotations[0], "named none", (before, after))]


def _none_id(book: JsonLabelFile) -> int:
    for item in book.categories:
        ident = to_int(item.get("id"))
        if ident is not None and str(item.get("name", "")).strip().lower() in IGNORE_NAMES:
            return ident
    book.content.setdefault("categories", []).append({"id": NONE, "name": "none"})
    return NONE


def _codes(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Write "not applicable" for the attribute a finding names first; classes are left."""
    if len(finding.annotations) != 1:
        return []
    hit = where(books, finding.file, finding.annotations[0])
    name = finding.what.split(" ", 1)[0]
    if hit is None or name not in JSON_KEYS:
        return []
    _, item = hit
    key = next((k for k in JSON_KEYS[name] if k in item), None)
    if key is None:
        return []
    before, item[key] = item[key], NOT_APPLICABLE_JSON
    ident = finding.annotations[0]
    return [_change(finding, rule, ident, f"{name} unknown", (before, item[key]))]


def _names(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    if finding.annotations:
        hit = where(books, finding.file, finding.annotations[0])
        if hit is None:
            return []
        book, item = hit
        by_name = {str(c.get("name")): c.get("id") for c in book.categories}
        wanted = by_name.get(str(item.get("category_name")))
        if wanted is None:
            return []
        before, item["category_id"] = item["category_id"], wanted
        ident = finding.annotations[0]
        return [_change(finding, rule, ident, "class id", (before, wanted))]
    book_of = next((b for b in books if str(b.loaded.path) == finding.file), None)
    return [] if book_of is None else _renumber(book_of, finding, rule)


def _renumber(book: JsonLabelFile, finding: Finding, rule: str) -> list[Change]:
    """Give a whole file LLD's ids for the names it uses; not where two classes would become one."""
    mapping: dict[int, int] = {}
    idents = [to_int(item.get("id")) for item in book.categories]
    for item in book.categories:
        ident, name = to_int(item.get("id")), str(item.get("name"))
        if ident is not None and name in _IDS and _IDS[name] != ident and ident != 14:
            mapping[ident] = _IDS[name]
    after = [mapping.get(ident, ident) for ident in idents if ident is not None]
    if not mapping or len(set(after)) < len(after):
        return []
    book.renumbered = True
    for listed, key in ((book.categories, "id"), (book.annotations, "category_id")):
        for item in listed:
            ident = to_int(item.get(key))
            if ident in mapping:
                item[key] = mapping[ident]
    if len(book.categories) == len(book.content["categories"]):
        book.content["categories"].sort(key=lambda c: to_int(c.get("id")) or 0)
    return [_change(finding, rule, "", "class ids", (list(mapping), list(mapping.values())))]


def _entries(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    book = next((b for b in books if str(b.loaded.path) == finding.file), None)
    if book is None:
        return []
    first: dict[str, Any] = {}
    target: dict[str, Any] = {}
    for item in book.images:
        name = str(item.get("file_name"))
        target[str(item.get("id"))] = first.setdefault(name, item).get("id")
    before = len(book.images)
    if before == len(first):
        return []
    book.content["images"] = list(first.values())
    for item in book.annotations:
        item["image_id"] = target.get(str(item.get("image_id")), item.get("image_id"))
    book.names = {str(i.get("id")): str(i.get("file_name")) for i in book.images}
    return [_change(finding, rule, "", "image entries", (before, len(first)))]


def _orphans(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    changes = []
    for book in books:
        if str(book.loaded.path) != finding.file:
            continue
        for item in book.annotations:
            if str(item.get("id")) in finding.annotations and not book.of_image(item):
                book.content["annotations"].remove(item)
                ident = str(item.get("id"))
                changes.append(_change(finding, rule, ident, "deleted", (item, None)))
    return changes


def _identical(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Take the second of two equal pictures out, if both are one patient's in one split."""
    if finding.severity == "error" or not finding.others:
        return []
    doomed = Path(finding.others[0])
    for book in books:
        if book.loaded.subset.path not in doomed.parents:
            continue
        gone = [i for i in book.images if Path(str(i.get("file_name"))).name == doomed.name]
        if gone:
            idents = {str(i.get("id")) for i in gone}
            mine = [a for a in book.annotations if str(a.get("image_id")) in idents]
            for key, listed in (("images", gone), ("annotations", mine)):
                for item in listed:
                    book.content[key].remove(item)
            values = ({"image": doomed.name, "annotations": len(mine)}, None)
            return [_change(finding, rule, "", "field taken out", values)]
    return []


def _leaks(books: Sequence[JsonLabelFile], finding: Finding, rule: str) -> list[Change]:
    """Move a patient's fields from train and val to test, in every subset."""
    patient = finding.what.split(" ")[1]
    if "test" not in finding.what:
        return []
    changes = []
    for book in list(books):
        if book.loaded.split in (None, "test"):
            continue
        theirs = [i for i in book.images if _patient(i) == patient]
        changes += _move(books, book, theirs, finding, rule) if theirs else []
    return changes


def _patient(entry: Json) -> str:
    return str(entry.get("file_name", "")).split("_", 1)[0]


def _move(
    books: Sequence[JsonLabelFile],
    book: JsonLabelFile,
    theirs: list[Json],
    finding: Finding,
    rule: str,
) -> list[Change]:
    test = next(
        (
            b
            for b in books
            if b.loaded.split == "test" and b.loaded.subset.path == book.loaded.subset.path
        ),
        None,
    )
    if test is None:
        return []
    changes = []
    start = max((to_int(i.get("id")) or 0 for i in test.images), default=0) + 1
    ident = max((to_int(a.get("id")) or 0 for a in test.annotations), default=0) + 1
    for number, entry in enumerate(theirs, start):
        its = str(entry.get("id"))
        mine = [a for a in book.annotations if str(a.get("image_id")) == its]
        for annotation in mine:
            book.content["annotations"].remove(annotation)
            test.content["annotations"].append(annotation | {"id": ident, "image_id": number})
            ident += 1
        book.content["images"].remove(entry)
        test.content["images"].append(entry | {"id": number})
        test.names[str(number)] = str(entry["file_name"])
        values = (
            {"split": book.loaded.split, "image": entry["file_name"]},
            {"split": "test", "annotations": len(mine)},
        )
        changes.append(_change(finding, rule, "", "field moved", values))
    return changes


REPAIRS: dict[str, Mender] = {
    "repeated-entries": _entries,
    "exact-repeats": _delete_last,
    "same-cell": _delete_last,
    "zero-size": _delete_last,
    "outside": _outside,
    "slivers": _as_none,
    "stray-codes": _codes,
    "names": _names,
    "no-nucleus": _as_none,
    "orphans": _orphans,
    "identical-fields": _identical,
    "leaks": _leaks,
}
