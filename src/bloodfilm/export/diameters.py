"""How large the cells of each size are: measured on the cells that a classifier was trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bloodfilm.core import Cell
from bloodfilm.core.attributes import Attribute, known_values
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.export.outlined_cells import check_measurable, outlined_cells
from bloodfilm.export.recovered import config_of, vocabulary_of
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.manifest import DiameterSpec
from bloodfilm.training.data.sources import open_sources

LEAST_CELLS = 10
"""Measured cells that a value needs."""
LEAST_SPREAD = 0.08
"""Of the logarithm of a diameter; a scale is not measured more exactly."""


def add_diameters(
    folder: Path, root: Path, attribute: str, progress: Progress | None = None
) -> DiameterSpec:
    """Measure the training cells of a bundle's classifier and write the result into its manifest.

    Args:
        folder: of the bundle, which outlines cells; changed in place.
        root: where the data paths of its configuration start.
        attribute: the size of a cell, of the bundle's schema.
        progress: follows the work.

    Raises:
        ConfigError: if it cannot be measured.
    """
    bundle = load_bundle(folder)
    found = measured_diameters(bundle, root, attribute, progress)
    spec = diameters_of(bundle.manifest.attributes[attribute], found)
    bundle.manifest.with_diameters(spec).write(folder)
    return spec


def measured_diameters(
    bundle: Bundle, root: Path, attribute: str, progress: Progress | None = None
) -> list[tuple[str, float]]:
    """Return value and diameter in um of every training cell whose size is known.

    Data sets whose `omit_attributes` name the attribute are left out, and so are cells whose
    outline cannot be made out.
    """
    check_measurable(bundle, attribute)
    sources = [
        s for s in config_of(bundle, "classifier").data.train if attribute not in s.omit_attributes
    ]
    words, schema = vocabulary_of(bundle), bundle.manifest.attributes

    def value_of(cell: Cell) -> str | None:
        return known_values(schema, cell.attributes).get(attribute)

    fields = outlined_cells(
        bundle,
        words,
        open_sources(sources, root) if sources else [],
        lambda _, cell: cell.box is not None and value_of(cell) is not None,
        progress or NoProgress(),
    )
    return [
        (value, shape.diameter_um)
        for field in fields
        for cell, shape in zip(field.cells, field.shapes, strict=True)
        if shape is not None and (value := value_of(cell)) is not None
    ]


def diameters_of(attribute: Attribute, found: Sequence[tuple[str, float]]) -> DiameterSpec:
    """Return the distribution of the diameter for every value that was measured often enough.

    Raises:
        ConfigError: if fewer than two values were.
    """
    values = {}
    for value in attribute.values:
        logs = np.log([um for name, um in found if name == value])
        if len(logs) < LEAST_CELLS:
            continue
        middle = float(np.median(logs))
        # Of a normal distribution half lies within 0.6745 standard deviations.
        spread = max(float(np.median(np.abs(logs - middle))) / 0.6745, LEAST_SPREAD)
        values[value] = (round(float(np.exp(middle)), 3), round(spread, 4))
    if len(values) < 2:
        raise ConfigError(
            f"diameters: {attribute.name!r} is known of too few measured cells; two values need "
            f"{LEAST_CELLS} each"
        )
    return DiameterSpec(attribute=attribute.name, values=values)
