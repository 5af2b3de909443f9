"""All labels of a set in LLD's layout as they stand on disk, subset by subset."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bloodfilm.core import DataError
from bloodfilm.formats.lld import layout, raw_json, raw_text
from bloodfilm.formats.lld.layout import Subset
from bloodfilm.formats.shared.label_faults import LabelFault
from bloodfilm.formats.shared.parsing import read_json


@dataclass(frozen=True)
class TextFolder:
    """One folder of text labels of a subset, such as `txt_labels/AttriDet`.

    Attributes:
        subset: it belongs to.
        path: of the folder.
        files: its label files.
        is_main: whether the subset is read by it: no JSON, and none of its folders states more.
    """

    subset: Subset
    path: Path
    files: tuple[raw_text.TextLabels, ...]
    is_main: bool


@dataclass
class RawLabels:
    """Every label file of a set.

    Attributes:
        root: the folder that was read.
        subsets: in the order of their folders.
        json: the JSON label files.
        texts: the folders of text labels.
        faults: (file or folder, what is wrong with all of it).
    """

    root: Path
    subsets: tuple[Subset, ...]
    json: list[raw_json.JsonLabels] = field(default_factory=list)
    texts: list[TextFolder] = field(default_factory=list)
    faults: list[tuple[Path, LabelFault]] = field(default_factory=list)

    @property
    def main_texts(self) -> Iterator[raw_text.TextLabels]:
        """The text label files by which the subsets without JSON are read."""
        return (file for folder in self.texts if folder.is_main for file in folder.files)


def read_raw(root: Path) -> RawLabels:
    """Parse every label file of LLD's layout below a root.

    Raises:
        DataError: if there is no subset, or a JSON file is ill-formed.
    """
    found = RawLabels(root, tuple(layout.subsets(root)))
    for subset in found.subsets:
        json = list(_json_labels(subset, found.faults))
        found.json += json
        folders = subset.text_folders()
        main = layout.most_columns(folders) if folders and not json else None
        found.texts += [
            TextFolder(subset, path, tuple(raw_text.read_folder(subset, path)), path == main)
            for path in folders
        ]
        if not json and not folders:
            advice = "unpack it again, or take it out"
            fault = LabelFault("empty-subset", "this subset holds no labels", advice=advice)
            found.faults.append((subset.path, fault))
    return found


def _json_labels(
    subset: Subset, faults: list[tuple[Path, LabelFault]]
) -> Iterator[raw_json.JsonLabels]:
    def on_duplicate(file: Path, other: Path) -> None:
        faults.append((file, layout.duplicate_labels(other)))

    for file, content in layout.json_files(subset, on_duplicate):
        read = read_json(file) if content is None else content
        try:
            yield raw_json.parse(subset, file, read)
        except DataError as error:
            reason = str(error).removeprefix(f"{file}: ")
            faults.append((file, LabelFault("unreadable-labels", reason, advice="export it again")))
