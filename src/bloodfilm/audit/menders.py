"""One function a rule: how each sure finding is mended in LLD's JSON labels."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodfilm.audit.finding import Finding
from bloodfilm.audit.labels import Loaded
from bloodfilm.formats._common import IGNORE_NAMES, to_int
from bloodfilm.formats._lldcodes import CLASSES, JSON_KEYS, NOT_APPLICABLE_JSON

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
class Book:
    """A label file being mended: what was read, what will be written, image names by id."""

    loaded: Loaded
    content: Json
    names: dict[str, str]
    renumbered: bool = False

    @classmethod
    def open(cls, loaded: Loaded) -> "Book":
        """Begin with a copy of a file's content."""
        content = copy.deepcopy(loaded.content)
        names = {str(i.get("id")): str(i.get("file_name")) for i in content["images"]}
        return cls(loaded, content, names)

    def of_image(self, annotation: Json) -> str:
        """Return the name of an annotation's image."""
        return self.names.get(str(annotation.get("image_id")), "")

    def find(self, image: str, ident: str) -> Json | None:
        """Return an annotation of an image by its id, `None` if it is not, or no longer, there."""
        name = Path(image).name
        listed: Iterable[Json] = self.content.get("annotations", [])
        return next(
            (
                a
                for a in listed
                if str(a.get("id")) == ident and Path(self.of_image(a)).name == name
            ),
            None,
        )


def where(books: Sequence[Book], image: str, ident: str) -> tuple[Book, Json] | None:
    """Return an annotation and the label file it is in, `None` if it is gone."""
    for book in books:
        if book.loaded.subset.path not in Path(image).parents:
            continue
        found = book.find(image, ident)
        if found is not None:
            return book, found
    return None


# ---- one mender a rule -----------------------------------------------------------------------

Mender = Callable[[Sequence[Book], Finding, str], list[Change]]


def _change(
    finding: Finding, rule: str, ident: str, action: str, values: tuple[Any, Any]
) -> Change:
    before, after = values
    return Change(
        rule, finding.file, ident, action, before, after, finding.what, round(finding.sure, 3)
    )


def _delete_last(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
    """Delete the last of the annotations a finding names, if the others are still there."""
    found = [(i, where(books, finding.file, i)) for i in finding.annotations]
    there = [(i, hit) for i, hit in found if hit is not None]
    if len(there) < len(found) or not there:
        return []
    ident, (book, item) = there[-1]
    book.content["annotations"].remove(item)
    return [_change(finding, rule, ident, "deleted", (item, None))]


def _outside(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
    if finding.severity == "error":
        return _delete_last(books, finding, rule)
    hit = where(books, finding.file, finding.annotations[0])
    if hit is None:
        return []
    book, item = hit
    entry = next(i for i in book.content["images"] if i.get("id") == item["image_id"])
    width, height = to_int(entry.get("width")), to_int(entry.get("height"))
    if not width or not height:
        return []
    x, y, w, h = (float(v) for v in item["bbox"])
    left, top = max(x, 0.0), max(y, 0.0)
    before = list(item["bbox"])
    item["bbox"] = [left, top, min(x + w, width) - left, min(y + h, height) - top]
    ident = finding.annotations[0]
    return [_change(finding, rule, ident, "box cut", (before, list(item["bbox"])))]


def _as_none(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
    hit = where(books, finding.file, finding.annotations[0])
    if hit is None:
        return []
    book, item = hit
    before = {"category_id": item["category_id"], "bbox": list(item["bbox"])}
    item["category_id"] = _none_id(book)
    if "category_name" in item:
        item["category_name"] = "none"
    after = {"category_id": item["category_id"]}
    return [_change(finding, rule, finding.annotations[0], "named none", (before, after))]


def _none_id(book: Book) -> int:
    for item in book.content.get("categories", []):
        if str(item.get("name", "")).strip().lower() in IGNORE_NAMES:
            return int(item["id"])
    book.content.setdefault("categories", []).append({"id": NONE, "name": "none"})
    return NONE


def _codes(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
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


def _names(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
    if finding.annotations:
        hit = where(books, finding.file, finding.annotations[0])
        if hit is None:
            return []
        book, item = hit
        by_name = {str(c.get("name")): c.get("id") for c in book.content.get("categories", [])}
        wanted = by_name.get(str(item.get("category_name")))
        if wanted is None:
            return []
        before, item["category_id"] = item["category_id"], wanted
        ident = finding.annotations[0]
        return [_change(finding, rule, ident, "class id", (before, wanted))]
    book_of = next((b for b in books if str(b.loaded.path) == finding.file), None)
    return [] if book_of is None else _renumber(book_of, finding, rule)


def _renumber(book: Book, finding: Finding, rule: str) -> list[Change]:
    """Give a whole file LLD's ids for the names it uses."""
    mapping: dict[int, int] = {}
    for item in book.content.get("categories", []):
        ident, name = to_int(item.get("id")), str(item.get("name"))
        if ident is not None and name in _IDS and _IDS[name] != ident and ident != 14:
            mapping[ident] = _IDS[name]
    if not mapping:
        return []
    book.renumbered = True
    for item in book.content.get("categories", []):
        item["id"] = mapping.get(item["id"], item["id"])
    for item in book.content.get("annotations", []):
        item["category_id"] = mapping.get(item["category_id"], item["category_id"])
    book.content["categories"].sort(key=lambda c: int(c["id"]))
    return [_change(finding, rule, "", "class ids", (list(mapping), list(mapping.values())))]


def _entries(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
    book = next((b for b in books if str(b.loaded.path) == finding.file), None)
    if book is None:
        return []
    first: dict[str, Any] = {}
    target: dict[str, Any] = {}
    for item in book.content["images"]:
        name = str(item.get("file_name"))
        target[str(item.get("id"))] = first.setdefault(name, item)["id"]
    repeated = len(book.content["images"]) - len(first)
    if not repeated:
        return []
    before = len(book.content["images"])
    book.content["images"] = list(first.values())
    for item in book.content.get("annotations", []):
        item["image_id"] = target.get(str(item.get("image_id")), item.get("image_id"))
    book.names = {str(i["id"]): str(i["file_name"]) for i in book.content["images"]}
    return [_change(finding, rule, "", "image entries", (before, len(first)))]


def _orphans(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
    changes = []
    for book in books:
        if str(book.loaded.path) != finding.file:
            continue
        for item in list(book.content.get("annotations", [])):
            if str(item.get("id")) in finding.annotations and not book.of_image(item):
                book.content["annotations"].remove(item)
                ident = str(item.get("id"))
                changes.append(_change(finding, rule, ident, "deleted", (item, None)))
    return changes


def _identical(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
    """Take the second of two equal pictures out, if both are one patient's in one split."""
    if finding.severity == "error" or not finding.others:
        return []
    doomed = Path(finding.others[0])
    for book in books:
        if book.loaded.subset.path not in doomed.parents:
            continue
        idents = {
            i.get("id")
            for i in book.content["images"]
            if Path(str(i.get("file_name"))).name == doomed.name
        }
        if idents:
            kept = [i for i in book.content["images"] if i.get("id") not in idents]
            mine = [a for a in book.content["annotations"] if a.get("image_id") in idents]
            book.content["images"] = kept
            book.content["annotations"] = [
                a for a in book.content["annotations"] if a.get("image_id") not in idents
            ]
            values = ({"image": doomed.name, "annotations": len(mine)}, None)
            return [_change(finding, rule, "", "field taken out", values)]
    return []


def _leaks(books: Sequence[Book], finding: Finding, rule: str) -> list[Change]:
    """Move a patient's fields from train and val to test, in every subset."""
    patient = finding.what.split(" ")[1]
    if "test" not in finding.what:
        return []
    changes = []
    for book in list(books):
        if book.loaded.split in (None, "test"):
            continue
        entries = [i for i in book.content["images"] if _patient(i) == patient]
        if not entries:
            continue
        changes += _move(books, book, entries, finding, rule)
    return changes


def _patient(entry: Json) -> str:
    return str(entry.get("file_name", "")).split("_", 1)[0]


def _move(
    books: Sequence[Book], book: Book, entries: list[Json], finding: Finding, rule: str
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
    start = max((to_int(i.get("id")) or 0 for i in test.content["images"]), default=0) + 1
    ident = max((to_int(a.get("id")) or 0 for a in test.content["annotations"]), default=0) + 1
    for number, entry in enumerate(entries, start):
        mine = [a for a in book.content["annotations"] if a.get("image_id") == entry["id"]]
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


MENDERS: dict[str, Mender] = {
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
