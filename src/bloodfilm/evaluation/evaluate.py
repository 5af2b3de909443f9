"""Compute the evaluation figures from fields and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.attributes import Attribute, Schema
from bloodfilm.core.field import Cell, Field
from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.evaluation import average_precision, calibration
from bloodfilm.evaluation import intervals as bootstrap
from bloodfilm.evaluation.blasts import BlastReport, blast_report
from bloodfilm.evaluation.cell_matching import MatchedCells
from bloodfilm.evaluation.class_granularity import ClassGranularity
from bloodfilm.evaluation.classification import (
    ClassOutcomes,
    LabelScores,
    Scores,
    attribute_outcomes,
    class_only_baseline,
    class_outcomes,
    confusion,
    known_pairs,
    label_scores,
    majorities,
    majority_baseline,
    score,
)
from bloodfilm.evaluation.detection import (
    DetectionScores,
    OperatingPoint,
    coco_scores,
    prepare,
    recall_of_known,
)
from bloodfilm.evaluation.intervals import Interval

DETECTION_FIGURES = ("ap", "ap50", "ap75", "ar", "recall50")
READING_FIGURES = ("accuracy", "macro_f1", "balanced_accuracy", "coverage", "accepted_accuracy")
TOLD = "told which classes the set has"
SAME_CELLS = "the evaluated cells themselves (the most any class-only reader could score)"


@dataclass(frozen=True)
class Resampling:
    """How intervals are computed."""

    n: int = 1000
    seed: int = 0
    level: float = 0.95


@dataclass(frozen=True)
class DetectionReport:
    """Scores of detection.

    Attributes:
        level: the classes that are distinguished.
        scores: of the COCO evaluator.
        intervals: by figure.
        operating: counts among the detections a user would see, at `operating.iou`.
        known: (found, boxed) cells of these classes wherever they lie.
        notes: counts of excluded items.
        resampled: what a group is, and how many there are.
    """

    level: ClassGranularity
    scores: DetectionScores
    intervals: Mapping[str, Interval]
    operating: OperatingPoint
    known: tuple[int, int]
    notes: Mapping[str, int]
    resampled: tuple[str, int]


@dataclass(frozen=True)
class QuestionReport:
    """Scores of the class, or of one attribute.

    Attributes:
        name: `class`, or the attribute's.
        scores, intervals: the figures.
        labels: per true label.
        names, matrix: the confusion matrix, true label by row.
        calibration_error, brier: of the best guess, of all probabilities; `None` without those.
        reliability: bins of equal mass.
        abstaining: (coverage, threshold, accuracy) over the most confident predictions.
        baselines: by name.
    """

    name: str
    scores: Scores
    intervals: Mapping[str, Interval]
    labels: Mapping[str, LabelScores]
    names: tuple[str, ...]
    matrix: NDArray[np.float64]
    calibration_error: float | None
    brier: float | None
    reliability: tuple[calibration.Bin, ...]
    abstaining: tuple[tuple[float, float, float], ...]
    baselines: Mapping[str, Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassificationReport:
    """Scores of classification.

    Attributes:
        rule: how true and found cells were paired.
        wanted, paired: true cells that could have been paired, and those that were.
        questions: the class first, if there are at least two.
        learnt_from: source of the attribute baselines.
        notes: messages about excluded items.
        resampled: what a group is, and how many there are.
        blasts: blasts against all other cells; `None` where the labels do not hold both.
    """

    rule: str
    wanted: int
    paired: int
    questions: tuple[QuestionReport, ...]
    learnt_from: str
    notes: tuple[str, ...]
    resampled: tuple[str, int]
    blasts: BlastReport | None = None


def evaluate_detection(
    fields: Sequence[Field],
    results: Sequence[Sequence[CellResult]],
    level: ClassGranularity,
    visible: Callable[[CellResult], bool],
    iou: float = 0.5,
    resampling: Resampling = Resampling(),
) -> DetectionReport:
    """Score detection; `visible` marks the results shown to a user (for the counts).

    Raises:
        DataError: if there is no boxed cell of these classes.
    """
    prepared = prepare(fields, results, level)
    scores = coco_scores(prepared)
    collected = average_precision.collect(prepared)
    groups, unit = bootstrap.group_fields(fields)
    made = bootstrap.intervals(
        lambda w: average_precision.means(collected, w),
        groups,
        resampling.n,
        resampling.seed,
        resampling.level,
    )
    shown = [[c for c in cells if visible(c)] for cells in results]
    counted = average_precision.collect(prepare(fields, shown, level))
    return DetectionReport(
        level,
        scores,
        dict(zip(DETECTION_FIGURES, made, strict=True)),
        average_precision.operating_point(counted, 0.0, iou),
        recall_of_known(fields, shown, level, iou),
        prepared.notes,
        (unit, len(set(groups))),
    )


def evaluate_classification(
    fields: Sequence[Field],
    pairs: MatchedCells,
    vocabulary: tuple[Taxonomy, Schema],
    reference: tuple[str, Sequence[Field]] | None = None,
    resampling: Resampling = Resampling(),
) -> ClassificationReport:
    """Score classes and attributes over pairs of true and found cells.

    Args:
        fields: the evaluated fields.
        pairs: of their cells.
        vocabulary: the data set's taxonomy and schema.
        reference: name and fields the attribute baselines learn from; the evaluated cells
            themselves if left out.
        resampling: of the intervals.
    """
    taxonomy, schema = vocabulary
    groups, unit = bootstrap.group_fields(fields)
    of_pair = [groups[p.field] for p in pairs.pairs]
    source, cells = _reference(reference, pairs)
    notes: list[str] = []
    questions = _class_question(pairs, taxonomy, of_pair, resampling, notes)
    questions += _attribute_questions(pairs, schema, (of_pair, cells), resampling, notes)
    blasts = blast_report(
        [p.cell.label for p in pairs.pairs],
        [p.result for p in pairs.pairs],
        taxonomy,
        of_pair,
        (resampling.n, resampling.seed, resampling.level),
    )
    return ClassificationReport(
        pairs.rule,
        pairs.wanted,
        len(pairs.pairs),
        tuple(questions),
        source,
        tuple(notes),
        (unit, len(set(of_pair))),
        blasts,
    )


def _class_question(
    pairs: MatchedCells,
    taxonomy: Taxonomy,
    groups: Sequence[str],
    resampling: Resampling,
    notes: list[str],
) -> list[QuestionReport]:
    named = [i for i, p in enumerate(pairs.pairs) if p.cell.label is not None]
    truths = [pairs.pairs[i].cell.label or "" for i in named]
    if len(set(truths)) < 2:
        if truths:
            notes.append(f"every cell is labelled {truths[0]!r}: there is no class to tell apart")
        return []
    results = [pairs.pairs[i].result for i in named]
    outcomes = class_outcomes(truths, results, taxonomy)
    closed = score(class_outcomes(truths, results, taxonomy, closed=True))
    where = [groups[i] for i in named]
    return [_question("class", outcomes, where, resampling, {TOLD: closed})]


def _attribute_questions(
    pairs: MatchedCells,
    schema: Schema,
    sources: tuple[Sequence[str], Sequence[Cell]],
    resampling: Resampling,
    notes: list[str],
) -> list[QuestionReport]:
    """Score each annotated attribute; `sources` are groups and the reference."""
    groups, reference = sources
    results = [p.result for p in pairs.pairs]
    questions: list[QuestionReport] = []
    silent: dict[str, list[str]] = {}
    for attribute in schema.attributes:
        values = [p.cell.attributes.get(attribute.name) for p in pairs.pairs]
        known = sum(v is not None for v in values)
        if known == 0:
            continue
        if reason := _unanswered(attribute, results):
            silent.setdefault(reason, []).append(attribute.name)
            continue
        outcomes = attribute_outcomes(attribute, values, results)
        if len(outcomes) < known:
            notes.append(f"{attribute.name}: {known - len(outcomes)} cells without an answer")
        if len(outcomes) == 0:
            continue
        classes = [pairs.pairs[i].cell.label for i in outcomes.cells]
        told = _baselines(attribute, outcomes, classes, reference)
        where = [groups[i] for i in outcomes.cells]
        questions.append(_question(attribute.name, outcomes, where, resampling, told))
    notes.extend(f"{reason}: {', '.join(names)}" for reason, names in silent.items())
    return questions


def _reference(
    reference: tuple[str, Sequence[Field]] | None, pairs: MatchedCells
) -> tuple[str, list[Cell]]:
    if reference is not None:
        cells = [c for f in reference[1] for c in f.cells if c.attributes]
        if cells:
            return reference[0], cells
    return SAME_CELLS, [p.cell for p in pairs.pairs]


def _unanswered(attribute: Attribute, results: Sequence[CellResult]) -> str:
    """Return why an attribute cannot be scored; empty if it can."""
    answers = [r.attributes[attribute.name] for r in results if attribute.name in r.attributes]
    if not answers:
        return "the model does not answer"
    if any(set(a.probabilities) - set(attribute.values) for a in answers):
        return "the model knows other values than the data set"
    if not any(a.probabilities or a.value is not None for a in answers):
        return "the model was not trained on"
    return ""


def _baselines(
    attribute: Attribute,
    outcomes: ClassOutcomes,
    classes: Sequence[str | None],
    reference: Sequence[Cell],
) -> dict[str, Scores]:
    learnt = majorities(attribute, known_pairs(reference, attribute))
    return {
        "majority": score(majority_baseline(outcomes, learnt)),
        "class only": score(class_only_baseline(outcomes, classes, learnt)),
    }


def _question(
    name: str,
    outcomes: ClassOutcomes,
    groups: Sequence[str],
    resampling: Resampling,
    baselines: Mapping[str, Scores],
) -> QuestionReport:
    def figures(weights: NDArray[np.intp]) -> list[float]:
        scores = score(outcomes, weights)
        return [getattr(scores, figure) for figure in READING_FIGURES]

    made = bootstrap.intervals(figures, groups, resampling.n, resampling.seed, resampling.level)
    sure = np.isfinite(outcomes.squared_error)
    curve = calibration.coverage_accuracy(outcomes.confidence, outcomes.correct)
    return QuestionReport(
        name,
        score(outcomes),
        dict(zip(READING_FIGURES, made, strict=True)),
        label_scores(outcomes),
        outcomes.labels,
        confusion(outcomes),
        calibration.expected_calibration_error(outcomes.confidence, outcomes.correct),
        float(outcomes.squared_error[sure].mean()) if sure.any() else None,
        calibration.reliability(outcomes.confidence, outcomes.correct),
        tuple((share, *curve.at_coverage(share)) for share in (0.5, 0.8, 0.9, 0.95)),
        baselines,
    )
