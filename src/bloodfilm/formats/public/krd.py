"""KRD-WBC (Taha et al. 2023, CC BY 4.0): 300 fields, Erbil, one marked cell each."""

from pathlib import Path
from typing import Unpack

from bloodfilm.core import Dataset, Domain, Field
from bloodfilm.formats.shared.cell_table import header_of, read_table
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.paths import need_folder

LICENCE = "CC BY 4.0"
DOMAIN = Domain("KRD-WBC")
MASKS = "masks"


def recognises(path: Path) -> bool:
    """Whether there is a table of cells and a folder of masks beside it."""
    columns = header_of(path)
    own = {"image", "class", "x", "y", "w", "h"} <= columns and not {"slide", "group"} & columns
    return own and (path / MASKS).is_dir()


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read KRD-WBC; a field's region is the box of its one marked cell.

    Further cells, at the edges mostly, are not marked.
    """
    reading = ReadContext(need_folder(Path(path)), **options)
    if reading.images is None and (reading.root / "images").is_dir():
        reading.images = reading.root / "images"  # the masks bear the images' names
    fields = []
    for image in read_table(reading, ()):
        width, height = image.size or (None, None)
        fields.append(Field(image.path, width, height, image.cells, image.boxed_region, DOMAIN))
    return reading.dataset("KRD-WBC", fields, licence=LICENCE)
