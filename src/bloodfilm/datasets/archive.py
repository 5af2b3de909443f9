"""Unpack zip archives safely: no paths outside the folder, no decompression bombs."""

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from bloodfilm.core.errors import DataError
from bloodfilm.core.files import regular_file, staging_folder
from bloodfilm.core.progress import NoProgress, Progress

MAX_FILES = 200_000
MAX_BYTES = 64 << 30
MAX_RATIO = 200
SMALL = 16 << 20
"""Below this unpacked size the compression ratio is not limited."""
JUNK = frozenset({"__MACOSX", ".DS_Store"})
BLOCK = 1 << 18

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
Member = tuple[zipfile.ZipInfo, PurePosixPath]


class OccupiedError(DataError):
    """The target path of an archive exists already; the archive itself is intact.

    Attributes:
        path: the existing path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path}: is in the way; remove it, or choose another --out")


def unpack(
    archive: Path,
    folder: Path,
    *,
    strip: int = 0,
    tree: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Unpack a zip into a folder; return the number of files.

    Atomic: files are unpacked into a staging folder and moved into `folder` when all are intact.
    Existing files are not touched.

    Args:
        archive: the zip.
        folder: the destination; created if missing.
        strip: number of leading path components to remove from every name.
        tree: the expected git tree id (SHA-1) of the files, after stripping.
        progress: receives the number of bytes unpacked.

    Raises:
        DataError: if a name leads outside, is a link, a device or comes twice; if it would unpack
            to far more than it holds; if it is damaged, encrypted, or not the tree it should be.
        OccupiedError: if a target path exists.
    """
    try:
        with zipfile.ZipFile(regular_file(archive)) as opened:
            members = _members(opened, archive, strip)
            if tree is not None and (found := git_tree(opened, members)) != tree:
                raise DataError(
                    f"{archive.name}: its files make up git tree {found}, {tree} was published; "
                    "the set has changed or is damaged, tell the maintainers"
                )
            return _place(opened, members, folder, progress or NoProgress())
    except _DAMAGE as error:
        raise DataError(_damaged(archive, error)) from None


def unpack_together(
    archives: Sequence[Path],
    folder: Path,
    *,
    progress: Progress | None = None,
) -> int:
    """Unpack zips that are parts of one folder; return the number of files.

    Atomic over all zips: a damaged one is an error. A file that is in
    several must be the same in each.

    Raises:
        DataError: as `unpack` does, or if two zips hold different files of one name.
    """
    seen: dict[str, tuple[int, int, Path]] = {}
    progress = progress or NoProgress()
    done, total = 0, sum(archive.stat().st_size for archive in archives)
    with staging_folder(folder) as staging:
        for archive in archives:
            try:
                with zipfile.ZipFile(regular_file(archive)) as opened:
                    _stage(opened, archive, staging, seen)
            except _DAMAGE as error:
                raise DataError(_damaged(archive, error)) from None
            done += archive.stat().st_size
            progress.update("unpacking", done, total)
            progress.check_cancelled()
        _reveal(staging, folder)
    return len(seen)


def _stage(
    opened: zipfile.ZipFile, archive: Path, staging: Path, seen: dict[str, tuple[int, int, Path]]
) -> None:
    """Unpack the new files of one of several zips; record names, lengths and checksums."""
    for info, name in _members(opened, archive, 0):
        own = info.file_size, info.CRC
        known = seen.setdefault(str(name).lower(), (*own, archive))
        if known[:2] != own:
            raise DataError(
                f"{archive.name}: {str(name)!r} differs from that of {known[2].name}: keep zips of "
                "one download together, and no others"
            )
        target = staging / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(opened, info, target)


def _reveal(staging: Path, folder: Path) -> None:
    """Move the top-level entries into the folder; `OccupiedError` if a target path exists."""
    tops = sorted(staging.iterdir())
    for top in tops:
        if os.path.lexists(folder / top.name):
            raise OccupiedError(folder / top.name)
    for top in tops:
        top.rename(folder / top.name)


def _damaged(archive: Path, error: Exception) -> str:
    return f"{archive.name}: is not a valid zip ({error}); remove it and fetch it again"


def _members(opened: zipfile.ZipFile, archive: Path, strip: int) -> list[Member]:
    """The files of an archive with the names they get; `DataError` if one is unsafe."""
    infos = opened.infolist()
    total = sum(info.file_size for info in infos)
    if len(infos) > MAX_FILES or total > MAX_BYTES:
        raise DataError(f"{archive.name}: {len(infos)} files, {total} bytes: too large")
    packed = archive.stat().st_size
    if total > SMALL and total > MAX_RATIO * packed:
        raise DataError(f"{archive.name}: {packed} bytes claim to hold {total}: not unpacked")
    members: list[Member] = []
    seen: set[str] = set()
    for info in infos:
        name = safe_name(info, archive)
        parts = name.parts[strip:]
        if info.is_dir() or not parts or JUNK & set(name.parts):
            continue
        key = "/".join(parts).lower()
        if key in seen:
            raise DataError(f"{archive.name}: holds {key!r} twice: not unpacked")
        seen.add(key)
        members.append((info, PurePosixPath(*parts)))
    if not members:
        raise DataError(f"{archive.name}: holds no files")
    return members


def safe_name(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """A member's name as a relative path; `DataError` if it is not a plain file or leads out."""
    raw = info.filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"{archive.name}: {raw!r} is a link or a device: not unpacked")
    if info.flag_bits & 1:
        raise DataError(f"{archive.name}: {raw!r} is encrypted: not unpacked")
    name = PurePosixPath(raw)
    # `orig_filename` is what the archive says before zipfile cuts it at a null byte.
    odd = "\\" in info.orig_filename or "\0" in info.orig_filename or re.match(r"[A-Za-z]:", raw)
    if odd or name.is_absolute() or ".." in name.parts or not name.parts:
        raise DataError(f"{archive.name}: {raw!r} would lead outside the folder: not unpacked")
    return name


def _place(
    opened: zipfile.ZipFile,
    members: list[Member],
    folder: Path,
    progress: Progress,
) -> int:
    """Unpack into a staging folder, then move the top-level entries into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tops = list(dict.fromkeys(name.parts[0] for _, name in members))
    for top in tops:
        if os.path.lexists(folder / top):
            raise OccupiedError(folder / top)
    with staging_folder(folder) as staging:
        total, done = sum(info.file_size for info, _ in members), 0
        for info, name in members:
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            done += _write(opened, info, target)
            progress.update(f"unpacking {Path(opened.filename or '').name}", done, total)
            progress.check_cancelled()
        for top in tops:
            (staging / top).rename(folder / top)
    return len(members)


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> int:
    """Write one member; no more bytes than it claims."""
    done = 0
    with opened.open(info) as source, target.open("xb") as file:
        while block := source.read(BLOCK):
            done += len(block)
            if done > info.file_size:
                raise DataError(f"{info.filename}: holds more than it claims: not unpacked")
            file.write(block)
    return done


def git_tree(opened: zipfile.ZipFile, members: list[Member]) -> str:
    """The git tree id that the members make up: SHA-1 over names, modes and contents.

    Format: git's own documentation, gitformat-pack and "Git Internals - Git Objects".
    """
    folders: dict[PurePosixPath, dict[str, tuple[bytes, bytes]]] = {PurePosixPath(): {}}
    for info, name in members:
        for parent in name.parents:
            folders.setdefault(parent, {})
        blob = hashlib.sha1(b"blob %d\0" % info.file_size, usedforsecurity=False)
        with opened.open(info) as file:
            while block := file.read(BLOCK):
                blob.update(block)
        mode = b"100755" if (info.external_attr >> 16) & stat.S_IXUSR else b"100644"
        folders[name.parent][name.name] = mode, blob.digest()
    for place in sorted(folders, key=lambda p: -len(p.parts)):
        entries = folders[place]
        # Git sorts folders as if their names ended in a slash.
        order = sorted(entries, key=lambda n: (n + "/" * (entries[n][0] == b"40000")).encode())
        body = b"".join(b"%s %s\0%s" % (entries[n][0], n.encode(), entries[n][1]) for n in order)
        digest = hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False)
        if place == PurePosixPath():
            return digest.hexdigest()
        folders[place.parent][place.name] = b"40000", digest.digest()
    raise AssertionError("the root is always among the folders")
