"""Chula (MIT): 313 fields by a Raspberry Pi camera on a microscope, Bangkok, five classes."""

from pathlib import Path
from typing import Unpack

from bloodfilm.core import Dataset, Domain
from bloodfilm.formats.shared.cell_table import header_of, read_table
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.paths import need_folder

LICENCE = "MIT"
# 7.5 um over red cells of 52 px, measured.
DOMAIN = Domain("Chula", 100, "OV5647", pixel_aspect_ratio=1.0, um_per_px=0.144)


def recognises(path: Path) -> bool:
    """Whether there is a table of cells with Chula's slides."""
    return {"image", "slide", "class", "x", "y", "w", "h"} <= header_of(path)


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read the Chula fields; a field's region is the union of its boxes.

    A field's cells of the class it is named after are boxed, others only sometimes. A slide counts
    as a patient, for nothing else is published.
    """
    reading = ReadContext(need_folder(Path(path)), **options)
    fields = []
    for image in read_table(reading, ("slide",)):
        slide = image.common("slide")
        meta = {"slide": slide} if slide else {}
        fields.append(image.to_field(DOMAIN, patient=slide or None, meta=meta))
    return reading.dataset("Chula", fields, licence=LICENCE)
