"""BCISC (Apache-2.0): 197 fields of one microscope camera with a glare spot, five classes."""

from pathlib import Path
from typing import Unpack

from bloodfilm.core import Dataset, Domain
from bloodfilm.formats.shared.cell_table import header_of, read_table
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.paths import need_folder

LICENCE = "Apache-2.0"
DOMAIN = Domain("BCISC")


def recognises(path: Path) -> bool:
    """Whether there is a table of cells with BCISC's groups."""
    return {"image", "class", "group", "x", "y", "w", "h"} <= header_of(path)


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read BCISC; a field's region is the union of its boxes.

    Second and cut cells are not always outlined, and the outlines of eosinophils are missing: such
    a field has no cell and an empty region, and the class it was photographed for is its
    `meta["class"]`. Photographs of one group (`baso_1-1`, `baso_1-2`) count as one patient's, for
    who was photographed is not published.
    """
    reading = ReadContext(need_folder(Path(path)), **options)
    fields = [
        image.to_field(
            DOMAIN,
            patient=image.path.stem.rpartition("-")[0] or None,
            meta={"class": image.common("class"), "group": image.common("group")},
        )
        for image in read_table(reading, ("group",))
    ]
    return reading.dataset("BCISC", fields, licence=LICENCE)
