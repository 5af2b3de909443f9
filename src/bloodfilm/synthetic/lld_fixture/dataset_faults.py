"""Faults of whole fields, subsets and label files, as LLD has them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from bloodfilm.core import ConfigError
from bloodfilm.synthetic.lld_fixture.builder import (
    FULL,
    SPARSE,
    Edit,
    FaultPlan,
    FaultyDatasetBuilder,
    Json,
    Pixels,
    file_name,
    patch_of,
)

Plant = Callable[[FaultyDatasetBuilder, FaultPlan], None]
BLUR = 3.0  # px
WIDER = 0.8
TINTS = {"ALL": (1.0, 0.96, 0.9), "AML": (0.92, 0.97, 1.0), "CLL": (1.0, 0.9, 1.0)}
EVERYTHING = Path("LLD")
"""What the audit calls the whole data set."""


def last_key(bed: FaultyDatasetBuilder) -> tuple[str, str]:
    """Return the train labels of the last subset."""
    return [key for key in bed.labels if key[1] == "train"][-1]


def images_of(bed: FaultyDatasetBuilder, subset: str) -> list[Path]:
    """Return the images of a subset."""
    return [p for p in bed.pixels if p.parent.parent.parent.name == subset]


# ---- fields ----------------------------------------------------------------------------------


def _blurred(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    path = next(iter(bed.pixels))
    bed.pixels[path] = np.asarray(cv2.GaussianBlur(bed.pixels[path], (0, 0), BLUR), dtype=np.uint8)
    bed.note("blurred", path)


def _unreadable(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    path = [p for p in bed.pixels if p not in bed.silent][-2]
    bed.cut.add(path)
    bed.note("unreadable-image", path)


def _unlabelled(bed: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    subset, split = last_key(bed)
    power = subset.split("_")[1].upper()
    path = bed.root / subset / "Images" / split / file_name(0, 95, 95, power)
    bed.pixels[path] = np.ascontiguousarray(next(iter(bed.pixels.values()))[:, ::-1])
    bed.note("unlabelled-image", path)


def _missing_archive(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """A fifth of a subset's images was in an archive that did not unpack."""
    subset, _split = last_key(bed)
    for path in images_of(bed, subset)[::5]:
        bed.silent.add(path)
        bed.note("missing-image", path)


# ---- subsets and the whole -------------------------------------------------------------------


def _squeezed(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """The first subset's pictures are narrower than its record says, and its boxes with them."""
    subset = next(iter(bed.labels))[0]
    for path in images_of(bed, subset):
        bed.pixels[path] = _narrow(bed.pixels[path])
    for key, content in bed.labels.items():
        if key[0] == subset:
            for entry in content["images"]:
                entry["width"] = round(entry["width"] * WIDER)
            for item in content["annotations"]:
                x, y, w, h = item["bbox"]
                item["bbox"] = [x * WIDER, y, w * WIDER, h]
    bed.note("pixel-aspect-ratio", EVERYTHING)


def _narrow(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    size = (round(width * WIDER), height)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _confounded(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """Every diagnosis has a stain of its own."""
    subset = next(iter(bed.labels))[0]
    for path in images_of(bed, subset):
        tint = TINTS.get(path.stem.rsplit("_", 1)[-1], (1.0, 1.0, 1.0))
        bed.pixels[path] = np.clip(bed.pixels[path] * np.array(tint), 0, 255).astype(np.uint8)
    microscope, power, camera = subset.split("_")
    bed.note("confounded", Path(f"{microscope}/{power}/{camera}"))


def _one_slide(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """All lymphoblasts are on one patient's slide."""
    for content in bed.labels.values():
        patients = {i["id"]: str(i["file_name"]).split("_", 1)[0] for i in content["images"]}
        for item in content["annotations"]:
            if item["category_id"] != 0:
                item["category_id"] = 2 if patients[item["image_id"]] == "2" else 3
    bed.note("one-slide", EVERYTHING)


def _few_patients(bed: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    """Diagnoses of one or two patients a split, as in LLD; any small bed has it."""
    if plan.patients < 9:
        bed.note("few-patients", EVERYTHING)


def _reacquired(bed: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    """The same fields of the same patients in two subsets; any bed of two has it."""
    if len(plan.subsets) > 1:
        bed.note("reacquisition", EVERYTHING)


def _empty(bed: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    for subset in plan.empty:
        bed.note("empty-subset", bed.root / subset)


def _leak_within(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """In the first subset, one field of a train patient is in test."""
    subset = next(iter(bed.labels))[0]
    train, test = bed.labels[subset, "train"], bed.labels[subset, "test"]
    entry = next(i for i in reversed(train["images"]) if str(i["file_name"]).startswith("2_"))
    mine = [a for a in train["annotations"] if a["image_id"] == entry["id"]]
    train["images"].remove(entry)
    train["annotations"] = [a for a in train["annotations"] if a not in mine]
    ident = 8000 + len(test["images"])
    start = max((int(a["id"]) for a in test["annotations"]), default=0) + 1
    test["images"].append(entry | {"id": ident})
    test["annotations"] += [
        a | {"id": start + number, "image_id": ident} for number, a in enumerate(mine)
    ]
    old = bed.root / subset / "Images" / "train" / str(entry["file_name"])
    new = bed.root / subset / "Images" / "test" / str(entry["file_name"])
    bed.pixels[new] = bed.pixels.pop(old)
    bed.note("patient-leak", new)


# ---- label files -----------------------------------------------------------------------------


def _named_none(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """A white cell that anybody would know is named `none`."""
    bed.fresh(*last_key(bed))["category_id"] = 0
    bed.note("to-ignore", EVERYTHING)


def _orphan(bed: FaultyDatasetBuilder, _: FaultPlan) -> None:
    key = last_key(bed)
    item = bed.copy(*key, bed.annotations(*key)[0], image_id=99_999)
    bed.note("orphan", bed.label_file(*key), item)


def _text(code: str, folder: str, place: str, edit: Edit) -> Plant:
    """A fault in the text labels of a field that no other fault has touched yet."""

    def plant(bed: FaultyDatasetBuilder, plan: FaultPlan) -> None:
        if folder == SPARSE and not plan.sparse:
            raise ConfigError(f"films: {code!r} is a fault of sparse labels; plan them: sparse")
        subset, split = key = last_key(bed)
        edited = {path for _, path in bed.edits}
        path = next(p for p in _with_cells(bed, key) if p not in edited)
        bed.edits[folder, path] = edit
        file = bed.root / subset / "txt_labels" / folder / split / f"{path.stem}.txt"
        items: tuple[Json, ...] = ({"id": place},) if place else ()
        bed.note(code, file, *items)

    return plant


def _with_cells(bed: FaultyDatasetBuilder, key: tuple[str, str]) -> list[Path]:
    """Return the images of a label file that hold a cell, and the sparse patch of each a cell."""
    found = dict.fromkeys(bed.image_of(*key, item) for item in bed.annotations(*key))
    for path in found:
        boxes = [a["bbox"] for a in bed.annotations(*key) if bed.image_of(*key, a) == path]
        patch_of(bed, path, boxes)
    return list(found)


def _words(change: Callable[[list[str]], list[str]], every: bool = False) -> Edit:
    """Return an edit of the first line's words, or of every line's."""

    def edit(lines: list[str]) -> list[str]:
        many = len(lines) if every else 1
        return [" ".join(change(line.split())) for line in lines[:many]] + lines[many:]

    return edit


SET_FAULTS: dict[str, Plant] = {
    "leak within": _leak_within,
    "re-acquired": _reacquired,
    "few patients": _few_patients,
    "empty subset": _empty,
    "one slide": _one_slide,
    "named none": _named_none,
    "blurred": _blurred,
    "confounded": _confounded,
    "squeezed": _squeezed,
    "missing archive": _missing_archive,
    "unlabelled": _unlabelled,
    "unreadable": _unreadable,
    "text class": _text(
        "labels-differ", FULL, "line 1", _words(lambda w: [str(int(w[0]) % 12 + 1), *w[1:]])
    ),
    "text code": _text("stray-code", FULL, "line 1", _words(lambda w: [*w[:-1], "7"])),
    "text line": _text("unreadable-labels", FULL, "line 1", _words(lambda w: w[:-2])),
    "patch order": _text(
        "patch-order",
        SPARSE,
        "",
        _words(lambda w: [*w[:5], w[5], w[7], w[6], w[8], *w[9:]], every=True),
    ),
    "patch nowhere": _text(
        "patch-order", SPARSE, "", _words(lambda w: [*w[:5], "1", "2", "1", "2", *w[9:]])
    ),
    "orphan": _orphan,
}
"""Faults of fields, subsets and label files, by name; plant them in this order."""
