"""In-memory data sets in LLD's layout, the target of fault injection.

A set is a folder in LLD's own layout: `H_40X_C2/Images/train`, `json_labels/train.json`,
`txt_labels/AttriDet/train`, rendered cells, LLD's class ids and attribute codes; `L_100X_C2` has
its JSON in `labels.zip`, as in the published copy. Every patient's slide is rendered once as a tall
strip, and its fields are cut from it, so that fields may overlap as LLD's do.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, Cell, ConfigError
from bloodfilm.core.arrays import Json, Pixels
from bloodfilm.core.files import write_bytes, write_text
from bloodfilm.formats.lld.codes import (
    CLASSES,
    JSON_KEYS,
    NOT_APPLICABLE_JSON,
    json_code,
    text_code,
)
from bloodfilm.synthetic.dataset import save_image
from bloodfilm.synthetic.ground_truth import GroundTruth
from bloodfilm.synthetic.profiles import get_profile, vary_profile
from bloodfilm.synthetic.render import render_field
from bloodfilm.synthetic.scene import SceneSpec

Edit = Callable[[list[str]], list[str]]
_IDS = {name: ident for ident, name in sorted(CLASSES.items(), reverse=True)}
DIAGNOSES = ("AML", "ALL", "AML", "CLL", "CML", "APML")
PROFILE_OF = {"100X": "lld100x-like", "40X": "lld40x-like", "10X": "lld10x-like"}
_CODE = {"100X": "1000", "40X": "400", "10X": "100"}
ZIPPED = frozenset({"L_100X_C2"})
"""Subsets whose JSON labels come in `labels.zip`."""
FULL, SPARSE = "AttriDet", "SLA-Det"
EDGE = 6.0


@dataclass(frozen=True)
class InjectedFault:
    """One fault that was injected.

    Attributes:
        code: the audit's code for it.
        image: path of the image or label file it is about.
        annotations: the JSON ids of the annotations it is about.
        other: a second image it is about.
        fault: its name in `cell_faults.FAULTS`.
    """

    code: str
    image: Path
    annotations: tuple[str, ...] = ()
    other: Path | None = None
    fault: str = ""

    def to_json(self, root: Path) -> Json:
        """Return JSON-compatible data, with file names relative to the data set."""
        other = None if self.other is None else self.other.relative_to(root).as_posix()
        whole = not self.image.is_relative_to(root)
        image = self.image if whole else self.image.relative_to(root)
        record = {"fault": self.fault, "code": self.code, "file": image.as_posix()}
        return record | {"annotations": list(self.annotations), "other": other}


@dataclass(frozen=True)
class FaultPlan:
    """Specification of a faulty data set.

    Attributes:
        subsets: folder names such as `H_40X_C2`.
        patients: how many; about a third of them are in test.
        fields: of each patient.
        side: of a field, pixels.
        whites: white cells per field, on average.
        sparse: also write 16-column text labels of train fields, of one rectangle of each.
        empty: subset folders without a field, as `L_10X_C1` is published.
        faults: names in `cell_faults.FAULTS` to inject, in order.
    """

    subsets: Sequence[str] = ("H_40X_C2",)
    patients: int = 3
    fields: int = 3
    side: int = 320
    whites: int = 2
    sparse: bool = False
    empty: Sequence[str] = ()
    faults: Sequence[str] = ()


@dataclass
class FaultyDatasetBuilder:
    """A data set in memory, with the list of injected faults."""

    root: Path
    pixels: dict[Path, Pixels] = field(default_factory=dict)
    labels: dict[tuple[str, str], Json] = field(default_factory=dict)
    injected: list[InjectedFault] = field(default_factory=list)
    fault: str = ""
    """The fault that is being injected."""
    used: set[int] = field(default_factory=set)
    silent: set[Path] = field(default_factory=set)
    """Images that labels refer to but that are not written."""
    cut: set[Path] = field(default_factory=set)
    """Images that are written truncated."""
    patches: dict[Path, tuple[int, int, int, int]] = field(default_factory=dict)
    """The marked rectangle (x1, y1, x2, y2) of images that have sparse text labels."""
    edits: dict[tuple[str, Path], Edit] = field(default_factory=dict)
    """Text folder and image -> edit applied to the lines of its text labels."""

    def annotations(self, subset: str, split: str) -> list[Json]:
        """Return the annotations of a label file."""
        listed: list[Json] = self.labels[subset, split]["annotations"]
        return listed

    def label_file(self, subset: str, split: str) -> Path:
        """Return the path of a subset's JSON labels, inside an archive or not."""
        folder = "labels.zip" if subset in ZIPPED else "json_labels"
        return self.root / subset / folder / f"{split}.json"

    def image_of(self, subset: str, split: str, annotation: Json) -> Path:
        """Return the image of an annotation."""
        images = self.labels[subset, split]["images"]
        name = next(i["file_name"] for i in images if i["id"] == annotation["image_id"])
        return self.root / subset / "Images" / split / str(name)

    def fresh(self, subset: str, split: str) -> Json:
        """Return an annotation, well inside its image, that no fault has changed yet."""
        for item in self.annotations(subset, split):
            x, y, w, h = item["bbox"]
            height, width = self.pixels[self.image_of(subset, split, item)].shape[:2]
            inside = min(x, y, width - x - w, height - y - h) > EDGE
            if inside and item["category_id"] != 0 and item["id"] not in self.used:
                self.used.add(item["id"])
                return item
        raise ConfigError(f"films: too few cells in {subset} {split} to inject another fault")

    def copy(self, subset: str, split: str, annotation: Json, **changes: Any) -> Json:
        """Append a changed copy of an annotation, with a new id."""
        listed = self.annotations(subset, split)
        new = annotation | {"id": max(int(a["id"]) for a in listed) + 1} | changes
        self.used.add(new["id"])
        listed.append(new)
        return new

    def note(self, code: str, image: Path, *items: Json, other: Path | None = None) -> None:
        """Record an injected fault."""
        idents = tuple(str(i["id"]) for i in items)
        self.injected.append(InjectedFault(code, image, idents, other, self.fault))


def render_patient(
    builder: FaultyDatasetBuilder, plan: FaultPlan, subset: str, patient: int, seed: int
) -> None:
    """Cut a patient's fields, without overlap, from one strip of film."""
    power = subset.split("_")[1].upper()
    profile = vary_profile(
        get_profile(PROFILE_OF[power]), np.random.default_rng([seed, 6, patient]), 0.5
    )
    profile = replace(profile, focus_um=0.0)
    spec = scene_of(plan.whites * plan.fields, patient)
    height = plan.side * plan.fields
    strip, truth = render_field(profile, spec, seed=seed * 1009 + patient, size=(plan.side, height))
    split = split_of(patient, plan)
    for number in range(plan.fields):
        top = number * plan.side
        name = file_name(patient, number + 1, number + 1, power)
        add_field(
            builder, (subset, split, name), (strip, truth), (0, top, plan.side, top + plan.side)
        )


def scene_of(whites: int, patient: int) -> SceneSpec:
    """Return a scene of white cells by the patient's diagnosis among many red cells."""
    return SceneSpec(whites=whites, mix=mix_of(patient), cut=0.0, red_density=8.5, clumping=0.2)


def mix_of(patient: int) -> dict[str, float]:
    """Return the class mix of a diagnosis, restricted to classes of LLD."""
    mixes = {
        "ALL": {"lymphoblast": 8.0, "lymphocyte": 2.0},
        "AML": {"myeloblast": 5.0, "monoblast": 3.0, "neutrophil": 2.0},
        "CLL": {"atypical lymphocyte": 8.0, "lymphocyte": 2.0},
        "CML": {"myelocyte": 4.0, "metamyelocyte": 2.0, "neutrophil": 4.0},
        "APML": {"abnormal promyelocyte": 8.0, "myeloblast": 2.0},
    }
    return mixes[DIAGNOSES[patient % len(DIAGNOSES)]]


def split_of(patient: int, plan: FaultPlan) -> str:
    """Every third patient is in test; at least one."""
    return "test" if patient % 3 == 2 or patient == plan.patients - 1 > 0 else "train"


def file_name(patient: int, number: int, photograph: int, power: str) -> str:
    """Return a file name in LLD's pattern."""
    middle = f"{number}" if power == "100X" else f"{number}_{photograph}"
    return f"{patient + 1}_{middle}_{_CODE[power]}_{DIAGNOSES[patient % len(DIAGNOSES)]}.png"


def add_field(
    builder: FaultyDatasetBuilder,
    place: tuple[str, str, str],
    picture: tuple[Pixels, GroundTruth],
    window: tuple[int, int, int, int],
    turned: bool = False,
) -> Path:
    """Cut a window (x1, y1, x2, y2) of an image as a field, its whole white cells annotated."""
    subset, split, name = place
    strip, truth = picture
    x1, y1, x2, y2 = window
    pixels = strip[y1:y2, x1:x2]
    boxes = []
    for visible in truth.of_kind("white"):
        x, y, w, h = visible.box
        if x >= x1 and y >= y1 and x + w <= x2 and y + h <= y2:
            box = (x - x1, y - y1, w, h)
            if turned:
                box = (x2 - x1 - box[0] - w, y2 - y1 - box[1] - h, w, h)
            boxes.append((box, visible.cell))
    path = builder.root / subset / "Images" / split / name
    builder.pixels[path] = np.ascontiguousarray(pixels[::-1, ::-1] if turned else pixels)
    list_field(builder, (subset, split), path, boxes)
    return path


def list_field(
    builder: FaultyDatasetBuilder,
    key: tuple[str, str],
    path: Path,
    boxes: Sequence[tuple[tuple[float, float, float, float], Cell]],
) -> None:
    """List a field and its cells in a label file."""
    listed = [{"id": i, "name": name} for i, name in CLASSES.items() if i < 14]
    content = builder.labels.setdefault(
        key, {"images": [], "annotations": [], "categories": listed}
    )
    height, width = builder.pixels[path].shape[:2]
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
    """Return LLD's class of a cell: the nearest ancestor in the taxonomy that LLD has."""
    for name in reversed(DEFAULT_TAXONOMY.path(cell.label or "cell")):
        if name in _IDS:
            return _IDS[name]
    return 0


# ---- writing ---------------------------------------------------------------------------------


def write(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    """Write images, JSON labels and text labels."""
    for path, pixels in builder.pixels.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path not in builder.silent:
            save_image(path, pixels)
        if path in builder.cut:
            write_bytes(path, path.read_bytes()[:200], sync=False)
    for subset in plan.empty:
        for split in ("train", "test"):
            (builder.root / subset / "Images" / split).mkdir(parents=True)
    for (subset, split), content in builder.labels.items():
        _write_json(builder.root / subset, split, content)
        _write_texts(builder, (subset, split), FULL)
        if plan.sparse and split == "train":
            _write_texts(builder, (subset, split), SPARSE)


def _write_json(subset: Path, split: str, content: Json) -> None:
    text = json.dumps(content)
    if subset.name in ZIPPED:
        subset.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(subset / "labels.zip", "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(f"WBC_detection/{split}.json"), text)
        return
    file = subset / "json_labels" / f"{split}.json"
    write_text(file, text, sync=False)


def _write_texts(builder: FaultyDatasetBuilder, key: tuple[str, str], kind: str) -> None:
    """Write one label file per image; sparse ones hold the patch and the cells in it."""
    subset, split = key
    content = builder.labels[key]
    folder = builder.root / subset / "txt_labels" / kind / split
    folder.mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        path = builder.root / subset / "Images" / split / str(entry["file_name"])
        same = {i["id"] for i in content["images"] if i["file_name"] == entry["file_name"]}
        selected = [a for a in content["annotations"] if a["image_id"] in same]
        size = (int(entry["width"]), int(entry["height"]))
        if kind == SPARSE:
            lines = [_sparse_line(a, size, patch) for a, patch in _marked(builder, path, selected)]
        else:
            lines = [_line(a, size) for a in selected]
        edit = builder.edits.get((kind, path))
        lines = lines if edit is None else edit(lines)
        file = folder / f"{path.stem}.txt"
        write_text(file, "".join(f"{line}\n" for line in lines), sync=False)


def patch_of(
    builder: FaultyDatasetBuilder, image: Path, boxes: Sequence[Sequence[float]]
) -> tuple[int, int, int, int]:
    """Return an image's marked rectangle; by default one around its first box, off the diagonal.

    Its columns read in the wrong order would not hold that box.
    """
    if image not in builder.patches:
        height, width = builder.pixels[image].shape[:2]
        x, y, w, h = boxes[0] if boxes else (0.3 * width, 0.1 * height, 9.0, 9.0)
        left, top = max(0, int(x) - 30), max(0, int(y) - 30)
        right, low = min(width, int(x + w) + 40), min(height, int(y + h) + 30)
        builder.patches[image] = (left, top, right, low)
    return builder.patches[image]


def _marked(
    builder: FaultyDatasetBuilder, image: Path, annotations: Iterable[Json]
) -> list[tuple[Json, tuple[int, int, int, int]]]:
    listed = list(annotations)
    x1, y1, x2, y2 = patch = patch_of(builder, image, [a["bbox"] for a in listed])
    centres = [(a["bbox"][0] + a["bbox"][2] / 2, a["bbox"][1] + a["bbox"][3] / 2) for a in listed]
    inside = [x1 <= x <= x2 and y1 <= y <= y2 for x, y in centres]
    return [(a, patch) for a, within in zip(listed, inside, strict=True) if within]


def _sparse_line(item: Json, size: tuple[int, int], patch: tuple[int, int, int, int]) -> str:
    """One cell in LLD's sixteen columns: the patch, at 640 scale, precedes the codes."""
    words = _line(item, size).split()
    x1, y1, x2, y2 = patch
    across, down = 640 / size[0], 640 / size[1]
    columns = (x1 * across, x2 * across, y1 * down, y2 * down)
    return " ".join([*words[:5], *(f"{v:.2f}" for v in columns), *words[5:]])


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
