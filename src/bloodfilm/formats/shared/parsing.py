"""Read text, JSON and CSV that came from anywhere; turn values into numbers."""

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bloodfilm.core import DataError

MAX_TEXT_BYTES = 2 << 30


def read_text(path: Path) -> str:
    """Return a text file's content, UTF-8 or UTF-16 with or without a byte order mark."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise DataError(f"{path}: larger than 2 GiB; split it, or convert it to an index")
        data = path.read_bytes()
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, not a file; name the file in it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    return decode(data, path)


def decode(data: bytes, path: Path) -> str:
    """Return text from bytes of `path`, UTF-8 or UTF-16 with or without a byte order mark."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not {encoding.removesuffix('-sig').upper()}; "
            "save the file as UTF-8"
        ) from None


def peek(path: Path, size: int = 1 << 16) -> bytes:
    """Return a file's first bytes, to judge it by; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def read_json(path: Path) -> Any:
    """Return a JSON file's content; `DataError` names the line where it is ill-formed."""
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path | str) -> Any:
    """Parse JSON text that came from `path`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {error.lineno}, column {error.colno}: ill-formed JSON "
            f"({error.msg}); mend it or export it again"
        ) from None
    except MemoryError:
        raise DataError(f"{path}: does not fit into memory; split it") from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: JSON that cannot be used ({error}); export it again") from None


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Return a CSV file's rows by column name; `DataError` if one of `columns` is missing."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not a CSV table ({error})") from None
    lacking = [c for c in columns if c not in (reader.fieldnames or ())]
    if lacking:
        raise DataError(
            f"{path}: line 1: no column {', '.join(map(repr, lacking))}; restore the header"
        )
    return rows


def to_int(value: Any) -> int | None:
    """Return a whole number written as int, float or text; `None` for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def to_floats(values: Any, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` numbers, `None` if the values are anything else."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        return None
