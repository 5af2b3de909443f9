"""Results files brought back and laid beside the fields they are of."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.core.results import AttributeResult, CellResult

_CSV_NEEDS = ("image", "x", "y", "w", "h", "score", "kind", "class", "class_score")

ByImage = Mapping[str, Sequence[CellResult]]


def read_predictions(path: Path) -> dict[str, list[CellResult]]:
    """Read `cells.csv` or `result.json` of an analysis: cells by image, as it names them.

    Raises:
        DataError: where the file is missing or is neither.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return _from_csv(path, csv.DictReader(file))
        return _from_json(path, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error):
        raise DataError(f"{path}: neither cells.csv nor result.json of an analysis") from None


def _from_json(path: Path, data: Any) -> dict[str, list[CellResult]]:
    from bloodfilm.inference.records import field_from_json

    fields = data.get("fields") if isinstance(data, dict) else None
    if not isinstance(fields, list):
        raise DataError(f'{path}: no list "fields"; give result.json of an analysis')
    cells: dict[str, list[CellResult]] = {}
    for number, item in enumerate(fields):
        try:
            field = field_from_json(item)
        except DataError as error:
            raise DataError(f"{path}: field {number}: {error}") from None
        cells.setdefault(field.path, []).extend(field.cells)
    return cells


def _from_csv(path: Path, rows: "csv.DictReader[str]") -> dict[str, list[CellResult]]:
    columns = tuple(rows.fieldnames or ())
    missing = [name for name in _CSV_NEEDS if name not in columns]
    if missing:
        raise DataError(f"{path}: no column {missing[0]!r}; give cells.csv of an analysis")
    attributes = [c for c in columns if f"{c}_probability" in columns]
    cells: dict[str, list[CellResult]] = {}
    for number, row in enumerate(rows, 2):
        try:
            cells.setdefault(row["image"], []).append(_csv_cell(row, attributes))
        except (TypeError, ValueError):
            raise DataError(f"{path}: line {number}: a number is missing or is none") from None
    return cells


def _csv_cell(row: Mapping[str, str], attributes: Iterable[str]) -> CellResult:
    x, y, w, h, score, sure = (float(row[k]) for k in ("x", "y", "w", "h", "score", "class_score"))
    answers = {
        name: AttributeResult(row[name] or None, float(row[f"{name}_probability"]), {})
        for name in attributes
        if row[f"{name}_probability"]
    }
    return CellResult((x, y, w, h), score, row["kind"], row["class"], sure, {}, answers)


def align(fields: Sequence[Field], cells: ByImage, source: str) -> list[Sequence[CellResult]]:
    """Return the cells of each field, found by path, else by file name.

    Raises:
        DataError: if no result is of any field, or a file name alone does not tell which.
    """
    by_path = {str(Path(image).resolve()): found for image, found in cells.items()}
    by_name: dict[str, list[str]] = {}
    for image in cells:
        by_name.setdefault(Path(image).name, []).append(image)
    aligned: list[Sequence[CellResult]] = []
    used = 0
    for item in fields:
        found = by_path.get(str(item.path.resolve()))
        if found is None and (named := by_name.get(item.path.name)):
            if len(named) > 1:
                raise DataError(
                    f"{source}: {len(named)} results are of a file {item.path.name}; run the "
                    "analysis on the data set's own folder"
                )
            found = cells[named[0]]
        used += found is not None
        aligned.append(found or ())
    if cells and fields and not used:
        raise DataError(f"{source}: none of its {len(cells)} images is a field of the data set")
    return aligned
