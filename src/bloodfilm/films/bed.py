"""LLD-shaped sets of rendered cells, on their way to disk: what faults are planted in.

A bed is a folder in LLD's own layout: `H_40X_C2/Images/train`, `json_labels/train.json`,
`txt_labels/AttriDet/train`, rendered cells, LLD's class ids and attribute codes. Every patient's
slide is rendered once as a tall strip, and its fields are cut from it, so that fields may overlap
as LLD's do.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, Cell, ConfigError
from bloodfilm.films.looks import get_look, vary_look
from bloodfilm.films.render import render_field
from bloodfilm.films.scene import Recipe
from bloodfilm.films.sets import save_image
from bloodfilm.films.truth import Truth
from bloodfilm.formats._lldcodes import (
    CLASSES,
    JSON_KEYS,
    NOT_APPLICABLE_JSON,
    json_code,
    text_code,
)

Pixels = NDArray[np.uint8]
Json = dict[str, Any]
_IDS = {name: ident for ident, name in sorted(CLASSES.items(), reverse=True)}
DIAGNOSES = ("AML", "ALL", "AML", "CLL", "CML", "APML")
LOOK_OF = {"100X": "lld100x-like", "40X": "lld40x-like", "10X": "lld10x-like"}
_CODE = {"100X": "1000", "40X": "400", "10X": "100"}
EDGE = 6.0


@dataclass(frozen=True)
class Planted:
    """One fault that was planted.

    Attributes:
        kind: the audit's name for it.
        image: path of the image or label file it is about.
        annotations: the JSON ids of the annotations it is about.
        other: a second image it is about.
    """

    kind: str
    image: Path
    annotations: tuple[str, ...] = ()
    other: Path | None = None


@dataclass(frozen=True)
class BedPlan:
    """What a bed is made of.

    Attributes:
        subsets: folder names such as `H_40X_C2`.
        patients: how many; about a third of them are in test.
        fields: of each patient.
        side: of a field, pixels.
        whites: white cells a field, on average.
        faults: names in `faults.FAULTS` to plant, in order.
    """

    subsets: Sequence[str] = ("H_40X_C2",)
    patients: int = 3
    fields: int = 3
    side: int = 320
    whites: int = 2
    faults: Sequence[str] = ()


@dataclass
class Bed:
    """A set on its way to disk, and what was planted in it."""

    root: Path
    pixels: dict[Path, Pixels] = field(default_factory=dict)
    labels: dict[tuple[str, str], Json] = field(default_factory=dict)
    planted: list[Planted] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    silent: set[Path] = field(default_factory=set)
    """Images that labels speak of but that are not written."""

    def annotations(self, subset: str, split: str) -> list[Json]:
        """Return the annotations of a label file."""
        listed: list[Json] = self.labels[subset, split]["annotations"]
        return listed

    def image_of(self, subset: str, split: str, annotation: Json) -> Path:
        """Return the image an annotation is of."""
        images = self.labels[subset, split]["images"]
        name = next(i["file_name"] for i in images if i["id"] == annotation["image_id"])
        return self.root / subset / "Images" / split / str(name)

    def fresh(self, subset: str, split: str) -> Json:
        """Return an annotation, well inside its image, that no fault has touched yet."""
        for item in self.annotations(subset, split):
            x, y, w, h = item["bbox"]
            height, width = self.pixels[self.image_of(subset, split, item)].shape[:2]
            inside = min(x, y, width - x - w, height - y - h) > EDGE
            if inside and item["category_id"] != 0 and item["id"] not in self.used:
                self.used.add(item["id"])
                return item
        raise ConfigError(f"films: too few cells in {subset} {split} to plant another fault")

    def copy(self, subset: str, split: str, annotation: Json, **changes: Any) -> Json:
        """Append a changed copy of an annotation, with an id of its own."""
        listed = self.annotations(subset, split)
        new = annotation | {"id": max(int(a["id"]) for a in listed) + 1} | changes
        self.used.add(new["id"])
        listed.append(new)
        return new

    def note(self, kind: str, image: Path, *items: Json, other: Path | None = None) -> None:
        """List a planted fault."""
        self.planted.append(Planted(kind, image, tuple(str(i["id"]) for i in items), other))


def render_patient(bed: Bed, plan: BedPlan, subset: str, patient: int, seed: int) -> None:
    """Cut a patient's fields, without overlap, from one strip of film."""
    power = subset.split("_")[1].upper()
    look = vary_look(get_look(LOOK_OF[power]), np.random.default_rng([seed, 6, patient]), 0.5)
    look = replace(look, focus_um=0.0)
    recipe = recipe_of(plan.whites * plan.fields, patient)
    height = plan.side * plan.fields
    strip, truth = render_field(look, recipe, seed=seed * 1009 + patient, size=(plan.side, height))
    split = split_of(patient, plan)
    for number in range(plan.fields):
        top = number * plan.side
        name = file_name(patient, number + 1, number + 1, power)
        add_field(bed, (subset, split, name), (strip, truth), (0, top, plan.side, top + plan.side))


def recipe_of(whites: int, patient: int) -> Recipe:
    """So many white cells of the patient's kind among plenty of red ones, as films have them."""
    return Recipe(whites=whites, mix=mix_of(patient), cut=0.0, red_density=8.5, clumping=0.2)


def mix_of(patient: int) -> dict[str, float]:
    """Cells of a diagnosis, all of classes that LLD has."""
    mixes = {
        "ALL": {"lymphoblast": 8.0, "lymphocyte": 2.0},
        "AML": {"myeloblast": 5.0, "monoblast": 3.0, "neutrophil": 2.0},
        "CLL": {"atypical lymphocyte": 8.0, "lymphocyte": 2.0},
        "CML": {"myelocyte": 4.0, "metamyelocyte": 2.0, "neutrophil": 4.0},
        "APML": {"abnormal promyelocyte": 8.0, "myeloblast": 2.0},
    }
    return mixes[DIAGNOSES[patient % len(DIAGNOSES)]]


def split_of(patient: int, plan: BedPlan) -> str:
    """Every third patient is in test; at least one."""
    return "test" if patient % 3 == 2 or patient == plan.patients - 1 > 0 else "train"


def file_name(patient: int, number: int, photograph: int, power: str) -> str:
    """Return a file name as LLD has them."""
    middle = f"{number}" if power == "100X" else f"{number}_{photograph}"
    return f"{patient + 1}_{middle}_{_CODE[power]}_{DIAGNOSES[patient % len(DIAGNOSES)]}.png"


def add_field(
    bed: Bed,
    place: tuple[str, str, str],
    picture: tuple[Pixels, Truth],
    window: tuple[int, int, int, int],
    turned: bool = False,
) -> Path:
    """Cut a window (x1, y1, x2, y2) of a picture as a field, its whole white cells annotated."""
    subset, split, name = place
    strip, truth = picture
    x1, y1, x2, y2 = window
    pixels = strip[y1:y2, x1:x2]
    boxes = []
    for seen in truth.of_kind("white"):
        x, y, w, h = seen.box
        if x >= x1 and y >= y1 and x + w <= x2 and y + h <= y2:
            box = (x - x1, y - y1, w, h)
            if turned:
                box = (x2 - x1 - box[0] - w, y2 - y1 - box[1] - h, w, h)
            boxes.append((box, seen.cell))
    path = bed.root / subset / "Images" / split / name
    bed.pixels[path] = np.ascontiguousarray(pixels[::-1, ::-1] if turned else pixels)
    list_field(bed, (subset, split), path, boxes)
    return path


def list_field(
    bed: Bed,
    key: tuple[str, str],
    path: Path,
    boxes: Sequence[tuple[tuple[float, float, float, float], Cell]],
) -> None:
    """List a field and its cells in a label file."""
    listed = [{"id": i, "name": name} for i, name in CLASSES.items() if i < 14]
    content = bed.labels.setdefault(key, {"images": [], "annotations": [], "categories": listed})
    height, width = bed.pixels[path].shape[:2]
    ident = len(content["images"]) + 1
    image = {"id": ident, "file_name": path.name, "width": width, "height": height}
    content["images"].append(image)
    for box, cell in boxes:
        codes = {
            keys[0]: json_code(name, cell.attributes.get(name)) for name, keys in JSON_KEYS.items()
        }
        content["annotations"].append(
            {
                "id": max((int(a["id"]) for a in content["annotations"]), default=0) + 1,
                "image_id": ident,
                "category_id": _class_id(cell),
                "bbox": [float(v) for v in box],
                "area": float(box[2] * box[3]),
                "iscrowd": 0,
                **codes,
            }
        )


def _class_id(cell: Cell) -> int:
    """Return LLD's class of a cell: that of the nearest node above it which LLD has."""
    for name in reversed(DEFAULT_TAXONOMY.path(cell.label or "cell")):
        if name in _IDS:
            return _IDS[name]
    return 0


# ---- writing ---------------------------------------------------------------------------------


def write(bed: Bed) -> None:
    """Write images, JSON labels and text labels."""
    for path, pixels in bed.pixels.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path not in bed.silent:
            save_image(path, pixels)
    for (subset, split), content in bed.labels.items():
        file = bed.root / subset / "json_labels" / f"{split}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
        names = {i["id"]: str(i["file_name"]) for i in content["images"]}
        sizes = {i["id"]: (i["width"], i["height"]) for i in content["images"]}
        lines: dict[str, list[str]] = {name: [] for name in names.values()}
        for item in content["annotations"]:
            ident = item["image_id"]
            lines[names[ident]].append(_line(item, sizes[ident]))
        folder = bed.root / subset / "txt_labels" / "AttriDet" / split
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in lines.items():
            text = "".join(row + "\n" for row in rows)
            (folder / f"{Path(name).stem}.txt").write_text(text, encoding="utf-8")


def _line(item: Json, size: tuple[int, int]) -> str:
    """One cell in LLD's twelve text columns: class, normalised box, seven codes."""
    x, y, w, h = item["bbox"]
    box = ((x + w / 2) / size[0], (y + h / 2) / size[1], w / size[0], h / size[1])
    codes = []
    for name, keys in JSON_KEYS.items():
        code = int(item[keys[0]])
        unknown = code == NOT_APPLICABLE_JSON or code >= len(LLD_SCHEMA[name].values)
        codes.append(text_code(name, None) if unknown else code)
    return " ".join([str(item["category_id"]), *(f"{v:.6f}" for v in box), *map(str, codes)])
