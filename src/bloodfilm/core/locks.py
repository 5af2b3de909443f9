"""One process at a time in a folder: a lock that names its holder and dies with it.

The lock is held by the operating system (`flock`, on Windows `msvcrt.locking`) on a small file in
the folder, so it is free as soon as its process is gone, however it ended. The file says who holds
it. On a file system without locks the folder is used without one.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".bloodfilm-lock"
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_held = threading.local()  # .paths: what this thread holds
_AREA = 1 << 30  # Windows: the byte that is locked lies behind the text, which stays readable


@contextlib.contextmanager
def lock_folder(folder: Path, work: str, *, nested: bool = False) -> Iterator[None]:
    """Hold a folder, which must be there, for one process while the block runs.

    Args:
        folder: where the lock lies.
        work: what is done there, in a word or two; shown to a process that is refused.
        nested: whether a caller in the same thread may hold it already, which is enough then.

    Raises:
        OutputError: if another process works there; says which, where and since when.
    """
    with _hold(folder / LOCK, work, str(folder), nested):
        yield


@contextlib.contextmanager
def lock_path(path: Path, work: str) -> Iterator[None]:
    """Hold a file or folder that may not be there yet, by a lock beside it; its parent must be.

    Args:
        path: what is to be made or replaced.
        work: as of `lock_folder`.

    Raises:
        OutputError: if another process makes it.
    """
    name = os.fsdecode(os.fsencode(path.name)[:200])
    with _hold(path.parent / f".{name}{LOCK}", work, str(path), nested=False):
        yield


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but, maybe, its lock."""
    with os.scandir(folder) as entries:
        return all(entry.name == LOCK for entry in entries)


@contextlib.contextmanager
def _hold(path: Path, work: str, what: str, nested: bool) -> Iterator[None]:
    held: set[str] = _held.__dict__.setdefault("paths", set())
    name = os.path.realpath(path)
    if nested and name in held:
        yield
        return
    descriptor = _acquire(path, what)
    held.add(name)
    try:
        _sign(descriptor, work)
        yield
    finally:
        held.discard(name)
        if sys.platform == "win32":
            _unlock(descriptor)
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            with contextlib.suppress(OSError):  # under the lock: nobody else holds this file
                path.unlink()
            os.close(descriptor)


def _acquire(path: Path, what: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        try:
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OutputError(f"{path}: is a link; remove it", ["other-output"]) from None
            raise
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor
            holder = _holder(descriptor)
            os.close(descriptor)
            raise OutputError(
                f"{what}: {holder} works in this place", ["wait", "other-output"]
            ) from None
        # The holder before may have removed the file between our opening and locking it.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _AREA, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(descriptor: int) -> None:
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            os.lseek(descriptor, _AREA, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)


def _sign(descriptor: int, work: str) -> None:
    record = {
        "work": work,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):  # a full disk: the lock holds, though nobody can read whose
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(record).encode())


def _holder(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        record: Any = json.loads(os.read(descriptor, 4096))
        pid, host, since = int(record["pid"]), str(record["host"]), str(record["since"])
        return f"another process ({record['work']}, process {pid} on {host}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
