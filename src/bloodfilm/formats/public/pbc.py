"""PBC (Acevedo et al. 2020, CC BY 4.0) with WBCAtt's attributes: one centred cell an image."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from bloodfilm.core import LLD_SCHEMA, WBCATT_SCHEMA, Cell, Dataset, Domain, Field, Region
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.attributes import wbcatt_to_lld
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.parsing import read_csv
from bloodfilm.formats.shared.paths import need_folder

FOLDERS = ("basophil", "eosinophil", "ig", "lymphocyte", "monocyte", "neutrophil")
SPLITS = ("train", "val", "test")
LICENCE = "CC BY 4.0 (images), MIT (WBCAtt labels)"
SCHEMA = LLD_SCHEMA.join(WBCATT_SCHEMA)
# 7.5 um over red cells of 78 x 80 px, measured.
DOMAIN = Domain("CellaVision DM96", 100, pixel_aspect_ratio=1.0, um_per_px=0.094, stain="MGG")
JOINED_NAMES = {
    own.name: joined.name
    for own, joined in zip(
        WBCATT_SCHEMA.attributes, SCHEMA.attributes[len(LLD_SCHEMA.attributes) :], strict=True
    )
}
"""WBCAtt's attribute names -> the names they have in `SCHEMA`."""


def recognises(path: Path) -> bool:
    """Whether there are WBCAtt tables, or folders with PBC's names and prefixes."""
    if any((path / f"wbcatt_{split}.csv").is_file() for split in SPLITS):
        return True
    named = [path / name for name in FOLDERS if (path / name).is_dir()]
    return len(named) >= 2 and all(any(f.glob("[A-Z]*_[0-9]*.*")) for f in named)


def read(path: Path, *, clean_splits: bool = False, **options: Unpack[ReadOptions]) -> Dataset:
    """Read PBC folders and the WBCAtt tables beside them.

    A cell has no box: it is the centred one. Its class is as deep as the file name's prefix says
    (BNE band neutrophil, MMY metamyelocyte, ...). Nothing else in the image is annotated, so the
    region is empty. Cells that no WBCAtt table holds are split by their names. Byte-identical
    images are kept, share `meta["twin"]` and are listed; with `clean_splits` the train and val
    images that have a twin in another split are taken out of theirs.
    """
    root = need_folder(Path(path))
    reading = ReadContext(root, **options)
    answers = dict(_answers(reading))
    twins = _twins(reading)
    unlisted = [p for p in reading.index.paths if p.stem not in answers]
    twins |= _unlisted_twins(reading, unlisted)
    fields = []
    for image in reading.index.paths:
        row, split = answers.pop(image.stem, (None, None))
        cell = _cell(reading, image, row)
        split = split or _own_split(image)
        twin = twins.get(image.stem)
        meta = {"twin": twin} if twin else {}
        fields.append(
            Field(image, None, None, (cell,), Region.nothing(), DOMAIN, split=split, meta=meta)
        )
    for stem, (row, split) in answers.items():
        missing = root / (row or {}).get("path", stem)
        fields.append(Field(missing, split=split, region=Region.nothing(), domain=DOMAIN))
    if clean_splits:
        fields = _without_leaks(fields)
    return reading.dataset("PBC", fields, schema=SCHEMA, licence=LICENCE)


def _without_leaks(fields: list[Field]) -> list[Field]:
    """Take an image out of train or val (split `None`) if its twin is in another split."""
    places: defaultdict[str | None, set[str | None]] = defaultdict(set)
    for field in fields:
        places[field.meta.get("twin")].add(field.split)
    leaks = {twin for twin, splits in places.items() if twin and len(splits) > 1}
    return [
        replace(f, split=None) if f.meta.get("twin") in leaks and f.split != "test" else f
        for f in fields
    ]


def _own_split(image: Path) -> str:
    """Split a cell that WBCAtt does not hold: by its name, a tenth to test, a tenth to val."""
    tenth = int(hashlib.sha256(image.stem.encode()).hexdigest(), 16) % 10
    return {0: "test", 1: "val"}.get(tenth, "train")


def _answers(reading: ReadContext) -> Iterator[tuple[str, tuple[dict[str, str], str]]]:
    """Yield (image stem, (row, split)) of every WBCAtt table present."""
    for split in SPLITS:
        file = reading.root / f"wbcatt_{split}.csv"
        if file.is_file():
            for row in read_csv(file, ("img_name", "label", *WBCATT_SCHEMA.names)):
                yield Path(row["img_name"]).stem, (row, split)


def _cell(reading: ReadContext, image: Path, row: dict[str, str] | None) -> Cell:
    prefix = image.stem.split("_")[0]
    label = reading.taxonomy.find(prefix)
    if label is None:
        label, _ = reading.label(image.parent.name)
    if row is None:
        return Cell(None, label)
    stated = reading.taxonomy.find(row["label"])
    if stated and label and not reading.taxonomy.is_under(label, stated):
        reading.report(
            codes.NAMES_DIFFER, image, "", f"named {label!r} by its file, {stated!r} by WBCAtt"
        )
    own = {name: row[name] for name in WBCATT_SCHEMA.names if _known(reading, image, name, row)}
    attributes = wbcatt_to_lld(own) | {JOINED_NAMES[name]: value for name, value in own.items()}
    return Cell(None, label, attributes)


def _known(reading: ReadContext, image: Path, name: str, row: dict[str, str]) -> bool:
    value = row[name]
    if value in WBCATT_SCHEMA[name].values:
        return True
    if value:
        reading.report(codes.UNKNOWN_VALUE, image, name, f"no value {value!r}; taken as unknown")
    return False


def _twins(reading: ReadContext) -> dict[str, str]:
    """Return image stem -> group of byte-identical images, and list the groups as issues."""
    file = reading.root / "byte_duplicates.csv"
    if not file.is_file():
        return {}
    rows = read_csv(file, ("group", "image", "split", "label"))
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    for members in groups.values():
        listed = ", ".join(f"{m['image']} ({m['split']}, {m['label']})" for m in members)
        differ = members[0].get("attr_differs_within_group", "[]")
        also = "" if differ in ("", "[]") else f", labelled differently: {differ}"
        what = f"byte-identical images: {listed}{also}"
        reading.note(codes.IDENTICAL_IMAGES, what, file)
    return {Path(row["image"]).stem: row["group"] for row in rows}


def _unlisted_twins(reading: ReadContext, images: list[Path]) -> dict[str, str]:
    """List byte-identical images that WBCAtt does not hold; return image stem -> group.

    Its list of duplicates knows its own images only. Files of one size are compared by content.
    """
    sizes: defaultdict[int, list[Path]] = defaultdict(list)
    for image in images:
        sizes[image.stat().st_size].append(image)
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for image in (i for alike in sizes.values() if len(alike) > 1 for i in alike):
        groups[hashlib.sha256(image.read_bytes()).hexdigest()[:16]].append(image)
    found = {name: alike for name, alike in groups.items() if len(alike) > 1}
    for alike in found.values():
        listed = ", ".join(reading.short(i) for i in alike)
        reading.note(codes.IDENTICAL_IMAGES, f"byte-identical images: {listed}")
    return {image.stem: name for name, alike in found.items() for image in alike}
