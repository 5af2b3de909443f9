"""KRD-WBC (Taha et al. 2023, CC BY 4.0): 300 fields, Erbil, one marked cell each."""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Cell, Dataset, Domain
from bloodfilm.core import dataset_codes as codes
from bloodfilm.formats.shared.cell_table import TableImage, header_of, read_table
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.masks import mask_outline
from bloodfilm.formats.shared.paths import need_folder
from bloodfilm.imaging.sources.image_file import open_image

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

    Further cells, at the edges mostly, are not marked. The cell's outline is that of its mask.
    """
    reading = ReadContext(need_folder(Path(path)), **options)
    if reading.images is None and (reading.root / "images").is_dir():
        reading.images = reading.root / "images"  # the masks bear the images' names
    fields = []
    for image in read_table(reading, ()):
        cells = tuple(_outlined(reading, image, cell) for cell in image.cells)
        fields.append(replace(image, cells=cells).to_field(DOMAIN))
    return reading.dataset("KRD-WBC", fields, licence=LICENCE)


def _outlined(reading: ReadContext, image: TableImage, cell: Cell) -> Cell:
    """Return a cell with the outline of the mask that bears its image's name, if there is one."""
    file = reading.root / MASKS / f"{image.path.stem}.png"
    if len(image.cells) != 1 or not file.is_file():
        return cell
    mask = open_image(file)[..., 0] > 0
    if image.size is not None and mask.shape != image.size[::-1]:
        what = f"has {mask.shape[1]}x{mask.shape[0]} px, its image {image.size[0]}x{image.size[1]}"
        reading.report(codes.UNUSABLE_SHAPE, file, "", f"{what}; left out")
        return cell
    return replace(cell, outline=mask_outline(mask)) if mask.any() else cell
