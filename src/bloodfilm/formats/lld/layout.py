"""LLD's layout on disk: subset folders, their images, their folders of JSON and text labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bloodfilm.core import DataError, Domain
from bloodfilm.formats.lld import zipped
from bloodfilm.formats.lld.names import parse_subset
from bloodfilm.formats.shared.image_lookup import ImageIndex
from bloodfilm.formats.shared.label_faults import LabelFault
from bloodfilm.formats.shared.parsing import peek
from bloodfilm.formats.shared.paths import is_file, split_of
from bloodfilm.imaging.discovery import walk

JSON_FOLDERS = frozenset({"json_labels", "wbc_detection"})
TEXT_FOLDER = "txt_labels"
NO_LABELS = frozenset({"classes.txt"})
MAX_DEPTH = 4  # the root may be nested twice, with a folder of its own above


@dataclass(frozen=True)
class Subset:
    """One acquisition: its folder and what its name states."""

    path: Path
    domain: Domain

    def folders(self, *names: str) -> list[Path]:
        """Return the sub-folders of these names, whatever their case."""
        inside = sorted(p for p in self.path.iterdir() if p.is_dir())
        return [p for p in inside if p.name.lower() in names]

    @cached_property
    def index(self) -> ImageIndex:
        """Its own images: other subsets have others under the same names."""
        return ImageIndex(self.path)

    def image_folders(self, split: str | None) -> list[Path]:
        """Return the image folders of a split, or of all: `Images/train`, `images/train`."""
        return [
            p
            for base in self.folders("images")
            for p in sorted(base.iterdir())
            if p.is_dir() and (split is None or split_of(p.name) == split)
        ]

    def image_place(self, name: str, split: str | None) -> Path:
        """Return where an image of that name should lie."""
        return self.path / "Images" / (split or "") / name

    def find_image(self, name: str, split: str | None) -> Path:
        """Return the image of that name; where it should lie if it is nowhere."""
        place = self.image_place(name, split)
        if is_file(place):
            return place
        for folder in self.image_folders(split):
            if is_file(folder / name):
                return folder / name
        return self.index.find(name, near=place) or place

    def text_folders(self) -> list[Path]:
        """Return its folders of text labels: `txt_labels/AttriDet`, ..."""
        return [
            folder
            for base in self.folders(TEXT_FOLDER)
            for folder in sorted(base.iterdir())
            if folder.is_dir()
        ]


def subsets(root: Path) -> list[Subset]:
    """Return the subsets at or below a folder; `DataError` if there are none."""
    found = []
    for folder, _ in walk(root):
        depth = len(folder.relative_to(root).parts)
        domain = parse_subset(folder.name)
        if domain is not None and depth <= MAX_DEPTH:
            found.append(Subset(folder, domain))
    if not found and any(p.name.lower() in JSON_FOLDERS | {TEXT_FOLDER} for p in root.iterdir()):
        found = [Subset(root, Domain())]
    if not found:
        raise DataError(f"{root}: no subset folder such as H_40X_C2; name the folder that holds it")
    return found


def subset_above(file: Path) -> Subset:
    """Return the subset a label file lies in; its own folder where none is named as one."""
    named = ((p, parse_subset(p.name)) for p in file.absolute().parents)
    return next((Subset(p, d) for p, d in named if d is not None), Subset(file.parent, Domain()))


def duplicate_labels(other: Path) -> LabelFault:
    """Return the fault of a JSON label file that another one, in another folder, stands before."""
    message = f"labels of this name are in {other.parent.name}/ too, which are taken"
    return LabelFault("labels-differ", message, outcome="", advice="keep one of them")


def json_files(
    subset: Subset, on_duplicate: Callable[[Path, Path], None]
) -> Iterator[tuple[Path, Any]]:
    """Yield (file, content or `None` if not read yet) of a subset's JSON labels.

    Where two of its folders hold labels of one name, the first is taken, and `on_duplicate` is
    called with the other and the first.
    """
    found: dict[str, Path] = {}
    for folder in subset.folders(*JSON_FOLDERS):
        for file in sorted(folder.glob("*.json")):
            if file.name.startswith("."):
                continue
            other = found.setdefault(file.stem.lower(), file)
            if other is file:
                yield file, None
            else:
                on_duplicate(file, other)
    archive = subset.path / zipped.NAME
    if archive.is_file() and not found:
        yield from zipped.zipped_labels(archive)


def text_files(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield (file, split) of each label file in a folder of text labels, sorted."""
    for place, names in walk(folder):
        for name in names:
            if name.endswith(".txt") and name not in NO_LABELS:
                yield place / name, split_of(place.name)


def most_columns(folders: Sequence[Path]) -> Path:
    """Return the folder of text labels whose first line has most columns."""
    return max(folders, key=_columns)


def _columns(folder: Path) -> int:
    for file, _ in text_files(folder):
        words = peek(file, 4096).split(b"\n")[0].split()
        if words:
            return len(words)
    return 0
