"""Annotation plans on disk: native format, COCO, Label Studio tasks and preview images."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Dataset, Field
from bloodfilm.core.errors import DataError
from bloodfilm.core.files import refuse_inputs, refuse_links, write_bytes, write_json
from bloodfilm.formats import save_dataset
from bloodfilm.imaging.discovery import mark_drawings
from bloodfilm.imaging.sources.image_file import open_image

NATIVE, COCO, STUDIO, PICTURES = "bloodfilm.json", "coco.json", "label-studio.json", "pictures"
SHEET = "plan.jpg"
CATEGORY = "region to mark"
LONGEST = 900
SHEET_COLUMNS, SHEET_SIDE, SHEET_MAX = 5, 260, 40
GUTTER = 8
OUTLINE = (20, 120, 60)


def write_plan(dataset: Dataset, out: Path, overwrite: bool = False) -> list[Path]:
    """Write a plan, fields with a region and no cells, in every format; return the files.

    Label Studio's tasks come with the labelling configuration of the project (`.config.xml`). The
    regions are predictions there: a field not annotated yet is read as one without a region.
    COCO's file names are relative to the common folder of all images.

    Raises:
        DataError: if a file exists and `overwrite` is not set.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in (NATIVE, COCO, STUDIO)]
    pictures = [out / PICTURES / _picture_name(n, f) for n, f in enumerate(dataset.fields, 1)]
    targets = [*files, out / SHEET, *pictures]
    refuse_inputs(targets, [item.path for item in dataset])
    for target in targets:
        refuse_links(out, target)
        if os.path.lexists(target) and not overwrite:
            raise DataError(f"{target}: exists; choose another --out or give --overwrite")
    save_dataset(dataset, files[0], "bloodfilm", overwrite=overwrite)
    write_json(files[1], coco_regions(dataset))
    save_dataset(dataset, files[2], "label_studio", overwrite=overwrite)
    propose(files[2])
    mark_drawings(out, (SHEET, PICTURES))
    return [*files, *draw_plan(dataset.fields, out / PICTURES)]


def coco_regions(dataset: Dataset) -> dict[str, Any]:
    """Return a COCO file whose annotations are the regions, as polygons of one category."""
    parents = [str(item.path.absolute().parent) for item in dataset]
    root = Path(os.path.commonpath(parents)) if parents else Path()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, item in enumerate(dataset, 1):
        name = item.path.absolute().relative_to(root).as_posix()
        images.append({"id": number, "file_name": name, "width": item.width, "height": item.height})
        for polygon in _polygons(item):
            corners = np.array(polygon)
            low, high = corners.min(axis=0), corners.max(axis=0)
            x, y = corners.T
            area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": [[round(float(v), 2) for v in corners.reshape(-1)]],
                    "bbox": [round(float(v), 2) for v in (*low, *(high - low))],
                    "area": round(area, 1),
                    "iscrowd": 0,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": CATEGORY}],
    }


def propose(tasks: Path) -> None:
    """Turn the annotations in a file of Label Studio's tasks into predictions."""
    content = json.loads(tasks.read_text(encoding="utf-8"))
    for task in content:
        task["predictions"], task["annotations"] = task["annotations"], []
    write_json(tasks, content)


def _polygons(item: Field) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return a field's region polygons; the whole field is its outline."""
    if item.region.polygons is not None:
        return item.region.polygons
    w, h = float(item.width or 0), float(item.height or 0)
    return (((0.0, 0.0), (w, 0.0), (w, h), (0.0, h)),)


def draw_plan(fields: Sequence[Field], folder: Path) -> list[Path]:
    """Write a preview per field, faded outside the region, and a contact sheet."""
    written: list[Path] = []
    thumbnails: list[NDArray[np.uint8]] = []
    for number, item in enumerate(fields, 1):
        picture = draw_region(open_image(item.path), item)
        path = folder / _picture_name(number, item)
        _save(path, picture)
        written.append(path)
        if len(thumbnails) < SHEET_MAX:
            thumbnails.append(_fit(picture, SHEET_SIDE))
    if thumbnails:
        _save(folder.parent / SHEET, _sheet(thumbnails))
        written.insert(0, folder.parent / SHEET)
    return written


def _picture_name(number: int, item: Field) -> str:
    return f"{number:04d}-{item.path.stem}.jpg"


def draw_region(image: NDArray[np.uint8], item: Field) -> NDArray[np.uint8]:
    """Return the field faded outside the region, with the region outlined."""
    height, width = image.shape[:2]
    factor = min(1.0, LONGEST / max(width, height))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    matrix = [[size[0] / width, 0, 0], [0, size[1] / height, 0]]
    region = item.region.transform(matrix)
    inside = region.mask(*size)
    faded = (small // 2 + 120).astype(np.uint8)
    picture = np.where(inside[..., None], small, faded).astype(np.uint8)
    for polygon in region.polygons or ():
        corners = np.round(np.array(polygon) * 8).astype(np.int32)
        cv2.polylines(picture, [corners], True, OUTLINE, 2, cv2.LINE_AA, shift=3)
    return picture


def _fit(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    factor = side / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    cell = np.full((side, side, 3), 250, np.uint8)
    cell[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cell


def _sheet(cells: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    columns = min(SHEET_COLUMNS, len(cells))
    filled = [*cells, *[np.full_like(cells[0], 250)] * (-len(cells) % columns)]
    framed = [np.pad(c, ((0, GUTTER), (0, GUTTER), (0, 0)), constant_values=250) for c in filled]
    rows = [np.concatenate(framed[i : i + columns], axis=1) for i in range(0, len(framed), columns)]
    sheet = np.concatenate(rows, axis=0)
    return np.pad(sheet, ((GUTTER, 0), (GUTTER, 0), (0, 0)), constant_values=250)


def _save(path: Path, picture: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(path.suffix, picture[..., ::-1])
    if not done:
        raise DataError(f"{path}: could not be encoded")
    write_bytes(path, data.tobytes(), sync=False)
