"""What finding duplicates needs of every field's pixels, kept small: some 60 kB per field."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1

import cv2
import numpy as np

from bloodfilm.core import BloodfilmError
from bloodfilm.core.arrays import Image
from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.core.progress import Progress, track
from bloodfilm.duplicates.overlaps import Grey, Small, reduced, small_picture
from bloodfilm.imaging.sources.image_file import open_image

KEPT = 48
"""Grey pictures that stay in memory while pairs are verified."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What one field's pixels are recognised by.

    Attributes:
        digest: of the decoded pixels, the same for the picture turned by 180 degrees.
        size: (width, height).
        small: grey, band-passed (see `overlaps.small_picture`).
        quarter: grey, at a quarter of the size (see `overlaps.reduced`).
    """

    digest: str
    size: tuple[int, int]
    small: Small
    quarter: Grey

    @classmethod
    def of_image(cls, image: Image) -> "Fingerprint":
        """Return the fingerprint of an RGB image."""
        pixels = to_grey(image)
        height, width = pixels.shape
        return cls(digest_of(image), (width, height), small_picture(pixels), reduced(pixels))


@dataclass
class Fingerprints:
    """The fields of a table by their pixels.

    Attributes:
        table: of the data set.
        fields: fingerprint by the field's number; a field that cannot be opened has none.
        findings: on images that cannot be opened.
    """

    table: CellTable
    fields: dict[int, Fingerprint] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def loader(self) -> Callable[[int], Grey]:
        """Return a function that opens a field in grey again; the last few are kept."""

        @lru_cache(maxsize=KEPT)
        def load(number: int) -> Grey:
            return to_grey(open_image(self.table.rows[number].path))

        return load


def fingerprint_fields(table: CellTable, progress: Progress) -> Fingerprints:
    """Open every field that is on disk once."""
    found = Fingerprints(table)
    rows = track(table.rows, progress, "looking at fields", len(table.rows))
    for number, row in enumerate(rows):
        if row.is_on_disk:
            try:
                found.fields[number] = Fingerprint.of_image(open_image(row.path))
            except BloodfilmError as error:
                found.findings.append(unreadable_image(row.path, error))
    return found


def unreadable_image(path: str, error: BloodfilmError) -> Finding:
    """Return the finding on an image that cannot be opened."""
    reason = " ".join(str(error).split()).removeprefix(f"{path}: ")
    advice = "copy it again from its source"
    return Finding("unreadable-image", "error", reason, file=path, advice=advice)


def to_grey(image: Image) -> Grey:
    """Return an RGB image in grey."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def digest_of(image: Image) -> str:
    """Return a digest of pixels that is the same for the picture turned by 180 degrees."""
    turned = np.ascontiguousarray(image[::-1, ::-1])
    both = (sha1(p.tobytes(), usedforsecurity=False).hexdigest() for p in (image, turned))
    return min(both)
