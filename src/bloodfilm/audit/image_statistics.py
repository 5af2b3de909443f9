"""One look at every field's pixels: all that the checks need of them, kept small.

A field keeps about 100 kB: small grey pictures, a small map of its optical density, colours and
measurements. Each image is opened once here, and again only where two may overlap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.cell_table import Table
from bloodfilm.audit.finding import Finding
from bloodfilm.core import BloodfilmError
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.duplicates.overlaps import describe, reduced
from bloodfilm.imaging.canonical import view_of
from bloodfilm.imaging.red_cells import red_cell_tone
from bloodfilm.imaging.scale import Measurement, measure
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.analyzer import measure_sharpness

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

MAP_STEP = 4


@dataclass(frozen=True, eq=False)
class FieldStatistics:
    """What one field's pixels say.

    Attributes:
        digest: of the decoded pixels, the same for the picture turned by half a turn.
        small, rough: grey pictures for the search of overlaps (see `overlaps`).
        white: background colour, RGB; tone: optical density of the red cells, per channel.
        density: red and green optical density of every 4 x 4 px, in 64ths, (h, w, 2).
        measurement: of the red cells.
        sharpness: see `inference.analyzer.measure_sharpness`; `None` if it was not asked for.
    """

    digest: str
    size: tuple[int, int]
    small: Floats
    rough: Pixels
    white: tuple[float, float, float]
    tone: Floats
    density: Pixels
    measurement: Measurement
    sharpness: float | None


@dataclass
class Survey:
    """Every field's look by its number; fields that cannot be opened have none."""

    table: Table
    looks: dict[int, FieldStatistics] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def groups(self) -> dict[tuple[str, str], list[int]]:
        """Return the numbers of the fields of each (patient, domain)."""
        groups: dict[tuple[str, str], list[int]] = {}
        for number in self.looks:
            row = self.table.rows[number]
            groups.setdefault((row.patient or "", row.domain.name), []).append(number)
        return groups

    def loader(self) -> Callable[[int], Pixels]:
        """Return a function that opens a field in grey again; the last few are kept."""

        @lru_cache(maxsize=48)
        def load(number: int) -> Pixels:
            return grey(open_image(self.table.rows[number].path))

        return load


def survey(table: Table, progress: Progress | None = None) -> Survey:
    """Look at every field that is on disk."""
    found = Survey(table)
    rows = track(table.rows, progress or NoProgress(), "looking at fields", len(table.rows))
    for number, row in enumerate(rows):
        if row.present and Path(row.path).is_file():
            try:
                found.looks[number] = look_at(open_image(row.path))
            except BloodfilmError as error:
                what = " ".join(str(error).split()).removeprefix(f"{row.path}: ")
                hint = "copy it again from its source"
                found.findings.append(Finding("unreadable image", "error", row.path, what, hint))
    return found


def look_at(image: Pixels) -> FieldStatistics:
    """Look at one field, uint8 RGB (H, W, 3)."""
    pixels = grey(image)
    seen = measure(image)
    tone = -np.log(np.clip(1 - red_cell_tone(image, seen.white_point) / 255, 0.02, 1))
    height, width = pixels.shape
    sharpness = None
    if seen.speaks:
        sharpness = measure_sharpness(view_of(seen).render(image))
    return FieldStatistics(
        digest_of(image),
        (width, height),
        describe(pixels),
        reduced(pixels),
        seen.white_point,
        np.asarray(tone, np.float32),
        density_map(image, seen.white_point),
        seen,
        sharpness,
    )


def grey(image: Pixels) -> Pixels:
    """Return an RGB image in grey."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def digest_of(image: Pixels) -> str:
    """Return a digest of pixels that does not change when the picture is turned by half a turn."""
    turned = np.ascontiguousarray(image[::-1, ::-1])
    both = (sha1(p.tobytes(), usedforsecurity=False).hexdigest() for p in (image, turned))
    return min(both)


def density_map(image: Pixels, white: tuple[float, float, float]) -> Pixels:
    """Return red and green optical density of every 4 x 4 px, in 64ths, (h, w, 2)."""
    level = np.clip(np.arange(256, dtype=np.float64), 4, None)
    planes = [
        np.clip(64 * np.log(max(white[c], 5.0) / level), 0, 255).astype(np.float32)[image[..., c]]
        for c in (0, 1)
    ]
    height, width = image.shape[:2]
    size = max(1, width // MAP_STEP), max(1, height // MAP_STEP)
    small = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in planes]
    return np.asarray(np.stack(small, axis=-1) + 0.5, dtype=np.uint8)


def in_view(found: Survey) -> Iterator[tuple[int, FieldStatistics]]:
    """Yield every field that has a look, in order."""
    yield from sorted(found.looks.items())
