"""JSON labels inside `labels.zip`, where L_100X_C2 has them: read in place, never unpacked."""

import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bloodfilm.core import DataError
from bloodfilm.core.files import regular_file
from bloodfilm.core.json_text import parse_json
from bloodfilm.formats.shared.parsing import decode
from bloodfilm.formats.shared.paths import split_of

NAME = "labels.zip"
MOST_BYTES = 1 << 30
MOST_RATIO = 200
SMALL = 16 << 20
"""A member that grows by more than `MOST_RATIO` to more than `SMALL` bytes is a bomb, no labels."""
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


def zipped_labels(archive: Path) -> Iterator[tuple[Path, Any]]:
    """Yield (archive/member, content) of each JSON file named after a split, sorted.

    Raises:
        DataError: if the archive is broken, locked or a bomb, or holds two files of one name.
    """
    try:
        with zipfile.ZipFile(regular_file(archive)) as zipped:
            members = sorted(filter(_is_labels, zipped.infolist()), key=lambda m: m.filename)
            _refuse_twins(archive, members)
            for member in members:
                where = archive / PurePosixPath(member.filename).name
                _refuse_bomb(where, member)
                yield where, parse_json(decode(_unpacked(zipped, member), where), where)
    except _BROKEN as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); fetch it again") from None


def _unpacked(zipped: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return a member's bytes; no more are unpacked than the archive says there are."""
    with zipped.open(member) as file:
        return b"".join(iter(lambda: file.read(1 << 20), b""))


def _is_labels(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    named = path.suffix.lower() == ".json" and split_of(path.stem) is not None
    return named and not hidden and not member.is_dir()


def _refuse_twins(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    names = Counter(split_of(PurePosixPath(m.filename).stem) for m in members)
    for split, count in names.items():
        if count > 1:
            raise DataError(
                f"{archive}: holds {count} label files of split {split}; unpack the right one "
                "into a folder json_labels and put the archive away"
            )


def _refuse_bomb(where: Path, member: zipfile.ZipInfo) -> None:
    size, packed = member.file_size, max(1, member.compress_size)
    if size > MOST_BYTES or (size > SMALL and size / packed > MOST_RATIO):
        raise DataError(
            f"{where}: would unpack to {size / 2**20:.0f} MiB from {packed / 2**20:.1f} MiB; "
            "no label file does; if you trust it, unpack it into a folder json_labels yourself"
        )
