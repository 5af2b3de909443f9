"""Write data.yaml, labels and, if asked, images."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Cell, Dataset, Field
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.dataset_codes import dataset_issue
from bloodfilm.core.issues import Issue
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

REQUIRED = ("train", "val")
"""The splits that trainers ask for."""


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Write data.yaml, labels/SPLIT/*.txt and, if asked, images/SPLIT/*; return what was lost.

    Classes are those that occur, in the taxonomy's order; objects to ignore and unnamed ones are
    classes of their own. Fields that belong to no split go to `all`. Trainers ask for `train` and
    `val`: a split that the set does not have names the images of another, which is said.
    """
    root, losses = Path(path), Losses()
    losses.vocabulary(dataset, "taxonomy", "licence")
    names = unique_names(dataset.fields)
    classes = _classes_in_use(dataset)
    used_splits: dict[str, None] = {}
    with output(root, fresh=True, **options) as out:
        for item, name in zip(dataset, names, strict=True):
            split = item.split or NO_SPLIT
            used_splits[split] = None
            out.image(item.path, f"images/{split}/{name}")
            _write_labels(out, item, f"labels/{split}/{Path(name).stem}.txt", classes, losses)
        lines, notes = _split_lines(used_splits)
        listed = "".join(f"  {i}: {json.dumps(name)}\n" for name, i in classes.items())
        out.text("data.yaml", f"{''.join(lines)}nc: {len(classes)}\nnames:\n{listed}")
    return finish(out, losses) + notes


def _split_lines(used: Iterable[str]) -> tuple[list[str], list[Issue]]:
    """Return the lines of data.yaml that name the splits, and what is to be said of them.

    There is no `path`: trainers resolve that against the folder they run in, and what lies beside
    the file without it.
    """
    places = {split: split for split in used}
    notes: list[Issue] = []
    for split in REQUIRED:
        other = next((s for s in (*REQUIRED, NO_SPLIT, *places) if s in used), None)
        if split not in places and other is not None:
            places[split] = other
            what = f"data.yaml: {split} names the images of {other!r}, for the set has no {split!r}"
            notes.append(dataset_issue(codes.WITHOUT_SPLIT, what, split=split, named=other))
    lines = []
    for split, place in places.items():
        remark = "" if split == place else f"  # the set has no split {split}"
        lines.append(f"{split}: images/{place}{remark}\n")
    return lines, notes


def _class_name(cell: Cell) -> str:
    return "ignore" if cell.ignore else name_of(cell)


def _classes_in_use(dataset: Dataset) -> dict[str, int]:
    order = {name: i for i, name in enumerate((*dataset.taxonomy.names, "unnamed", "ignore"))}
    used = {_class_name(cell) for item in dataset for cell in item.cells if cell.box is not None}
    ranked = sorted(used or {"white cell"}, key=lambda name: (order.get(name, len(order)), name))
    return {name: i for i, name in enumerate(ranked)}


def _write_labels(
    out: Output, item: Field, name: str, classes: Mapping[str, int], losses: Losses
) -> None:
    cells = losses.boxed(item)
    unknown = item.region.is_nothing and not cells  # read back from the missing label file
    losses.origin(item, keeps=("split", "region") if unknown else ("split",))
    if unknown:
        return
    size = size_for_writing(item, losses)
    if size is None:
        return
    rows = []
    for cell in cells:
        losses.cell(cell)
        box = normalise(cell.box or (0, 0, 0, 0), size)
        rows.append(" ".join([str(classes[_class_name(cell)]), *(repr(float(v)) for v in box)]))
    out.text(name, "".join(row + "\n" for row in rows))
