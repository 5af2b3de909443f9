"""The result of a case: several fields of one film, every physical cell once."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import DataError
from bloodfilm.core.figures import number, whole
from bloodfilm.core.issues import Issue
from bloodfilm.core.results.cell import CellResult
from bloodfilm.core.results.field import FieldResult
from bloodfilm.core.results.model import ModelInfo
from bloodfilm.core.results.stored import StoredFields
from bloodfilm.core.results.tables import data_frame
from bloodfilm.core.text import plural

_UNSAFE = re.compile(r"[^\w.-]+")
_LONGEST_STEM = 80
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class FieldPlacement:
    """How a field takes part in its case.

    Attributes:
        number: of the field among those of the run.
        counted: whether its cells may count; `issues` says why not.
        part: fields of one part show connected glass; parts are numbered from 0. `None` for a field
            that could not be compared with others.
        matrix: 2x3, from the field's pixels to the plane of its part, micrometres; the part's
            first field has its top left corner at the origin. `None` where `part` is.
        issues: why it is set aside, and what else the case knows of it.
    """

    number: int
    counted: bool = True
    part: int | None = None
    matrix: Matrix | None = None
    issues: tuple[Issue, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the placement as plain data, the matrix to a nanometre."""
        matrix = None if self.matrix is None else [[round(v, 6) for v in r] for r in self.matrix]
        return {
            "field": self.number,
            "counted": self.counted,
            "part": self.part,
            "matrix": matrix,
            "issues": [issue.to_json() for issue in self.issues],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FieldPlacement":
        """Read what `to_json` wrote; DataError, KeyError, TypeError, ValueError if not."""
        matrix: Matrix | None = None
        if data["matrix"] is not None:
            (a, b, c), (d, e, f) = data["matrix"]
            numbers = [number(v, "matrix") for v in (a, b, c, d, e, f)]
            matrix = (numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])
        return cls(
            number=whole(data["field"], "field"),
            counted=bool(data["counted"]),
            part=None if data["part"] is None else whole(data["part"], "part"),
            matrix=matrix,
            issues=tuple(Issue.from_json(item) for item in data["issues"]),
        )


@dataclass(frozen=True, slots=True)
class CellView:
    """One cell as one field shows it: the field's number in the run, and the cell's id there."""

    field: int
    id: str


@dataclass(frozen=True, slots=True)
class CaseCell:
    """One physical cell of a case.

    Attributes:
        views: the fields that show it; the sharpest whole view first: its class and attributes are
            the cell's.
        counted: whether the cell counts; `issues` says why not.
        issues: `cut-by-edge`, `views-disagree` and the like.
    """

    views: tuple[CellView, ...]
    counted: bool = True
    issues: tuple[Issue, ...] = ()

    @property
    def shown(self) -> CellView:
        """The view whose class, attributes and pixels stand for the cell."""
        return self.views[0]

    def to_json(self) -> dict[str, Any]:
        """Return the cell as plain data."""
        return {
            "views": [[view.field, view.id] for view in self.views],
            "counted": self.counted,
            "issues": [issue.to_json() for issue in self.issues],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CaseCell":
        """Read what `to_json` wrote; DataError, KeyError, TypeError, ValueError if not."""
        views = tuple(CellView(whole(at, "views"), str(name)) for at, name in data["views"])
        if not views:
            raise ValueError("a cell without a view")
        issues = tuple(Issue.from_json(item) for item in data["issues"])
        return cls(views, bool(data["counted"]), issues)


@dataclass(frozen=True)
class CaseResult:
    """The fields of one film, or of one patient, taken together.

    Attributes:
        name: of the case: its folder, the patient in a table, or the only one of the run.
        fields: the results of its fields, in the order of the files; read when asked for.
        placements: how each of them takes part, as long as `fields`.
        cells: physical cells of the classified type, each once, in the order of their first field.
        other: distinct counted objects of the other types, by type.
        failures: paths of files without a result.
        issues: what to know of the case as a whole.
        model: the model that analysed it.
    """

    name: str
    fields: Sequence[FieldResult]
    placements: tuple[FieldPlacement, ...]
    cells: tuple[CaseCell, ...]
    other: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    issues: tuple[Issue, ...] = ()
    model: ModelInfo = field(default_factory=lambda: ModelInfo({}))

    def __repr__(self) -> str:
        cells = sum(cell.counted for cell in self.cells)
        parts = [plural(len(self.fields), "field"), f"{plural(cells, 'cell')} counted"]
        parts += [f"{len(self.set_aside)} set aside"] * bool(self.set_aside)
        parts += [plural(len(self.failures), "failure")] * bool(self.failures)
        parts += [i.code for i in self.issues]
        return f"<CaseResult {self.name!r}: {', '.join(parts)}>"

    @property
    def set_aside(self) -> tuple[FieldPlacement, ...]:
        """The fields whose cells do not count."""
        return tuple(p for p in self.placements if not p.counted)

    @property
    def uncounted(self) -> Mapping[str, int]:
        """Physical cells that do not count, by the code of the reason."""
        return Counter(
            cell.issues[0].code if cell.issues else "" for cell in self.cells if not cell.counted
        )

    def counted_cells(self) -> Iterator[CellResult]:
        """Yield the counted cells, each in its sharpest view, in the order of `cells`.

        Issues that the case has of a cell follow those of the view, each code once.
        """
        for _, cell, result in self.views():
            if cell.counted:
                issues = {i.code: i for i in (*result.issues, *cell.issues)}
                yield replace(result, issues=tuple(issues.values()))

    def views(self) -> Iterator[tuple[FieldResult, CaseCell, CellResult]]:
        """Yield every physical cell with the field that shows it best and how it looks there.

        Raises:
            DataError: if a field does not hold a cell that the case names.
        """
        at = {p.number: place for place, p in enumerate(self.placements)}
        held: tuple[int, FieldResult, dict[str, CellResult]] | None = None
        for cell in self.cells:
            number = cell.shown.field
            if held is None or held[0] != number:
                result = self.fields[at[number]]
                held = number, result, {c.id: c for c in result.cells}
            if cell.shown.id not in held[2]:
                raise DataError(f"case {self.name}: {held[1].path} has no cell {cell.shown.id}")
            yield held[1], cell, held[2][cell.shown.id]

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame: one row per counted cell, the columns of cells.csv.

        Raises:
            MissingPackageError: without pandas (`pip install 'bloodfilm[dataframe]'`).
        """
        rows = ((f.path, (result,)) for f, cell, result in self.views() if cell.counted)
        return data_frame(rows, self.model.schema.names)

    def to_json(self) -> dict[str, Any]:
        """Return the case as plain data; its fields are named by their numbers in the run."""
        return {
            "case": self.name,
            "fields": [placement.to_json() for placement in self.placements],
            "failures": list(self.failures),
            "cells": [cell.to_json() for cell in self.cells],
            "other": dict(sorted(self.other.items())),
            "issues": [issue.to_json() for issue in self.issues],
        }

    @classmethod
    def from_json(
        cls, data: Mapping[str, Any], fields: Sequence[FieldResult], model: ModelInfo
    ) -> "CaseResult":
        """Read what `to_json` wrote.

        Args:
            data: the record.
            fields: all fields of the run.
            model: of the run.

        Raises:
            DataError: if it is not the record of a case, or names fields that are not there.
        """
        try:
            placements = tuple(FieldPlacement.from_json(item) for item in data["fields"])
            cells = tuple(CaseCell.from_json(item) for item in data["cells"])
            numbers = [placement.number for placement in placements]
            if not set(numbers) <= set(range(len(fields))):
                raise ValueError("it names a field that is not there")
            if not {view.field for cell in cells for view in cell.views} <= set(numbers):
                raise ValueError("a cell is of no field of the case")
            unknown = [name for name in data["other"] if name not in model.object_types]
            if unknown:
                raise DataError(f"other: the model has no object type {unknown[0][:40]!r}")
            return cls(
                name=str(data["case"]),
                fields=pick(fields, numbers),
                placements=placements,
                cells=cells,
                other={str(k): whole(v, "other") for k, v in data["other"].items()},
                failures=tuple(map(str, data["failures"])),
                issues=tuple(Issue.from_json(item) for item in data["issues"]),
                model=model,
            )
        except DataError as error:
            raise DataError(f"case {str(data.get('case'))[:40]!r}: {error}") from None
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"result: not the record of a case ({error!r})") from None


def pick(fields: Sequence[FieldResult], numbers: Sequence[int]) -> Sequence[FieldResult]:
    """Return some fields of a run; those in a file stay there."""
    if isinstance(fields, StoredFields):
        return fields.pick(numbers)
    return tuple(fields[number] for number in numbers)


def file_stems(names: Iterable[str]) -> list[str]:
    """Return a distinct, portable file name, without suffix, for each case.

    >>> file_stems(["patient 7", "a/b", "patient_7", ".."])
    ['patient_7', 'a_b', 'patient_7-2', 'case']
    """
    taken: set[str] = set()
    stems = []
    for case in names:
        plain = _UNSAFE.sub("_", case).strip("._-")[:_LONGEST_STEM] or "case"
        numbered = (plain if k == 1 else f"{plain}-{k}" for k in itertools.count(1))
        stem = next(n for n in numbered if n.lower() not in taken)
        taken.add(stem.lower())
        stems.append(stem)
    return stems


def case_name(path: str | Path) -> str:
    """Return the name of a case that has none of its own: that of its folder or file.

    >>> case_name("films/patient 7"), case_name("a.png"), case_name(".")
    ('patient 7', 'a', 'case')
    """
    place = Path(path)
    return (place.stem if place.suffix else place.name) or "case"
