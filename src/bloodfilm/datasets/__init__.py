"""Fetch public data sets: only from their own addresses, checked, resumable, safely unpacked."""

from bloodfilm.datasets.catalogue import CATALOGUE, ArchivePart, DownloadSource
from bloodfilm.datasets.install import fetch

__all__ = ["CATALOGUE", "ArchivePart", "DownloadSource", "fetch"]
