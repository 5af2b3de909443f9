"""Bring public data sets here, under their own licences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.issues import Issue
from bloodfilm.core.progress import Progress
from bloodfilm.datasets import CATALOGUE, DownloadSource, fetch
from bloodfilm.datasets.archive import unpack_together
from bloodfilm.datasets.download import RetryPolicy
from bloodfilm.formats import open_dataset
from bloodfilm.workflows.outputs import hold_folder


def find_source(name: str) -> DownloadSource:
    """Return a data set of the catalogue by name."""
    source = CATALOGUE.get(name.lower())
    if source is None:
        raise ConfigError(f"no data set {name!r} is known; choose from {', '.join(CATALOGUE)}")
    return source


def download(
    source: DownloadSource,
    out: Path | None,
    *,
    accept_licence: bool,
    retries: RetryPolicy | None = None,
    progress: Progress | None = None,
) -> Mapping[str, Any]:
    """Fetch a data set from its own address into a folder; return what came, by part."""
    folder = _folder(out)
    if not accept_licence:
        raise ConfigError(_unaccepted(source))
    with hold_folder(folder, "download"):
        return fetch(source, folder, accept_licence=True, progress=progress, retry_policy=retries)


@dataclass(frozen=True)
class Unpacked:
    """What zips that were downloaded by hand held."""

    archives: int
    files: int
    fields: int
    cells: int
    issues: Sequence[Issue]


def unpack_downloads(
    source: DownloadSource,
    zips: Path,
    out: Path | None,
    *,
    accept_licence: bool,
    progress: Progress | None = None,
) -> Unpacked:
    """Unpack zips that a person downloaded, all or none, and count what is in them."""
    if source.parts:
        raise ConfigError(f"{source.name}: needs no --zips; it is fetched from its own address")
    folder = _folder(out)
    if not accept_licence:
        raise ConfigError(_unaccepted(source))
    archives = sorted(p for p in zips.glob("*.zip") if p.is_file()) if zips.is_dir() else []
    if not archives:
        raise DataError(f"{zips}: no zips there; name the folder they were downloaded to")
    with hold_folder(folder, "unpacking"):
        files = unpack_together(archives, folder, progress=progress)
    dataset = open_dataset(folder)
    cells = sum(len(f.cells) for f in dataset)
    return Unpacked(len(archives), files, len(dataset), cells, dataset.issues)


def _unaccepted(source: DownloadSource) -> str:
    return (
        f"{source.name}: is under {source.licence}; read {source.page}, then give --accept-licence"
    )


def _folder(out: Path | None) -> Path:
    if out is None:
        raise ConfigError("--out is missing: name the folder the data set shall go to")
    return out
