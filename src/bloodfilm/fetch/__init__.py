"""Fetch public data sets: only from their own addresses, checked, resumable, safely unpacked."""

from bloodfilm.fetch.catalogue import CATALOGUE, Part, Source
from bloodfilm.fetch.fetching import fetch

__all__ = ["CATALOGUE", "Part", "Source", "fetch"]
