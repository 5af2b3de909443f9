"""Results that stay in a file and are read when they are asked for, so memory stays flat.

Those of a run of usual size are parsed once: the first ones read stay in memory, up to a limit.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

from bloodfilm.core.errors import DataError
from bloodfilm.core.json_text import loads
from bloodfilm.core.results.cell import CellResult
from bloodfilm.core.results.field import FieldResult


def json_line(value: Any) -> str:
    """Return plain data as one line of JSON, valid UTF-8 whatever bytes a file name holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


KEPT_BYTES = 32 << 20
"""Of results' JSON text that are kept parsed, which takes about four times as much memory."""


class ParsedFields:
    """Parsed results of one file by the place of their line; the first `KEPT_BYTES` of them.

    Nothing kept is dropped for something newer: passes over a long run would drop every result
    just before the next pass asks for it.
    """

    def __init__(self, room: int = KEPT_BYTES) -> None:
        self._room = room
        self._fields: dict[int, FieldResult] = {}

    def get(self, offset: int) -> FieldResult | None:
        """Return a result, if it is kept."""
        return self._fields.get(offset)

    def has_room(self, size: int) -> bool:
        """Whether a result whose line has so many bytes would be kept."""
        return size <= self._room

    def keep(self, offset: int, field: FieldResult, size: int) -> None:
        """Keep a result whose line has so many bytes, if there is room."""
        if self.has_room(size):
            self._room -= size
            self._fields[offset] = field


class StoredFields(Sequence[FieldResult]):
    """Results in a file with one result per line; most of them stay there."""

    def __init__(
        self,
        path: Path,
        offsets: tuple[int, ...],
        unwrap: Callable[[bytes], bytes] | None = None,
        parsed: ParsedFields | None = None,
        check: Callable[[Sequence[CellResult]], None] | None = None,
    ) -> None:
        """Refer to the lines of a file.

        Args:
            path: the file.
            offsets: where each line begins, bytes.
            unwrap: returns the JSON text of the field's record as this version writes it from a
                line; left out, a line is the record, of any version.
            parsed: results of the file that are parsed already, to be shared.
            check: raises `DataError` for the cells of a field that the file's model cannot give.
        """
        self._path = path
        self._offsets = offsets
        self._unwrap = unwrap
        self._parsed = ParsedFields() if parsed is None else parsed
        self._check = check

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[FieldResult]:
        with self._path.open("rb") as file:
            for offset in self._offsets:
                yield self._parsed.get(offset) or self._read(file, offset)

    @overload
    def __getitem__(self, index: int) -> FieldResult: ...

    @overload
    def __getitem__(self, index: slice) -> "StoredFields": ...

    def __getitem__(self, index: int | slice) -> "FieldResult | StoredFields":
        if isinstance(index, slice):
            return self._with(self._offsets[index])
        offset = self._offsets[index]
        if (kept := self._parsed.get(offset)) is not None:
            return kept
        with self._path.open("rb") as file:
            return self._read(file, offset)

    def pick(self, numbers: Sequence[int]) -> "StoredFields":
        """Return some of the results, by their numbers, without reading them."""
        return self._with(tuple(self._offsets[n] for n in numbers))

    def checked(self, check: Callable[[Sequence[CellResult]], None]) -> "StoredFields":
        """Return the same results, each checked when it is read."""
        return StoredFields(self._path, self._offsets, self._unwrap, None, check)

    def json_lines(self) -> Iterator[str]:
        """Yield the record of each result as one line of JSON, as `json_line` writes it."""
        if self._unwrap is None:  # perhaps of an older version
            yield from (json_line(field.to_json()) for field in self)
            return
        with self._path.open("rb") as file:
            for offset in self._offsets:
                file.seek(offset)
                yield self._unwrap(file.readline()).decode()

    def _with(self, offsets: tuple[int, ...]) -> "StoredFields":
        return StoredFields(self._path, offsets, self._unwrap, self._parsed, self._check)

    def _read(self, file: BinaryIO, offset: int) -> FieldResult:
        file.seek(offset)
        line = file.readline()
        text = line.rstrip().rstrip(b",") if self._unwrap is None else self._unwrap(line)
        try:
            field = FieldResult.from_json(loads(text))
            if self._check is not None:
                self._check(field.cells)
        except (ValueError, KeyError, TypeError, RecursionError, DataError) as error:
            reason = str(error) if isinstance(error, DataError) else "the line is damaged"
            raise DataError(f"{self._path}: byte {offset}: {reason}") from None
        self._parsed.keep(offset, field, len(line))
        return field
