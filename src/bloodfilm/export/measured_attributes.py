"""Let the attributes of a bundle follow what is measured on outlines of its training cells."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core import Cell
from bloodfilm.core.arrays import Floats
from bloodfilm.core.attributes import known_values
from bloodfilm.core.boxes import centres
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import write_text
from bloodfilm.core.json_text import read_json_file
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.export.adapted import copy_bundle
from bloodfilm.export.card import CARD, card_notes, model_card, summarize_evaluation
from bloodfilm.export.outlined_cells import OutlinedField, check_measurable, outlined_cells
from bloodfilm.export.recovered import config_of, vocabulary_of
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.classifier import CLASSIFIER_BATCH, CellClassifier
from bloodfilm.inference.graph_run import batches
from bloodfilm.inference.manifest import Manifest, MeasuredAttribute, MeasuredAttributesSpec
from bloodfilm.inference.measured_attributes import MEASURES, measures_of
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.measured_attributes import (
    LEAST_GROUPS,
    MeasuredCells,
    beside_network,
    fit_measured,
    left_out_logits,
    temperature_of,
)
from bloodfilm.training.vocabulary import Vocabulary

PATIENTS = "left_out_patients"
"""What a manifest calls the figures of patients left out."""
MOST_FIELDS = 200
"""Of a data set and class: the models are small."""
_CHOICE = 67
"""Random-stream id of the choice of fields."""


@dataclass(frozen=True)
class MeasuredCalibration:
    """Fitted on patients that were left out of the classifier's training, too.

    Attributes:
        temperatures: by attribute.
        confidence: an attribute's value below it is not given; `None`: not chosen.
        figures: what the model card keeps of the patients left out; none where the record has none.
    """

    temperatures: Mapping[str, float]
    confidence: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


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
    figures = summarize_evaluation(data) if "pooled" in data else {}
    return MeasuredCalibration(temperatures, confidence, figures)


def collect_measured(
    bundle: Bundle,
    root: Path,
    attributes: Collection[str],
    progress: Progress | None = None,
    *,
    held_out: bool = False,
) -> MeasuredCells | None:
    """Measure cells of a bundle's classifier of which some attribute is known; `None` without one.

    Data sets whose `omit_attributes` name an attribute tell nothing of it, whichever of their
    splits; cells whose outline cannot be made out are left out. Of each data set and class at most
    `MOST_FIELDS` fields are measured.

    Args:
        bundle: outlines the cells and gives the probabilities of classes and values.
        root: where the data paths of its configuration start.
        attributes: those that count.
        progress: follows the work.
        held_out: take the cells of validation in place of those of training.

    Raises:
        ConfigError: if the data are missing.
    """
    words, wanted = vocabulary_of(bundle), set(attributes)
    data = config_of(bundle, "classifier").data
    omitted: dict[Path, set[str]] = {}
    for source in data.train:
        omitted.setdefault(source.path, set()).update(source.omit_attributes)
    sources = []
    for source in data.validation if held_out else data.train:
        omit = {*source.omit_attributes, *omitted.get(source.path, ())}
        if wanted - omit:
            sources.append(source.model_copy(update={"omit_attributes": sorted(omit)}))
    items = open_sources(sources, root) if sources else []
    return measured_cells(bundle, words, _some(items), wanted, progress or NoProgress())


def _some(items: Sequence[SourcedField]) -> Sequence[SourcedField]:
    """Return at most `MOST_FIELDS` fields per data set and class of their first cell."""
    if not isinstance(items, list):
        return items
    taken: Counter[tuple[int, str | None]] = Counter()
    kept = []
    for i in np.random.default_rng(_CHOICE).permutation(len(items)).tolist():
        cells = items[i].field.cells
        key = id(items[i].dataset), cells[0].label if cells else None
        taken[key] += 1
        if taken[key] <= MOST_FIELDS:
            kept.append(i)
    return [items[i] for i in sorted(kept)]


def measured_cells(
    bundle: Bundle,
    words: Vocabulary,
    items: Sequence[SourcedField],
    attributes: Collection[str],
    progress: Progress,
) -> MeasuredCells | None:
    """Measure the cells of fields of which one of some attributes is known; `None` without one."""
    schema = words.schema
    outside = [name for name in schema.names if name not in attributes]

    def values_of(item: SourcedField, cell: Cell) -> dict[str, str]:
        found = known_values(schema, cell.attributes)
        return {k: v for k, v in found.items() if k not in item.omit and k not in outside}

    measures, codes, allowed, groups = [], [], [], []
    people: dict[tuple[str, str | None], int] = {}
    probabilities: list[Floats] = []
    answers: list[Floats] = []
    classifier = CellClassifier(bundle.manifest)
    fields = outlined_cells(
        bundle, words, items, lambda item, cell: bool(values_of(item, cell)), progress
    )
    for outlined in fields:
        item = outlined.item
        seen = [shape is not None for shape in outlined.shapes]
        p, said = _network(bundle, classifier, outlined)
        probabilities.append(p[seen])
        answers.append(said[seen])
        for cell, shape in zip(outlined.cells, outlined.shapes, strict=True):
            if shape is None:
                continue
            measures.append(measures_of(shape))
            given = schema.codes(values_of(item, cell))
            codes.append([-1 if v is None else v for v in given])
            allowed.append(words.leaf_mask(str(cell.label), item.dataset.taxonomy))
            person = (item.dataset.name, item.field.patient)
            groups.append(people.setdefault(person, len(people)))
    if not measures:
        return None
    return MeasuredCells(
        np.array(measures),
        np.array(codes, dtype=np.int64),
        np.array(allowed, dtype=bool),
        np.array(groups, dtype=np.int64),
        np.concatenate(probabilities),
        np.concatenate(answers),
    )


def _network(
    bundle: Bundle, classifier: CellClassifier, outlined: OutlinedField
) -> tuple[Floats, Floats]:
    """Return the probabilities of the classes (n, leaves) and values (n, schema.width) of cells."""
    session = bundle.classifier("cpu", 1)
    said = []
    for some in batches(centres(outlined.boxes), CLASSIFIER_BATCH):
        crops = classifier.crops(outlined.view, outlined.image, some)
        said += classifier.classify(session, crops)
    schema, leaves = bundle.manifest.attributes, bundle.manifest.leaves
    classes = [[one.probabilities.get(leaf, 0.0) for leaf in leaves] for one in said]
    values = [
        [
            one.attributes[a.name].probabilities.get(v, 0.0)
            for a in schema.attributes
            for v in a.values
        ]
        for one in said
    ]
    return np.array(classes), np.array(values)


def fit_attribute(
    bundle: Bundle,
    cells: MeasuredCells,
    held: MeasuredCells | None,
    name: str,
    calibration: MeasuredCalibration = NO_CALIBRATION,
) -> MeasuredAttribute | None:
    """Fit an attribute to measured cells; `None` where its network answers better alone.

    Of cells of `LEAST_GROUPS` patients or more, the network's answer counts for nothing: it has
    seen each of them. The temperature is that of the calibration; where it has none, it is fitted
    on the cells themselves, of each patient by a fit without that patient. Else cells that were
    held out of training choose the weight of the network's answer, and the temperature.

    Raises:
        ConfigError: if the attribute is known of too few cells, or nothing can judge it.
    """
    schema, leaves = bundle.manifest.attributes, bundle.manifest.leaves
    codes = cells.codes[:, schema.names.index(name)]
    model = fit_measured(cells, schema, name, leaves)
    temperature = calibration.temperatures.get(name)
    patients = len(np.unique(cells.groups[codes >= 0]))
    if temperature is None and patients >= LEAST_GROUPS:
        temperature = temperature_of(left_out_logits(cells, schema, name, leaves), codes)
    if temperature is not None:
        return model.model_copy(update={"temperature": temperature})
    if held is None:
        raise ConfigError(
            f"{name!r}: its cells are of {patients} patients and none was held out; {LEAST_GROUPS} "
            "patients are needed to know how sure measures make of it; leave it to the network"
        )
    return beside_network(model, held, schema, name, leaves)


@dataclass(frozen=True)
class Fitted:
    """What was fitted.

    Attributes:
        spec: the attributes that follow measures.
        alone: attributes that were tried, and are better left to the network.
    """

    spec: MeasuredAttributesSpec
    alone: tuple[str, ...]


def fit_bundle(
    bundle: Bundle,
    root: Path,
    attributes: Sequence[str] = (),
    calibration: MeasuredCalibration = NO_CALIBRATION,
    progress: Progress | None = None,
) -> Fitted:
    """Fit attributes of a bundle to its measured training cells.

    Args:
        bundle: with an outline network.
        root: where the data paths of its configuration start.
        attributes: which ones; none means all that enough cells are measured of.
        calibration: of patients left out.
        progress: follows the work.

    Raises:
        ConfigError: if one of them, or none at all, can be fitted.
    """
    manifest = bundle.manifest
    for name in attributes:
        check_measurable(bundle, name)
        if name not in manifest.described:
            raise ConfigError(f"{bundle.path}: {name!r} was not trained, so no cell has it")
    wanted = tuple(attributes) or manifest.described
    cells = collect_measured(bundle, root, wanted, progress)
    if cells is None:
        raise ConfigError(
            f"{bundle.path}: no training cell that can be outlined has one of the attributes "
            f"{', '.join(sorted(wanted))}"
        )
    judged = [name for name in wanted if not _by_patients(manifest, cells, name, calibration)]
    held = collect_measured(bundle, root, judged, progress, held_out=True) if judged else None
    models: dict[str, MeasuredAttribute] = {}
    alone = []
    for name in wanted:
        try:
            model = fit_attribute(bundle, cells, held, name, calibration)
        except ConfigError:
            if attributes:
                raise
            continue
        if model is None:
            alone.append(name)
        else:
            models[name] = model
    if not models:
        raise ConfigError(
            f"{bundle.path}: nothing that measures tell is better than the network's answer; it "
            "stays as it is"
        )
    return Fitted(MeasuredAttributesSpec(measures=MEASURES, attributes=models), tuple(alone))


def _by_patients(
    manifest: Manifest, cells: MeasuredCells, name: str, calibration: MeasuredCalibration
) -> bool:
    """Whether patients left out judge an attribute."""
    known = cells.codes[:, manifest.attributes.names.index(name)] >= 0
    patients = len(np.unique(cells.groups[known]))
    return name in calibration.temperatures or patients >= LEAST_GROUPS


def write_with_measured(
    bundle: Bundle,
    measured: MeasuredAttributesSpec,
    out: Path,
    calibration: MeasuredCalibration = NO_CALIBRATION,
) -> Manifest:
    """Write a copy of a bundle, byte for byte but for manifest, checksums and card.

    Figures of patients left out take the place of those that the bundle has.
    """
    copy_bundle(bundle, out)
    before = load_bundle(out).manifest
    notes = card_notes(out / CARD, model_card(before))
    manifest = before.with_measured(measured, calibration.confidence)
    if calibration.figures:
        kept = [k for k, v in before.metrics.items() if isinstance(v, Mapping) and "pooled" in v]
        manifest = manifest.with_figures(**{(kept or [PATIENTS])[0]: dict(calibration.figures)})
    manifest.write(out)
    write_text(out / CARD, model_card(manifest, notes))
    return manifest
