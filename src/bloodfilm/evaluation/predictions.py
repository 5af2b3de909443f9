"""Read results of an analysis and assign them to the fields of a data set."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bloodfilm.core.csv_text import unguard
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.core.results import AnalysisRun, AttributeResult, CellResult

_REQUIRED = ("image", "x", "y", "w", "h", "score", "class", "class_score")
_OBJECT_TYPE = ("object_type", "kind")
"""The column's name, and what version 1 called it."""

ByImage = Mapping[str, Sequence[CellResult]]


def read_predictions(path: Path) -> dict[str, list[CellResult]]:
    """Read `cells.csv` or `result.json` of an analysis: cells by image, as it names them.

    Raises:
        DataError: where the file is missing or is neither.
    """
    if path.suffix.lower() != ".csv":
        cells: dict[str, list[CellResult]] = {}
        for result in AnalysisRun.read(path):
            cells.setdefault(result.path, []).extend(result.cells)
        return cells
    try:
        # File names that are no UTF-8 stand there as the bytes they are.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return _from_csv(path, csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not cells.csv of an analysis ({error})") from None


def _from_csv(path: Path, rows: "csv.DictReader[str]") -> dict[str, list[CellResult]]:
    columns = tuple(map(unguard, rows.fieldnames or ()))
    rows.fieldnames = columns
    missing = [name for name in _REQUIRED if name not in columns]
    object_type = next((name for name in _OBJECT_TYPE if name in columns), None)
    if missing or object_type is None:
        name = missing[0] if missing else _OBJECT_TYPE[0]
        raise DataError(f"{path}: no column {name!r}; give cells.csv of an analysis")
    attributes = [c for c in columns if f"{c}_probability" in columns]
    cells: dict[str, list[CellResult]] = {}
    for number, row in enumerate(rows, 2):
        try:
            found = _csv_cell(row, object_type, attributes)
        except (TypeError, ValueError):
            raise DataError(f"{path}: line {number}: a number is missing or is none") from None
        cells.setdefault(unguard(row["image"]), []).append(found)
    return cells


def _csv_cell(row: Mapping[str, str], object_type: str, attributes: Iterable[str]) -> CellResult:
    x, y, w, h = (float(row[key]) for key in ("x", "y", "w", "h"))
    answers = {
        name: AttributeResult(unguard(row[name]) or None, float(row[f"{name}_probability"]), {})
        for name in attributes
        if row[f"{name}_probability"]
    }
    return CellResult(
        box=(x, y, w, h),
        confidence=float(row["score"]),
        object_type=unguard(row[object_type]),
        label=unguard(row["class"]),
        label_confidence=float(row["class_score"]),
        attributes=answers,
        id=row.get("cell_id") or "",
    )


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
