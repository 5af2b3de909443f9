"""Faults of whole fields, subsets and label files, as LLD has them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from bloodfilm.core import ConfigError
from bloodfilm.core.arrays import Json, Pixels
from bloodfilm.synthetic.lld_fixture.builder import (
    FULL,
    SPARSE,
    Edit,
    FaultPlan,
    FaultyDatasetBuilder,
    file_name,
    patch_of,
)

Injection = Callable[[FaultyDatasetBuilder, FaultPlan], None]
BLUR = 3.0  # px
WIDER = 0.8
TINTS = {"ALL": (1.0, 0.96, 0.9), "AML": (0.92, 0.97, 1.0), "CLL": (1.0, 0.9, 1.0)}
EVERYTHING = Path("LLD")
"""Name of the whole data set in audit findings."""


def last_key(builder: FaultyDatasetBuilder) -> tuple[str, str]:
    """Return the train labels of the last subset."""
    return [key for key in builder.labels if key[1] == "train"][-1]


def images_of(builder: FaultyDatasetBuilder, subset: str) -> list[Path]:
    """Return the images of a subset."""
    return [p for p in builder.pixels if p.parent.parent.parent.name == subset]


# ---- fields ----------------------------------------------------------------------------------


def _blurred(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    path = next(iter(builder.pixels))
    builder.pixels[path] = np.asarray(
        cv2.GaussianBlur(builder.pixels[path], (0, 0), BLUR), dtype=np.uint8
    )
    builder.note("blurred", path)


def _unreadable(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    path = [p for p in builder.pixels if p not in builder.silent][-2]
    builder.cut.add(path)
    builder.note("unreadable-image", path)


def _unlabelled(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    subset, split = last_key(builder)
    power = subset.split("_")[1].upper()
    path = builder.root / subset / "Images" / split / file_name(0, 95, 95, power)
    builder.pixels[path] = np.ascontiguousarray(next(iter(builder.pixels.values()))[:, ::-1])
    builder.note("unlabelled-image", path)


def _missing_archive(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """A fifth of a subset's images was in an archive that did not unpack."""
    subset, _split = last_key(builder)
    for path in images_of(builder, subset)[::5]:
        builder.silent.add(path)
        builder.note("missing-image", path)


# ---- subsets and the whole -------------------------------------------------------------------


def _squeezed(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """The first subset's pictures are narrower than its record says, and its boxes with them."""
    subset = next(iter(builder.labels))[0]
    for path in images_of(builder, subset):
        builder.pixels[path] = _narrow(builder.pixels[path])
    for key, content in builder.labels.items():
        if key[0] == subset:
            for entry in content["images"]:
                entry["width"] = round(entry["width"] * WIDER)
            for item in content["annotations"]:
                x, y, w, h = item["bbox"]
                item["bbox"] = [x * WIDER, y, w * WIDER, h]
    builder.note("pixel-aspect-ratio", EVERYTHING)


def _narrow(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    size = (round(width * WIDER), height)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _confounded(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """Give every diagnosis a different stain."""
    subset = next(iter(builder.labels))[0]
    for path in images_of(builder, subset):
        tint = TINTS.get(path.stem.rsplit("_", 1)[-1], (1.0, 1.0, 1.0))
        builder.pixels[path] = np.clip(builder.pixels[path] * np.array(tint), 0, 255).astype(
            np.uint8
        )
    microscope, power, camera = subset.split("_")
    builder.note("confounded", Path(f"{microscope}/{power}/{camera}"))


def _one_slide(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """All lymphoblasts are on one patient's slide."""
    for content in builder.labels.values():
        patients = {i["id"]: str(i["file_name"]).split("_", 1)[0] for i in content["images"]}
        for item in content["annotations"]:
            if item["category_id"] != 0:
                item["category_id"] = 2 if patients[item["image_id"]] == "2" else 3
    builder.note("one-slide", EVERYTHING)


def _few_patients(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    """Diagnoses of one or two patients per split, as in LLD; any small set has it."""
    if plan.patients < 9:
        builder.note("few-patients", EVERYTHING)


def _reacquired(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    """The same fields of the same patients in two subsets; any set of two subsets has it."""
    if len(plan.subsets) > 1:
        builder.note("reacquisition", EVERYTHING)


def _empty(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    for subset in plan.empty:
        builder.note("empty-subset", builder.root / subset)


def _leak_within(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """In the first subset, one field of a train patient is in test."""
    subset = next(iter(builder.labels))[0]
    train, test = builder.labels[subset, "train"], builder.labels[subset, "test"]
    entry = next(i for i in reversed(train["images"]) if str(i["file_name"]).startswith("2_"))
    own = [a for a in train["annotations"] if a["image_id"] == entry["id"]]
    train["images"].remove(entry)
    train["annotations"] = [a for a in train["annotations"] if a not in own]
    ident = 8000 + len(test["images"])
    start = max((int(a["id"]) for a in test["annotations"]), default=0) + 1
    test["images"].append(entry | {"id": ident})
    test["annotations"] += [
        a | {"id": start + number, "image_id": ident} for number, a in enumerate(own)
    ]
    old = builder.root / subset / "Images" / "train" / str(entry["file_name"])
    new = builder.root / subset / "Images" / "test" / str(entry["file_name"])
    builder.pixels[new] = builder.pixels.pop(old)
    builder.note("patient-leak", new)


# ---- label files -----------------------------------------------------------------------------


def _named_none(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """Label an unambiguous white cell `none`."""
    builder.fresh(*last_key(builder))["category_id"] = 0
    builder.note("to-ignore", EVERYTHING)


def _orphan(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    key = last_key(builder)
    item = builder.copy(*key, builder.annotations(*key)[0], image_id=99_999)
    builder.note("orphan", builder.label_file(*key), item)


def _text(code: str, folder: str, place: str, edit: Edit) -> Injection:
    """A fault in the text labels of a field that no other fault has changed yet."""

    def inject(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
        if folder == SPARSE and not plan.sparse:
            raise ConfigError(f"films: {code!r} is a fault of sparse labels; plan them: sparse")
        subset, split = key = last_key(builder)
        edited = {path for _, path in builder.edits}
        path = next(p for p in _with_cells(builder, key) if p not in edited)
        builder.edits[folder, path] = edit
        file = builder.root / subset / "txt_labels" / folder / split / f"{path.stem}.txt"
        items: tuple[Json, ...] = ({"id": place},) if place else ()
        builder.note(code, file, *items)

    return inject


def _with_cells(builder: FaultyDatasetBuilder, key: tuple[str, str]) -> list[Path]:
    """Return the images of a label file that hold a cell, and the sparse patch of each a cell."""
    found = dict.fromkeys(builder.image_of(*key, item) for item in builder.annotations(*key))
    for path in found:
        boxes = [a["bbox"] for a in builder.annotations(*key) if builder.image_of(*key, a) == path]
        patch_of(builder, path, boxes)
    return list(found)


def _words(change: Callable[[list[str]], list[str]], every: bool = False) -> Edit:
    """Return an edit of the first line's words, or of every line's."""

    def edit(lines: list[str]) -> list[str]:
        many = len(lines) if every else 1
        return [" ".join(change(line.split())) for line in lines[:many]] + lines[many:]

    return edit


SET_FAULTS: dict[str, Injection] = {
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
"""Faults of fields, subsets and label files, by name; inject them in this order."""
