"""JSON that came from anywhere: what cannot be used is one line that names file and place."""

import json
import re
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import DataError
from bloodfilm.core.files import read_regular_file

MAX_JSON_BYTES = 256 << 20
"""Of settings, splits, records of runs and the like; label files may be larger."""


_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of surrogate pairs that stand alone; U+DC80 to U+DCFF are bytes of names not in UTF-8."""


def loads(text: str | bytes) -> Any:
    r"""Return the content of JSON text, like `json.loads`, without half characters.

    A lone surrogate (`"\ud800"`) is no character, and can be written to no file.

    Raises:
        ValueError: if the text is ill-formed, or holds half a character.
    """
    content = json.loads(text)
    plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
    if _ESCAPED.search(plain) or (isinstance(text, str) and _HALF.search(text)):
        _refuse_halves(content)
    return content


def _refuse_halves(content: Any) -> None:
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and (half := _HALF.search(item)):
            raise ValueError(f"\\u{ord(half[0]):04x} is half a character")


def parse_json(text: str, place: Path | str) -> Any:
    """Return the content of JSON text.

    Raises:
        DataError: that begins with `place` and names the line, if it is ill-formed, nested too
            deeply, holds a number of too many digits or half a character, or does not fit into
            memory.
    """
    try:
        return loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}: line {error.lineno}, column {error.colno}: ill-formed JSON "
            f"({error.msg}); correct it or export it again"
        ) from None
    except MemoryError:
        raise DataError(f"{place}: does not fit into memory; split it") from None
    except RecursionError:
        raise DataError(
            f"{place}: JSON that cannot be used (nested too deeply); export it again"
        ) from None
    except ValueError as error:
        raise DataError(f"{place}: JSON that cannot be used ({error}); export it again") from None


def read_json_file(path: Path, most: int = MAX_JSON_BYTES) -> Any:
    """Return the content of a JSON file in UTF-8 that is no larger than `most` bytes.

    Raises:
        DataError: that names the file and what is wrong with it.
    """
    data = read_regular_file(path, most)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    return parse_json(text, path)
