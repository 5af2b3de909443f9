"""Write files safely: whole or not at all, never through a link, never over an input.

Every writer of the package goes through this module:

- `atomic_write`, `atomic_write_bytes` and their short forms `write_text`, `write_bytes`,
  `write_json`, `copy_file`: a file appears under its name when it is complete. A link of that name
  is replaced, what it points to is not touched.
- `open_output`: for a file that a user named. A link is followed; a pipe, a terminal or another
  character device is written to and stays what it is.
- `staging_folder`: a hidden folder in which a whole tree is prepared.
- `refuse_inputs`, `refuse_links`: what must not be written to.

Unfinished files and folders are called `.bloodfilm-XXXXXXXX.part`. The writer holds a lock on its
own; those whose lock is free were left by a process that was killed, and the next write into the
same folder removes them.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from bloodfilm.core.errors import DataError

if sys.platform != "win32":
    import fcntl

_PART = re.compile(r"\.bloodfilm-[0-9a-f]{8}\.part")
_DESCRIPTOR = re.compile(r"/dev/(?:std(in|out|err)|fd/(\d+))|/proc/self/fd/(\d+)")
_STANDARD = {"in": 0, "out": 1, "err": 2}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_Identity = tuple[int, int]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a regular file's bytes, in hexadecimal."""
    with regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- whole or not at all ---------------------------------------------------------------------


@contextlib.contextmanager
def atomic_write_bytes(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a binary file that takes its name only once it is complete.

    Missing folders are made. A new file gets the permissions of the user's umask, a file that is
    replaced keeps its own.

    Args:
        path: its name; what has that name is replaced, also a link, but not a folder.
        sync: bring the bytes to the disk first, and remove what killed writes left in the folder.
            Switch it off for many small files that could be made again.

    Raises:
        DataError: if a folder has that name.
        OSError: that names `path`, if it cannot be written.
    """
    if path.is_dir() and not path.is_symlink():
        raise DataError(f"{path}: is a folder; name a file")
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if sync:
            remove_leftovers(path.parent)
        descriptor, part = _new_part(path.parent)
    try:
        with _naming(path), os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            _take_mode(part, path)
            if sync:
                os.fsync(descriptor)
            if sys.platform != "win32":  # under the lock, which ends with the file
                part.replace(path)
        if sys.platform == "win32":
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[TextIO]:
    """Open a text file (UTF-8, newlines as written) that takes its name once it is complete.

    File names that are no UTF-8 come back as the bytes they were. See `atomic_write_bytes`.
    """
    with atomic_write_bytes(path, sync=sync) as file, _as_text(file) as text:
        yield text


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write bytes, whole or not at all."""
    with atomic_write_bytes(path, sync=sync) as file:
        file.write(data)


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Write text (UTF-8), whole or not at all."""
    with atomic_write(path, sync=sync) as file:
        file.write(text)


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write plain data as JSON with a last newline, whole or not at all."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files; none is replaced before all of them are on the disk."""
    with contextlib.ExitStack() as stack:
        for path, data in files.items():
            file = stack.enter_context(atomic_write_bytes(path))
            with _naming(path):
                file.write(data)
                file.flush()
                os.fsync(file.fileno())


def copy_file(source: Path, target: Path, *, sync: bool = False) -> None:
    """Copy a file's bytes, whole or not at all; a link of the target's name is replaced."""
    with regular_file(source).open("rb") as file, atomic_write_bytes(target, sync=sync) as copy:
        shutil.copyfileobj(file, copy)


def open_new(path: Path) -> io.FileIO:
    """Open a file that must not be there yet, unbuffered; a link of that name is refused, too.

    Raises:
        DataError: if something has that name.
    """
    try:
        return path.open("xb", buffering=0)
    except FileExistsError:
        raise DataError(f"{path}: exists; move it away, or name another place") from None


@contextlib.contextmanager
def staging_folder(near: Path) -> Iterator[Path]:
    """Make a hidden folder in `near` to prepare a tree in; removed at the end, if still there.

    The caller moves it, or what is in it, to where it shall be: `near` is on the same disk.
    """
    near.mkdir(parents=True, exist_ok=True)
    remove_leftovers(near)
    folder, descriptor = _new_folder(near)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def _as_text(file: BinaryIO) -> Iterator[TextIO]:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    try:
        yield text
        text.flush()
    finally:
        with contextlib.suppress(OSError, ValueError):  # a full disk has been raised by flush
            text.detach()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of writing name the file that was to be written."""
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else Path(os.fsdecode(error.filename)).name
        if (named is None and error.errno in _FULL) or (named and _PART.fullmatch(named)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _take_mode(part: Path, path: Path) -> None:
    """Give the new file the permissions of the regular file it replaces."""
    try:
        state = path.lstat()
    except OSError:
        return
    if stat.S_ISREG(state.st_mode):
        with contextlib.suppress(OSError):
            part.chmod(stat.S_IMODE(state.st_mode))


# ---- unfinished files ------------------------------------------------------------------------


def remove_leftovers(folder: Path) -> list[str]:
    """Remove unfinished files and folders of processes that were killed; return their names."""
    removed = []
    try:
        names = [name for name in os.listdir(folder) if _PART.fullmatch(name)]  # noqa: PTH208
    except OSError:
        return []
    for name in names:
        part = folder / name
        descriptor = _locked(part)
        if descriptor is None:
            continue
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)
            removed.append(name)
        except OSError:
            pass  # of another user, who will remove it
        finally:
            os.close(descriptor)
    return removed


def _new_part(folder: Path) -> tuple[int, Path]:
    """Create an unfinished file; return its descriptor, which holds the lock, and its path."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        part = folder / f".bloodfilm-{secrets.token_hex(4)}.part"
        try:
            descriptor = os.open(part, flags, 0o666)
        except FileExistsError:
            continue
        _lock(descriptor)
        # Another process may have taken it for a leftover before it was locked.
        if os.fstat(descriptor).st_nlink:
            return descriptor, part
        os.close(descriptor)


def _new_folder(near: Path) -> tuple[Path, int | None]:
    while True:
        folder = near / f".bloodfilm-{secrets.token_hex(4)}.part"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        if sys.platform == "win32":
            return folder, None
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        _lock(descriptor)
        if folder.exists():
            return folder, descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # a file system without locks: leftovers stay there
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _locked(part: Path) -> int | None:
    """Return a descriptor of an unfinished file that nobody writes; `None` if somebody may."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


# ---- files that a user named -----------------------------------------------------------------


@contextlib.contextmanager
def open_output(path: Path) -> Iterator[TextIO]:
    """Open a text file that a user named for output.

    A regular file is replaced when the new one is complete; so is the file that a link points to,
    and the link stays. A pipe or a character device is written to. `/dev/stdout`, `/dev/stderr`
    and `/dev/fd/N` are the process's own streams, wherever they lead.

    Raises:
        DataError: for a folder, a block device, a socket, a link in a circle.
    """
    own = _DESCRIPTOR.fullmatch(str(path))
    if own is not None:
        number = _STANDARD[own[1]] if own[1] else int(own[2] or own[3])
        sys.stdout.flush()
        with _naming(path):
            descriptor = os.dup(number)
        with os.fdopen(descriptor, "wb") as file, _as_text(file) as text:
            yield text
        return
    kind = kind_of(path)
    if kind not in (None, "file", "stream"):
        raise DataError(f"{path}: is a {kind}; name a file")
    if kind == "stream":
        descriptor = os.open(path, os.O_WRONLY)
        with os.fdopen(descriptor, "wb") as file, _as_text(file) as text:
            yield text
        return
    with atomic_write(_followed(path)) as text:
        yield text


def kind_of(path: Path) -> str | None:
    """Say what a path leads to: file, folder, stream (pipe, character device), or what else.

    `None` if there is nothing, also behind a link.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "link in a circle"
        raise
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return "stream"
    return "socket" if stat.S_ISSOCK(mode) else "block device"


def _followed(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


# ---- files that are read ---------------------------------------------------------------------


def regular_file(path: Path) -> Path:
    """Return a path that leads to a regular file, which can be opened without waiting.

    A named pipe would be waited for without end, a device may have none.

    Raises:
        DataError: for a folder, pipe, device or socket, for a name the system cannot have, and if
            there is nothing, or nothing that may be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be read ({reason})") from None
    if stat.S_ISREG(mode):
        return path
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a folder, not a file; name the file in it")
    raise DataError(f"{path}: is a pipe, a device or a socket, not a regular file; copy it to one")


def read_regular_file(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file that is no larger than `most`.

    Raises:
        DataError: that names the file, if it is larger, no regular file, or cannot be read.
    """
    try:
        with regular_file(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise DataError(
                    f"{path}: {_binary_size(size)}, more than the {_binary_size(most)} that are "
                    "read; split it, or check that it is the right file"
                )
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _binary_size(size: int) -> str:
    """Return a number of bytes in a unit that suits it."""
    for unit, width in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << width:
            return f"{size / (1 << width):.4g} {unit}"
    return f"{size} bytes"


# ---- what must not be written to -------------------------------------------------------------


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise if an output is one of the inputs, or lies in an input folder and is there already.

    Files are compared by what they are, not by their names: links and other spellings of a path
    make no difference. Outputs that do not exist, and streams, cost nothing.

    Raises:
        DataError: that names the output.
    """
    wanted: dict[_Identity, Path] = {}
    for output in outputs:
        if kind_of(output) == "file":
            wanted[identity(output)] = output
    if not wanted:
        return
    for given in inputs:
        found = next((i for i in _identities(given) if i in wanted), None)
        if found is None:
            continue
        if given.is_dir():
            raise DataError(
                f"{wanted[found]}: is there already, in the input {given}, and may be part of it; "
                "name a file elsewhere, or delete it first"
            )
        also = "" if str(given) == str(wanted[found]) else f" ({given})"
        raise DataError(f"{wanted[found]}: is an input{also}; name another file to write")


def identity(path: Path, *, follow: bool = True) -> tuple[int, int]:
    """Return (device, inode): equal for two names of one file."""
    state = path.stat() if follow else path.lstat()
    return state.st_dev, state.st_ino


def _identities(given: Path) -> Iterator[_Identity]:
    """Yield the identity of a file, or of all files below a folder; links are followed."""
    seen: set[_Identity] = set()
    places = [given]
    while places:
        place = places.pop()
        try:
            here = identity(place)
            entries = list(os.scandir(place)) if place.is_dir() else []
        except OSError:
            continue  # reading says what is wrong with it
        if here in seen:
            continue
        seen.add(here)
        if not entries and not place.is_dir():
            yield here
        for entry in entries:
            if entry.is_dir():
                places.append(Path(entry.path))
            else:
                with contextlib.suppress(OSError):
                    yield identity(Path(entry.path))


def refuse_links(root: Path, path: Path) -> None:
    """Raise if a folder between `root` and a file below it is a link, which leads elsewhere.

    Raises:
        DataError: that names the link.
    """
    for folder in path.parents:
        if folder == root or not folder.is_relative_to(root):
            return
        if folder.is_symlink():
            raise DataError(
                f"{folder}: is a link to {os.readlink(folder)}, and files would be written there; "  # noqa: PTH115
                "remove the link, or choose another folder to write to"
            )
