"""AML-Cytomorphology_LMU (Matek et al. 2019, CC BY 3.0): one centred cell an image, Munich."""

from pathlib import Path
from typing import Unpack

from bloodfilm.core import Cell, Dataset, Domain, Field, Region
from bloodfilm.formats.shared.cell_table import header_of, read_table
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.paths import need_folder

LICENCE = "CC BY 3.0"
SIDE_UM = 28.4
"""Width of an image: published as 400 px, also spread as 256 px (0.11 um/px)."""


def recognises(path: Path) -> bool:
    """Whether there is a table of classes and splits, and images named as Munich names them."""
    columns = header_of(path)
    if not {"image", "class", "split"} <= columns or "x" in columns:
        return False
    return any((path / "images").glob("[A-Z][A-Z][A-Z]_[0-9]*.*"))


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read single-cell images: the cell is the centred one and has no box.

    Nothing else in an image is annotated, so its region is empty. Splits are those of the table:
    blocks of consecutive numbers, for no patients are published and neighbours may be of one.
    """
    reading = ReadContext(need_folder(Path(path)), **options)
    fields = []
    for image in read_table(reading, ("split",), boxes=False):
        size = reading.size(image.path) if image.path.is_file() else None
        width, height = size or (None, None)
        scale = round(SIDE_UM / width, 4) if width else None
        domain = Domain("M8", 100, pixel_aspect_ratio=1.0, um_per_px=scale)
        label, ignore = reading.label(image.rows[0]["class"])
        cells = (Cell(None, label, ignore=ignore),)
        fields.append(
            Field(image.path, width, height, cells, Region.nothing(), domain, split=image.split)
        )
    return reading.dataset("AML-Cytomorphology_LMU", fields, licence=LICENCE)
