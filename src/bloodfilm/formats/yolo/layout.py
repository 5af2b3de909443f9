"""Where a YOLO set keeps its images and labels, and what its classes are called."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import exists, normpath  # no name is too long for it
from pathlib import Path
from typing import Any

from bloodfilm.core import DataError
from bloodfilm.core import dataset_codes as codes
from bloodfilm.formats.shared.context import ReadContext
from bloodfilm.formats.shared.image_lookup import fold
from bloodfilm.formats.shared.output import NO_SPLIT
from bloodfilm.formats.shared.parsing import peek, read_text, to_int
from bloodfilm.formats.shared.paths import is_file, is_folder, split_of
from bloodfilm.formats.shared.yaml_text import MAX_YAML_BYTES, parse_yaml
from bloodfilm.imaging.discovery import is_image, walk

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "labels/train/classes.txt")
SPLIT_KEYS = (NO_SPLIT, "train", "val", "valid", "test")
_CLASS_ID = re.compile(r"[0-9]{1,9}")
_NAMES_KEY = re.compile(rb"^\s*[\"']?names[\"']?\s*:", re.MULTILINE)
_SPLIT_KEY = re.compile(rb"^\s*[\"']?(train|val|valid|test|path|nc)[\"']?\s*:", re.MULTILINE)


@dataclass(frozen=True)
class Layout:
    """What data.yaml, or the tree of folders, says of a set.

    Attributes:
        names: class names by id.
        splits: (split, folder of images or list of their names).
        task: what the set is for: `detect`, `segment`, `obb`, `pose`; `None` if it does not say.
        keypoints: number of keypoints and of values for each, if the set has some.
    """

    names: Mapping[int, str]
    splits: tuple[tuple[str | None, Path], ...]
    task: str | None = None
    keypoints: tuple[int, int] | None = None


def find_yaml(root: Path) -> Path | None:
    """Return the YAML file of a set: by its usual names, else the one that lists classes."""
    for name in YAML_NAMES:
        if (root / name).is_file():
            return root / name
    others = (p for p in sorted(root.iterdir()) if p.suffix.lower() in (".yaml", ".yml"))
    return next((p for p in others if is_set_yaml(p)), None)


def is_set_yaml(path: Path) -> bool:
    """Whether a YAML file has the keys of a set."""
    text = peek(path)
    return bool(_NAMES_KEY.search(text) and _SPLIT_KEY.search(text))


def read_layout(reading: ReadContext, yaml_file: Path | None = None) -> Layout:
    """Return what the YAML file says, or what classes.txt and the tree of folders show."""
    root = reading.root
    yaml_file = yaml_file or find_yaml(root)
    if yaml_file is None:
        return Layout(_class_file(reading), tuple(_tree_splits(reading.images or root)))
    content = read_yaml(yaml_file)
    names = _names(reading, content, yaml_file)
    _compare_class_files(reading, names, yaml_file)
    splits = () if reading.images else tuple(_yaml_splits(reading, content, yaml_file))
    task = content.get("task")
    return Layout(
        names,
        splits or tuple(_tree_splits(reading.images or root)),
        task.strip().lower() if isinstance(task, str) else None,
        _keypoints(content.get("kpt_shape"), yaml_file),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML mapping; `DataError` names the line where it is ill-formed."""
    content = parse_yaml(read_text(path, MAX_YAML_BYTES), path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no `key: value` lines; it needs `names: [...]`")
    return content


def _keypoints(value: Any, path: Path) -> tuple[int, int] | None:
    if value is None:
        return None
    numbers = [to_int(v) for v in value] if isinstance(value, list) else []
    if len(numbers) == 2 and numbers[0] and numbers[1] in (2, 3):
        return numbers[0], numbers[1]
    raise DataError(f"{path}: kpt_shape must be [number of keypoints, 2 or 3], not {value!r}")


# ---- classes ---------------------------------------------------------------------------------


def _names(reading: ReadContext, content: Mapping[str, Any], path: Path) -> dict[int, str]:
    value = content.get("names")
    if isinstance(value, list):
        return {i: str(name) for i, name in enumerate(value)}
    if isinstance(value, dict) and all(_CLASS_ID.fullmatch(str(k)) for k in value):
        found = {int(k): str(name) for k, name in value.items()}
        if len(found) < len(value):
            raise DataError(f"{path}: `names` gives one number to several classes; number each")
        return found
    if value is None and (found := _listed_classes(reading)):
        return found
    raise DataError(f"{path}: `names` must list the classes, e.g. names: [WBC, RBC, Platelets]")


def _listed_classes(reading: ReadContext) -> dict[int, str]:
    files = (reading.root / name for name in CLASS_FILES)
    return next((dict(enumerate(lines(file))) for file in files if file.is_file()), {})


def _class_file(reading: ReadContext) -> dict[int, str]:
    found = _listed_classes(reading)
    if not found:
        raise DataError(
            f"{reading.root}: no data.yaml and no classes.txt; write one with the names of the "
            "classes"
        )
    return found


def lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not empty."""
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def _compare_class_files(reading: ReadContext, names: Mapping[int, str], yaml_file: Path) -> None:
    """Note where a classes.txt of the set names a class otherwise than data.yaml does."""
    for file in (reading.root / name for name in CLASS_FILES):
        if not file.is_file():
            continue
        for number, name in enumerate(lines(file)):
            known = names.get(number)
            find = reading.taxonomy.find
            if known is not None and known != name and find(known) != find(name):
                reading.note(
                    codes.NAMES_DIFFER,
                    f"calls class {number} {name!r}; {known!r} of {yaml_file.name} is used",
                    file,
                    f"line {number + 1}",
                )


# ---- folders ---------------------------------------------------------------------------------


def _yaml_splits(
    reading: ReadContext, content: Mapping[str, Any], file: Path
) -> Iterator[tuple[str | None, Path]]:
    """Yield the folders of the splits; one that several splits name is read once.

    Raises:
        DataError: if the training images are nowhere: the rest of a set is not the set.
    """
    named: dict[Path, list[str]] = {}
    for key in SPLIT_KEYS:
        value = content.get(key)
        for item in value if isinstance(value, list) else [value] if value else []:
            place = _place(file.parent, content.get("path"), str(item))
            if place is not None:
                named.setdefault(place, []).append(key)
                continue
            what = f"{key}: {item}: is not there, nor is the end of that path beside {file.name}"
            remedy = "correct the path, or name the folder of the images with images="
            if key == "train" or not _others(content, file, key):
                raise DataError(f"{file}: {what}; {remedy}")
            reading.report(codes.MISSING_IMAGE, file, "", f"{what}; left out", remedy)
    for place, keys in named.items():
        names = [split_of(part) for part in reversed(place.parts)]
        own = next((name for name in names if name is not None), None)
        key = next((k for k in keys if split_of(k) == own), keys[0])
        if NO_SPLIT not in keys and len(keys) > 1:
            reading.note(
                codes.SPLIT_CONFLICT,
                f"{' and '.join(keys)} name the same images, {reading.short(place)}; they are "
                f"read once, as {key}",
                file,
            )
        yield split_of(NO_SPLIT if NO_SPLIT in keys else key), place


def _others(content: Mapping[str, Any], file: Path, key: str) -> bool:
    """Whether another split's images are there."""
    values = [content.get(other) for other in SPLIT_KEYS if other != key]
    items = [i for v in values for i in (v if isinstance(v, list) else [v] if v else [])]
    return any(_place(file.parent, content.get("path"), str(item)) for item in items)


def _place(root: Path, stated: Any, item: str) -> Path | None:
    """Return the folder or list that a path of the YAML file means; `None` if it is nowhere.

    Paths count from the YAML file, from the folder `path` that it states, or, where they come from
    another machine, as much of their end as lies beside the file. The end must keep the folder
    that names the split.
    """
    text = item.replace("\\", "/")
    bases = [root / str(stated), root] if stated else [root]
    for base in bases:
        if exists(base / text):  # noqa: PTH110, never raises
            return Path(normpath(base / text))
    parts = [p for p in re.sub(r"^[A-Za-z]:", "", text).split("/") if p not in ("", ".", "..")]
    splits = [i for i, part in enumerate(parts) if split_of(part.rstrip("0123456789"))]
    last = splits[-1] if splits else len(parts) - 1
    for start in range(last + 1):
        for base in bases:
            if exists(base.joinpath(*parts[start:])):  # noqa: PTH110
                return Path(normpath(base.joinpath(*parts[start:])))
    return None


def _tree_splits(root: Path) -> Iterator[tuple[str | None, Path]]:
    for base, inner in ((root / "images", ""), (root, "images")):
        folders = sorted(p for p in base.iterdir() if p.is_dir()) if base.is_dir() else []
        found = [(split_of(p.name), p / inner) for p in folders if split_of(p.name)]
        if found:
            yield from found
            return
    yield None, root / "images" if (root / "images").is_dir() else root


# ---- images and their labels -----------------------------------------------------------------


def images_of(reading: ReadContext, place: Path) -> list[Path]:
    """Return the images of a split: those below a folder, or those of a list."""
    if is_file(place):
        names = lines(place)
        places = reading.locate(names, place, [place.parent, reading.root])
        return [places[name] for name in dict.fromkeys(names)]
    if not is_folder(place):
        reading.report(
            codes.MISSING_IMAGE, place, "", "the folder of images does not exist, left out"
        )
        return []
    return [folder / n for folder, names in walk(place) for n in names if is_image(n)]


class LabelFiles:
    """The label files of a set, found by the path of their image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[Path, dict[str, Path]] = {}

    def of(self, image: Path) -> Path:
        """Return where an image's label file lies, or should lie."""
        return self._there(self._usual(image))

    def _usual(self, image: Path) -> Path:
        beside = image.with_suffix(".txt")
        parts = list(image.parts)
        for i in range(len(parts) - 2, -1, -1):
            if parts[i].lower() == "images":
                label = Path(*parts[:i], "labels", *parts[i + 1 :]).with_suffix(".txt")
                if is_file(self._there(label)) or not is_file(self._there(beside)):
                    return label
                break
        in_labels = self.root / "labels" / beside.name
        return in_labels if is_file(in_labels) and not is_file(beside) else beside

    def _there(self, path: Path) -> Path:
        """Return the file of that name, also if its accents are composed otherwise."""
        if is_file(path) or path.name.isascii():
            return path
        if path.parent not in self._folders:
            inside = sorted(path.parent.iterdir()) if is_folder(path.parent) else []
            self._folders[path.parent] = {fold(p.name): p for p in inside}
        return self._folders[path.parent].get(fold(path.name), path)
