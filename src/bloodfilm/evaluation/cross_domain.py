"""The figures of one method on one domain, such that they can be computed anew for resamples.

A method is a model with a way to analyse, or a file of results. A domain is a part of the test
data with one origin: a data set, a microscope, a magnification, a patient. The figures are:

- `ap50`: average precision of white cells at IoU 0.5, over fields that are annotated beyond the
  boxes of their labelled cells; not-a-number where there are none (sparse annotation);
- `found`: share of the labelled cells that are found at the model's own thresholds;
- `class_balanced`: mean recall of the classes over all labelled cells; a missed cell is wrong;
- `named`, `named_right`: share of the found cells that are named as deep as the classes, and how
  many of these names are right;
- `attribute_balanced`: mean over attributes and their values of the recall, missed cells wrong;
- `calibration_error`: expected calibration error of the class, over found cells.

`cross_matrix` puts those of several methods and domains side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.core.attributes import Schema
from bloodfilm.core.field import Field
from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.evaluation.average_precision import MatchVerdicts, collect, precision_and_recall
from bloodfilm.evaluation.calibration import expected_calibration_error
from bloodfilm.evaluation.cell_matching import CellMatch, match_fields
from bloodfilm.evaluation.class_granularity import ClassGranularity, parse_granularity
from bloodfilm.evaluation.classification import attribute_outcomes, class_outcomes
from bloodfilm.evaluation.detection import prepare

Weights = NDArray[np.intp]
Part = Literal["detector", "classifier"]

WHITE_CELL = "white-cell"
BEYOND_BOXES = 4.0
"""A field's region counts as annotated beyond its boxes if it is this many times their area."""


@dataclass(frozen=True)
class Figure:
    """One figure of the matrix.

    Attributes:
        key: in records.
        title: in tables.
        part: the network whose training data decide whether a domain is new to it.
        rises: whether more is better.
    """

    key: str
    title: str
    part: Part
    rises: bool = True


FIGURES = (
    Figure("ap50", "white-cell AP50", "detector"),
    Figure("found", "labelled cells found", "detector"),
    Figure("class_balanced", "class, balanced, missed cells wrong", "classifier"),
    Figure("named", "found cells named", "classifier"),
    Figure("named_right", "names that are right", "classifier"),
    Figure("attribute_balanced", "attributes, balanced, missed cells wrong", "classifier"),
    Figure("calibration_error", "calibration error of the class", "classifier", rises=False),
)
KEYS = tuple(figure.key for figure in FIGURES)


# ---- one method on one domain ----------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """The cells of which a class, or an attribute, is known.

    Attributes:
        field: (n,) index of each cell's field.
        truth: (n,) index of its true value.
        right: (n,) whether it was found and the best guess is right.
        values: number of values.
    """

    field: NDArray[np.intp]
    truth: NDArray[np.intp]
    right: Bools
    values: int

    def balanced(self, weights: Weights) -> float:
        """Return the mean recall of the values that occur; not-a-number without a cell."""
        w = weights[self.field].astype(np.float64)
        total = np.bincount(self.truth, w, self.values)
        hits = np.bincount(self.truth, w * self.right, self.values)
        occurs = total > 0
        return float((hits[occurs] / total[occurs]).mean()) if occurs.any() else float("nan")


@dataclass(frozen=True)
class Outcomes:
    """What one method made of one domain, reduced to what the figures need.

    Attributes:
        fields: number of fields.
        cells: number of labelled cells.
        verdicts: of white-cell detections, over completely annotated fields; `None` without any.
        field, found: (cells,) index of each labelled cell's field, whether it was found.
        classes: the class of the cells that have one of the classes asked for.
        attributes: by name; those that the model does not answer are left out.
        named_field, named, named_right: of the found cells of `classes`, whether the model named
            them as deep as the classes, and whether that is right.
        confidence, correct: of these cells' best guess; not-a-number where unknown.
    """

    fields: int
    cells: int
    verdicts: MatchVerdicts | None
    field: NDArray[np.intp]
    found: Bools
    classes: Question
    attributes: Mapping[str, Question]
    named_field: NDArray[np.intp]
    named: Bools
    named_right: Bools
    confidence: Floats
    correct: Bools

    def figures(self, weights: Weights | None = None) -> Floats:
        """Return the figures in the order of `KEYS`; not-a-number where one does not exist.

        Args:
            weights: (fields,) how often each field is in the sample; once if left out.
        """
        w = np.ones(self.fields, dtype=np.intp) if weights is None else weights
        named = w[self.named_field] * self.named
        right = named * self.named_right
        asked = w[self.named_field].sum()
        return np.array(
            [
                self._ap50(w),
                _share(w[self.field] * self.found, w[self.field].sum()),
                self.classes.balanced(w),
                _share(named, asked),
                _share(right, named.sum()),
                _mean([q.balanced(w) for q in self.attributes.values()]),
                self._calibration_error(w),
            ]
        )

    def _ap50(self, w: Weights) -> float:
        if self.verdicts is None:
            return float("nan")
        ap = float(precision_and_recall(self.verdicts, w)[0][0])
        return ap if ap >= 0 else float("nan")

    def _calibration_error(self, w: Weights) -> float:
        known = np.flatnonzero(np.isfinite(self.confidence))
        drawn = np.repeat(known, w[self.named_field[known]])
        return expected_calibration_error(self.confidence[drawn], self.correct[drawn])


def _share(part: NDArray[np.intp], whole: int) -> float:
    return float(part.sum() / whole) if whole else float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


@dataclass(frozen=True)
class Scoring:
    """How cells are scored.

    Attributes:
        taxonomy, schema: of data and models, joined.
        classes: to name.
        classified: the object type whose cells are named.
        iou: at which true and found cells are paired.
    """

    taxonomy: Taxonomy
    schema: Schema
    classes: ClassGranularity
    classified: str
    iou: float = 0.5

    @cached_property
    def white_cells(self) -> ClassGranularity:
        """The one class that detection is scored by."""
        return parse_granularity(WHITE_CELL, self.taxonomy)


def outcomes_of(
    fields: Sequence[Field],
    results: Sequence[Sequence[CellResult]],
    visible: Callable[[CellResult], bool],
    scoring: Scoring,
) -> Outcomes:
    """Compare what a method found in the fields of a domain with their labels.

    Args:
        fields: with their sizes.
        results: the cells found in each, low scores included.
        visible: whether a cell is shown to a user: all figures but AP count only these.
        scoring: how.
    """
    shown = [[c for c in cells if visible(c)] for cells in results]
    matches = match_fields(fields, shown, scoring.taxonomy, scoring.iou, scoring.classified)
    named = _of_classes(matches, scoring)
    found = [(m, truth) for m, truth in named if m.result is not None]
    judged = class_outcomes(
        [truth for _, truth in found],
        [m.result for m, _ in found if m.result is not None],
        scoring.taxonomy,
        vocabulary=scoring.classes.classes,
    )
    right = {id(m): bool(ok) for (m, _), ok in zip(found, judged.correct, strict=True)}
    return Outcomes(
        fields=len(fields),
        cells=len(matches),
        verdicts=_white_cell_verdicts(fields, results, scoring),
        field=_indices([m.field for m in matches]),
        found=np.array([m.result is not None for m in matches], dtype=bool),
        classes=Question(
            _indices([m.field for m, _ in named]),
            _indices([scoring.classes.classes.index(truth) for _, truth in named]),
            np.array([right.get(id(m), False) for m, _ in named], dtype=bool),
            len(scoring.classes.classes),
        ),
        attributes=_attribute_questions(matches, scoring.schema),
        named_field=_indices([m.field for m, _ in found]),
        named=judged.accepted,
        named_right=judged.accepted_right,
        confidence=judged.confidence,
        correct=judged.correct,
    )


def _indices(values: Sequence[int]) -> NDArray[np.intp]:
    return np.array(values, dtype=np.intp)


def _of_classes(matches: Sequence[CellMatch], scoring: Scoring) -> list[tuple[CellMatch, str]]:
    """Return the cells whose label lies under one of the classes, with that class."""
    out = []
    for m in matches:
        names, certain = scoring.classes.of_truth(m.cell.label)
        if certain:
            out.append((m, names[0]))
    return out


def _attribute_questions(matches: Sequence[CellMatch], schema: Schema) -> dict[str, Question]:
    questions = {}
    for attribute in schema.attributes:
        known = [m for m in matches if m.cell.attributes.get(attribute.name) is not None]
        found = [(m, m.result) for m in known if m.result is not None]
        values = [m.cell.attributes[attribute.name] for m in known]
        if len(set(values)) < 2:
            continue
        judged = attribute_outcomes(
            attribute,
            [m.cell.attributes[attribute.name] for m, _ in found],
            [result for _, result in found],
        )
        if not len(judged):  # the model does not answer it
            continue
        right = {
            id(found[i][0])
            for i, ok in zip(judged.cells.tolist(), judged.correct, strict=True)
            if ok
        }
        questions[attribute.name] = Question(
            _indices([m.field for m in known]),
            _indices([attribute.index(value) for value in values]),
            np.array([id(m) in right for m in known], dtype=bool),
            len(attribute.values),
        )
    return questions


def _white_cell_verdicts(
    fields: Sequence[Field], results: Sequence[Sequence[CellResult]], scoring: Scoring
) -> MatchVerdicts | None:
    """Match white cells in the fields that are annotated beyond the boxes of labelled cells."""
    whole = [i for i, item in enumerate(fields) if is_annotated_beyond_boxes(item)]
    if not whole:
        return None
    level = scoring.white_cells
    prepared = prepare([fields[i] for i in whole], [results[i] for i in whole], level)
    verdicts = collect(prepared).get(level.classes[0])
    if verdicts is None:
        return None
    truths = np.zeros(len(fields), dtype=np.intp)
    truths[whole] = verdicts.truths
    # Only IoU 0.5 is reported, and matching is what takes the time of a resample.
    return MatchVerdicts(
        verdicts.verdicts[:1], verdicts.scores, _indices(whole)[verdicts.field], truths
    )


def is_annotated_beyond_boxes(item: Field) -> bool:
    """Whether a detection where no cell is labelled can be known to be false.

    Where only some cells were boxed, as in many public sets, the region is their boxes and a
    detection elsewhere is neither right nor wrong.
    """
    if item.region.is_everything or item.region.is_nothing:
        return item.region.is_everything
    if item.width is None or item.height is None:
        return False
    boxes = sum(c.box[2] * c.box[3] for c in item.cells if c.box is not None)
    return item.region.area(item.width, item.height) >= BEYOND_BOXES * boxes
