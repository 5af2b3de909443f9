"""Changes of a valid file: of its bytes, and of the values in its JSON."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

Change = Callable[[bytes], bytes]

PIECES = (
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    b",",
    b'"',
    b"<",
    b"&",
    b"[" * 2000,
    b"{",
    b"}",
    b"]]>",
    b"-1",
    b"1e999",
    b"nan",
    b"9" * 400,
    b"2147483648",
    b"\x80" * 8,
    b"\xff\xd8\xff",
    b"\0" * 64,
    b"\xed\xa0\x80",
    b"../",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    "²".encode(),
)

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**64,
    10**400,
    0.5,
    1e308,
    -1e308,
    math.nan,
    math.inf,
    "",
    "\0",
    "\ud800",
    "a\r\nb",
    "\x1b[31m",
    "..",
    "=1+1",
    "n" * 5000,
    "../../etc/passwd",
    [],
    {},
    [1],
    {"a": {"b": [1]}},
    [[[1, 2]] * 3],
)


def byte_changes() -> st.SearchStrategy[Change]:
    """Draw one to four edits: bits flipped, bytes replaced, removed, doubled, the end cut off."""
    place = st.floats(0, 1)
    edit = st.one_of(
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("replace"), place, st.sampled_from(PIECES)),
        st.tuples(st.just("insert"), place, st.sampled_from(PIECES)),
        st.tuples(st.just("remove"), place, st.integers(1, 64)),
        st.tuples(st.just("double"), place, st.integers(1, 512)),
        st.tuples(st.just("cut"), place, st.just(0)),
        st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
    )
    return st.lists(edit, min_size=1, max_size=4).map(_edits)


def _edits(edits: list[tuple[str, float, Any]]) -> Change:
    def change(data: bytes) -> bytes:
        for kind, place, more in edits:
            at = int(place * max(0, len(data) - 1))
            before, after = data[:at], data[at:]
            if kind == "flip" and after:
                data = before + bytes([after[0] ^ 1 << more]) + after[1:]
            elif kind in ("replace", "set"):
                data = before + more + after[len(more) :]
            elif kind == "insert":
                data = before + more + after
            elif kind == "remove":
                data = before + after[more:]
            elif kind == "double":
                data = before + after[:more] * 2 + after[more:]
            elif kind == "cut":
                data = before
        return data

    return change


def json_changes() -> st.SearchStrategy[Change]:
    """Draw one to three values of a JSON document to replace, remove or double."""
    edit = st.tuples(
        st.sampled_from(["replace", "replace", "replace", "remove", "double"]),
        st.integers(0, 1 << 16),
        st.sampled_from(VALUES),
    )
    return st.lists(edit, min_size=1, max_size=3).map(_json_edits)


def _json_edits(edits: list[tuple[str, int, Any]]) -> Change:
    def change(data: bytes) -> bytes:
        content = json.loads(data)
        for kind, number, value in edits:
            spots = list(_spots(content))
            if not spots:
                break
            above, key = spots[number % len(spots)]
            if kind == "remove":
                del above[key]
            elif kind == "double" and isinstance(above, list):
                above.insert(key, copy.deepcopy(above[key]))
            else:
                above[key] = copy.deepcopy(value)
        return json.dumps(content).encode("utf-8", "surrogatepass")

    return change


def _spots(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every value of nested lists and mappings as what holds it, and where."""
    for key in content if isinstance(content, dict) else range(len(content)):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _spots(content[key])
