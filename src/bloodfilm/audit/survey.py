"""One look at every field's pixels: all that the checks need of them, kept small.

A field keeps about 60 kB: a small grey picture, a small map of how like a nucleus each place is,
colours and measurements. Each image is opened once here, and again only where two may overlap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.finding import Finding
from bloodfilm.audit.overlaps import describe, reduced
from bloodfilm.audit.table import Table
from bloodfilm.core import BloodfilmError
from bloodfilm.imaging.canonical import view_of
from bloodfilm.imaging.measure import Measurement, measure
from bloodfilm.imaging.open import open_image
from bloodfilm.imaging.redcells import red_cell_tone
from bloodfilm.inference.analyzer import measure_sharpness

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

MAP_STEP = 4
MIN_RATIO, MAX_RATIO = 0.8, 1.5
CORE = 0.8  # share of a box, per side, in which its nucleus is looked for
DARK_SHARE = 0.8  # quantile: a fifth of a box's core is at least this dark
MIN_TONE = 0.04  # optical density; below it, there is next to nothing on the glass


@dataclass(frozen=True, eq=False)
class Look:
    """What one field's pixels say.

    Attributes:
        digest: of the decoded pixels, the same for the picture turned by half a turn.
        small, rough: grey pictures for the search of overlaps (see `overlaps`).
        white: background colour, RGB; tone: optical density of the red cells, per channel.
        nuclear: (n,) how like a nucleus the inside of each box is; a red cell is 1.
        likeness: the same for every 4 x 4 px of the field, in eighths of a power of two, 64 is 1.
        measurement: of the red cells.
        sharpness: see `inference.analyzer.measure_sharpness`; `None` if it was not asked for.
    """

    digest: str
    size: tuple[int, int]
    small: Floats
    rough: Pixels
    white: tuple[float, float, float]
    tone: Floats
    nuclear: Floats
    likeness: Pixels
    measurement: Measurement
    sharpness: float | None


@dataclass
class Survey:
    """Every field's look by its number; fields that cannot be opened have none."""

    table: Table
    looks: dict[int, Look] = field(default_factory=dict)
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


def survey(table: Table, tell: Callable[[int], None] = lambda _: None) -> Survey:
    """Look at every field that is on disk; `tell` is called after each."""
    found = Survey(table)
    for number, row in enumerate(table.rows):
        if row.present and Path(row.path).is_file():
            try:
                found.looks[number] = look_at(
                    open_image(row.path), table.box[table.cells_of(number)]
                )
            except BloodfilmError as error:
                what = " ".join(str(error).split()).removeprefix(f"{row.path}: ")
                hint = "copy it again from its source"
                found.findings.append(Finding("unreadable image", "error", row.path, what, hint))
        tell(number + 1)
    return found


def look_at(image: Pixels, boxes: NDArray[np.float64]) -> Look:
    """Look at one field, uint8 RGB (H, W, 3), with its boxes (n, 4)."""
    pixels = grey(image)
    seen = measure(image)
    tone = -np.log(np.clip(1 - red_cell_tone(image, seen.white_point) / 255, 0.02, 1))
    likeness = nucleus_likeness(image, seen.white_point, tone)
    height, width = pixels.shape
    small = cv2.resize(
        likeness,
        (max(1, width // MAP_STEP), max(1, height // MAP_STEP)),
        interpolation=cv2.INTER_AREA,
    )
    sharpness = None
    if seen.speaks:
        sharpness = measure_sharpness(view_of(seen).render(image))
    return Look(
        digest_of(image),
        (width, height),
        describe(pixels),
        reduced(pixels),
        seen.white_point,
        np.asarray(tone, np.float32),
        np.array([_inside(likeness, box) for box in boxes], np.float32),
        np.asarray(np.clip(64 + 8 * np.log2(np.maximum(small, 1e-3)), 0, 255), np.uint8),
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


def nucleus_likeness(
    image: Pixels, white: tuple[float, float, float], tone: NDArray[np.float64]
) -> Floats:
    """Say how like a nucleus each pixel is, (H, W); red cells are about 1, glass is about 0.

    Whatever the stain, chromatin takes up more of the green light than a red cell does, and more
    of it than of the red. So: green optical density over the red cells' own, times how much
    greener it is than theirs (within bounds, for reddish nuclei). Where red cells are slate blue,
    and as dark as nuclei, the hue tells; where they are pale, the darkness does.
    """
    soft = np.asarray(cv2.blur(image, (3, 3)), dtype=np.uint8)
    level = np.arange(256, dtype=np.float64)
    tables = [
        -np.log(np.clip(level, 4, None) / max(white[c], 5.0)).clip(0, 4) / max(tone[c], MIN_TONE)
        for c in (0, 1)
    ]
    red, green = (t.astype(np.float32)[soft[..., c]] for c, t in enumerate(tables))
    ratio = np.clip(green / np.maximum(red, 0.05), MIN_RATIO, MAX_RATIO)
    return np.asarray(green * ratio, dtype=np.float32)


def _inside(likeness: Floats, box: NDArray[np.float64]) -> float:
    """Return how like a nucleus the darkest fifth of a box's core is; NaN where it has none."""
    if not np.isfinite(box).all():
        return float("nan")
    x, y, w, h = box
    dx, dy = w * (1 - CORE) / 2, h * (1 - CORE) / 2
    height, width = likeness.shape
    left, right = max(int(x + dx), 0), min(int(np.ceil(x + w - dx)), width)
    top, bottom = max(int(y + dy), 0), min(int(np.ceil(y + h - dy)), height)
    if right - left < 2 or bottom - top < 2:
        return float("nan")
    return float(np.quantile(likeness[top:bottom, left:right], DARK_SHARE))


def in_view(found: Survey) -> Iterator[tuple[int, Look]]:
    """Yield every field that has a look, in order."""
    yield from sorted(found.looks.items())
