"""Read a YOLO data set from its folder or its YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Cell, DataError, Dataset, Field, Region
from bloodfilm.core import dataset_codes as codes
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.parsing import read_text
from bloodfilm.formats.shared.paths import is_file, need_folder
from bloodfilm.formats.shared.shapes import is_rectangle
from bloodfilm.formats.shared.yolo_rows import denormalise
from bloodfilm.formats.yolo.layout import (
    CLASS_FILES,
    LabelFiles,
    find_yaml,
    images_of,
    is_set_yaml,
    read_layout,
)
from bloodfilm.formats.yolo.lines import Line, LineReader, parse
from bloodfilm.imaging.discovery import walk

NO_LABELS = frozenset({"classes.txt", "readme.txt", "license.txt", "requirements.txt"})


def recognises(path: Path) -> bool:
    """Whether it is a YAML file of a set, or a folder with one or with label files."""
    if path.is_file():
        return path.suffix.lower() in {".yaml", ".yml"} and is_set_yaml(path)
    if not path.is_dir():
        return False
    if find_yaml(path) is not None or any((path / name).is_file() for name in CLASS_FILES):
        return True
    return (path / "labels").is_dir() and (path / "images").is_dir()


@dataclass(frozen=True)
class _Labelled:
    """An image and the lines of its label file; `None` if it has none that can be read."""

    image: Path
    label: Path
    split: str | None
    lines: list[Line] | None


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read a YOLO data set from its folder or its YAML file.

    An image with an empty label file is annotated and holds no cell; an image without a label file
    is not annotated (its region is empty).
    """
    path = Path(path)
    root = path.parent if path.is_file() else need_folder(path)
    reading = ReadContext(root, **options)
    layout = read_layout(reading, path if path.is_file() else None)
    files = LabelFiles(root)
    found = []
    for split, place in layout.splits:
        for image in images_of(reading, place):
            label = files.of(image)
            found.append(_Labelled(image, label, split, _lines(reading, label)))
    every = (line for item in found for line in item.lines or ())
    meaning = LineReader(every, layout.task, layout.keypoints)
    fields = [_field(reading, item, meaning, layout.names) for item in found]
    _report_unpaired(reading, fields, {item.label for item in found})
    return reading.dataset(root.name, fields)


def _lines(reading: ReadContext, label: Path) -> list[Line] | None:
    """Return the lines of a label file; `None` (reported) if it is no text, or is not there."""
    if not is_file(label):
        return None
    try:
        text = read_text(label).splitlines()
    except DataError as error:
        reading.report(
            codes.UNREADABLE_FILE, label, "", f"{str(error).removeprefix(f'{label}: ')}; left out"
        )
        return None
    found, bad = parse(text)
    for number in bad:
        what = "not a line of class id and numbers, left out"
        reading.report(codes.UNREADABLE_LABELS, label, f"line {number}", what)
    return found


def _field(
    reading: ReadContext, item: _Labelled, meaning: LineReader, names: Mapping[int, str]
) -> Field:
    size = reading.size(item.image) if is_file(item.image) else None
    width, height = size or (None, None)
    if size is None or item.lines is None:
        return Field(item.image, width, height, region=Region.nothing(), split=item.split)
    reader = _Cells(reading, item.label, size, meaning, names)
    cells = tuple(cell for line in item.lines if (cell := reader.cell(line)))
    return Field(item.image, width, height, cells, split=item.split)


@dataclass(frozen=True)
class _Cells:
    """The cells of one label file."""

    reading: ReadContext
    file: Path
    size: tuple[int, int]
    meaning: LineReader
    names: Mapping[int, str]

    def cell(self, line: Line) -> Cell | None:
        """Return the cell of a line; `None` (reported) if it has none that can be used."""
        meant = self.meaning.read(line)
        if meant is None:
            what = f"{len(line.values) + 1} columns whose meaning is not clear, left out"
            remedy = "state it in data.yaml: task (detect, segment, obb) or kpt_shape"
            self.reading.report(codes.UNREADABLE_LABELS, self.file, line.place, what, remedy)
            return None
        drawn = denormalise(list(meant.box), self.size)
        box = self.reading.box(drawn, self.size, self.file, line.place)
        if box is None:
            return None
        for what in meant.besides:
            self.reading.unread(what)
        outline = None
        if meant.outline is not None:
            across, down = self.size
            points = tuple((x * across, y * down) for x, y in meant.outline)
            outline = None if is_rectangle(points) else Region.polygon(points)
        name = self.names.get(line.class_id, f"class {line.class_id}")
        return self.reading.cell(name, box, outline=outline)


def _report_unpaired(reading: ReadContext, fields: list[Field], used: set[Path]) -> None:
    for field in fields:
        if is_file(field.path) and field.width is not None and field.region.is_nothing:
            reading.report(
                codes.UNLABELLED_IMAGE,
                field.path,
                "",
                "image without a label file; kept as not annotated",
            )
    folders = [reading.root / "labels"]
    folders += [p / "labels" for p in sorted(reading.root.iterdir()) if p.is_dir()]
    for labels in folders:
        for folder, names in walk(labels) if labels.is_dir() else ():
            for name in names:
                file = folder / name
                if file.suffix == ".txt" and name.lower() not in NO_LABELS and file not in used:
                    reading.report(codes.ORPHAN, file, "", "labels without an image, left out")
