"""Evaluate a model, or a file of results, against a labelled data set."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from bloodfilm import __version__
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.field import Field
from bloodfilm.core.files import open_output
from bloodfilm.core.progress import NoProgress, OneStage, Progress, track
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.core.taxonomy import NUCLEATED
from bloodfilm.core.text import plural
from bloodfilm.evaluation.cell_matching import (
    MatchedCells,
    coarsen,
    pair_fields,
)
from bloodfilm.evaluation.class_granularity import ClassGranularity, parse_granularity
from bloodfilm.evaluation.detection import IOU_THRESHOLDS
from bloodfilm.evaluation.evaluate import (
    DetectionReport,
    Resampling,
    evaluate_classification,
    evaluate_detection,
)
from bloodfilm.evaluation.predictions import align, read_predictions
from bloodfilm.evaluation.record import Evaluation
from bloodfilm.formats import open_dataset
from bloodfilm.formats.judged import refuse_unjudged
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.bundle import Bundle, default_bundle, load_bundle
from bloodfilm.workflows.analyze import failed
from bloodfilm.workflows.outputs import refuse_inputs

FEW_PATIENTS = 10


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What to evaluate, and how.

    Attributes:
        dataset: the labelled data set, its file or folder.
        bundle: folder of the model; `None` for the shipped one.
        predictions: `cells.csv` or `result.json` to evaluate; then no model runs.
        split: only the fields of this split.
        format: of the data set, if it is not recognised.
        labels: which of its labels (LLD).
        images: where its images are, if not beside the labels.
        clean_splits: leave out images that leak (TXL).
        level: classes to detect; see `parse_granularity`.
        classes: classes to name; `None` for the data set's own.
        iou: at which cells are paired: 0.50, 0.55, ... 0.95.
        cells: only the classifier, on the true cells.
        scale: `auto`, or `truth` to provide the data set's scale.
        floor: lowest score that counts towards average precision.
        bootstrap: resamples for the intervals; 0 for none.
        seed: of the resamples.
        device: `auto`, `cpu` or `cuda`.
        threads: fields at work at a time; `None` for one per core.
        output: where the record will be written; checked before any work.

    Raises:
        ConfigError: if a value is none of these, or two exclude each other.
    """

    dataset: Path | Dataset
    bundle: Path | None = None
    predictions: Path | None = None
    split: str | None = None
    format: str | None = None
    labels: str | None = None
    images: Path | None = None
    clean_splits: bool = False
    level: str = "detector"
    classes: str | None = None
    iou: float = 0.5
    cells: bool = False
    scale: str = "auto"
    floor: float = 0.02
    bootstrap: int = 1000
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        if self.scale not in ("auto", "truth"):
            raise ConfigError(f"scale {self.scale}: choose auto or truth")
        if self.predictions and (self.cells or self.bundle):
            raise ConfigError(
                "predictions: a results file runs no model, so leave bundle and cells out"
            )
        if not any(abs(self.iou - t) < 1e-6 for t in IOU_THRESHOLDS):
            raise ConfigError(f"iou {self.iou:g}: choose one of 0.50, 0.55, ... 0.95")

    @property
    def settings(self) -> dict[str, Any]:
        """What bears on the figures, as plain data."""
        left_out = {"dataset", "images", "bundle", "predictions", "threads", "device", "output"}
        left_out |= {"bootstrap", "seed"}
        names = (f.name for f in fields_of(self))
        return {name: getattr(self, name) for name in names if name not in left_out}


@dataclass
class Predictions:
    """Fields and what was found in them.

    Attributes:
        fields: with the sizes of their pictures.
        results: the cells of each, low scores too.
        visible: whether `analyze` would show a cell.
        failures: reasons by path.
        analysed: what a model made of the fields that it could analyse.
    """

    fields: list[Field]
    results: list[Sequence[CellResult]]
    visible: Callable[[CellResult], bool]
    failures: dict[str, str] = field(default_factory=dict)
    analysed: tuple[FieldResult, ...] = ()


def evaluate(
    request: EvaluationOptions, progress: Progress | None = None, bundle: Bundle | None = None
) -> Evaluation:
    """Evaluate as asked; `BloodfilmError` where that cannot be done.

    Args:
        request: what to evaluate, and how.
        progress: follows the work.
        bundle: a loaded bundle, in place of the request's.
    """
    progress = progress or NoProgress()
    source = None if isinstance(request.dataset, Dataset) else request.dataset
    inputs = (source, request.images, request.bundle, request.predictions)
    refuse_inputs([request.output], filter(None, inputs))
    whole, data = open_fields(request)
    refuse_inputs([request.output], (item.path for item in whole))
    resampling = Resampling(request.bootstrap, request.seed)
    notes = [f"{plural(len(whole.issues), 'issue')} of the data set; see its audit"]
    notes = notes if whole.issues else []
    detection: DetectionReport | None = None
    if request.predictions is None and bundle is None:
        bundle = load_bundle(request.bundle) if request.bundle else default_bundle()
    classified = NUCLEATED
    if bundle is not None:
        classified = bundle.manifest.roles.classified
        data = replace(data, taxonomy=data.taxonomy.join(bundle.manifest.taxonomy))
    level = _level(request, data, bundle)
    fields = list(data.fields)
    narrow = _narrowing(request, data)
    if bundle is not None and request.cells:
        pairs, failures = _read_crops(narrow(fields), bundle, data, request, progress)
    else:
        material = (
            predict(fields, bundle, request, progress) if bundle else _from_file(fields, request)
        )
        fields, failures = material.fields, material.failures
        if any(c.box is not None and not c.ignore for f in fields for c in f.cells):
            detection = evaluate_detection(
                fields, material.results, level, material.visible, request.iou, resampling
            )
        else:
            notes.append("no true cell has a box: detection is not evaluated")
        shown = [[c for c in cells if material.visible(c)] for cells in material.results]
        pairs = pair_fields(narrow(fields), shown, data.taxonomy, request.iou, classified)
    classification = None
    if pairs.pairs:
        vocabulary = (data.taxonomy, data.schema)
        reference = _reference(whole, data, narrow)
        classification = evaluate_classification(fields, pairs, vocabulary, reference, resampling)
    notes += _caveats(request, bundle, fields)
    subject = {"program": f"bloodfilm {__version__}", "dataset": data.name}
    subject |= {"split": request.split or "all"} | _model(request, bundle)
    return Evaluation(
        subject,
        request.settings,
        len(fields),
        resampling,
        detection,
        classification,
        tuple(notes),
        failures,
    )


def _level(request: EvaluationOptions, data: Dataset, bundle: Bundle | None) -> ClassGranularity:
    """Return the classes to evaluate; those of the detector are its own object types."""
    if bundle is not None and request.level == "detector":
        return ClassGranularity(request.level, bundle.manifest.object_types, data.taxonomy)
    return parse_granularity(request.level, data.taxonomy)


def open_fields(request: EvaluationOptions) -> tuple[Dataset, Dataset]:
    """Open the data set; return all of it and what is to be evaluated."""
    options: dict[str, Any] = {}
    if request.labels is not None:
        options["labels"] = request.labels
    if request.images is not None:
        options["images"] = request.images
    if request.clean_splits:
        options["clean_splits"] = True
    if isinstance(request.dataset, Dataset):
        whole, name = request.dataset, request.dataset.name
    else:
        whole = open_dataset(request.dataset, format=request.format, **options)
        name = str(request.dataset)
    refuse_unjudged(whole, name)
    data = whole.split(request.split) if request.split else whole
    if len(data) == 0:
        names = sorted({f.split for f in whole if f.split})
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise DataError(f"{name}: no field in split {request.split!r}; {has}")
    if not any(f.cells for f in data):
        raise DataError(f"{name}: no field has labels; evaluation needs true cells")
    return whole, data


def _model(request: EvaluationOptions, bundle: Bundle | None) -> dict[str, Any]:
    if bundle is None:
        return {"predictions": str(request.predictions)}
    identity = bundle.identity()
    return {"bundle": identity["name"], "bundle_sha256": identity["sha256"][:12]}


def _reference(
    whole: Dataset, data: Dataset, narrow: Callable[[list[Field]], list[Field]]
) -> tuple[str, list[Field]] | None:
    """The training split teaches the baselines, unless it is itself evaluated."""
    train = [f for f in whole if f.split == "train"]
    if not train or any(f.split == "train" for f in data):
        return None
    return f"the train split of {whole.name}", narrow(train)


def _caveats(
    request: EvaluationOptions, bundle: Bundle | None, fields: Sequence[Field]
) -> Iterator[str]:
    if bundle is None:
        yield "AP counts only what the file holds: an analysis leaves low scores out"
    elif bundle.manifest.untrained.classes:
        true = {c.label or "" for f in fields for c in f.cells if not c.ignore}
        never = sorted(true & set(bundle.manifest.untrained.classes))
        if never:
            yield f"the model was not trained on: {', '.join(never)}; these cells count as wrong"
    known = {f.patient for f in fields} - {None}
    if 0 < len(known) < FEW_PATIENTS:
        few = plural(len(known), "patient")
        yield f"only {few}: the intervals are rough, and likely too narrow"
    told = "from the data set" if request.scale == "truth" else "not provided"
    if bundle is not None:
        yield f"scale and aspect ratio: {told}; measured from red cells where there are enough"


def _from_file(fields: list[Field], request: EvaluationOptions) -> Predictions:
    if request.predictions is None:
        raise ConfigError("predictions: name a file")
    cells = read_predictions(request.predictions)
    return Predictions(fields, align(fields, cells, str(request.predictions)), lambda _: True)


def _narrowing(request: EvaluationOptions, data: Dataset) -> Callable[[list[Field]], list[Field]]:
    """Return what makes true labels as coarse as asked for, to compare classes."""
    if request.classes is None:
        return lambda fields: fields
    classes = parse_granularity(request.classes, data.taxonomy)
    return lambda fields: coarsen(fields, classes)


def _prior(item: Field, request: EvaluationOptions) -> ScalePrior | None:
    return ScalePrior.of_domain(item.domain) if request.scale == "truth" else None


def _read_crops(
    fields: list[Field],
    bundle: Bundle,
    data: Dataset,
    request: EvaluationOptions,
    progress: Progress,
) -> tuple[MatchedCells, dict[str, str]]:
    from bloodfilm.evaluation.crop_evaluation import read_true_cells

    return read_true_cells(
        fields,
        bundle,
        data.taxonomy,
        prior=lambda item: _prior(item, request),
        device=request.device,
        threads=request.threads or 1,
        progress=progress,
    )


def predict(
    fields: list[Field], bundle: Bundle, request: EvaluationOptions, progress: Progress
) -> Predictions:
    """Run the whole path on every field, keeping scores down to the floor."""
    from bloodfilm.inference.model import Model
    from bloodfilm.inference.runner import SAMPLES, RunPlan, analyze_many

    model = Model(bundle, device=request.device, score_floor=request.floor)
    found: dict[int, FieldResult] = {}
    failures: dict[str, str] = {}
    outcomes = analyze_many(
        [item.path for item in fields],
        model,
        workers=request.threads,
        prior=[_prior(item, request) for item in fields],
        progress=OneStage(progress, SAMPLES),
        plan=RunPlan(films=[item.patient for item in fields]),
    )
    followed = track(outcomes, progress, "fields", len(fields))
    for i, outcome in enumerate(followed):
        if isinstance(outcome, FieldResult):
            found[i] = outcome
        else:
            failures[outcome.path] = outcome.reason
            progress.report(failed(outcome))
    sized = [
        replace(f, width=found[i].image.width, height=found[i].image.height) if i in found else f
        for i, f in enumerate(fields)
    ]
    results: list[Sequence[CellResult]] = [
        found[i].cells if i in found else () for i in range(len(fields))
    ]
    return Predictions(
        sized, results, model.shows, failures, tuple(f for _, f in sorted(found.items()))
    )


def write_record(path: Path, evaluation: Evaluation) -> None:
    """Write the record as JSON; `DataError` if that cannot be done."""
    text = json.dumps(evaluation.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        with open_output(path) as file:
            file.write(text + "\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None
