"""The native format: one JSON file that loses nothing, one field a line."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from bloodfilm.core import (
    BloodfilmError,
    Cell,
    DataError,
    Dataset,
    Field,
    Region,
    Schema,
    Taxonomy,
)
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.issues import Issue
from bloodfilm.core.taxonomy import current_default
from bloodfilm.formats.native.records import (
    cell_to_json,
    issues_from_json,
    origin_from_json,
    origin_to_json,
)
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.frames import Frame
from bloodfilm.formats.shared.output import Losses, WriteOptions, finish, output_file, unique_names
from bloodfilm.formats.shared.parsing import peek, read_json, to_flag, to_floats, to_int
from bloodfilm.formats.shared.paths import is_file, relative, resolved

FORMAT = "bloodfilm-dataset"
VERSION = 1
FILE_NAME = "bloodfilm.json"
OTHER_NAMES = ("dataset.json",)
"""What the file is called in folders that `bloodfilm films` writes."""
_SIGNATURE = re.compile(rb'^\s*(\xef\xbb\xbf)?\s*\{\s*"format"\s*:\s*"bloodfilm-dataset"')


def recognises(path: Path) -> bool:
    """Whether it is a native file, or a folder with one."""
    return _SIGNATURE.match(peek(_file(path), 256)) is not None


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    inside = (path / name for name in OTHER_NAMES)
    others = [file for file in inside if _SIGNATURE.match(peek(file, 256))]
    return path / FILE_NAME if (path / FILE_NAME).exists() or not others else others[0]


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read a native file, or the folder that holds `bloodfilm.json`.

    The issues the set had when it was written come before those found now.
    """
    file = _file(Path(path))
    content = read_json(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{file}: is not a bloodfilm data set (no format {FORMAT!r})")
    if content.get("version") != VERSION:
        raise DataError(
            f"{file}: version {content.get('version')!r} of the format; this program reads "
            f"version {VERSION}; update bloodfilm"
        )
    try:
        options.setdefault("taxonomy", current_default(Taxonomy.from_json(content["taxonomy"])))
        schema = Schema.from_json(content["schema"])
        rows = list(content["fields"])
        issues = issues_from_json(content)
    except (KeyError, TypeError, BloodfilmError) as error:
        raise DataError(f"{file}: taxonomy, schema or fields are ill-formed ({error})") from None
    reading = ReadContext(Path(path), issues=issues, **options)
    fields = [f for i, row in enumerate(rows, 1) if (f := _field(reading, file, row, i))]
    licence = content.get("licence")
    return reading.dataset(str(content.get("name", "")), fields, schema=schema, licence=licence)


def _field(reading: ReadContext, file: Path, row: Any, number: int) -> Field | None:
    place = f"field {number}"
    try:
        image = _image(reading, str(row["image"]), file.parent)
        stated = to_int(row.get("width")), to_int(row.get("height"))
        frame = reading.frame(image, stated) if all(stated) else Frame(None)
        origin = origin_from_json(row)
        origin["region"] = frame.region(origin["region"])
        cells = [
            cell
            for i, item in enumerate(row.get("cells", ()), 1)
            if (cell := _cell(reading, file, f"{place}, cell {i}", item, frame))
        ]
    except (KeyError, TypeError, ValueError, AttributeError, BloodfilmError) as error:
        if reading.strict and isinstance(error, BloodfilmError):
            raise
        reading.report(codes.ILL_FORMED_ENTRY, file, place, f"ill-formed ({error!r}), left out")
        return None
    return Field(image, frame.width, frame.height, tuple(cells), **origin)


def _image(reading: ReadContext, name: str, folder: Path) -> Path:
    image = resolved(name, folder)
    if reading.images is None or is_file(image):
        return image
    return reading.find(name) or image


def _cell(
    reading: ReadContext,
    file: Path,
    place: str,
    item: Mapping[str, Any],
    frame: Frame,
) -> Cell | None:
    box = None
    if item["box"] is not None:
        values = to_floats(item["box"], 4)
        if values is None:
            reading.report(codes.UNUSABLE_SHAPE, file, place, "box is not four numbers, left out")
            return None
        box = reading.box(frame.box(values), frame.size, file, place)
        if box is None:
            return None
    attributes = {str(k): str(v) for k, v in item.get("attributes", {}).items()}
    ident = None if item.get("id") is None else str(item["id"])
    outline = (
        None if item.get("outline") is None else frame.region(Region.from_json(item["outline"]))
    )
    ignore = to_flag(item.get("ignore"))
    label, own = item.get("class"), item.get("source_class")
    known = label is None or label in reading.taxonomy
    if known and (own is None or not reading.classes):
        own = None if own is None else str(own)
        return Cell(box, label, attributes, ignore, ident, own, outline)
    name = str(own if known else label)
    return reading.cell(name, box, attributes, ignore=ignore, id=ident, outline=outline)


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Write a native file (`*.json`), or `bloodfilm.json` in a folder; return what was lost.

    Images are named as seen from the file. Nothing is lost but `Dataset.source`.
    """
    losses = Losses()
    with output_file(Path(path), ".json", FILE_NAME, options) as (out, name):
        names = unique_names(dataset.fields) if out.images else None
        lines = []
        for number, item in enumerate(dataset):
            image = out.image(item.path, f"images/{names[number]}") if names else item.path
            row = _row(item, relative(image, out.root), losses)
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
        out.text(name, _header(dataset) + "\n" + ",\n".join(lines) + "\n]}\n")
    return finish(out, losses)


def _header(dataset: Dataset) -> str:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": dataset.name,
        "licence": dataset.licence,
        "taxonomy": dataset.taxonomy.to_json(),
        "schema": dataset.schema.to_json(),
        "issues": [issue.to_json() for issue in dataset.issues],
    }
    return json.dumps(content, ensure_ascii=False)[:-1] + ', "fields": ['


def _row(item: Field, image: str, losses: Losses) -> dict[str, Any]:
    size = {"width": item.width, "height": item.height}
    row: dict[str, Any] = {"image": image}
    row |= {key: value for key, value in size.items() if value is not None}
    row |= origin_to_json(item)
    row["cells"] = [cell_to_json(cell) for cell in losses.sound(item)]
    return row
