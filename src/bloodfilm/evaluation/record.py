"""One evaluation as a record: JSON for machines, tables for people."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bloodfilm.core.text import printable
from bloodfilm.evaluation.detection import IGNORE_OVERLAP, MAX_DETECTIONS
from bloodfilm.evaluation.evaluate import (
    TOLD,
    ClassificationReport,
    DetectionReport,
    QuestionReport,
    Resampling,
)
from bloodfilm.evaluation.intervals import Interval

FORMAT, VERSION = "bloodfilm-evaluation", 1
TREATMENT = (
    "true cells are matched first; a detection left over is dropped if half or more of its area "
    "lies on an ignore box or its centre lies outside the annotated region; any other is false"
)


@dataclass(frozen=True)
class Evaluation:
    """Results and settings of an evaluation.

    Attributes:
        subject: what was evaluated: data set, split, model or file of results.
        settings: options of the user.
        fields: number of fields.
        resampling: of the intervals.
        detection, classification: the figures; `None` if not requested or not possible.
        notes: messages, one line each.
        failures: fields that failed, and why.
    """

    subject: Mapping[str, Any]
    settings: Mapping[str, Any]
    fields: int
    resampling: Resampling
    detection: DetectionReport | None = None
    classification: ClassificationReport | None = None
    notes: Sequence[str] = ()
    failures: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data; a figure that does not exist is `None`."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            **self.subject,
            "settings": dict(self.settings),
            "fields": self.fields,
            "bootstrap": asdict(self.resampling),
            "detection": self.detection and _detection(self.detection),
            "reading": self.classification and _classification(self.classification),
            "notes": list(self.notes),
            "failures": dict(self.failures),
        }
        return {key: plain(value) for key, value in record.items()}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; a number that is none is `None`, others are rounded."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _detection(d: DetectionReport) -> dict[str, Any]:
    o = d.operating
    return {
        "level": d.level.name,
        "classes": list(d.level.classes),
        "rule": {
            "evaluator": "faster-coco-eval, IoU 0.50:0.05:0.95, 101 recalls",
            "doubtful_and_unknown": TREATMENT,
            "ignore_overlap": IGNORE_OVERLAP,
            "max_detections": MAX_DETECTIONS,
        },
        "scores": asdict(d.scores),
        "intervals": _intervals(d.intervals),
        "operating_point": {
            "iou": o.iou,
            "true_positives": o.true_positives,
            "false_positives": o.false_positives,
            "missed": o.missed,
            "dropped": o.dropped,
            "precision": o.precision,
            "recall": o.recall,
            "f1": o.f1,
        },
        "known_cells": {"found": d.known[0], "boxed": d.known[1]},
        "left_out": dict(d.notes),
        "resampled": {"unit": d.resampled[0], "groups": d.resampled[1]},
    }


def _intervals(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in intervals.items()}


def _classification(r: ClassificationReport) -> dict[str, Any]:
    blasts = {} if r.blasts is None else {"blasts": asdict(r.blasts)}
    return {
        "rule": r.rule,
        "cells": r.wanted,
        "read": r.paired,
        "baselines_learnt_from": r.learnt_from,
        "resampled": {"unit": r.resampled[0], "groups": r.resampled[1]},
        "questions": {q.name: _question(q) for q in r.questions},
        **blasts,
        "notes": list(r.notes),
    }


def _question(q: QuestionReport) -> dict[str, Any]:
    return {
        "scores": asdict(q.scores),
        "intervals": _intervals(q.intervals),
        "labels": {name: asdict(scores) for name, scores in q.labels.items()},
        "confusion": {"labels": list(q.names), "rows_true": q.matrix.astype(int).tolist()},
        "calibration_error": q.calibration_error,
        "brier": q.brier,
        "reliability": [asdict(b) for b in q.reliability],
        "abstaining": [{"coverage": c, "threshold": t, "accuracy": a} for c, t, a in q.abstaining],
        "baselines": {name: asdict(scores) for name, scores in q.baselines.items()},
    }


# ---- tables ----------------------------------------------------------------------------------


def show(evaluation: Evaluation) -> RenderableType:
    """Return the evaluation as tables with explanations."""
    parts: list[RenderableType] = []
    subject = ", ".join(f"{k} {v}" for k, v in evaluation.subject.items() if _is_word(v))
    parts.append(Text(f"{subject}: {evaluation.fields} fields", style="bold"))
    if evaluation.detection is not None:
        parts.extend(_show_detection(evaluation.detection))
    if evaluation.classification is not None:
        parts.extend(_show_classification(evaluation.classification))
    r = evaluation.resampling
    if r.n:
        parts.append(
            Text(f"[low, high]: {r.level:.0%} bootstrap interval, {r.n} resamples, seed {r.seed}")
        )
    parts.extend(Text(f"note: {line}") for line in evaluation.notes)
    if evaluation.failures:
        parts.append(Text(f"{len(evaluation.failures)} fields failed"))
    return Group(*parts)


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int) and value != ""


def number(value: float | None) -> str:
    """Write a share with three digits; a dash where it does not exist."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def with_interval(interval: Interval) -> str:
    """Write a figure with its interval, if it has one."""
    if not math.isfinite(interval.low):
        return number(interval.value)
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def plain_table(title: str, *columns: str) -> Table:
    """Return a table without lines; its first column holds names, the others figures."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i > 0)
    return table


def _show_detection(d: DetectionReport) -> Iterator[RenderableType]:
    table = plain_table(
        "Detection", "class", "cells", "AP50", "AP50-95", "AR50-95", "recall at 0.5"
    )
    i = d.intervals
    cells = int(sum(s["cells"] for s in d.scores.per_class.values()))
    shown = [with_interval(i[k]) for k in ("ap50", "ap", "ar", "recall50")]
    table.add_row("mean of classes", str(cells), *shown)
    if len(d.scores.per_class) > 1 or len(d.level.classes) > 1:
        for name, s in d.scores.per_class.items():
            figures = (number(s[k]) for k in ("ap50", "ap", "ar", "recall50"))
            table.add_row(printable(name), str(int(s["cells"])), *figures)
    yield table
    o = d.operating
    yield Text(
        f"what is shown to a user, at IoU {o.iou:g}: {o.true_positives} right, "
        f"{o.false_positives} false, {o.missed} missed, {o.dropped} dropped: "
        f"precision {number(o.precision)}, recall {number(o.recall)}, F1 {number(o.f1)}"
    )
    yield Text(f"rule: {TREATMENT}")
    for what, n in d.notes.items():
        yield Text(f"{n} {what}")
    yield Text(f"resampled by {d.resampled[0]}: {d.resampled[1]} groups")


def _show_classification(r: ClassificationReport) -> Iterator[RenderableType]:
    yield Text(f"Classes: {r.paired} of {r.wanted} cells ({r.rule})", style="bold")
    if r.questions:
        yield _figures(r.questions)
        yield Text(
            "majority, class only: accuracy without looking at the cell, or knowing only its true "
            f"class; fitted to {r.learnt_from}"
        )
    for q in r.questions:
        if q.name == "class":
            yield _labels(q)
            yield Text(
                "class accuracy, given which classes the set has: "
                f"{number(q.baselines[TOLD].accuracy)}"
            )
    if r.blasts is not None:
        yield Text(
            f"{r.blasts.blasts} blasts against {r.blasts.others} other cells: area under the ROC "
            f"curve {with_interval(r.blasts.auroc)}"
        )
    yield from (Text(f"note: {line}") for line in r.notes)
    yield Text(f"resampled by {r.resampled[0]}: {r.resampled[1]} groups")


def _figures(questions: Sequence[QuestionReport]) -> Table:
    table = plain_table(
        "Accuracy",
        *("question", "cells", "accuracy", "macro-F1", "balanced", "majority", "class only"),
        *("ECE", "coverage", "accepted"),
    )
    for q in questions:
        guesses = (q.baselines.get(name) for name in ("majority", "class only"))
        table.add_row(
            printable(q.name.replace("_", " ")),
            str(q.scores.n),
            with_interval(q.intervals["accuracy"]),
            number(q.scores.macro_f1),
            number(q.scores.balanced_accuracy),
            *(number(g.accuracy if g else None) for g in guesses),
            number(q.calibration_error),
            number(q.scores.coverage),
            number(q.scores.accepted_accuracy),
        )
    return table


def _labels(q: QuestionReport) -> Table:
    table = plain_table("Classes", "true class", "cells", "precision", "recall", "F1", "taken for")
    for name, s in q.labels.items():
        row = q.matrix[q.names.index(name)]
        wrong = sorted(
            ((int(n), other) for n, other in zip(row, q.names, strict=True) if other != name and n),
            key=lambda pair: (-pair[0], pair[1]),
        )
        table.add_row(
            printable(name),
            str(s.support),
            *(number(v) for v in (s.precision, s.recall, s.f1)),
            printable(", ".join(f"{other} {n}" for n, other in wrong[:3])),
        )
    return table
