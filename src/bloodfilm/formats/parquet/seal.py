r"""Checksums of a whole Parquet file, kept in the file: no changed byte of an index goes unnoticed.

Parquet has checksums for pages, none for the headers of pages and none for the footer, which holds
the schema, the taxonomy and the places of everything. A sealed file has a block directly before its
footer, where nothing points to, so every reader of Parquet reads the file as before:

    digest of each row group     32 bytes each, SHA-256 of all bytes up to the next row group
    digest of all this           SHA-256 of the digests above, their number and the footer
    number of row groups         4 bytes, little-endian
    mark                         `BFSEAL1\n`

The footer is verified when the file is opened, a row group before it is first read. This finds
damage, not forgery: whoever changes a file on purpose can seal it again.
"""

import hashlib
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bloodfilm.core import DataError

MARK = b"BFSEAL1\n"
_MAGIC = b"PAR1"
_TAIL = struct.Struct("<I4s")  # length of the footer, magic
_SEAL = struct.Struct("<32sI8s")  # digest, number of row groups, mark
_DIGEST = hashlib.sha256().digest_size
_CHUNK = 1 << 20


class DamagedIndexError(DataError):
    """An index is not as it was written."""


class Seal:
    """The checksums of a file that is sealed.

    Args:
        source: the file, an open `pyarrow.NativeFile`.
        path: its name, for messages.
        digests: SHA-256 of each row group.
        end: where the last row group ends.
    """

    def __init__(self, source: Any, path: Path, digests: Sequence[bytes], end: int) -> None:
        self._source, self._path, self._digests, self._end = source, path, digests, end
        self._bounds: list[tuple[int, int]] = []
        self._verified: set[int] = set()

    @classmethod
    def of_file(cls, source: Any, path: Path) -> "Seal | None":
        """Read the seal of a file and verify its footer; `None` if the file has none.

        Raises:
            DamagedIndexError: if the footer is not what it was when it was sealed, or is none.
        """
        footer_at, footer = _footer(source, path)
        place = footer_at - _SEAL.size
        if place < len(_MAGIC):
            return None
        digest, count, mark = _SEAL.unpack(source.read_at(_SEAL.size, place))
        if mark != MARK:
            return None
        end = place - count * _DIGEST
        if end < len(_MAGIC):
            raise _damage(path, "its checksums")
        digests = source.read_at(count * _DIGEST, end)
        if digest != _digest_of_footer(digests, footer):
            raise _damage(path, "its footer")
        each = [digests[i : i + _DIGEST] for i in range(0, len(digests), _DIGEST)]
        return cls(source, path, each, end)

    def locate(self, starts: Sequence[int]) -> None:
        """Take the first byte of each row group, as the footer has them."""
        self._bounds = list(pairwise((*starts, self._end)))

    def verify(self, group: int) -> None:
        """Verify a row group, once.

        Raises:
            DamagedIndexError: if its bytes are not what they were when the file was sealed.
        """
        if group in self._verified:
            return
        if _digest_of(self._source, *self._bounds[group]) != self._digests[group]:
            raise _damage(self._path, f"row group {group}")
        self._verified.add(group)


def seal(source: Any, path: Path, starts: Sequence[int]) -> None:
    """Put checksums into a complete Parquet file that has none.

    Args:
        source: the file, open for reading as a `pyarrow.NativeFile`; it is closed.
        path: its name.
        starts: (n,) the first byte of each row group, rising.
    """
    with source:
        footer_at, footer = _footer(source, path)
        bounds = pairwise((*starts, footer_at))
        digests = b"".join(_digest_of(source, start, end) for start, end in bounds)
    with path.open("r+b") as file:
        file.seek(footer_at)
        file.write(digests)
        file.write(_SEAL.pack(_digest_of_footer(digests, footer), len(starts), MARK))
        file.write(footer)
        file.write(_TAIL.pack(len(footer), _MAGIC))


def _footer(source: Any, path: Path) -> tuple[int, bytes]:
    """Return where the footer begins, and its bytes."""
    end = source.size() - _TAIL.size
    if end < len(_MAGIC):
        raise _cut(path)
    length, last = _TAIL.unpack(source.read_at(_TAIL.size, end))
    start = end - length
    if last != _MAGIC or start < len(_MAGIC) or source.read_at(len(_MAGIC), 0) != _MAGIC:
        raise _cut(path)
    return start, source.read_at(length, start)


def _digest_of_footer(digests: bytes, footer: bytes) -> bytes:
    count = struct.pack("<I", len(digests) // _DIGEST)
    return hashlib.sha256(digests + count + footer).digest()


def _digest_of(source: Any, start: int, end: int) -> bytes:
    digest = hashlib.sha256()
    for place in range(start, end, _CHUNK):
        digest.update(source.read_at(min(_CHUNK, end - place), place))
    return digest.digest()


def _damage(path: Path, what: str) -> DamagedIndexError:
    return DamagedIndexError(
        f"{path}: {what} has changed since the index was written (its checksum says so); copy the "
        "file again, or write it anew"
    )


def _cut(path: Path) -> DamagedIndexError:
    return DamagedIndexError(
        f"{path}: not a whole Parquet file (its beginning or end is missing); copy it again"
    )
