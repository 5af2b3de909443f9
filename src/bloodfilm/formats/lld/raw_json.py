"""LLD's JSON labels as they stand on disk.

The reader lowers them to cells, the audit judges them, repair edits a copy of the content.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bloodfilm.core import Box
from bloodfilm.core.arrays import Json
from bloodfilm.formats.coco import CocoFile, ImageRecord, split_of_file
from bloodfilm.formats.coco import parse as parse_coco
from bloodfilm.formats.lld.codes import CLASSES, StrayCode, attributes_from_json, is_none
from bloodfilm.formats.lld.layout import Subset
from bloodfilm.formats.shared.parsing import read_json, to_floats, to_int


@dataclass(frozen=True, slots=True)
class RawAnnotation:
    """One annotation, decoded but not checked.

    Attributes:
        id: its identity, "?" if it has none.
        class_id: `category_id` as it stands.
        class_by_id: the name of that id; `None` if it has none.
        class_name: `category_name`; `None` if it has none.
        box: (x, y, w, h) in pixels; `None` if it is not four numbers.
        attributes: those whose code stands for a value.
        stray_codes: those whose code stands for none.
        entry: the annotation as it stands in the file.
    """

    id: str
    class_id: Any
    class_by_id: str | None
    class_name: str | None
    box: Box | None
    attributes: Mapping[str, str]
    stray_codes: tuple[StrayCode, ...]
    entry: Mapping[str, Any]

    @property
    def name(self) -> str | None:
        """Its class: the name given with it before that of its id."""
        return self.class_name or self.class_by_id

    @property
    def place(self) -> str:
        """What a message calls it."""
        return f"annotation {self.id}"


@dataclass(frozen=True)
class JsonLabels:
    """One JSON label file.

    Attributes:
        subset: it belongs to.
        coco: its images with their annotations, its categories, its faults.
        content: the file as it stands.
    """

    subset: Subset
    coco: CocoFile
    content: Json

    @property
    def path(self) -> Path:
        """Where it lies; in an archive, the archive's path and the name in it."""
        return self.coco.path

    @cached_property
    def split(self) -> str | None:
        """The split its name states."""
        return split_of_file(self.path)

    @cached_property
    def class_names(self) -> Mapping[int, str]:
        """Class names by id, the file's own before LLD's."""
        return dict(CLASSES) | dict(self.coco.categories)

    def annotations(self, record: ImageRecord) -> Iterator[RawAnnotation]:
        """Yield the annotations of an image, decoded."""
        return (decode(item, self.class_names) for item in record.annotations)


def parse(subset: Subset, path: Path, content: Any = None) -> JsonLabels:
    """Parse a JSON label file, reading it unless its content is given.

    Raises:
        DataError: if it is ill-formed JSON, or no COCO file.
    """
    content = read_json(path) if content is None else content
    return JsonLabels(subset, parse_coco(path, content), content)


def decode(annotation: Mapping[str, Any], names: Mapping[int, str]) -> RawAnnotation:
    """Decode one annotation, given class names by id."""
    ident = to_int(annotation.get("category_id"))
    by_id = names.get(-1 if ident is None else ident)
    stated = annotation.get("category_name")
    name = None if not stated else str(stated)
    values = to_floats(annotation.get("bbox"), 4)
    box = None if values is None else (values[0], values[1], values[2], values[3])
    known, stray = attributes_from_json(annotation, none=is_none(name or by_id or ""))
    return RawAnnotation(
        str(annotation.get("id", "?")),
        annotation.get("category_id"),
        by_id,
        name,
        box,
        known,
        tuple(stray),
        annotation,
    )
