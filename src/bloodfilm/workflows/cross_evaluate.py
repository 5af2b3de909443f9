"""Evaluate several methods on several domains: train on A, test on B."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm import __version__
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.field import Field
from bloodfilm.core.files import open_output
from bloodfilm.core.progress import NoProgress, OneStage, Progress, track
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.core.taxonomy import NUCLEATED
from bloodfilm.evaluation.class_granularity import parse_granularity
from bloodfilm.evaluation.cross_domain import Outcomes, Part, Scoring, outcomes_of
from bloodfilm.evaluation.cross_matrix import Method, TestDomain, cross_matrix
from bloodfilm.evaluation.cross_record import CrossEvaluation
from bloodfilm.evaluation.evaluate import Resampling
from bloodfilm.evaluation.predictions import ByImage, NoSharedImageError, align, read_predictions
from bloodfilm.formats import open_dataset
from bloodfilm.formats.judged import refuse_unjudged
from bloodfilm.imaging.headers import image_size
from bloodfilm.inference.bundle import Bundle, default_bundle, load_bundle
from bloodfilm.workflows.analyze import failed
from bloodfilm.workflows.evaluate import FEW_PATIENTS
from bloodfilm.workflows.outputs import refuse_inputs

DEFAULT = "default"
"""Names the shipped bundle where a folder of one is expected."""
BY = ("set", "microscope", "magnification", "camera", "stain", "patient", "split")
META = "meta:"
PARTS: tuple[Part, ...] = ("detector", "classifier")


@dataclass(frozen=True)
class TestSet:
    """A labelled data set to test on.

    Attributes:
        data: its file or folder, or the set itself.
        name: of its domain; the set's own if left out.
        split: only the fields of this split.
    """

    __test__ = False  # for pytest: this is no test

    data: Path | Dataset
    name: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class MethodSpec:
    """A way to find and name cells: a bundle, or the results of an analysis.

    Attributes:
        name: in tables; the bundle's or the file's if left out.
        bundle: folder of the model, or the name of a shipped one; or a loaded one.
        predictions: `cells.csv` or `result.json`, in place of a bundle.
        fixed_input: analyse without a canonical view: scale images to this longer side, px.
        trained_on: names of the sets it was trained on; `None` for what the bundle records.
    """

    name: str | None = None
    bundle: Path | Bundle | None = None
    predictions: Path | None = None
    fixed_input: int | None = None
    trained_on: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.bundle is None) == (self.predictions is None):
            raise ConfigError("cross evaluation: a method is a bundle or a file of predictions")
        if self.predictions is not None and self.fixed_input is not None:
            raise ConfigError(f"{self.predictions}: results are not analysed again; leave the "
                              "fixed input out")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CrossOptions:
    """What to compare, on what, and how.

    Attributes:
        sets: labelled data sets.
        methods: models and files of results; the shipped bundle if there are none.
        by: what divides a set into domains: `set` (nothing), `microscope`, `magnification`,
            `camera`, `stain`, `patient`, `split`, or `meta:KEY` of its fields.
        baseline: name of the method that gains are relative to.
        classes: to name; see `parse_granularity`.
        iou: at which true and found cells are paired.
        limit: at most so many fields of a domain, drawn by `seed`; `None` for all.
        floor: lowest score that counts towards average precision.
        bootstrap: resamples for the intervals; 0 for none.
        seed: of the resamples, and of the draw.
        device: `auto`, `cpu` or `cuda`.
        threads: fields at work at a time; `None` for one per core.
        outputs: files that will be written; checked before any work.

    Raises:
        ConfigError: if a value is none of these.
    """

    sets: Sequence[TestSet]
    methods: Sequence[MethodSpec] = ()
    by: str = "set"
    baseline: str | None = None
    classes: str = "five"
    iou: float = 0.5
    limit: int | None = None
    floor: float = 0.02
    bootstrap: int = 1000
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    outputs: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if self.by not in BY and not (self.by.startswith(META) and len(self.by) > len(META)):
            raise ConfigError(f"by {self.by!r}: choose one of {', '.join(BY)}, or {META}KEY")
        if not 0 < self.iou < 1:
            raise ConfigError(f"iou {self.iou:g}: must lie between 0 and 1")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit {self.limit}: must be 1 or more")

    @property
    def settings(self) -> dict[str, Any]:
        """What bears on the figures, as plain data."""
        names = ("by", "classes", "iou", "limit", "floor", "seed")
        return {name: getattr(self, name) for name in names}


@dataclass
class _Method:
    """A method ready to work: exactly one of `bundle` and `found` is there."""

    record: Method
    bundle: Bundle | None = None
    found: ByImage | None = None
    fixed_input: int | None = None
    source: str = ""
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def classified(self) -> str:
        return self.bundle.manifest.roles.classified if self.bundle else NUCLEATED


def cross_evaluate(options: CrossOptions, progress: Progress | None = None) -> CrossEvaluation:
    """Run every method on every domain by the whole analysis path, and compare.

    Raises:
        BloodfilmError: where that cannot be done; in one line.
    """
    progress = progress or NoProgress()
    specs = options.methods or (MethodSpec(bundle=Path(DEFAULT)),)
    inputs = [s.data for s in options.sets if isinstance(s.data, Path)]
    inputs += [s.predictions for s in specs if s.predictions is not None]
    refuse_inputs(options.outputs, inputs)
    methods = _open_methods(specs)
    baseline = _baseline(methods, options.baseline)
    sets = [_open_set(one) for one in options.sets]
    notes: list[str] = []
    plan = [_domains_of(data, options, len(sets) > 1, notes) for data in sets]
    names = [name for parts in plan for name, _ in parts]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"domain {repeated[0]!r}: two sets have this name; give NAME=DATASET")
    refuse_inputs(options.outputs, (f.path for data in sets for f in data))
    domains: list[TestDomain] = []
    outcomes: dict[tuple[int, int], Outcomes] = {}
    for data, parts in zip(sets, plan, strict=True):
        first = len(domains)
        domains += [TestDomain.of_fields(name, data.name, fields) for name, fields in parts]
        for m, method in enumerate(methods):
            scored = _score(method, data, [fields for _, fields in parts], options, progress)
            for d, found in enumerate(scored, first):
                outcomes[m, d] = found
            if not scored:
                notes.append(f"{method.record.name}: has no result of {data.name}")
    resampling = Resampling(options.bootstrap, options.seed)
    records = [m.record for m in methods]
    matrix = cross_matrix(records, domains, outcomes, baseline, resampling, progress)
    notes += _caveats(methods, domains)
    return CrossEvaluation(
        f"bloodfilm {__version__}",
        options.settings,
        matrix,
        tuple(notes),
        {m.record.name: m.failures for m in methods if m.failures},
    )


# ---- methods ---------------------------------------------------------------------------------


def _open_methods(specs: Sequence[MethodSpec]) -> list[_Method]:
    methods = [_open_method(spec) for spec in specs]
    names = [m.record.name for m in methods]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"method {repeated[0]!r}: two have this name; give NAME=FOLDER")
    return methods


def _open_method(spec: MethodSpec) -> _Method:
    if spec.predictions is not None:
        subject: dict[str, Any] = {"predictions": str(spec.predictions)}
        trained = dict.fromkeys(PARTS, spec.trained_on or ())
        record = Method(spec.name or spec.predictions.stem, subject, trained)
        source = str(spec.predictions)
        return _Method(record, found=read_predictions(spec.predictions), source=source)
    bundle = spec.bundle if isinstance(spec.bundle, Bundle) else _open_bundle(spec.bundle)
    identity = bundle.identity()
    view = "canonical" if spec.fixed_input is None else f"fixed input of {spec.fixed_input} px"
    subject = {"bundle": identity["name"], "bundle_sha256": identity["sha256"][:12], "view": view}
    name = spec.name or identity["name"]
    if spec.name is None and spec.fixed_input is not None:
        name += f" at {spec.fixed_input} px"
    trained = (
        {part: training_sets(bundle, part) for part in PARTS}
        if spec.trained_on is None
        else dict.fromkeys(PARTS, spec.trained_on)
    )
    return _Method(Method(name, subject, trained), bundle, fixed_input=spec.fixed_input)


def _open_bundle(place: Path | None) -> Bundle:
    if place is None or str(place) == DEFAULT:
        return default_bundle()
    return load_bundle(place)


def training_sets(bundle: Bundle, part: Part) -> tuple[str, ...]:
    """Return the names of the data sets and microscopes that a network was trained on.

    Names are those that the readers give the sets; bundles of older versions record no microscopes.
    """
    record = bundle.manifest.training.get(part) or {}
    sources = record.get("sources") or {}
    names = [str(s["name"]) for s in sources.get("train", ()) if "name" in s]
    scopes = [
        str(name).rpartition(": ")[2].partition("/")[0] for name in record.get("domains") or ()
    ]
    return tuple(dict.fromkeys([*names, *(s for s in scopes if s != "unknown")]))


def _baseline(methods: Sequence[_Method], name: str | None) -> int | None:
    if name is None:
        return None
    names = [m.record.name for m in methods]
    if name not in names:
        raise ConfigError(f"baseline {name!r}: no such method; there are {', '.join(names)}")
    if len(names) < 2:
        raise ConfigError(f"baseline {name!r}: is the only method; name another to compare with it")
    return names.index(name)


# ---- domains ---------------------------------------------------------------------------------


def _open_set(one: TestSet) -> Dataset:
    data = one.data if isinstance(one.data, Dataset) else open_dataset(one.data)
    place = one.data if isinstance(one.data, Path) else data.name
    refuse_unjudged(data, place)
    if one.split is not None:
        whole, data = data, data.split(one.split)
        if not len(data):
            known = ", ".join(sorted({f.split for f in whole if f.split})) or "none"
            raise DataError(f"{place}: no field in split {one.split!r}; it has {known}")
    if not any(not c.ignore for f in data for c in f.cells):
        raise DataError(f"{place}: no field has labels; evaluation needs true cells")
    return data if one.name is None else replace(data, name=one.name)


def _domains_of(
    data: Dataset, options: CrossOptions, prefixed: bool, notes: list[str]
) -> list[tuple[str, list[Field]]]:
    """Divide a set into domains, in the order of its fields; draw fields where that is asked."""
    parts: dict[str, list[Field]] = {}
    for item in data:
        parts.setdefault(_key(item, options.by), []).append(item)
    found = []
    for key, fields in parts.items():
        name = data.name if options.by == "set" else f"{data.name}: {key}" if prefixed else key
        if not any(not c.ignore for f in fields for c in f.cells):
            notes.append(f"{name}: left out, none of its {len(fields)} fields has a labelled cell")
            continue
        found.append((name, _drawn(fields, options)))
    return found


def _key(item: Field, by: str) -> str:
    if by == "set":
        return ""
    if by.startswith(META):
        value: object = item.meta.get(by.removeprefix(META))
    elif by in ("patient", "split"):
        value = getattr(item, by)
    else:
        value = getattr(item.domain, by)
    if isinstance(value, float):
        return f"{value:g}X" if by == "magnification" else f"{value:g}"
    return str(value) if value is not None else f"unknown {by.removeprefix(META)}"


def _drawn(fields: list[Field], options: CrossOptions) -> list[Field]:
    if options.limit is None or len(fields) <= options.limit:
        return fields
    labelled = [i for i, f in enumerate(fields) if any(not c.ignore for c in f.cells)]
    rng = np.random.default_rng(options.seed)
    chosen = sorted(rng.permutation(labelled)[: options.limit].tolist())
    return [fields[i] for i in chosen]


# ---- results ---------------------------------------------------------------------------------


def _score(
    method: _Method,
    data: Dataset,
    parts: Sequence[list[Field]],
    options: CrossOptions,
    progress: Progress,
) -> list[Outcomes]:
    """Return what a method made of each domain of a set; nothing if it has no result of it."""
    fields = [f for part in parts for f in part]
    taxonomy, schema = data.taxonomy, data.schema
    visible: Callable[[CellResult], bool] = lambda _: True  # noqa: E731
    if method.bundle is not None:
        taxonomy = taxonomy.join(method.bundle.taxonomy)
        found, visible = _analyse(method, method.bundle, fields, options, progress)
    else:
        try:
            aligned = align(fields, method.found or {}, method.source)
        except NoSharedImageError:
            return []
        found = list(zip(map(_with_size, fields), aligned, strict=True))
    classes = parse_granularity(options.classes, taxonomy)
    scoring = Scoring(taxonomy, schema, classes, method.classified, options.iou)
    outcomes, first = [], 0
    for part in parts:
        mine = found[first : first + len(part)]
        first += len(part)
        items, cells = [f for f, _ in mine], [c for _, c in mine]
        outcomes.append(outcomes_of(items, cells, visible, scoring))
    return outcomes


def _analyse(
    method: _Method,
    bundle: Bundle,
    fields: Sequence[Field],
    options: CrossOptions,
    progress: Progress,
) -> tuple[list[tuple[Field, Sequence[CellResult]]], Callable[[CellResult], bool]]:
    """Run the whole path on every field, keeping scores down to the floor.

    Returns the fields with their cells, and whether `analyze` would show a cell.
    """
    from bloodfilm.inference.model import Model
    from bloodfilm.inference.runner import SAMPLES, RunPlan, analyze_many

    model = Model(
        bundle, device=options.device, score_floor=options.floor, fixed_input=method.fixed_input
    )
    plan = RunPlan(films=[f.patient for f in fields])
    outcomes = analyze_many(
        [f.path for f in fields],
        model,
        workers=options.threads,
        progress=OneStage(progress, SAMPLES),
        plan=plan,
    )
    stage = f"fields ({method.record.name})"
    found: list[tuple[Field, Sequence[CellResult]]] = []
    for item, outcome in zip(fields, track(outcomes, progress, stage, len(fields)), strict=True):
        if isinstance(outcome, FieldResult):
            image = outcome.image
            found.append((replace(item, width=image.width, height=image.height), outcome.cells))
        else:
            method.failures[outcome.path] = outcome.reason
            progress.report(failed(outcome))
            found.append((item, ()))
    shown_from = model.analyzer.shown_from
    bundle.close()
    return found, lambda cell: cell.confidence >= shown_from[cell.object_type]


def _with_size(item: Field) -> Field:
    """Return a field with the size of its image, where that can be read."""
    if item.width is not None and item.height is not None:
        return item
    try:
        width, height = image_size(item.path)
    except DataError:
        return item
    return replace(item, width=width, height=height)


def _caveats(methods: Sequence[_Method], domains: Sequence[TestDomain]) -> Iterator[str]:
    for method in methods:
        if method.found is not None:
            yield (
                f"{method.record.name}: AP counts only what the file holds: an analysis leaves "
                "low scores out"
            )
        if not any(method.record.trained_on.values()):
            yield (
                f"{method.record.name}: what it was trained on is not recorded: every domain "
                "counts as new to it"
            )
    for domain in domains:
        groups = len(set(domain.groups))
        if "field" not in domain.unit and groups < FEW_PATIENTS:
            yield f"{domain.name}: {groups} groups: its intervals are rough, likely too narrow"


def write_cross_record(path: Path, evaluation: CrossEvaluation) -> None:
    """Write the record as JSON, whole or not at all."""
    with open_output(path) as file:
        json.dump(evaluation.to_json(), file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_heat_map(path: Path, evaluation: CrossEvaluation) -> None:
    """Draw the matrix as an SVG picture, written whole or not at all."""
    from bloodfilm.report.heat_map import heat_map

    with open_output(path) as file:
        file.write(heat_map(evaluation.matrix))
