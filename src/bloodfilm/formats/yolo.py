"""YOLO: data.yaml, trees of images and labels, one text file an image."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from bloodfilm.core import Cell, DataError, Dataset, Field, Region
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
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
from bloodfilm.formats.shared.parsing import read_text
from bloodfilm.formats.shared.paths import need_folder, split_of
from bloodfilm.formats.shared.yolo_rows import Row, denormalise, normalise, read_rows
from bloodfilm.imaging.discovery import is_image, walk

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "labels/train/classes.txt")
NO_LABELS = frozenset({"classes.txt", "readme.txt", "license.txt", "requirements.txt"})
MAX_POLYGON_COLUMNS = 2001
WIDTHS = frozenset({5, 6, *range(7, MAX_POLYGON_COLUMNS + 1, 2)})
"""5 = box, 6 = box and a score, more = class and the corners of an outline."""


@dataclass(frozen=True)
class Layout:
    """What data.yaml says: class names by id, and the folders (or lists) of each split."""

    names: dict[int, str]
    splits: tuple[tuple[str | None, Path], ...]


def recognises(path: Path) -> bool:
    """Whether it is a YAML file that names classes, or a folder with one or with label files."""
    if path.is_file():
        return path.suffix.lower() in {".yaml", ".yml"}
    if any((path / name).is_file() for name in (*YAML_NAMES, *CLASS_FILES)):
        return True
    return (path / "labels").is_dir() and (path / "images").is_dir()


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read a YOLO data set from its folder or its YAML file.

    An image with an empty label file is annotated and holds no cell; an image without a label file
    is not annotated (its region is empty).
    """
    path = Path(path)
    root = path.parent if path.is_file() else need_folder(path)
    reading = ReadContext(root, **options)
    layout = read_layout(reading, path if path.is_file() else None)
    used: set[Path] = set()
    fields = []
    for split, place in layout.splits:
        for image in _images_of(reading, place):
            label = _label_of(image, reading)
            fields.append(_field(reading, image, label, split, layout.names))
            used.add(label)
    _report_unpaired(reading, fields, used)
    return reading.dataset(root.name, fields)


# ---- layout ----------------------------------------------------------------------------------


def read_layout(reading: ReadContext, yaml_file: Path | None = None) -> Layout:
    """Return class names and split folders from data.yaml, or from classes.txt and the tree."""
    root = reading.root
    if yaml_file is None:
        yaml_file = next((root / n for n in YAML_NAMES if (root / n).is_file()), None)
    if yaml_file is not None:
        content = read_yaml(yaml_file)
        names = _names(content.get("names"), yaml_file)
        _compare_class_files(reading, names, yaml_file)
        splits = tuple(_yaml_splits(content, root))
    else:
        names, splits = _class_file(reading), ()
    return Layout(names, splits or tuple(_tree_splits(reading.images or root)))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML mapping; `DataError` names the line where it is ill-formed."""
    import yaml

    text = read_text(path)
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise DataError(f"{path}: uses aliases, by which small files grow huge; write it out")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or "ill-formed"
        raise DataError(f"{path}: {place}not YAML ({what}); mend the line") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no `key: value` lines; it needs `names: [...]`")
    return content


def _names(value: Any, path: Path) -> dict[int, str]:
    if isinstance(value, list):
        return {i: str(name) for i, name in enumerate(value)}
    if isinstance(value, dict) and all(str(k).isdigit() for k in value):
        return {int(k): str(name) for k, name in value.items()}
    raise DataError(f"{path}: `names` must list the classes, e.g. names: [WBC, RBC, Platelets]")


def _yaml_splits(content: dict[str, Any], root: Path) -> Iterator[tuple[str | None, Path]]:
    stated = content.get("path")
    bases = [root / str(stated), root] if stated else [root]
    for key in ("train", "val", "valid", "test", NO_SPLIT):
        value = content.get(key)
        for item in value if isinstance(value, list) else [value] if value else []:
            # Exports write `../train/images` for folders that lie beside data.yaml.
            tries = [base / str(item) for base in bases] + [root / str(item).lstrip("./")]
            yield split_of(key), next((p for p in tries if p.exists()), tries[0])


def _tree_splits(root: Path) -> Iterator[tuple[str | None, Path]]:
    for base, inner in ((root / "images", ""), (root, "images")):
        folders = sorted(p for p in base.iterdir() if p.is_dir()) if base.is_dir() else []
        found = [(split_of(p.name), p / inner) for p in folders if split_of(p.name)]
        if found:
            yield from found
            return
    yield None, root / "images" if (root / "images").is_dir() else root


def _class_file(reading: ReadContext) -> dict[int, str]:
    for name in CLASS_FILES:
        file = reading.root / name
        if file.is_file():
            return dict(enumerate(_lines(file)))
    raise DataError(
        f"{reading.root}: no data.yaml and no classes.txt; write one with the names of the classes"
    )


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def _compare_class_files(reading: ReadContext, names: dict[int, str], yaml_file: Path) -> None:
    """Note where a classes.txt of the set names a class otherwise than data.yaml does."""
    for file in (reading.root / name for name in CLASS_FILES):
        if not file.is_file():
            continue
        for number, name in enumerate(_lines(file)):
            known = names.get(number)
            find = reading.taxonomy.find
            if known is not None and known != name and find(known) != find(name):
                reading.note(
                    f"{reading.short(file)}: line {number + 1}: calls class {number} {name!r}; "
                    f"{yaml_file.name} calls it {known!r} and is believed"
                )


# ---- fields ----------------------------------------------------------------------------------


def _images_of(reading: ReadContext, place: Path) -> list[Path]:
    if place.is_file():
        return [_listed(reading, place, line) for line in _lines(place)]
    if not place.is_dir():
        reading.report(place, "", "the folder that data.yaml names does not exist, left out")
        return []
    return [folder / n for folder, names in walk(place) for n in names if is_image(n)]


def _listed(reading: ReadContext, list_file: Path, line: str) -> Path:
    for base in (list_file.parent, reading.root):
        if (base / line).is_file():
            return base / line
    return reading.find(line) or reading.root / line


def _label_of(image: Path, reading: ReadContext) -> Path:
    """Return where the image's label file lies, or should lie."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].lower() == "images":
            label = Path(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt")
            if label.is_file() or not image.with_suffix(".txt").is_file():
                return label
            break
    beside = image.with_suffix(".txt")
    in_labels = reading.root / "labels" / beside.name
    return in_labels if in_labels.is_file() and not beside.is_file() else beside


def _field(
    reading: ReadContext, image: Path, label: Path, split: str | None, names: dict[int, str]
) -> Field:
    size = reading.size(image) if image.is_file() else None
    width, height = size or (None, None)
    if size is None or not label.is_file():
        return Field(image, width, height, region=Region.nothing(), split=split)
    rows = read_rows(reading, label, size, WIDTHS)
    if rows is None:
        return Field(image, width, height, region=Region.nothing(), split=split)
    cells = tuple(c for row in rows if (c := _cell(reading, label, row, size, names)))
    return Field(image, width, height, cells, split=split)


def _cell(
    reading: ReadContext, file: Path, row: Row, size: tuple[int, int], names: dict[int, str]
) -> Cell | None:
    raw = row.box if len(row.rest) < 2 else _outline_box(row, size)
    box = reading.box(raw, size, file, row.place)
    if box is None:
        return None
    if row.class_id not in names:
        reading.report(file, row.place, f"class {row.class_id} has no name and is kept unnamed")
        return Cell(box, None)
    label, ignore = reading.label(names[row.class_id])
    return Cell(box, label, ignore=ignore)


def _outline_box(row: Row, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the box around an outline, whose first two corners stand where a box would."""
    x, y, w, h = row.box
    values: Sequence[float] = ((x + w / 2) / size[0], (y + h / 2) / size[1], w / size[0])
    values = (*values, h / size[1], *row.rest)
    xs, ys = values[0::2], values[1::2]
    centre = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2]
    return denormalise([*centre, max(xs) - min(xs), max(ys) - min(ys)], size)


def _report_unpaired(reading: ReadContext, fields: list[Field], used: set[Path]) -> None:
    for field in fields:
        if field.path.is_file() and field.width is not None and field.region.is_nothing:
            reading.report(field.path, "", "image without a label file; kept as not annotated")
    labels = reading.root / "labels"
    for folder, names in walk(labels) if labels.is_dir() else ():
        for name in names:
            file = folder / name
            if file.suffix == ".txt" and name.lower() not in NO_LABELS and file not in used:
                reading.report(file, "", "labels without an image, left out")


# ---- writing ---------------------------------------------------------------------------------


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[str]:
    """Write data.yaml, labels/SPLIT/*.txt and, if asked, images/SPLIT/*; return what was lost.

    Classes are those that occur, in the taxonomy's order; objects to ignore and unnamed ones are
    classes of their own. Fields that belong to no split go to `all`, which YOLO itself passes over.
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
        lines = [f"{split}: images/{split}\n" for split in used_splits]
        listed = "".join(f"  {i}: {json.dumps(name)}\n" for name, i in classes.items())
        out.text("data.yaml", f"path: .\n{''.join(lines)}nc: {len(classes)}\nnames:\n{listed}")
    return finish(out, losses)


def _class_name(cell: Cell) -> str:
    return "ignore" if cell.ignore else cell.label or "unnamed"


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
