"""Write LLD's own layout: subset folders, JSON labels, and text labels of any width."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Unpack

from bloodfilm.core import LLD_SCHEMA, Cell, DataError, Dataset, Field, Region
from bloodfilm.core.arrays import Json
from bloodfilm.core.issues import Issue
from bloodfilm.formats import coco
from bloodfilm.formats.lld.codes import CLASSES, JSON_KEYS, json_code, text_code
from bloodfilm.formats.lld.names import parse_name, parse_subset
from bloodfilm.formats.lld.raw_text import PATCH_SCALE
from bloodfilm.formats.shared.class_names import name_of
from bloodfilm.formats.shared.output import (
    NO_SPLIT,
    Losses,
    Output,
    WriteOptions,
    finish,
    output,
    size_for_writing,
    unique_names,
)
from bloodfilm.formats.shared.yolo_rows import normalise

Labels = Literal["json", "text"]
Named = list[tuple[str, Field]]
TEXT_FOLDERS = {5: "WBC_Detection", 11: "AttriDet", 12: "AttriDet", 15: "Sparse", 16: "Sparse"}
_IDS = {name: ident for ident, name in sorted(CLASSES.items(), reverse=True)}


def write(
    dataset: Dataset,
    path: Path,
    *,
    labels: Labels = "json",
    columns: int = 16,
    **options: Unpack[WriteOptions],
) -> list[Issue]:
    """Write LLD's layout; return what was lost.

    Args:
        dataset: to write.
        path: a new or empty folder.
        labels: `json`, which keeps region, domain and patient under each image's `bloodfilm`, or
            `text`, which keeps classes, boxes and what `columns` has room for.
        columns: of the text labels: 5 (boxes), 12 or 11 (and seven or six attributes), 16 or 15
            (and the annotated patch, in the order px1 px2 py1 py2).
        options: see `WriteOptions`.
    """
    if labels not in ("json", "text") or columns not in TEXT_FOLDERS:
        raise DataError(
            f"LLD labels are json or text of {', '.join(map(str, TEXT_FOLDERS))} columns"
        )
    losses = Losses()
    losses.vocabulary(dataset, "taxonomy", "licence")
    with output(Path(path), fresh=True, **options) as out:
        for folder, split, fields in _groups(dataset):
            for name, item in fields:
                out.image(item.path, f"{folder}Images/{split}/{name}")
            if labels == "json":
                content = _json(dataset, fields, losses)
                out.json(f"{folder}json_labels/{split}.json", content)
            else:
                place = f"{folder}txt_labels/{TEXT_FOLDERS[columns]}/{split}"
                sparse = columns in (15, 16) and any(map(_is_sparse, fields))
                for name, item in fields:
                    _text(out, item, f"{place}/{Path(name).stem}.txt", columns, losses)
                    if sparse and not item.cells and not item.region.is_nothing:
                        losses.add("that a field without cells was looked at", "fields")
    return finish(out, losses)


def _groups(dataset: Dataset) -> Iterator[tuple[str, str, Named]]:
    """Yield (subset folder with a slash, or nothing; split; named fields).

    Subset folders are used only where every field's domain is one of LLD's subsets.
    """
    groups: dict[tuple[str, str], Named] = {}
    names = unique_names(dataset.fields)
    folders = [_subset_folder(item) for item in dataset]
    for item, name, folder in zip(dataset, names, folders, strict=True):
        key = ("" if None in folders else f"{folder}/", item.split or NO_SPLIT)
        groups.setdefault(key, []).append((name, item))
    yield from ((folder, split, fields) for (folder, split), fields in groups.items())


def _is_sparse(named: tuple[str, Field]) -> bool:
    """Whether a field's text labels state a patch smaller than the field."""
    item = named[1]
    return bool(item.cells) and _patch(item.region) is not None


def _subset_folder(item: Field) -> str | None:
    domain = item.domain
    name = f"{domain.microscope}_{domain.magnification or 0:g}X_{domain.camera}"
    return name if parse_subset(name) is not None else None


# ---- JSON ------------------------------------------------------------------------------------


def _json(dataset: Dataset, fields: Named, losses: Losses) -> dict[str, Any]:
    categories = coco.Categories(dict(_IDS) | {"unnamed": len(CLASSES)})
    images: list[Json] = []
    annotations: list[Json] = []
    for number, (name, item) in enumerate(fields, 1):
        images.append(coco.image_entry(item, number, name))
        for cell in losses.boxed(item):
            entry = coco.annotation_of(cell, len(annotations) + 1, number, categories, "none")
            entry["category_name"] = name_of(cell, "none")
            for attribute, keys in JSON_KEYS.items():
                entry[keys[0]] = json_code(attribute, cell.attributes.get(attribute))
            annotations.append(entry)
            _foreign_attributes(cell, losses)
    listed = [
        {"id": ident, "name": name}
        for name, ident in sorted(categories.ids.items(), key=lambda pair: pair[1])
    ]
    return {
        "info": {"description": dataset.name},
        "images": images,
        "categories": listed,
        "annotations": annotations,
    }


def _foreign_attributes(cell: Cell, losses: Losses) -> None:
    if any(name not in LLD_SCHEMA for name in cell.attributes):
        losses.add("attributes that are none of LLD's seven")


# ---- text ------------------------------------------------------------------------------------


def _text(out: Output, item: Field, name: str, columns: int, losses: Losses) -> None:
    cells = losses.boxed(item)
    patch = _patch(item.region) if columns in (15, 16) else None
    unknown = item.region.is_nothing and not cells  # read back from the missing label file
    kept = unknown or (patch is not None and bool(cells))
    losses.origin(item, keeps=("split", *_kept_by_name(item), *(("region",) if kept else ())))
    size = None if unknown else size_for_writing(item, losses)
    if size is None:
        return
    rows = []
    for cell in _fitting(cells, patch, losses):
        losses.cell(cell, keeps=("attributes",))
        _foreign_attributes(cell, losses)
        ident = 0 if cell.ignore else _IDS[str(cell.label)]
        box = normalise(cell.box or (0, 0, 0, 0), size)
        row = [str(ident), *(repr(float(v)) for v in box), *_patch_columns(patch, size, columns)]
        rows.append(" ".join([*row, *_attribute_columns(cell, columns, losses)]))
    out.text(name, "".join(row + "\n" for row in rows))


def _fitting(
    cells: tuple[Cell, ...], patch: tuple[float, float, float, float] | None, losses: Losses
) -> Iterator[Cell]:
    """Yield the cells whose class and place LLD's text labels can state; count the others."""
    x1, y1, x2, y2 = patch or (-math.inf, -math.inf, math.inf, math.inf)
    for cell in cells:
        x, y, w, h = cell.box or (0, 0, 0, 0)
        if cell.label not in _IDS and not cell.ignore:
            losses.add("the whole cell (its class is none of LLD's)")
        elif not (x1 <= x + w / 2 <= x2 and y1 <= y + h / 2 <= y2):
            losses.add("the whole cell (it lies outside the annotated patch)")
        else:
            yield cell


def _kept_by_name(item: Field) -> list[str]:
    """Return what the reader gets back from the file and subset names."""
    parts = parse_name(item.path.name)
    kept = ["domain"] if _subset_folder(item) else []
    if parts and parts.patient == item.patient:
        kept.append("patient")
    if parts and parts.diagnosis == item.diagnosis:
        kept.append("diagnosis")
    if parts and item.meta == {"annotated": "white cell"} | parts.meta:
        kept.append("meta")
    return kept


def _patch(region: Region) -> tuple[float, float, float, float] | None:
    """Return (x1, y1, x2, y2) of a region that is one upright rectangle, `None` otherwise."""
    if region.polygons is None or len(region.polygons) != 1:
        return None
    xs, ys = zip(*region.polygons[0], strict=True)
    x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    same = region == Region.rect(x1, y1, x2 - x1, y2 - y1)
    return (x1, y1, x2, y2) if same else None


def _patch_columns(
    patch: tuple[float, float, float, float] | None, size: tuple[int, int], columns: int
) -> list[str]:
    if columns not in (15, 16):
        return []
    x1, y1, x2, y2 = patch or (0, 0, size[0], size[1])
    across, down = PATCH_SCALE / size[0], PATCH_SCALE / size[1]
    return [repr(float(v)) for v in (x1 * across, x2 * across, y1 * down, y2 * down)]


def _attribute_columns(cell: Cell, columns: int, losses: Losses) -> list[str]:
    if columns == 5:
        if cell.attributes:
            losses.add("attributes")
        return []
    names = LLD_SCHEMA.names if columns in (12, 16) else LLD_SCHEMA.names[1:]
    if columns in (11, 15) and "cell_size" in cell.attributes:
        losses.add("cell_size")
    elif cell.ignore and cell.attributes.get("cell_size") == "large":
        losses.add("cell_size")  # on an object to ignore, code 2 is "not applicable"
    return [str(text_code(name, cell.attributes.get(name))) for name in names]
