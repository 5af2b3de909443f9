"""LLD-shaped sets with every fault that LLD is known to have, injected and listed.

Each fault is injected on cells of its own, so that finding one does not hide another.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bloodfilm.core import ConfigError
from bloodfilm.core.arrays import Json
from bloodfilm.formats.lld.codes import CLASSES
from bloodfilm.formats.lld.names import parse_subset
from bloodfilm.synthetic.lld_fixture.builder import (
    EDGE,
    PROFILE_OF,
    FaultPlan,
    FaultyDatasetBuilder,
    InjectedFault,
    add_field,
    file_name,
    list_field,
    render_patient,
    scene_of,
    write,
)
from bloodfilm.synthetic.lld_fixture.dataset_faults import SET_FAULTS
from bloodfilm.synthetic.profiles import get_profile
from bloodfilm.synthetic.render import render_field


def write_faulty_dataset(
    root: Path, plan: FaultPlan | None = None, *, seed: int = 0
) -> list[InjectedFault]:
    """Render a set in LLD's layout, inject the plan's faults, write it, and return them.

    Without faults the set is clean. The same arguments write the same bytes.
    """
    plan = plan or FaultPlan()
    unknown = [name for name in plan.faults if name not in FAULTS]
    if unknown:
        raise ConfigError(f"films: no fault {unknown[0]!r}; known: {', '.join(FAULTS)}")
    for subset in (*plan.subsets, *plan.empty):
        if parse_subset(subset) is None:
            raise ConfigError(f"films: no subset {subset!r}; LLD has H_40X_C2, L_100X_C1, ...")
    builder = FaultyDatasetBuilder(root)
    for subset in plan.subsets:
        for patient in range(plan.patients):
            render_patient(builder, plan, subset, patient, seed)
    for name in plan.faults:
        builder.fault = name
        FAULTS[name](builder, plan)
    write(builder, plan)
    return builder.injected


# ---- faults ----------------------------------------------------------------------------------


def _key(builder: FaultyDatasetBuilder) -> tuple[str, str]:
    return next(iter(builder.labels))


def _repeated_entries(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """The first image is listed once per box, each time with another id."""
    subset, split = key = _key(builder)
    content = builder.labels[key]
    entry = content["images"][0]
    mine = [a for a in content["annotations"] if a["image_id"] == entry["id"]]
    for number, annotation in enumerate(mine[1:]):
        content["images"].append(entry | {"id": 9000 + number})
        annotation["image_id"] = 9000 + number
    builder.note("repeated-image-entry", builder.label_file(subset, split))


def _exact_repeat(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    key = _key(builder)
    item = builder.fresh(*key)
    builder.note("exact-repeat", builder.image_of(*key, item), item, builder.copy(*key, item))


def _same_cell_twice(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    key = _key(builder)
    item = builder.fresh(*key)
    x, y, w, h = item["bbox"]
    again = builder.copy(*key, item, bbox=[x + 0.1 * w, y, w, 0.95 * h])
    builder.note("same-cell-twice", builder.image_of(*key, item), item, again)


def _two_classes(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    key = _key(builder)
    item = builder.fresh(*key)
    again = builder.copy(*key, item, category_id=item["category_id"] % 12 + 1)
    builder.note("two-classes", builder.image_of(*key, item), item, again)


def _over_red_cell(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """Move a copy of a box to the position in its field with least chromatin but with red cells."""
    key = _key(builder)
    item = builder.fresh(*key)
    image = builder.image_of(*key, item)
    _, _, w, h = item["bbox"]
    x, y = _red_place(builder, key, image, (w, h))
    builder.note("no-nucleus", image, builder.copy(*key, item, bbox=[x, y, w, h]))


def _red_place(
    builder: FaultyDatasetBuilder, key: tuple[str, str], image: Path, size: tuple[float, float]
) -> tuple[float, float]:
    """Return the top-left corner of the window that holds most red cell and no box."""
    pixels = builder.pixels[image].astype(float)
    glass = np.median(
        pixels.reshape(-1, 3)[pixels.sum(-1).ravel() > np.quantile(pixels.sum(-1), 0.8)], 0
    )
    covered = (pixels.sum(-1) < 0.9 * glass.sum()).astype(float)
    taken = [a["bbox"] for a in builder.annotations(*key) if builder.image_of(*key, a) == image]
    best, where = -1.0, (EDGE, EDGE)
    w, h = size
    for y in np.arange(EDGE, pixels.shape[0] - h - EDGE, 6):
        for x in np.arange(EDGE, pixels.shape[1] - w - EDGE, 6):
            clear = all(
                x + w < b[0] or b[0] + b[2] < x or y + h < b[1] or b[1] + b[3] < y for b in taken
            )
            share = covered[int(y) : int(y + h), int(x) : int(x + w)].mean() if clear else -1.0
            if share > best:
                best, where = float(share), (float(x), float(y))
    return where


def _moved(
    code: str, box: Callable[[Json, int, int], list[float]]
) -> Callable[[FaultyDatasetBuilder, FaultPlan], None]:
    """Return a fault that adds a misplaced or missized box."""

    def inject(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
        key = _key(builder)
        item = builder.fresh(*key)
        image = builder.image_of(*key, item)
        height, width = builder.pixels[image].shape[:2]
        builder.note(code, image, builder.copy(*key, item, bbox=box(item, width, height)))

    return inject


def _near_edge(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """Widen a box to the field's edge."""
    key = _key(builder)
    item = builder.fresh(*key)
    x, y, w, h = item["bbox"]
    item["bbox"] = [1.0, y, x + w - 1.0, h]
    builder.note("cut-by-edge", builder.image_of(*key, item), item)


def _stray_code(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    key = _key(builder)
    item = builder.fresh(*key)
    item["cell_size"] = 3
    builder.note("stray-code", builder.image_of(*key, item), item)


def _id_and_name(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    key = _key(builder)
    item = builder.fresh(*key)
    item["category_name"] = CLASSES[item["category_id"] % 12 + 1]
    builder.note("id-and-name-differ", builder.image_of(*key, item), item)


def _category_swap(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    """Swap the names of two categories in the last label file."""
    subset, split = key = list(builder.labels)[-1]
    categories = [dict(c) for c in builder.labels[key]["categories"]]
    categories[12]["name"], categories[13]["name"] = "basophil", "eosinophil"
    builder.labels[key]["categories"] = categories
    builder.note("id-and-name-differ", builder.label_file(subset, split))


def _missing_image(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    path = list(builder.pixels)[-1]
    builder.silent.add(path)
    builder.note("missing-image", path)


def _back_tick(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    subset, split = key = list(builder.labels)[-1]
    entry = builder.labels[key]["images"][0]
    old = builder.root / subset / "Images" / split / entry["file_name"]
    entry["file_name"] = entry["file_name"].replace("_400_", "`_400_").replace("_1000_", "`_1000_")
    new = old.with_name(entry["file_name"])
    builder.pixels = {(new if p == old else p): v for p, v in builder.pixels.items()}
    builder.note("odd-file-name", new)


def _unmarked(builder: FaultyDatasetBuilder, _: FaultPlan) -> None:
    key = _key(builder)
    item = builder.fresh(*key)
    builder.note("unmarked-white-cell", builder.image_of(*key, item), item)
    builder.annotations(*key).remove(item)


def _overlap(turned: bool) -> Callable[[FaultyDatasetBuilder, FaultPlan], None]:
    def inject(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
        """Add two overlapping fields of one patient, cut from one image."""
        subset, split = _key(builder)
        power = subset.split("_")[1].upper()
        profile = get_profile(PROFILE_OF[power])
        side = plan.side
        spec = scene_of(plan.whites * 3, 0)
        picture = render_field(profile, spec, seed=77 + turned, size=(side + 60, int(side * 1.45)))
        number = 50 + 10 * turned
        names = [file_name(0, number + k, number, power) for k in (0, 1)]
        first = add_field(builder, (subset, split, names[0]), picture, (0, 0, side, side))
        low = picture[0].shape[0] - side
        window = (37, low, 37 + side, low + side)
        second = add_field(builder, (subset, split, names[1]), picture, window, turned)
        builder.note("overlapping-fields", first, other=second)
        _note_common(builder, (subset, split), first, second)

    return inject


def _note_common(
    builder: FaultyDatasetBuilder, key: tuple[str, str], first: Path, second: Path
) -> None:
    """Record the cells of the first field that are also in the second: equal sizes, equal codes."""
    mine, theirs = (
        [a for a in builder.annotations(*key) if builder.image_of(*key, a) == p]
        for p in (first, second)
    )
    for a in mine:
        for b in theirs:
            if a["bbox"][2:] == b["bbox"][2:] and a["category_id"] == b["category_id"]:
                builder.note("same-cell-in-two-fields", first, a, b, other=second)
                builder.used |= {a["id"], b["id"]}
                break


def _duplicate(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    """Add one field twice under two numbers."""
    subset, split = key = _key(builder)
    power = subset.split("_")[1].upper()
    source = next(p for p in builder.pixels if p.parent.parent.parent.name == subset)
    copy_field(builder, key, source, (subset, split, file_name(0, 90, 90, power)))


def _renamed_into_test(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    """Repeat a train field in test, under another patient's name."""
    key = _key(builder)
    subset, other = next(k for k in builder.labels if k[0] == key[0] and k[1] == "test")
    power = subset.split("_")[1].upper()
    source = [p for p in builder.pixels if p.parent.parent.parent.name == subset][1]
    copy_field(builder, key, source, (subset, other, file_name(plan.patients - 1, 91, 91, power)))


def copy_field(
    builder: FaultyDatasetBuilder, key: tuple[str, str], source: Path, place: tuple[str, str, str]
) -> Path:
    """List a field and its annotations a second time."""
    subset, split, name = place
    path = builder.root / subset / "Images" / split / name
    builder.pixels[path] = builder.pixels[source]
    mine = [a for a in builder.annotations(*key) if builder.image_of(*key, a) == source]
    list_field(builder, (subset, split), path, ())
    content = builder.labels[subset, split]
    for a in mine:
        ident = max((int(b["id"]) for b in content["annotations"]), default=0) + 1
        new = a | {"id": ident, "image_id": content["images"][-1]["id"]}
        content["annotations"].append(new)
        builder.used |= {new["id"], a["id"]} if (subset, split) == key else {a["id"]}
    builder.note("identical-fields", source, other=path)
    return path


def _patient_leak(builder: FaultyDatasetBuilder, plan: FaultPlan) -> None:
    """In the last subset, a patient that is in train elsewhere is in test."""
    subset = list(builder.labels)[-1][0]
    train, test = builder.labels[subset, "train"], builder.labels[subset, "test"]
    moved = [i for i in train["images"] if str(i["file_name"]).startswith("1_")]
    if subset == _key(builder)[0]:
        moved = moved[-1:]
    for entry in moved:
        ident = 7000 + len(test["images"])
        mine = [a for a in train["annotations"] if a["image_id"] == entry["id"]]
        start = max((int(a["id"]) for a in test["annotations"]), default=0) + 1
        test["annotations"] += [
            a | {"id": start + k, "image_id": ident} for k, a in enumerate(mine)
        ]
        train["annotations"] = [a for a in train["annotations"] if a not in mine]
        train["images"].remove(entry)
        test["images"].append(entry | {"id": ident})
        old = builder.root / subset / "Images" / "train" / entry["file_name"]
        builder.pixels[builder.root / subset / "Images" / "test" / entry["file_name"]] = (
            builder.pixels.pop(old)
        )
    builder.note("patient-leak", builder.root / subset / "Images" / "test" / moved[0]["file_name"])


BOX_FAULTS: dict[str, Callable[[FaultyDatasetBuilder, FaultPlan], None]] = {
    "overlap": _overlap(False),
    "overlap turned": _overlap(True),
    "duplicate field": _duplicate,
    "renamed into test": _renamed_into_test,
    "patient leak": _patient_leak,
    "exact repeat": _exact_repeat,
    "same cell twice": _same_cell_twice,
    "two classes": _two_classes,
    "over a red cell": _over_red_cell,
    "sliver": _moved("sliver", lambda a, w, h: [*a["bbox"][:2], 5.0, a["bbox"][3]]),
    "near the edge": _near_edge,
    "outside": _moved("outside", lambda a, w, h: [w + 9.0, 20.0, 40.0, 60.0]),
    "over the edge": _moved("outside", lambda a, w, h: [w - 30.0, 20.0, 45.0, 60.0]),
    "zero size": _moved("zero-size", lambda a, w, h: [40.0, 40.0, 0.0, 30.0]),
    "stray code": _stray_code,
    "id and name": _id_and_name,
    "categories swapped": _category_swap,
    "unmarked": _unmarked,
    "repeated entries": _repeated_entries,
    "missing image": _missing_image,
    "back-tick": _back_tick,
}
"""Faults of boxes, entries and names, by name; inject them in this order."""

FAULTS = BOX_FAULTS | SET_FAULTS
"""Every fault that can be injected."""
