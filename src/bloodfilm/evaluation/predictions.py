"""Read results of an analysis and assign them to the fields of a data set."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bloodfilm.core import figures
from bloodfilm.core.csv_text import Table, parse_table, unguard
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.core.results import AnalysisRun, AttributeResult, CellResult
from bloodfilm.formats.shared.image_lookup import PathIndex
from bloodfilm.formats.shared.parsing import read_bytes

_REQUIRED = ("image", "x", "y", "w", "h", "score", "class", "class_score")
_OBJECT_TYPE = ("object_type", "kind")
"""The column's name, and its name in version 1."""


ByImage = Mapping[str, Sequence[CellResult]]


class NoSharedImageError(DataError):
    """None of the images of some results is a field of the data set."""


def read_predictions(path: Path) -> dict[str, list[CellResult]]:
    """Read `cells.csv` or `result.json` of an analysis: cells by image, as it names them.

    Raises:
        DataError: if the file is missing or has another format.
    """
    if path.suffix.lower() != ".csv":
        cells: dict[str, list[CellResult]] = {}
        for result in AnalysisRun.read(path):
            cells.setdefault(result.path, []).extend(result.cells)
        return cells
    try:
        # File names that are not UTF-8 are stored as raw bytes.
        text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
        return _from_csv(path, parse_table(text, path))
    except DataError as error:
        raise DataError(f"{error}; give cells.csv of an analysis") from None


def _from_csv(path: Path, table: Table) -> dict[str, list[CellResult]]:
    columns = {unguard(name): name for name in table.columns}
    lacking = [name for name in _REQUIRED if name not in columns]
    object_type = next((name for name in _OBJECT_TYPE if name in columns), None)
    if lacking or object_type is None:
        name = lacking[0] if lacking else _OBJECT_TYPE[0]
        raise DataError(f"{path}: line 1: no column {name!r}")
    attributes = [c for c in columns if f"{c}_probability" in columns]
    cells: dict[str, list[CellResult]] = {}
    for row in table.rows:
        values = {name: unguard(row[own]) for name, own in columns.items()}
        try:
            found = _csv_cell(values, object_type, attributes)
        except DataError as error:
            raise DataError(f"{path}: line {row.line}: {error}") from None
        cells.setdefault(values["image"], []).append(found)
    return cells


def _csv_cell(row: Mapping[str, str], object_type: str, attributes: Iterable[str]) -> CellResult:
    x, y, w, h = (
        figures.number(_number(row, key), key, least)
        for key, least in (("x", -math.inf), ("y", -math.inf), ("w", 0), ("h", 0))
    )
    answers = {
        name: AttributeResult(row[name] or None, _share(row, f"{name}_probability"), {})
        for name in attributes
        if row[f"{name}_probability"]
    }
    return CellResult(
        box=(x, y, w, h),
        confidence=_share(row, "score"),
        object_type=row[object_type],
        label=row["class"],
        label_confidence=_share(row, "class_score"),
        attributes=answers,
        id=row.get("cell_id") or "",
    )


def _share(row: Mapping[str, str], column: str) -> float:
    return figures.share(_number(row, column), column)


def _number(row: Mapping[str, str], column: str) -> float | str:
    """Return the number in a column, or its text where it is none."""
    try:
        return float(row[column])
    except ValueError:
        return row[column]


def align(fields: Sequence[Field], cells: ByImage, source: str) -> list[Sequence[CellResult]]:
    """Return the cells of each field; images are matched by the end of their path.

    The rule is that of labels (`formats.shared.image_lookup`): if the folder differs from that of
    the field, it is another image; similar names are never matched.

    Args:
        fields: of the data set.
        cells: by image, as the results name it.
        source: the results, for messages.

    Raises:
        NoSharedImageError: if no result belongs to any field.
        DataError: if the assignment is ambiguous.
    """
    numbers: dict[Path, list[int]] = {}
    for number, item in enumerate(fields):
        numbers.setdefault(item.path, []).append(number)
    resolved = {str(path.resolve()): path for path in numbers}
    index = PathIndex(numbers, _shared_folder(list(numbers)))
    aligned: list[Sequence[CellResult]] = [()] * len(fields)
    taken: dict[Path, str] = {}
    for image, found in cells.items():
        exact = resolved.get(_resolved(image))
        candidates = [exact] if exact is not None else index.candidates(image)
        if len(candidates) > 1:
            named = " and ".join(map(str, candidates[:2]))
            raise DataError(
                f"{source}: {image}: may be {named}; run the analysis on the data set's own folder"
            )
        for path in candidates:
            if path in taken:
                raise DataError(
                    f"{source}: {taken[path]} and {image} are both results of {path}; run the "
                    "analysis on the data set's own folder"
                )
            taken[path] = image
            for number in numbers[path]:
                aligned[number] = found
    if cells and fields and not taken:
        raise NoSharedImageError(
            f"{source}: none of its {len(cells)} images is a field of the data set"
        )
    return aligned


def _resolved(image: str) -> str:
    """Return the full path of a name in the results; the name where it can be no path here."""
    try:
        return str(Path(image).resolve())
    except (OSError, RuntimeError, ValueError):  # too long, a link in a circle, a null byte
        return image


def _shared_folder(paths: Sequence[Path]) -> Path:
    """Return the deepest folder that holds all paths."""
    folders = [str(path.absolute().parent) for path in paths]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # no path at all, or several drives
        return Path(Path.cwd().anchor)
