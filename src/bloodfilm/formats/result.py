"""Read the results of an analysis as proposals, for correction in an annotation program.

`result.json`, or the folder that holds it. Every cell carries its `Prediction`; nothing of a field
counts as annotated, for nobody has checked it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack, overload

from bloodfilm.core import DataError, Dataset, Field
from bloodfilm.core.dataset_codes import UNREADABLE_FILE, dataset_issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.results import RESULT_FILE, AnalysisRun, CellResult, FieldFailure, FieldResult
from bloodfilm.formats.shared.context import ReadOptions
from bloodfilm.formats.shared.parsing import peek

_SIGNATURE = re.compile(rb'\s*\{\s*"format":\s*"bloodfilm-result"')


def recognises(path: Path) -> bool:
    """Whether it is a result of an analysis, or a folder with one."""
    return _SIGNATURE.match(peek(_file(path), 256)) is not None


def _file(path: Path) -> Path:
    return path / RESULT_FILE if path.is_dir() else path


def read(path: Path, *, all_cells: bool = False, **options: Unpack[ReadOptions]) -> Dataset:
    """Read an analysis as a data set of proposals.

    Paths of images are those that the analysis was given; a relative one is looked for from the
    current folder, then from the file's.

    Args:
        path: `result.json`, or its folder.
        all_cells: red cells and platelets, too, not only cells that the classifier named.
        options: see `ReadOptions`; `strict` raises on the first file without a result.

    Raises:
        DataError: if it is no result.
    """
    run = AnalysisRun.read(path)
    missing = [_missing(failure) for failure in run.failures]
    if options.get("strict") and missing:
        raise DataError(missing[0].message)
    folder = _file(path).parent
    return Dataset(
        name=f"proposals of {run.model.name}",
        fields=Proposals(run, folder, all_cells),
        taxonomy=run.model.taxonomy,
        schema=run.model.schema,
        source=path,
        issues=tuple(missing),
    )


def _missing(failure: FieldFailure) -> Issue:
    message = f"{failure.path}: no result ({failure.reason})"
    return dataset_issue(UNREADABLE_FILE, message, file=failure.path)


@dataclass(frozen=True)
class Proposals(Sequence[Field]):
    """The fields of a run, converted as they are asked for."""

    run: AnalysisRun
    folder: Path
    all_cells: bool

    def __len__(self) -> int:
        return len(self.run.fields)

    @overload
    def __getitem__(self, index: int) -> Field: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Field]: ...

    def __getitem__(self, index: int | slice) -> Field | Sequence[Field]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        return self._field(self.run.fields[index])

    def __iter__(self) -> Iterator[Field]:
        for result in self.run.fields:
            yield self._field(result)

    def kept(self, result: FieldResult) -> Iterator[CellResult]:
        """Yield the cells of a field that are proposed."""
        for cell in result.cells:
            if self.all_cells or cell.object_type == self.run.model.classified:
                yield cell

    @property
    def _sure(self) -> frozenset[str]:
        return frozenset(self.run.model.taxonomy.leaves)

    def _field(self, result: FieldResult) -> Field:
        shown = replace(result, cells=tuple(self.kept(result)))
        field = shown.to_field(sure_labels=self._sure)
        return field.moved(self._place(field.path))

    def _place(self, path: Path) -> Path:
        beside = self.folder / path
        return beside if not path.is_file() and beside.is_file() else path
