"""TXL-PBC (MIT): YOLO boxes of white cells, red cells and platelets, four sources, provenance."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Dataset, Domain, Field
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.dataset_codes import dataset_issue
from bloodfilm.formats import yolo
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.parsing import peek, read_csv
from bloodfilm.formats.shared.paths import need_folder

PROVENANCE = "provenance.csv"
COLUMNS = (
    "image",
    "source",
    "matched",
    "bccd_split",
    "wbcatt_split",
    "same_source_in_splits",
)
LICENCE = "MIT (labels and repository; the terms of the Raabin-WBC images are not verified)"

# Scales from red cells of 7.5 um, measured on whole red cells of each source.
DOMAINS = {
    "PBC": Domain("CellaVision DM96", 100, pixel_aspect_ratio=1.0, um_per_px=0.094),
    "Raabin": Domain("Raabin-WBC", 100, pixel_aspect_ratio=1.0, um_per_px=0.055),
    "BCCD": Domain("BCCD", 100, pixel_aspect_ratio=1.0, um_per_px=0.073),
    "BCD": Domain("BCCD, augmented", 100),
}
META = ("source", "matched", "bccd_split", "wbcatt_split", "same_source_in_splits")


def recognises(path: Path) -> bool:
    """Whether it is a YOLO folder with TXL's table of origins."""
    return "matched" in peek(path / PROVENANCE).decode("utf-8", "replace").split("\n")[0]


def read(path: Path, *, clean_splits: bool = False, **options: Unpack[ReadOptions]) -> Dataset:
    """Read TXL-PBC; with `clean_splits`, take the images that leak out of their splits."""
    root = need_folder(Path(path))
    boxes = yolo.read(root, **options)
    strict = options.get("strict", False)
    reading = ReadContext(root, strict=strict, issues=list(boxes.issues))
    rows = {row["image"]: row for row in read_csv(root / PROVENANCE, COLUMNS)}
    fields = tuple(_with_origin(reading, field, rows.get(field.path.name)) for field in boxes)
    _note_red_cells_only(reading, fields)
    dataset = replace(
        boxes, name="TXL-PBC", fields=fields, licence=LICENCE, issues=tuple(reading.issues)
    )
    return clean(dataset) if clean_splits else dataset


def _with_origin(reading: ReadContext, field: Field, row: dict[str, str] | None) -> Field:
    cells = tuple(dict.fromkeys((c.box, c.label, c.ignore) for c in field.cells))
    if len(cells) < len(field.cells):
        count = len(field.cells) - len(cells)
        what = f"{count} exact duplicate boxes removed"
        reading.note(codes.DUPLICATE_BOXES, what, field.path)
        first = {(c.box, c.label, c.ignore): c for c in reversed(field.cells)}
        field = field.with_cells(tuple(first[key] for key in cells))
    if row is None:
        reading.report(
            codes.UNKNOWN_ORIGIN, field.path, "", f"is not in {PROVENANCE}; its origin is unknown"
        )
        return field
    source = row["source"].split("(")[0].split("-")[0].strip()
    meta = {key: row[key] for key in META if row[key]} | {"source": source}
    return replace(field, domain=DOMAINS.get(source, Domain()), meta=meta)


def _note_red_cells_only(reading: ReadContext, fields: tuple[Field, ...]) -> None:
    """Name the images in which a white cell is known to be boxed as a red cell."""
    for field in fields:
        if field.cells and not any(c.label == "white cell" for c in field.cells):
            what = "no white cell is boxed; one may be boxed as a red cell"
            reading.note(codes.LOOK_AT, what, field.path)


def clean(dataset: Dataset) -> Dataset:
    """Take images out of splits (split `None`) until nothing leaks from test into training.

    A train or val image goes if its source is also in test, if it shows a field of BCCD's test
    split, or if it is a WBCAtt test image; a test image goes if it has a twin in train.
    """
    reasons: Counter[str] = Counter()
    fields = []
    for field in dataset:
        reason = _leak(field)
        if reason:
            reasons[f"{field.split} images: {reason}"] += 1
        fields.append(replace(field, split=None) if reason else field)
    taken_out = tuple(
        dataset_issue(codes.TAKEN_OUT_OF_SPLIT, f"taken out of their split: {n} {what}", images=n)
        for what, n in sorted(reasons.items())
    )
    return replace(dataset, fields=tuple(fields), issues=dataset.issues + taken_out)


def _leak(field: Field) -> str | None:
    twins = field.meta.get("same_source_in_splits", "")
    if field.split == "test":
        return "a twin is in train" if "train" in twins else None
    if field.split is None:
        return None
    if "test" in twins:
        return "a twin is in test"
    if field.meta.get("bccd_split") == "test":
        return "a field of BCCD's test split"
    if field.meta.get("wbcatt_split") == "test":
        return "a WBCAtt test image"
    return None
