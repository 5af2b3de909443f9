"""Results that stay in a file and are read when they are asked for, so memory stays flat."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

from bloodfilm.core.errors import DataError
from bloodfilm.core.json_text import loads
from bloodfilm.core.results.field import FieldResult


def json_line(value: Any) -> str:
    """Return plain data as one line of JSON, valid UTF-8 whatever bytes a file name holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class StoredFields(Sequence[FieldResult]):
    """Results in a file with one result per line; only the places of the lines are in memory."""

    def __init__(
        self, path: Path, offsets: tuple[int, ...], unwrap: Callable[[Any], Any] = lambda d: d
    ) -> None:
        """Refer to the lines of a file.

        Args:
            path: the file.
            offsets: where each line begins, bytes.
            unwrap: returns the field's record from the data of a line.
        """
        self._path = path
        self._offsets = offsets
        self._unwrap = unwrap

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[FieldResult]:
        with self._path.open("rb") as file:
            for offset in self._offsets:
                yield self._read(file, offset)

    @overload
    def __getitem__(self, index: int) -> FieldResult: ...

    @overload
    def __getitem__(self, index: slice) -> "StoredFields": ...

    def __getitem__(self, index: int | slice) -> "FieldResult | StoredFields":
        if isinstance(index, slice):
            return StoredFields(self._path, self._offsets[index], self._unwrap)
        with self._path.open("rb") as file:
            return self._read(file, self._offsets[index])

    def pick(self, numbers: Sequence[int]) -> "StoredFields":
        """Return some of the results, by their numbers, without reading them."""
        return StoredFields(self._path, tuple(self._offsets[n] for n in numbers), self._unwrap)

    def _read(self, file: BinaryIO, offset: int) -> FieldResult:
        file.seek(offset)
        line = file.readline().rstrip().rstrip(b",")
        try:
            return FieldResult.from_json(self._unwrap(loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError, DataError) as error:
            reason = str(error) if isinstance(error, DataError) else "the line is damaged"
            raise DataError(f"{self._path}: byte {offset}: {reason}") from None
