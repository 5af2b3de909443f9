"""Fetch a data set of the catalogue into a folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import regular_file, sha256_of, write_json
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.datasets.archive import OccupiedError, unpack
from bloodfilm.datasets.catalogue import ArchivePart, DownloadSource
from bloodfilm.datasets.download import RetryPolicy, download, read_small

RECORD = "fetched.json"
DOWNLOADS = ".download"


def fetch(
    source: DownloadSource,
    folder: Path,
    *,
    accept_licence: bool,
    progress: Progress | None = None,
    retry_policy: RetryPolicy | None = None,
) -> dict[str, Any]:
    """Fetch a data set; return its record, which is also added to `fetched.json` in the folder.

    Parts already present are not fetched again; an interrupted download is resumed.

    Raises:
        ConfigError: if the licence is not accepted, or the set has to be downloaded by hand.
        DataError: if a part cannot be fetched, fails its checksum, or its path is occupied.
    """
    if not source.parts:
        raise ConfigError(f"{source.name}: cannot be fetched by a program; see {source.page}")
    if not accept_licence:
        raise ConfigError(
            f"{source.name}: is under {source.licence}; read {source.page}, then give "
            "--accept-licence"
        )
    progress = progress or NoProgress()
    folder.mkdir(parents=True, exist_ok=True)
    record = read_record(folder)
    entry = record.setdefault(source.name, {"page": source.page, "licence": source.licence})
    parts = entry.setdefault("parts", {})
    for part in source.parts:
        if _is_installed(part, folder, parts.get(part.name)):
            progress.update(part.name, 1, 1)
            continue
        parts[part.name] = _fetch_part(part, folder, progress, retry_policy)
        _write_record(folder, record)
    return dict(entry)


def _is_installed(part: ArchivePart, folder: Path, known: Any) -> bool:
    """Whether an earlier run fetched this part and its files still exist."""
    if not isinstance(known, dict) or known.get("url") != part.url:
        return False
    if part.archive:
        return all((folder / str(name)).exists() for name in known.get("holds", [""]))
    path = folder / part.name
    return path.is_file() and sha256_of(path) == known.get("sha256")


def _fetch_part(
    part: ArchivePart, folder: Path, progress: Progress, retry_policy: RetryPolicy | None
) -> dict[str, Any]:
    url = part.url
    if part.listing is not None:
        part = resolve_part(part, retry_policy)
    target = folder / DOWNLOADS / part.name if part.archive else folder / part.name
    if not part.archive and target.exists():
        raise OccupiedError(target)
    found: dict[str, Any] = {"url": url}
    if part.archive and target.exists():
        # Downloaded completely by an earlier run, but not unpacked.
        found["sha256"] = sha256_of(target)
    if found.get("sha256") is None or part.sha256 not in (None, found["sha256"]):
        found["sha256"] = download(
            part.url,
            target,
            sha256=part.sha256,
            size=part.size,
            progress=progress,
            retry_policy=retry_policy,
        )
    found["checked_against"] = _checks(part)
    if part.archive:
        before = {p.name for p in folder.iterdir()}
        found["files"] = _unpacked(part, target, folder, progress)
        found["holds"] = sorted({p.name for p in folder.iterdir()} - before)
    return found


def _unpacked(part: ArchivePart, archive: Path, folder: Path, progress: Progress) -> int:
    """Unpack an archive and delete it; a damaged one is deleted, too."""
    try:
        count = unpack(
            archive,
            folder,
            strip=part.strip,
            tree=part.tree,
            progress=progress,
        )
    except OccupiedError:
        raise  # the archive is intact, and is kept for the next attempt
    except DataError:
        archive.unlink(missing_ok=True)
        raise
    archive.unlink()
    if not any((folder / DOWNLOADS).iterdir()):
        (folder / DOWNLOADS).rmdir()
    return count


def _checks(part: ArchivePart) -> str:
    """Name of the check that a part has passed."""
    if part.sha256:
        return "SHA-256"
    return f"git tree {part.tree}" if part.tree else "nothing: no checksum is published"


def resolve_part(part: ArchivePart, retry_policy: RetryPolicy | None) -> ArchivePart:
    """Return the part with length, checksum and address from Mendeley's list of files."""
    assert part.listing is not None
    try:
        rows = json.loads(read_small(part.listing, retry_policy))
        row = next(r for r in rows if r["filename"] == part.name)
        details = row["content_details"]
        sha256, size = str(details["sha256_hash"]).lower(), int(details["size"])
        address = str(details.get("download_url") or part.url)
    except (StopIteration, KeyError, TypeError, ValueError):
        raise DataError(
            f"{part.listing}: does not list {part.name} with its checksum; the publisher's "
            "interface has changed, fetch the file by hand"
        ) from None
    if len(sha256) != 64 or size <= 0:
        raise DataError(f"{part.listing}: lists an invalid checksum or length")
    return replace(part, sha256=sha256, size=size, url=address)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of earlier runs in a folder; empty if missing or unreadable."""
    try:
        content = json.loads(regular_file(folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, DataError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    write_json(folder / RECORD, record)
