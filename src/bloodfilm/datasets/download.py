"""Download one file: resumable, bounded in time and size, verified before it is renamed."""

import errno
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from bloodfilm import __version__
from bloodfilm.core.errors import DataError
from bloodfilm.core.files import regular_file, sha256_of, write_text
from bloodfilm.core.progress import NoProgress, Progress

BLOCK = 1 << 16
MAX_BYTES = 32 << 30
MAX_LISTING = 8 << 20
TRIES = 5
TIMEOUT = 30.0
LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
AGENT = f"bloodfilm/{__version__} (data fetch)"


class BrokenConnectionError(Exception):
    """A connection error that a retry may resolve."""


@dataclass
class RetryPolicy:
    """Timeout, number of attempts and back-off.

    Attributes:
        timeout: seconds without data before a connection is abandoned.
        tries: attempts without progress before the download fails.
        pause: seconds before the second attempt, doubled before each further one.
    """

    timeout: float = TIMEOUT
    tries: int = TRIES
    pause: float = 1.0


@dataclass
class _Download:
    """State of one download.

    `identity` is the checksum where known: addresses may change on every visit.
    """

    url: str
    part: Path
    size: int | None
    identity: str
    progress: Progress
    retry_policy: RetryPolicy

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.part.name.removesuffix(".part")

    @property
    def note(self) -> Path:
        """Path of the metadata file that identifies the partial file."""
        return self.part.with_name(self.part.name + ".json")

    def have(self) -> int:
        """Bytes of this file received so far; a partial file of another version is deleted."""
        if self.part.is_symlink() or not self.part.exists():
            return 0
        if self.mark().get("identity") != self.identity:
            self.restart()
            return 0
        return self.part.stat().st_size

    def mark(self) -> dict[str, Any]:
        """The metadata of the partial file, empty if missing or unreadable."""
        try:
            content = json.loads(regular_file(self.note).read_text(encoding="utf-8"))
        except (OSError, ValueError, DataError):
            return {}
        return content if isinstance(content, dict) else {}

    def restart(self) -> None:
        """Delete the partial file and its metadata."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    progress: Progress | None = None,
    retry_policy: RetryPolicy | None = None,
) -> str:
    """Download a file to `target`; return its SHA-256.

    Received data is kept in `target` + `.part`; a later call resumes if the server supports it and
    has the same file. `target` is created only after length and checksum are verified.

    Raises:
        DataError: if it fails; `.part` is kept where it can be resumed.
    """
    check_address(url)
    part = target.with_name(target.name + ".part")
    job = _Download(
        url, part, size, sha256 or url, progress or NoProgress(), retry_policy or RetryPolicy()
    )
    job.part.parent.mkdir(parents=True, exist_ok=True)
    tries = 0
    while True:
        before = job.have()
        try:
            _attempt(job, before)
            break
        except BrokenConnectionError as error:
            tries = 1 if job.have() > before else tries + 1
            if tries >= job.retry_policy.tries:
                raise DataError(
                    f"{url}: {error}; gave up after {tries} tries without progress; "
                    f"{job.have()} bytes are kept, run the command again to go on"
                ) from None
            time.sleep(job.retry_policy.pause * 2 ** (tries - 1))
    return _finish(job, target, sha256)


def _finish(job: _Download, target: Path, sha256: str | None) -> str:
    length = job.part.stat().st_size
    if job.size is not None and length != job.size:
        job.restart()
        raise DataError(
            f"{job.url}: {length} bytes came, {job.size} were announced by its publisher; "
            "the file has changed or is damaged, and was thrown away"
        )
    found = sha256_of(job.part)
    if sha256 is not None and found != sha256.lower():
        job.restart()
        raise DataError(
            f"{job.url}: SHA-256 is {found}, {sha256.lower()} was published; the file has changed "
            "or is damaged, and was thrown away; try again, or tell the maintainers"
        )
    job.part.replace(target)
    job.note.unlink(missing_ok=True)
    return found


def _attempt(job: _Download, have: int) -> None:
    """Request and append the missing bytes; `BrokenConnectionError` if a retry may help."""
    if have and job.size is not None and have == job.size:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": AGENT}
    mark = job.mark()
    if have:
        headers["Range"] = f"bytes={have}-"
        if mark.get("tag"):
            headers["If-Range"] = str(mark["tag"])
    try:
        with _open(job.url, headers, job.retry_policy.timeout) as response:
            _receive(job, response, have)
    except urllib.error.HTTPError as error:
        _refused(job, error, have)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            raise
        raise BrokenConnectionError(_reason(error)) from None


def _refused(job: _Download, error: urllib.error.HTTPError, have: int) -> None:
    """Handle an HTTP error status."""
    total = _total(error.headers.get("Content-Range", ""))
    error.close()
    if error.code == 416 and have:
        if total == have:
            return
        job.restart()
        raise BrokenConnectionError("the file on the server has changed")
    if error.code in AGAIN:
        raise BrokenConnectionError(f"the server answered {error.code}")
    raise DataError(
        f"{job.url}: the server answered {error.code} {sanitize(str(error.reason))}; the address "
        "may have moved, see the set's own page"
    )


def _receive(job: _Download, response: Any, have: int) -> None:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DataError(f"{job.url}: the server re-packs the file; it cannot be verified")
    length = response.headers.get("Content-Length", "")
    announced = int(length) if length.isdigit() else None
    start = have if response.status == 206 else 0
    if response.status == 206:
        given = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if given is None or int(given[1]) != have:
            job.restart()
            raise BrokenConnectionError("the server sent another byte range than requested")
    total = None if announced is None else start + announced
    _check_length(job, total, start)
    if start == 0:
        job.part.unlink(missing_ok=True)  # never write through a link
        # A server that ignores ranges sends everything again, from the first byte.
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        strong = tag if tag and not tag.startswith("W/") else None
        mark = {"identity": job.identity, "tag": strong}
        write_text(job.note, json.dumps(mark))
    with job.part.open("ab" if start else "wb") as file:
        got = _copy(job, response, file, start, total)
    if total is not None and got < total:
        raise BrokenConnectionError(f"the connection was cut after {got} of {total} bytes")


def _check_length(job: _Download, total: int | None, start: int) -> None:
    """Refuse an implausible length, or one that exceeds the free disk space."""
    if job.size is not None and total is not None and total != job.size:
        job.restart()
        raise DataError(
            f"{job.url}: the server announces {total} bytes, its publisher {job.size}; "
            "the file has changed, tell the maintainers"
        )
    expected = total or job.size or 0
    if expected > MAX_BYTES:
        raise DataError(f"{job.url}: {expected} bytes exceed the limit for these sets")
    free = shutil.disk_usage(job.part.parent).free
    if expected - start > free:
        raise DataError(
            f"{job.part.parent}: {(expected - start) >> 20} MiB are to come and {free >> 20} MiB "
            "are free; make room, or choose another --out"
        )


def _copy(job: _Download, response: Any, file: BinaryIO, start: int, total: int | None) -> int:
    """Append the response to a file; return the resulting length."""
    got, limit = start, total or job.size or MAX_BYTES
    while block := response.read1(BLOCK):
        got += len(block)
        if got > limit:
            raise DataError(f"{job.url}: more bytes come than the {limit} announced")
        file.write(block)
        job.progress.update(job.name, got, total or job.size)
        job.progress.check_cancelled()
    return got


def read_small(url: str, retry_policy: RetryPolicy | None = None) -> bytes:
    """Return a small file (a listing), at most `MAX_LISTING` bytes; `DataError` if it fails."""
    check_address(url)
    retry_policy = retry_policy or RetryPolicy()
    try:
        with _open(url, {"User-Agent": AGENT, "Accept": "*/*"}, retry_policy.timeout) as response:
            data: bytes = response.read(MAX_LISTING + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url}: {_reason(error)}") from None
    if len(data) > MAX_LISTING:
        raise DataError(f"{url}: is larger than the limit for a list of files")
    return data


# ---- addresses ---------------------------------------------------------------------------------


def check_address(url: str) -> None:
    """Accept https, and http on this machine only; `DataError` otherwise."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL):
        return
    raise DataError(f"{url}: only https addresses are fetched")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to addresses that pass `check_address` only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """Check the new address, then follow it."""
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str], timeout: float) -> Any:
    opener = urllib.request.build_opener(_Redirects)
    return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)


def _reason(error: Exception) -> str:
    """Short description of a connection error."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError) or "timed out" in str(cause):
        return "the server stopped responding"
    return f"the connection failed ({sanitize(str(cause)) or type(cause).__name__})"


def sanitize(text: str) -> str:
    """Text from a server, shortened and safe for a terminal."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(plain.split())[:100]


def _total(content_range: str) -> int | None:
    found = re.search(r"/(\d+)$", content_range)
    return int(found[1]) if found else None
