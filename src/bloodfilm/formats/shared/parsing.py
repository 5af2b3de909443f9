"""Read text, JSON and CSV that came from anywhere; turn values into numbers."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bloodfilm.core import DataError
from bloodfilm.core.csv_text import Row, parse_table
from bloodfilm.core.files import read_regular_file, regular_file
from bloodfilm.core.json_text import parse_json

MAX_TEXT_BYTES = 2 << 30


def read_bytes(path: Path, most: int = MAX_TEXT_BYTES) -> bytes:
    """Return a text file's bytes; `DataError` if it is no regular file, or larger than `most`."""
    return read_regular_file(path, most)


def read_text(path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """Return a text file's content, UTF-8 or UTF-16 with or without a byte order mark."""
    return decode(read_bytes(path, most), path)


def decode(data: bytes, path: Path) -> str:
    """Return text from bytes of `path`, UTF-8 or UTF-16 with or without a byte order mark.

    Raises:
        DataError: that says which byte is not of it, and which code page it may be instead.
    """
    encoding = _encoding_of(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DataError(
            f"{path}: byte {error.start} is not {name}{_code_page(data)}; save the file as UTF-8"
        ) from None


def _encoding_of(data: bytes) -> str:
    """Return the Unicode encoding that a text's first bytes show."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(data) > 3 and data[1] == data[3] == 0 and data[0] and data[2]:
        return "utf-16-le"
    if len(data) > 3 and data[0] == data[2] == 0 and data[1] and data[3]:
        return "utf-16-be"
    return "utf-8-sig"


def _code_page(data: bytes) -> str:
    """Return a remark on the code page of text that is no UTF-8, if it can be told."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    strange = next((c for c in text if ord(c) > 127), "")
    return f" (in Windows-1252 it is {strange!r})" if strange.isalpha() else ""


def peek(path: Path, size: int = 1 << 16) -> bytes:
    """Return a file's first bytes, to judge it by; none if it cannot be read."""
    try:
        with regular_file(path).open("rb") as file:
            return file.read(size)
    except (DataError, OSError):
        return b""


def read_json(path: Path) -> Any:
    """Return a JSON file's content; `DataError` names the line where it is ill-formed."""
    return parse_json(read_text(path), path)


def read_csv(path: Path, columns: Iterable[str]) -> list[Row]:
    """Return a CSV file's rows by column name; `DataError` if one of `columns` is missing.

    What tables are read, and what is refused of them, `parse_table` says.
    """
    return parse_table(read_text(path), path, columns).rows


def to_int(value: Any) -> int | None:
    """Return a whole number written as int, float or text; `None` for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def to_flag(value: Any) -> bool:
    """Return whether a value says yes: `true`, a number but 0, or either written as text.

    >>> [to_flag(v) for v in (True, 1, "1", "yes", False, 0, "0", "false", None)]
    [True, True, True, True, False, False, False, False, False]
    """
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "0.0", "false", "no", "none", "null")
    return bool(value)


def to_floats(values: Any, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` numbers, `None` if the values are anything else."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        return None
