"""One pass over every field's pixels: all that the checks need of them, kept small.

A field keeps about 100 kB: grey pictures, a small map of its optical density, colours and
measurements. Each image is opened once here, and again only where two may overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import BloodfilmError
from bloodfilm.core.arrays import Image
from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import Finding
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.duplicates.fingerprints import Fingerprint, Fingerprints, unreadable_image
from bloodfilm.imaging.canonical import view_of
from bloodfilm.imaging.red_cells import red_cell_tone
from bloodfilm.imaging.scale import Measurement, measure
from bloodfilm.imaging.sharpness import measure_sharpness
from bloodfilm.imaging.sources.image_file import open_image

MAP_STEP = 4
"""Pixels per side of one entry of the density map."""


@dataclass(frozen=True, eq=False)
class FieldStatistics:
    """What one field's pixels show.

    Attributes:
        fingerprint: to find the same glass elsewhere.
        white: background colour, RGB.
        tone: (3,) optical density of the red cells, per channel.
        density: (h, w, 2) red and green optical density of every 4 x 4 px, in 64ths.
        measurement: of the red cells.
        sharpness: see `imaging.sharpness.measure_sharpness`; `None` where no red cell gives the
            scale.
    """

    fingerprint: Fingerprint
    white: tuple[float, float, float]
    tone: NDArray[np.float32]
    density: NDArray[np.uint8]
    measurement: Measurement
    sharpness: float | None

    @classmethod
    def of_image(cls, image: Image) -> "FieldStatistics":
        """Measure one field."""
        measured = measure(image)
        even = measured.corrections.apply(image)
        tone = -np.log(np.clip(1 - red_cell_tone(even, measured.white_point) / 255, 0.02, 1))
        sharpness = None
        if measured.is_measurable:
            sharpness = measure_sharpness(view_of(measured).render(image))
        return cls(
            Fingerprint.of_image(image),
            measured.white_point,
            np.asarray(tone, np.float32),
            density_map(even, measured.white_point),
            measured,
            sharpness,
        )


@dataclass
class Survey:
    """The statistics of a table's fields; iterates over (number, statistics) in order.

    Attributes:
        table: of the data set.
        fields: statistics by the field's number; fields that cannot be opened have none.
        findings: on images that cannot be opened.
    """

    table: CellTable
    fields: dict[int, FieldStatistics] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[int, FieldStatistics]]:
        yield from sorted(self.fields.items())

    def groups(self) -> dict[tuple[str, str], list[int]]:
        """Return the numbers of the fields of each (patient, domain)."""
        groups: dict[tuple[str, str], list[int]] = {}
        for number in self.fields:
            row = self.table.rows[number]
            groups.setdefault((row.patient or "", row.domain.name), []).append(number)
        return groups

    @property
    def fingerprints(self) -> Fingerprints:
        """What finding duplicates needs of the fields."""
        return Fingerprints(self.table, {n: one.fingerprint for n, one in self.fields.items()})


def survey_fields(table: CellTable, progress: Progress | None = None) -> Survey:
    """Measure every field that is on disk."""
    survey = Survey(table)
    rows = track(table.rows, progress or NoProgress(), "looking at fields", len(table.rows))
    for number, row in enumerate(rows):
        if row.is_on_disk:
            try:
                survey.fields[number] = FieldStatistics.of_image(open_image(row.path))
            except BloodfilmError as error:
                survey.findings.append(unreadable_image(row.path, error))
    return survey


def density_map(image: Image, white: tuple[float, float, float]) -> NDArray[np.uint8]:
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
