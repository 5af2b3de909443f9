"""What does the leukaemia classifier know of a patient it has never seen? The only fair judge.

    python benchmarks/leave_one_patient_out.py --data DATA --out RUNS [--patients 1 12 24 27 32]
        [--config classifier_leukaemia.toml] [--samples N] [--prior myelocyte=0.1 ...]
        [--outlines BUNDLE] [--json FILE]

For every patient of a set (`--set`, lld40x) in turn: the configuration is trained on all other
patients and all other sets, and names the cells of the patient left out, centred on their true
boxes. Each diagnosis may be one patient with one stain: who is left out takes kinds of cells along
that no other patient has.

- **coarse**: blast, lymphoid, granulocytic, monocytic, by the largest sum of leaf probabilities;
  every other class is wrong. Accuracy, and balanced accuracy over the classes with `LEAST` cells or
  more; pooled over all patients, over all their cells.
- **fine**: the classes of the set, likewise.
- **attributes**: balanced accuracy of the network, and of measured shape and colour with the class
  (`bloodfilm attributes`, fitted to the other patients' cells), beside what the class alone tells:
  the commonest value of the cell's class among the other patients' cells, taking the class from
  the labels (an oracle) and from this very classifier. A cell that cannot be outlined keeps the
  network's answer.
- **blasts**: area under the ROC curve of their probability, and precision and recall of the name.

The record of `--json` holds what `bloodfilm export --calibration` takes: temperatures and the least
confidence of the class and of each attribute, fitted on all patients left out together; `measured`
holds those of `bloodfilm attributes --calibration`.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from leave_one_site_out import NAMED_RIGHTLY, learnt_leaves
from numpy.typing import NDArray

from bloodfilm.core import DEFAULT_TAXONOMY
from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import NoProgress
from bloodfilm.core.taxonomy import BLAST
from bloodfilm.evaluation.class_figures import rank_auroc
from bloodfilm.export.outlined_cells import outlined_cells
from bloodfilm.export.trained import class_prior
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.classifier import leaf_probabilities
from bloodfilm.inference.measured_attributes import MEASURES, measures_of
from bloodfilm.training import loop
from bloodfilm.training.calibration import calibrate_attributes, calibrate_class
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config, load_config
from bloodfilm.training.data.cell_crops import CellCrops, load_crops, trainable_cells
from bloodfilm.training.data.hard_negatives import HardNegatives, load_hard_negatives
from bloodfilm.training.data.rendered_crops import render_training_crops
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.film_offsets import film_answers
from bloodfilm.training.measured_attributes import (
    LEAST_TEMPERATURE,
    MeasuredCells,
    answers_of,
    fit_measured,
)
from bloodfilm.training.precision import limit_threads
from bloodfilm.training.run_data import RunData
from bloodfilm.training.tasks.classifier import (
    ClassifierSamples,
    ClassifierTask,
    crop_view,
    predict_crops,
)
from bloodfilm.training.tasks.common import start_network
from bloodfilm.training.vocabulary import Vocabulary

CONFIG = Path("classifier_leukaemia.toml")
GROUPS = {
    "blast": (BLAST,),
    "lymphoid": ("lymphocyte", "atypical lymphocyte"),
    "granulocytic": ("immature granulocyte", "neutrophil", "eosinophil", "basophil"),
    "monocytic": ("monocyte",),
}
LEAST = 5
"""Cells that a class needs to count in a balanced accuracy."""
NEVER = -60.0
"""Logit of what is not possible, where a number is needed."""
CPU = torch.device("cpu")
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LeftOut:
    """What a classifier says of the cells of a patient it never saw.

    Attributes:
        patient: who.
        crops: the cells.
        logits: (n, leaves) of the class; attributes: (n, values).
        learnt: per leaf, whether training named it.
        others: the other patients' cells of the same set.
        seconds: of training.
        measures, other_measures: of these cells and of the others (n, m); rows of NaN where a cell
            was not outlined.
    """

    patient: str
    crops: CellCrops
    logits: NDArray[np.float32]
    attributes: NDArray[np.float32]
    learnt: list[bool]
    others: CellCrops
    seconds: float
    measures: Floats
    other_measures: Floats


class Loaded:
    """All data of a configuration, opened once; the set whose patients are left out apart.

    Args:
        config: of the runs.
        root: where data paths start.
        name: folder of the set.
        outlines: bundle whose network outlines cells.
    """

    def __init__(self, config: Config, root: Path, name: str, outlines: Bundle) -> None:
        self.config, self.root, self.view = config, root, crop_view(config)
        own = [s for s in config.data.train if s.path.name == name]
        rest = [s for s in config.data.train if s.path.name != name]
        section = config.hard_negatives
        self.patients: list[SourcedField] = list(open_sources(own, root))
        fields = open_sources(rest, root)
        held = open_sources(config.data.validation, root)
        negatives = open_sources(section.train, root)
        self.run = RunData.of_sources(config, root, [fields, self.patients, negatives], [held])
        self.measures = measures_by_cell(outlines, self.run.vocabulary, self.patients)
        self.rest = self.cut(fields)
        self.held = self.cut(held)
        self.negatives: HardNegatives | None = None
        words = self.run.vocabulary
        if negatives:
            self.negatives = load_hard_negatives(
                negatives, words, section, config.seed, NoProgress()
            )
        self.rendered = render_training_crops(words, config.rendered, config.seed, NoProgress())

    def cut(self, fields: Sequence[SourcedField]) -> CellCrops:
        """Return the cells of fields as the task loads them."""
        balanced, domains = self.view.standard is None, self.run.domains
        return load_crops(
            fields, self.run.vocabulary, NoProgress(), balanced=balanced, domains=domains
        )

    def of(self, patient: str, *, others: bool = False) -> CellCrops:
        """Return a patient's cells, or those of all others."""
        return self.cut([s for s in self.patients if (s.field.patient != patient) == others])

    def measures_of(self, patient: str, *, others: bool = False) -> Floats:
        """Return the measures (n, m) of the cells that `of` returns."""
        words = self.run.vocabulary
        rows = [
            self.measures.get(id(cell), np.full(len(MEASURES), np.nan))
            for item in self.patients
            if (item.field.patient != patient) == others
            for cell in trainable_cells(item.field.cells, words, item.dataset.taxonomy)
        ]
        return np.array(rows).reshape(-1, len(MEASURES))

    def task(self, crops: CellCrops) -> ClassifierTask:
        """Return the task that trains on some cells, with its starting weights."""
        samples = ClassifierSamples(self.config, crops, self.negatives, self.rendered)
        task = ClassifierTask(self.config, samples, self.held, self.run)
        cells = samples.start_cells(np.random.default_rng(self.config.seed))
        images = (samples.view.plain(samples.train.images[i]) for i in cells)
        start_network(task.network, self.config, self.root, images, self.run.vocabulary)
        return task


def measures_by_cell(
    bundle: Bundle, words: Vocabulary, fields: Sequence[SourcedField]
) -> dict[int, Floats]:
    """Return the measures (m,) of cells that can be outlined, by the `id` of the cell."""
    outlined = outlined_cells(bundle, words, fields, lambda *_: True, NoProgress())
    return {
        id(cell): measures_of(shape)
        for field in outlined
        for cell, shape in zip(field.cells, field.shapes, strict=True)
        if shape is not None
    }


def with_samples(config: Config, samples: int) -> Config:
    """Return a configuration of a run of so many crops, of its epochs or of its correction."""
    if not config.optim.epochs:
        correction = config.correction.model_copy(update={"samples": samples})
        return config.model_copy(update={"correction": correction})
    optim = config.optim.model_copy(update={"samples": samples // config.optim.epochs})
    return config.model_copy(update={"optim": optim})


def tested(data: Loaded, patient: str, out: Path) -> LeftOut:
    """Train without a patient, or take up the run that is there, and name the patient's cells."""
    began = time.perf_counter()
    others = data.of(patient, others=True)
    task = data.task(data.rest.join(others))
    out.mkdir(parents=True, exist_ok=True)
    loop.train(task, data.config, out, CPU)
    task.model.load_state_dict(load_checkpoint(out / loop.BEST)["model"])
    seconds = time.perf_counter() - began
    crops = data.of(patient)
    said = predict_crops(task.model.eval(), crops, CPU, task.view)
    learnt = learnt_leaves(task)
    measures = data.measures_of(patient), data.measures_of(patient, others=True)
    if [len(part) for part in measures] != [len(crops), len(others)]:
        raise SystemExit(f"patient {patient}: fields that cannot be read; see the log")
    return LeftOut(
        patient,
        crops,
        film_answers(task.model, said["description"])
        if task.model.follows_film
        else said["classes"],
        said["attributes"],
        learnt,
        others,
        round(seconds),
        *measures,
    )


# ---- figures -----------------------------------------------------------------------------------


def balanced(truth: Ints, said: Ints, least: int = 1) -> float | None:
    """Return the mean recall of the classes with `least` cells or more.

    >>> balanced(np.array([0, 0, 1]), np.array([0, 1, 1]))
    0.75
    """
    classes = [c for c in np.unique(truth) if (truth == c).sum() >= least]
    if not classes:
        return None
    return float(np.mean([(said[truth == c] == c).mean() for c in classes]))


def groups_of(leaves: Sequence[str], names: Iterable[Iterable[str]]) -> Bools:
    """Return which leaves each group of nodes stands for (groups, leaves)."""
    tree = DEFAULT_TAXONOMY
    return np.array([np.any([tree.leaf_mask(n, leaves) for n in g], axis=0) for g in names])


def in_group(allowed: Bools, groups: Bools) -> Ints:
    """Return the group that holds all leaves of each label, -1 where none does."""
    inside = np.array([~(allowed & ~g).any(1) for g in groups])
    return np.where(inside.any(0), inside.argmax(0), -1)


def classes_of(allowed: Bools) -> Bools:
    """Return the distinct labels of cells as groups of leaves."""
    return np.asarray(np.unique(allowed, axis=0))


def commonest(classes: Ints, codes: Ints, count: int) -> Ints:
    """Return the commonest value of an attribute by class; of all classes where one has none.

    >>> commonest(np.array([0, 0, 1, 1, 1]), np.array([1, 1, 0, 0, 0]), 3).tolist()
    [1, 0, 0]
    """
    known = codes >= 0
    everywhere = Counter(codes[known].tolist()).most_common(1)[0][0]
    values = np.full(count, everywhere)
    for c in np.unique(classes[known]):
        if c >= 0:
            values[c] = Counter(codes[known & (classes == c)].tolist()).most_common(1)[0][0]
    return values


@dataclass(frozen=True)
class Answers:
    """Every question's truth and answers for some cells; -1 is unknown or another class.

    Attributes:
        coarse, fine: (n, 2) truth, answer.
        attributes: by name (n, 5): truth, the network's answer, what the labelled class and the
            predicted class alone tell, the answer of measures and class.
        blast: (n,) summed probability; named: (n,) whether it is named a blast.
    """

    coarse: Ints
    fine: Ints
    attributes: dict[str, Ints]
    blast: Floats
    named: Bools


def class_probabilities(left: LeftOut, odds: Floats, temperature: float) -> Floats:
    """Return calibrated probabilities (n, leaves) at the prior of the intended use."""
    shifted = left.logits + np.log(odds) * temperature
    return leaf_probabilities(shifted, left.learnt, temperature)


def measured_logits(
    left: LeftOut, schema: Schema, leaves: Sequence[str], probabilities: Floats
) -> dict[str, Floats]:
    """Return the logits (n, values) of attributes fitted to the other patients' measured cells.

    Rows of cells without measures are NaN, values that the others do not have minus infinity.
    Attributes that the others tell too little of are left out.
    """
    nothing = np.zeros((len(left.others), len(leaves)))
    others, own = (
        MeasuredCells(
            measures,
            crops.codes,
            crops.allowed,
            crops.patients,
            p,
            np.zeros((len(crops), schema.width)),  # the network's answers, of no weight here
        )
        for measures, crops, p in (
            (left.other_measures, left.others, nothing),
            (left.measures, left.crops, probabilities),
        )
    )
    seen = np.isfinite(others.measures).any(1)
    found = {}
    for name in schema.names:
        try:
            model = fit_measured(others.take(seen), schema, name, leaves)
        except ConfigError:
            continue
        logits = answers_of(model, own, schema, name, leaves)
        logits[~np.isfinite(own.measures).any(1)] = np.nan
        found[name] = logits
    return found


def answers(
    left: LeftOut, data: Loaded, odds: Floats, temperature: float, confidence: float
) -> Answers:
    """Return a left-out patient's questions and answers."""
    words = data.run.vocabulary
    leaves, schema = words.leaves, words.schema
    p = class_probabilities(left, odds, temperature)
    measured = measured_logits(left, schema, leaves, p)
    coarse_groups = groups_of(leaves, GROUPS.values())
    every = np.concatenate([left.others.allowed, left.crops.allowed])
    fine_groups = classes_of(every[every.any(1)])

    def answer(groups: Bools) -> Ints:
        rest = np.eye(len(leaves), dtype=bool)[~groups.any(0)]
        said = (p @ np.concatenate([groups, rest]).T).argmax(1)
        return np.where(said < len(groups), said, -1)

    fine = np.column_stack([in_group(left.crops.allowed, fine_groups), answer(fine_groups)])
    theirs = in_group(left.others.allowed, fine_groups)
    found = {}
    for column, (name, where) in enumerate(schema.slices.items()):
        codes, before = left.crops.codes[:, column], left.others.codes[:, column]
        if (codes >= 0).sum() == 0 or len(np.unique(before[before >= 0])) < 2:
            continue
        taught = np.isin(np.arange(where.stop - where.start), before)
        said = np.where(taught, left.attributes[:, where], -np.inf).argmax(1)
        table = np.append(
            commonest(theirs, before, len(fine_groups)), commonest(np.zeros_like(theirs), before, 1)
        )
        by_measures = said.copy()
        if name in measured:
            seen = ~np.isnan(measured[name]).any(1)
            by_measures[seen] = measured[name][seen].argmax(1)
        found[name] = np.column_stack(
            [codes, said, table[fine[:, 0]], table[fine[:, 1]], by_measures]
        )
    blast = np.array([DEFAULT_TAXONOMY.is_under(leaf, BLAST) for leaf in leaves])
    sum_of_blasts = np.asarray(p[:, blast].sum(1), dtype=np.float64)
    coarse = np.column_stack([in_group(left.crops.allowed, coarse_groups), answer(coarse_groups)])
    return Answers(coarse, fine, found, sum_of_blasts, sum_of_blasts >= confidence)


def figures(given: Answers) -> dict[str, Any]:
    """Return what the benchmark reports of some cells."""
    result: dict[str, Any] = {"cells": len(given.coarse)}
    for name, pairs in (("coarse", given.coarse), ("fine", given.fine)):
        known = pairs[pairs[:, 0] >= 0]
        result[name] = {
            "accuracy": float((known[:, 0] == known[:, 1]).mean()),
            "balanced": balanced(known[:, 0], known[:, 1], LEAST),
        }
    recalls = {}
    for i, name in enumerate(GROUPS):
        of_group = given.coarse[given.coarse[:, 0] == i]
        if len(of_group):
            recalls[name] = [round(float((of_group[:, 1] == i).mean()), 4), len(of_group)]
    result["coarse"]["recall"] = recalls
    scores: dict[str, Any] = {}
    for name, rows in given.attributes.items():
        known = rows[rows[:, 0] >= 0]
        if len(np.unique(known[:, 0])) < 2:
            continue
        columns = ("balanced", "class_only_labelled", "class_only_predicted", "measured")
        scores[name] = {c: balanced(known[:, 0], known[:, i]) for i, c in enumerate(columns, 1)} | {
            "accuracy": float((known[:, 0] == known[:, 1]).mean())
        }
    result["attributes"] = scores
    for key in ("balanced", "class_only_labelled", "class_only_predicted", "measured", "accuracy"):
        values = [s[key] for s in scores.values()]
        result[f"attributes_{key}"] = float(np.mean(values)) if values else None
    is_blast, known_class = given.coarse[:, 0] == 0, given.coarse[:, 0] >= 0
    if is_blast.any() and (known_class & ~is_blast).any():
        others = known_class & ~is_blast
        result["blast_auroc"] = rank_auroc(given.blast[is_blast], given.blast[others])
    named = given.named & known_class
    right = int((named & is_blast).sum())
    result["blast_precision"] = right / int(named.sum()) if named.any() else None
    result["blast_recall"] = right / int(is_blast.sum()) if is_blast.any() else None
    return rounded(result)


def rounded(value: Any) -> Any:
    """Return plain data with four decimals."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def pooled(parts: Sequence[Answers]) -> Answers:
    """Return the answers of all patients as one."""
    names = dict.fromkeys(n for part in parts for n in part.attributes)
    return Answers(
        np.concatenate([p.coarse for p in parts]),
        np.concatenate([p.fine for p in parts]),
        {n: np.concatenate([p.attributes[n] for p in parts if n in p.attributes]) for n in names},
        np.concatenate([p.blast for p in parts]),
        np.concatenate([p.named for p in parts]),
    )


def lifted(allowed: Bools, learnt: Sequence[bool], leaves: Sequence[str]) -> Bools:
    """Return labels (n, leaves) of which every one stands for some leaf that was learnt."""
    tree, known = DEFAULT_TAXONOMY, np.asarray(learnt)
    result = allowed.copy()
    for i in np.flatnonzero(allowed.any(1) & ~(allowed & known).any(1)):
        name = tree.common(np.array(leaves)[allowed[i]].tolist())
        above = [*reversed(tree.path(name)[:-1])]
        for node in [BLAST, *above] if tree.is_under(name, BLAST) else above:
            mask = np.array(tree.leaf_mask(node, leaves))
            if (mask & known).any():
                result[i] = mask
                break
    return result


def calibrated(left: Sequence[LeftOut], data: Loaded, odds: Floats) -> dict[str, Any]:
    """Return temperatures and confidences fitted on the patients left out together.

    A leaf that a patient's classifier never learnt gets no probability from it, and a cell of such
    a class is one of the nearest class above it that was learnt, of a blast that of any blast.
    """
    words = data.run.vocabulary
    logits = np.concatenate([np.where(x.learnt, x.logits, NEVER) for x in left])
    allowed = np.concatenate([lifted(x.crops.allowed, x.learnt, words.leaves) for x in left])
    learnt = np.any([x.learnt for x in left], axis=0).tolist()
    of_class = calibrate_class(
        logits.astype(np.float32), allowed, learnt, odds, words, NAMED_RIGHTLY
    )
    attributes = np.concatenate([x.attributes for x in left])
    codes = np.concatenate([x.crops.codes for x in left])
    temperatures, least, errors = calibrate_attributes(attributes, codes, words.schema)
    metrics = of_class.metrics | errors
    whole = replace(
        of_class,
        metrics=metrics,
        attribute_temperatures=temperatures,
        attribute_confidence=least,
    )
    return asdict(whole)


def calibrated_measures(
    left: Sequence[LeftOut], data: Loaded, odds: Floats, temperature: float
) -> dict[str, Any]:
    """Return what `bloodfilm attributes --calibration` takes, fitted on all patients left out.

    Cells count whose value the fit without their patient knew. The least confidence is chosen over
    all attributes, measured ones and others.
    """
    words = data.run.vocabulary
    schema, leaves = words.schema, words.leaves
    outputs, codes = [], []
    named: set[str] = set()
    for x in left:
        logits, known = x.attributes.astype(np.float64), x.crops.codes.copy()
        p = class_probabilities(x, odds, temperature)
        for name, found in measured_logits(x, schema, leaves, p).items():
            named.add(name)
            column, seen = schema.names.index(name), ~np.isnan(found).any(1)
            logits[seen, schema.slices[name]] = np.maximum(found[seen], NEVER)
            rows = np.flatnonzero(seen & (known[:, column] >= 0))
            never = np.isneginf(found[rows, known[rows, column]])
            known[rows[never], column] = -1
        outputs.append(logits)
        codes.append(known)
    temperatures, least, metrics = calibrate_attributes(
        np.concatenate(outputs).astype(np.float32), np.concatenate(codes), schema
    )
    kept = {n: max(t, LEAST_TEMPERATURE) for n, t in temperatures.items() if n in named}
    return {"temperatures": kept, "confidence": least, "metrics": metrics}


def main() -> None:
    """Train without each patient, test on them, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--set", default="lld40x")
    parser.add_argument("--patients", nargs="*", default=[])
    parser.add_argument(
        "--samples", type=int, help="crops per run; the configuration's if left out"
    )
    parser.add_argument("--prior", nargs="*", default=[])
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--outlines", type=Path, default=Path("default"), help="bundle that outlines the cells"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    limit_threads(given.threads)
    config = load_config(given.config)
    if given.samples:
        config = with_samples(config, given.samples)
    optim = config.optim.model_copy(update={"validate_every": max(1, config.optim.epochs)})
    config = config.model_copy(update={"optim": optim})
    data = Loaded(config, given.data, given.set, load_bundle(given.outlines))
    priors = {name: float(factor) for name, _, factor in (p.partition("=") for p in given.prior)}
    odds = class_prior(data.run.vocabulary.leaves, priors)
    patients = given.patients or sorted({str(s.field.patient) for s in data.patients})
    left: list[LeftOut] = []
    for patient in patients:
        left.append(tested(data, patient, given.out / patient))
        calibration = calibrated(left, data, odds)
        t, least = calibration["temperature"], calibration["confidence"]
        parts = [answers(x, data, odds, t, least) for x in left]
        record = {
            "samples": (config.optim.samples or 0) * config.optim.epochs
            + config.correction.samples,
            "prior": priors,
            "patients": {x.patient: figures(a) for x, a in zip(left, parts, strict=True)},
            "pooled": figures(pooled(parts)),
            "calibration": calibration,
            "measured": calibrated_measures(left, data, odds, t),
        }
        print(json.dumps({patient: record["patients"][patient]}), flush=True)
        if given.json:
            given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: record[k] for k in ("pooled", "calibration", "measured")}))


if __name__ == "__main__":
    main()
