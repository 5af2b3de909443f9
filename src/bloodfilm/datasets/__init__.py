"""Fetch public data sets: only from their own addresses, checked, resumable, safely unpacked."""

from bloodfilm.datasets.catalogue import CATALOGUE, Part, Source
from bloodfilm.datasets.install import fetch

__all__ = ["CATALOGUE", "Part", "Source", "fetch"]
