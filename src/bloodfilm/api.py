"""The Python API: load a model, analyse images, read results back, evaluate.

Each function is available as `bloodfilm.NAME`; so are the types they take and return.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bloodfilm import __version__
from bloodfilm.cases.assembly import AssemblyOptions, EdgeRule
from bloodfilm.cases.grouping import FOLDERS, ONE, Grouping, group_images
from bloodfilm.cases.landmarks import SeenFields
from bloodfilm.cases.run import RunOutcomes, assemble_cases
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import NoProgress, OneStage, Progress, track
from bloodfilm.core.results import AnalysisRun, CaseResult, FieldFailure, FieldResult
from bloodfilm.evaluation.cross_record import CrossEvaluation
from bloodfilm.evaluation.record import Evaluation
from bloodfilm.imaging.discovery import discover
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.model import Model, load_model
from bloodfilm.inference.model_info import model_info
from bloodfilm.inference.repeats import RepeatedImages
from bloodfilm.inference.runner import SAMPLES, RunPlan, analyze_many, default_workers
from bloodfilm.workflows.adapt import AdaptJob, AdaptResult
from bloodfilm.workflows.adapt import adapt as run_adaptation
from bloodfilm.workflows.analyze import AnalysisJob, Existing, edge_rule
from bloodfilm.workflows.analyze import analyze as run_analysis
from bloodfilm.workflows.cross_evaluate import DEFAULT, CrossOptions, MethodSpec, TestSet
from bloodfilm.workflows.cross_evaluate import cross_evaluate as run_cross_evaluation
from bloodfilm.workflows.evaluate import EvaluationOptions
from bloodfilm.workflows.evaluate import evaluate as run_evaluation
from bloodfilm.workflows.learn import MAX_LOSS, LearnJob, LearnResult
from bloodfilm.workflows.learn import learn as run_learning
from bloodfilm.workflows.learn_cells import CellSource
from bloodfilm.workflows.scale_dataset import ScalingJob, ScalingResult
from bloodfilm.workflows.scale_dataset import scale_dataset as run_scaling

PathLike = str | os.PathLike[str]


def analyze(
    images: PathLike | Iterable[PathLike],
    model: Model | PathLike | None = None,
    *,
    out: PathLike | None = None,
    resume: bool = False,
    overwrite: bool = False,
    um_per_px: float | None = None,
    pixel_aspect_ratio: float | None = None,
    workers: int | None = None,
    all_cells: bool = False,
    report: bool = True,
    single_file: bool = False,
    cases: str | PathLike = FOLDERS,
    edges: EdgeRule = "two-sides",
    progress: Progress | None = None,
) -> AnalysisRun:
    """Analyse many images, and take those of one case together.

    Images of one folder are taken for images of one microscope: their red cells give the scale
    together. A file that cannot be analysed becomes one of the run's `failures`.

    Args:
        images: files, folders or glob patterns; one or several.
        model: of `load_model`, or the folder of a bundle; the shipped one if left out.
        out: a folder that gets `result.json`, `cells.csv` and `report.html`, with its pictures in
            `report_files`, and from which the returned run is read; without one the results are
            kept in memory.
        resume: go on with a run that was stopped in `out`; start one if there is none.
        overwrite: replace the results in `out`.
        um_per_px: micrometres per pixel along y, if known.
        pixel_aspect_ratio: width / height of a round cell in pixels, if known.
        workers: images at work at a time; one per core if left out.
        all_cells: list red cells and platelets in `cells.csv`, too.
        report: write `report.html`.
        single_file: put the report's pictures into it, instead of a folder beside it.
        cases: which images are one case: `folders` (each folder in a given folder), `one` (all of
            them), or a CSV or TSV file with the columns image and patient.
        edges: which cells count that an edge cuts in every field: `two-sides` (those at the top
            and left edges), `whole` (none) or `all`.
        progress: follows the work and can stop it.

    Raises:
        DataError: if there is no image.
        OutputError: if `out` holds results and neither `resume` nor `overwrite` is given.
    """
    if resume and overwrite:
        raise ConfigError("analyze: give resume or overwrite, not both")
    wanted = [images] if isinstance(images, str | os.PathLike) else list(images)
    paths = [os.fspath(path) for path in wanted]
    if out is None:
        if resume or overwrite:
            raise ConfigError("analyze: resume and overwrite need an output folder")
        prior = ScalePrior(um_per_px, pixel_aspect_ratio)
        found = discover(paths)
        grouping = group_images(found.images, paths, os.fspath(cases), found.repeats)
        options = AssemblyOptions(edge_rule(edges), workers or default_workers())
        run = _in_memory(grouping, _model(model), prior, options, progress or NoProgress())
        return replace(run, settings={"paths": paths, "cases": os.fspath(cases), **run.settings})
    existing: Existing = "resume" if resume else "overwrite" if overwrite else "refuse"
    job = AnalysisJob(
        paths=paths,
        out=Path(out),
        bundle=None if model is None or isinstance(model, Model) else Path(model),
        um_per_px=um_per_px,
        pixel_aspect_ratio=pixel_aspect_ratio,
        workers=workers,
        all_cells=all_cells,
        report=report,
        single_file=single_file,
        existing=existing,
        cases=os.fspath(cases),
        edges=edge_rule(edges),
    )
    run_analysis(job, progress, model if isinstance(model, Model) else None)
    return AnalysisRun.read(Path(out))


def _model(model: Model | PathLike | None) -> Model:
    return model if isinstance(model, Model) else load_model(model)


def _in_memory(
    grouping: Grouping,
    model: Model,
    prior: ScalePrior,
    options: AssemblyOptions,
    progress: Progress,
) -> AnalysisRun:
    for issue in grouping.issues:
        progress.report(issue)
    images = grouping.images
    fields: list[FieldResult] = []
    numbers: dict[int, int] = {}
    failures: dict[int, FieldFailure] = {}
    repeats = RepeatedImages(model.classified_type)
    seen = SeenFields(grouping.compared)
    plan = RunPlan(films=grouping.films, on_field={"landmarks": seen.see})
    sampled = OneStage(progress, SAMPLES)
    found = analyze_many(
        images, model, workers=options.workers, prior=prior, progress=sampled, plan=plan
    )
    with closing(found):
        outcomes = track(map(repeats.check, found), progress, "fields", len(images))
        for image, outcome in enumerate(outcomes):
            if isinstance(outcome, FieldFailure):
                failures[image] = outcome
            else:
                numbers[image] = len(fields)
                fields.append(outcome)
    settings = {
        "um_per_px": prior.um_per_px,
        "squeeze": prior.pixel_aspect_ratio,
        "edges": options.edges,
    }
    info = model_info(model.bundle)
    checksums = {image: fields[number].image.sha256 for image, number in numbers.items()}
    outcome_of = RunOutcomes(fields, numbers, failures, checksums)
    options = replace(options, seen=seen)
    cases = assemble_cases(grouping.cases, outcome_of, info, options, progress)
    return AnalysisRun(
        __version__,
        info,
        settings,
        tuple(fields),
        tuple(failures.values()),
        grouping.issues,
        cases,
    )


def analyze_case(
    images: PathLike | Iterable[PathLike],
    model: Model | PathLike | None = None,
    *,
    um_per_px: float | None = None,
    pixel_aspect_ratio: float | None = None,
    workers: int | None = None,
    edges: EdgeRule = "two-sides",
    progress: Progress | None = None,
) -> CaseResult:
    """Analyse the fields of one film, or of one patient, and count each of their cells once.

    The fields may overlap in any way, in any order; copies, planes of a focus series, blurred and
    empty fields are set aside. `differential` counts the case.

    Args:
        images: files, folders or glob patterns; all of them are one case.
        model, um_per_px, pixel_aspect_ratio, workers, edges, progress: as in `analyze`.

    Raises:
        DataError: if there is no image.
    """
    run = analyze(
        images,
        model,
        um_per_px=um_per_px,
        pixel_aspect_ratio=pixel_aspect_ratio,
        workers=workers,
        cases=ONE,
        edges=edges,
        progress=progress,
    )
    return run.cases[0]


def read_run(path: PathLike) -> AnalysisRun:
    """Open the results of an analysis: `result.json`, or the folder that holds it.

    Fields are read from the file as they are asked for, so a run may be larger than memory.

    Raises:
        DataError: if the file is missing, damaged, or of a newer version.
    """
    return AnalysisRun.read(Path(path))


def evaluate(
    dataset: Dataset | PathLike,
    model: Model | PathLike | None = None,
    *,
    predictions: PathLike | None = None,
    split: str | None = None,
    level: str = "detector",
    classes: str | None = None,
    iou: float = 0.5,
    cells: bool = False,
    scale: Literal["auto", "truth"] = "auto",
    bootstrap: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model, or the results of an analysis, on a labelled data set.

    Args:
        dataset: of `open_dataset`, or its file or folder.
        model: of `load_model`, or the folder of a bundle; the shipped one if left out. It is
            evaluated at the thresholds of its bundle.
        predictions: `cells.csv` or `result.json` to evaluate; then no model runs.
        split: only the fields of this split.
        level: classes to detect: `white-cell`, `detector`, `three`, `five`, `leaves`, or names of
            the taxonomy joined by commas.
        classes: classes to name, as `level`; those of the data set if left out.
        iou: at which detected and true cells are paired: 0.50, 0.55, ... 0.95.
        cells: only the classifier, on the true cells.
        scale: `truth` provides the data set's scale, `auto` has it measured.
        bootstrap: resamples for the intervals; 0 for none.
        seed: of the resamples.
        workers: images at work at a time; one per core if left out.
        progress: follows the work and can stop it.

    Raises:
        DataError: if there is nothing to evaluate.
        ConfigError: if the value of an option is not allowed.
    """
    if predictions is not None and model is not None:
        raise ConfigError("evaluate: predictions need no model, so leave it out")
    request = EvaluationOptions(
        dataset=dataset if isinstance(dataset, Dataset) else Path(dataset),
        bundle=None if model is None or isinstance(model, Model) else Path(model),
        predictions=None if predictions is None else Path(predictions),
        split=split,
        level=level,
        classes=classes,
        iou=iou,
        cells=cells,
        scale=scale,
        bootstrap=bootstrap,
        seed=seed,
        threads=workers,
    )
    bundle = model.bundle if isinstance(model, Model) else None
    return run_evaluation(request, progress, bundle)


def cross_evaluate(
    datasets: Sequence[Dataset | PathLike] | Mapping[str, Dataset | PathLike],
    models: Mapping[str, Model | PathLike | None] | None = None,
    *,
    by: str = "set",
    baseline: str | None = None,
    fixed_input: Mapping[str, int] | None = None,
    trained_on: Mapping[str, Sequence[str]] | None = None,
    classes: str = "five",
    limit: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CrossEvaluation:
    """Compare models on domains, in and out of what they were trained on.

    Args:
        datasets: labelled sets, of `open_dataset` or their files or folders; by name if wanted.
        models: by name: a bundle's folder, a loaded model, or `None` for the shipped one, which is
            the only one if left out.
        by: what divides a set into domains: `set`, `microscope`, `magnification`, `camera`,
            `stain`, `patient`, `split`, or `meta:KEY` of its fields.
        baseline: name of the model that gains are relative to.
        fixed_input: by name of a model, the longer side, px, that its images are scaled to,
            without a canonical view.
        trained_on: by name of a model, the sets it was trained on, in place of its own record.
        classes: classes to name, as in `evaluate`.
        limit: at most so many fields of a domain, drawn by lot.
        bootstrap: resamples for the intervals; 0 for none.
        seed: of the resamples and the lot.
        workers: images at work at a time; one per core if left out.
        progress: follows the work and can stop it.

    Raises:
        DataError: if there is nothing to evaluate.
        ConfigError: if the value of an option is not allowed.
    """
    given = datasets.items() if isinstance(datasets, Mapping) else ((None, d) for d in datasets)
    sizes, records = dict(fixed_input or {}), dict(trained_on or {})
    named: Mapping[str, Model | PathLike | None] = models or {DEFAULT: None}
    if unknown := [name for name in (*sizes, *records) if name not in named]:
        raise ConfigError(f"{unknown[0]!r}: no such model; there are {', '.join(named)}")
    methods = [
        MethodSpec(
            name,
            model.bundle if isinstance(model, Model) else Path(model or DEFAULT),
            fixed_input=sizes.get(name),
            trained_on=tuple(records[name]) if name in records else None,
        )
        for name, model in named.items()
    ]
    options = CrossOptions(
        sets=[TestSet(d if isinstance(d, Dataset) else Path(d), name) for name, d in given],
        methods=methods,
        by=by,
        baseline=baseline,
        classes=classes,
        limit=limit,
        bootstrap=bootstrap,
        seed=seed,
        threads=workers,
    )
    return run_cross_evaluation(options, progress)


def adapt(
    target: PathLike | Sequence[PathLike],
    out: PathLike,
    bundle: PathLike | None = None,
    *,
    method: str = "correction",
    steps: int = 400,
    labelled: PathLike | None = None,
    labelled_fields: int | None = None,
    checks: Sequence[PathLike] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> AdaptResult:
    """Adapt a bundle's classifier to a new microscope, by marked fields or without labels.

    Args:
        target: images or folders of the new microscope.
        out: folder for the new bundle; it gets the original where nothing speaks for a change.
        bundle: folder or name of the original; the shipped one if left out.
        method: `correction` by marked fields alone, or what is tried beside it: `self-training`,
            or `statistics`.
        steps: of self-training.
        labelled: a data set with marked fields of the new microscope, by which the names are
            corrected where held-out marked fields are then named better, and any method is judged.
        labelled_fields: use so many of them.
        checks: labelled data sets that must not become worse.
        seed: of all chance.
        progress: follows the work and can stop it; a stopped run resumes.

    Raises:
        BloodfilmError: if it cannot be done as asked.
    """
    paths = [target] if isinstance(target, str | os.PathLike) else list(target)
    job = AdaptJob(
        bundle=None if bundle is None else Path(bundle),
        target=[os.fspath(path) for path in paths],
        out=Path(out),
        method=method,
        steps=steps,
        labelled=None if labelled is None else Path(labelled),
        labelled_fields=labelled_fields,
        checks=[Path(path) for path in checks],
        seed=seed,
    )
    return run_adaptation(job, progress)


def learn(
    cells: PathLike,
    out: PathLike,
    bundle: PathLike | None = None,
    *,
    new: Mapping[str, str] | None = None,
    blasts: Sequence[str] = (),
    um_per_px: float | None = None,
    pixel_aspect_ratio: float | None = None,
    checks: Sequence[PathLike] = (),
    priors: Mapping[str, float] | None = None,
    max_loss: float = MAX_LOSS,
    seed: int = 0,
    progress: Progress | None = None,
) -> LearnResult:
    """Add classes to a bundle's classifier from a lab's own cells.

    Args:
        cells: a folder with a folder of pictures for each class, or a data set of marked fields.
        out: folder for the new bundle; nothing is written where learning would harm.
        bundle: folder or name of the original; the shipped one if left out.
        new: by class that the bundle does not have, the group of classes it belongs to.
        blasts: those of them that count as blasts.
        um_per_px: micrometres per pixel of the pictures along y, where red cells do not tell.
        pixel_aspect_ratio: width / height of a round cell in pixels, if known.
        checks: labelled data sets that must not become worse.
        priors: by new class, how much rarer it is in use than another class.
        max_loss: the most that balanced accuracy on what was known may lose.
        seed: of all chance.
        progress: follows the work and can stop it.

    Raises:
        BloodfilmError: if it cannot be done as asked.
    """
    source = CellSource(
        path=Path(cells), um_per_px=um_per_px, pixel_aspect_ratio=pixel_aspect_ratio
    )
    job = LearnJob(
        bundle=None if bundle is None else Path(bundle),
        cells=source,
        out=Path(out),
        new=dict(new or {}),
        blasts=tuple(blasts),
        checks=[Path(path) for path in checks],
        priors=dict(priors or {}),
        max_loss=max_loss,
        seed=seed,
    )
    return run_learning(job, progress)


def scale_dataset(
    dataset: PathLike,
    out: PathLike,
    model: Model | PathLike | None = None,
    *,
    splits: Sequence[str] = (),
    microscopes: Sequence[str] = (),
    clean_splits: bool = False,
    keep_stated: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ScalingResult:
    """Write a data set whose fields have the scale at which `analyze` shows their cells.

    A classifier that is trained on it learns cells at the scale at which it meets them in use.
    Fields whose scale can only be assumed are left out; images stay in their place.

    Args:
        dataset: file or folder of annotated fields.
        out: folder that gets `bloodfilm.json`.
        model: of `load_model`, or the folder of a bundle; the shipped one if left out.
        splits, microscopes: only the fields of these; all if left out.
        clean_splits: leave out images that leak from one split into another (TXL-PBC, PBC).
        keep_stated: leave fields as they are whose scale the set states; it is replaced otherwise.
        workers: images at work at a time; one per core if left out.
        overwrite: replace a data set in `out`.
        progress: follows the work and can stop it.

    Raises:
        DataError: if no field has a scale.
        OutputError: if `out` holds a data set and `overwrite` is not given.
    """
    job = ScalingJob(
        dataset=Path(dataset),
        out=Path(out),
        splits=tuple(splits),
        microscopes=tuple(microscopes),
        clean_splits=clean_splits,
        bundle=None if model is None or isinstance(model, Model) else Path(model),
        keep_stated=keep_stated,
        workers=workers,
        overwrite=overwrite,
    )
    return run_scaling(job, progress, model if isinstance(model, Model) else None)
