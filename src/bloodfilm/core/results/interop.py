"""Results for other programs: COCO, supervision, matplotlib."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core.arrays import Image
from bloodfilm.core.boxes import to_xyxy
from bloodfilm.core.errors import DataError
from bloodfilm.core.files import regular_file
from bloodfilm.core.optional import optional
from bloodfilm.core.results.cell import CellResult

_OTHER_COLOUR = "0.6"


def coco_document(
    images: Iterable[tuple[Mapping[str, Any], Iterable[CellResult]]], labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Return results in COCO's detection format, with scores.

    Args:
        images: per image what COCO says of it (`file_name`, `width`, `height`, ...), and its cells.
        labels: names of the first categories, in order; others follow as they occur.
    """
    categories = {name: number for number, name in enumerate(labels, 1)}
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (image, cells) in enumerate(images, 1):
        entries.append({"id": image_id, **image})
        for cell in cells:
            category = categories.setdefault(cell.label, len(categories) + 1)
            x, y, w, h = (round(v, 1) for v in cell.box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    **_segmentation(cell),
                    "iscrowd": 0,
                    "score": round(cell.confidence, 4),
                    "cell_id": cell.id,
                    "attributes": {
                        n: a.value for n, a in cell.attributes.items() if a.value is not None
                    },
                }
            )
    return {
        "images": entries,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "supercategory": ""} for name, number in categories.items()
        ],
    }


def _segmentation(cell: CellResult) -> dict[str, Any]:
    """Return COCO's outline and area of a cell; no outline and the box's area where it has none."""
    if cell.shape is None:
        _, _, w, h = (round(v, 1) for v in cell.box)
        return {"segmentation": [], "area": round(w * h, 2)}
    x, y = np.array(cell.shape.outline).T
    area = abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
    flat = [round(v, 1) for point in cell.shape.outline for v in point]
    return {"segmentation": [flat], "area": round(area, 2)}


def supervision_detections(cells: Sequence[CellResult], labels: Sequence[str] = ()) -> Any:
    """Return `supervision.Detections`; `data` holds class_name, cell_id and object_type.

    Args:
        cells: of one image.
        labels: the names that class ids count; `()` takes those that occur, sorted.
    """
    supervision = optional("supervision", install="supervision", needed_by="to_supervision")
    names = list(labels) or sorted({c.label for c in cells})
    unknown = sorted({c.label for c in cells} - set(names))
    if unknown:
        raise DataError(f"to_supervision: {unknown[0]!r} is not among the labels given")
    return supervision.Detections(
        xyxy=to_xyxy([c.box for c in cells]).astype(np.float32),
        confidence=np.array([c.confidence for c in cells], dtype=np.float32),
        class_id=np.array([names.index(c.label) for c in cells], dtype=int),
        data={
            "class_name": np.array([c.label for c in cells], dtype=str),
            "cell_id": np.array([c.id for c in cells], dtype=str),
            "object_type": np.array([c.object_type for c in cells], dtype=str),
        },
    )


def draw(
    path: str, size: tuple[int, int], cells: Iterable[CellResult], image: Image | None, axes: Any
) -> Any:
    """Draw a field and its cells with matplotlib; return the axes.

    Cells that the classifier named get a colour and their name, all others a thin grey box.
    """
    pyplot = optional("matplotlib.pyplot", install="bloodfilm[plot]", needed_by="plot")
    patches = optional("matplotlib.patches", install="bloodfilm[plot]", needed_by="plot")
    pixels = _load(path) if image is None else image
    if pixels.shape[1::-1] != size:
        raise DataError(
            f"{path}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, the result is of a field of "
            f"{size[0]} x {size[1]}; pass the right image"
        )
    if axes is None:
        _, axes = pyplot.subplots(figsize=(9, 9 * size[1] / size[0]), layout="constrained")
    axes.imshow(pixels)
    axes.set_axis_off()
    colours: dict[str, str] = {}
    for cell in cells:
        x, y, w, h = cell.box
        named = bool(cell.probabilities)
        colour = colours.setdefault(cell.label, f"C{len(colours) % 10}") if named else _OTHER_COLOUR
        width = 1.5 if named else 0.5
        axes.add_patch(
            patches.Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=width)
        )
        if named:
            axes.annotate(
                f"{cell.label} {cell.label_confidence:.2f}",
                (x, y),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
    return axes


def _load(path: str) -> Image:
    """Read a photograph as it is looked at; what Pillow does not read is passed as an array."""
    pillow = optional("PIL.Image", install="bloodfilm[plot]", needed_by="plot")
    ops = optional("PIL.ImageOps", install="bloodfilm[plot]", needed_by="plot")
    try:
        with pillow.open(regular_file(Path(path))) as file:
            return np.asarray(ops.exif_transpose(file).convert("RGB"), dtype=np.uint8)
    except (OSError, DataError) as error:
        why = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise DataError(f"{path}: cannot be read again ({why}); pass its pixels") from None
