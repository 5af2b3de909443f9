"""Let the attributes of a bundle follow what is measured on outlines of its training cells."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Cell
from bloodfilm.core.attributes import known_values
from bloodfilm.core.boxes import centres
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import write_text
from bloodfilm.core.json_text import read_json_file
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.export.adapted import copy_bundle
from bloodfilm.export.card import CARD, card_notes, model_card
from bloodfilm.export.outlined_cells import OutlinedField, check_measurable, outlined_cells
from bloodfilm.export.recovered import config_of, vocabulary_of
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.classifier import CellClassifier, leaf_probabilities
from bloodfilm.inference.graph_run import batches, run_graph
from bloodfilm.inference.manifest import Manifest, MeasuredAttributesSpec
from bloodfilm.inference.measured_attributes import MEASURES, measures_of
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.measured_attributes import (
    LEAST_GROUPS,
    MeasuredCells,
    fit_measured,
    left_out_logits,
    temperature_of,
)
from bloodfilm.training.vocabulary import Vocabulary

BATCH = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasuredCalibration:
    """Fitted on patients that were left out of the classifier's training, too.

    Attributes:
        temperatures: by attribute.
        confidence: an attribute's value below it is not given; `None`: not chosen.
    """

    temperatures: Mapping[str, float]
    confidence: float | None = None


NO_CALIBRATION = MeasuredCalibration({})


def read_measured_calibration(path: Path) -> MeasuredCalibration:
    """Read the `measured` part of the record that the benchmark on patients left out wrote.

    Raises:
        ConfigError: if the file is missing or holds none.
    """
    try:
        data = read_json_file(path)
    except DataError as error:
        raise ConfigError(str(error)) from None
    try:
        said = data["measured"]
        temperatures = {str(k): float(v) for k, v in said["temperatures"].items()}
        confidence = said.get("confidence")
        confidence = None if confidence is None else float(confidence)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(
            f"{path}: holds no calibration of measured attributes (measured: temperatures, "
            "confidence); the benchmark that leaves patients out writes one"
        ) from None
    for t in temperatures.values():
        if not 0 < t < np.inf:
            raise ConfigError(f"{path}: temperature {t:g} must be above 0")
    if confidence is not None and not 0 <= confidence <= 1:
        raise ConfigError(f"{path}: confidence {confidence:g} must be between 0 and 1")
    return MeasuredCalibration(temperatures, confidence)


def collect_measured(
    bundle: Bundle, root: Path, attributes: Collection[str], progress: Progress | None = None
) -> MeasuredCells:
    """Measure the training cells of a bundle's classifier of which some attribute is known.

    Data sets whose `omit_attributes` name an attribute tell nothing of it; cells whose outline
    cannot be made out are left out.

    Args:
        bundle: outlines the cells and gives the probabilities of their classes.
        root: where the data paths of its configuration start.
        attributes: those that count.
        progress: follows the work.

    Raises:
        ConfigError: if the data are missing or no cell is left.
    """
    words = vocabulary_of(bundle)
    wanted = set(attributes)
    sources = [
        s for s in config_of(bundle, "classifier").data.train if wanted - set(s.omit_attributes)
    ]
    items = open_sources(sources, root) if sources else []
    return measured_cells(bundle, words, items, wanted, progress or NoProgress())


def measured_cells(
    bundle: Bundle,
    words: Vocabulary,
    items: Sequence[SourcedField],
    attributes: Collection[str],
    progress: Progress,
) -> MeasuredCells:
    """Measure the cells of fields of which one of some attributes is known.

    Raises:
        ConfigError: if there is none.
    """
    schema = words.schema
    outside = [name for name in schema.names if name not in attributes]

    def values_of(item: SourcedField, cell: Cell) -> dict[str, str]:
        found = known_values(schema, cell.attributes)
        return {k: v for k, v in found.items() if k not in item.omit and k not in outside}

    measures, codes, allowed, groups = [], [], [], []
    people: dict[tuple[str, str | None], int] = {}
    probabilities: list[NDArray[np.float64]] = []
    classifier = CellClassifier(bundle.manifest)
    fields = outlined_cells(
        bundle, words, items, lambda item, cell: bool(values_of(item, cell)), progress
    )
    for field in fields:
        item = field.item
        seen = [shape is not None for shape in field.shapes]
        probabilities.append(_class_probabilities(bundle, classifier, field)[seen])
        for cell, shape in zip(field.cells, field.shapes, strict=True):
            if shape is None:
                continue
            measures.append(measures_of(shape))
            given = schema.codes(values_of(item, cell))
            codes.append([-1 if v is None else v for v in given])
            allowed.append(words.leaf_mask(str(cell.label), item.dataset.taxonomy))
            person = (item.dataset.name, item.field.patient)
            groups.append(people.setdefault(person, len(people)))
    if not measures:
        raise ConfigError(
            f"{bundle.path}: no training cell that can be outlined has one of the attributes "
            f"{', '.join(sorted(attributes))}"
        )
    return MeasuredCells(
        np.array(measures),
        np.array(codes, dtype=np.int64),
        np.array(allowed, dtype=bool),
        np.array(groups, dtype=np.int64),
        np.concatenate(probabilities),
    )


def _class_probabilities(
    bundle: Bundle, classifier: CellClassifier, field: OutlinedField
) -> NDArray[np.float64]:
    """Return the probabilities of the classes (n, leaves) of a field's cells."""
    spec, session = classifier.spec, bundle.classifier("cpu", 1)
    boxes = np.array([cell.box for cell in field.cells], dtype=float)
    logits = []
    for some in batches(centres(boxes), BATCH):
        crops = classifier.crops(field.view, field.image, some)
        shapes = {"classes": classifier.shapes(len(crops))["classes"]}
        logits += run_graph(session, spec.file, {"crops": crops}, shapes)
    temperature = spec.temperatures.get("class", 1.0)
    return leaf_probabilities(np.concatenate(logits), classifier.learnt, temperature)


def measured_spec(
    bundle: Bundle,
    cells: MeasuredCells,
    attributes: Sequence[str],
    calibration: MeasuredCalibration = NO_CALIBRATION,
) -> MeasuredAttributesSpec:
    """Fit attributes to measured cells.

    An attribute's temperature is that of the calibration. Where it has none, it is fitted on the
    cells themselves, of each patient by a fit without that patient; the classifier has seen them.

    Raises:
        ConfigError: if an attribute is known of too few cells or of cells of too few patients.
    """
    manifest = bundle.manifest
    models = {}
    for name in attributes:
        column, attribute = manifest.attributes.names.index(name), manifest.attributes[name]
        codes = cells.codes[:, column]
        model = fit_measured(cells, column, attribute, manifest.leaves)
        temperature = calibration.temperatures.get(name)
        if temperature is None:
            patients = len(np.unique(cells.groups[codes >= 0]))
            if patients < LEAST_GROUPS:
                raise ConfigError(
                    f"{name!r}: its cells are of {patients} patients, {LEAST_GROUPS} are needed to "
                    "know how sure measures make of it; leave it to the network"
                )
            logits = left_out_logits(cells, column, attribute, manifest.leaves)
            temperature = temperature_of(logits, codes)
        models[name] = model.model_copy(update={"temperature": temperature})
    return MeasuredAttributesSpec(measures=MEASURES, attributes=models)


def measurable(bundle: Bundle, cells: MeasuredCells) -> tuple[str, ...]:
    """Return the attributes of which cells of `LEAST_GROUPS` patients know two values or more."""
    names = bundle.manifest.attributes.names
    found = []
    for column, name in enumerate(names):
        known = cells.codes[:, column] >= 0
        values = np.unique(cells.codes[known, column])
        if len(np.unique(cells.groups[known])) >= LEAST_GROUPS and len(values) >= 2:
            found.append(name)
    return tuple(found)


def fit_bundle(
    bundle: Bundle,
    root: Path,
    attributes: Sequence[str] = (),
    calibration: MeasuredCalibration = NO_CALIBRATION,
    progress: Progress | None = None,
) -> MeasuredAttributesSpec:
    """Fit attributes of a bundle to its measured training cells.

    Args:
        bundle: with an outline network.
        root: where the data paths of its configuration start.
        attributes: which ones; none means all that cells of `LEAST_GROUPS` patients tell.
        calibration: of patients left out.
        progress: follows the work.

    Raises:
        ConfigError: if one of them cannot be fitted.
    """
    manifest = bundle.manifest
    for name in attributes:
        check_measurable(bundle, name)
        if name not in manifest.described:
            raise ConfigError(f"{bundle.path}: {name!r} was not trained, so no cell has it")
    cells = collect_measured(bundle, root, attributes or manifest.described, progress)
    chosen = tuple(attributes) or measurable(bundle, cells)
    if not chosen:
        raise ConfigError(
            f"{bundle.path}: no attribute is known of cells of {LEAST_GROUPS} patients or more; "
            "nothing can be fitted that holds for another"
        )
    return measured_spec(bundle, cells, chosen, calibration)


def write_with_measured(
    bundle: Bundle,
    measured: MeasuredAttributesSpec,
    out: Path,
    confidence: float | None = None,
) -> Manifest:
    """Write a copy of a bundle, byte for byte but for manifest, checksums and card."""
    copy_bundle(bundle, out)
    before = load_bundle(out).manifest
    notes = card_notes(out / CARD, model_card(before))
    manifest = before.with_measured(measured, confidence)
    manifest.write(out)
    write_text(out / CARD, model_card(manifest, notes))
    return manifest
