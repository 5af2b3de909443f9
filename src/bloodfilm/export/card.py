"""The model card of a bundle: intended use, training data, evaluation, limitations."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bloodfilm.core.attributes import Attribute
from bloodfilm.inference.manifest import Manifest

CARD = "MODEL_CARD.md"
WARNING = "**Research use only. Not a medical device; not for diagnosis.**"
DETECTION_NAMES = {"ap": "AP50-95", "ap50": "AP50", "ap75": "AP75", "recall50": "recall at IoU 0.5"}


def model_card(manifest: Manifest, notes: str = "") -> str:
    """Return a bundle's card as Markdown, ended by the Markdown of `notes`."""
    parts = [
        f"# {manifest.name}",
        WARNING,
        f"Made {manifest.created} with bloodfilm {manifest.training.get('bloodfilm', '?')}. "
        f"Licence of the weights: {manifest.licence}.",
        *_left_out(manifest.metrics),
        "## Intended use",
        _abilities(manifest),
        "## Not trained",
        _gaps(manifest),
        "## Training data",
        *(_sources(part, manifest.training.get(part, {})) for part in manifest.graphs),
        *_exemplars(manifest),
        "## Evaluation",
        *_metrics(manifest.metrics),
        *_priors(manifest),
        "## Thresholds, chosen on validation data",
        _thresholds(manifest),
        *_operating_point(manifest.metrics.get("operating_point")),
    ]
    if notes:
        parts.append(notes.strip())
    return "\n\n".join(parts) + "\n"


def card_notes(card: Path, generated: str) -> str:
    """Return what its authors added to the end of a card; none where it is of another form.

    Args:
        card: the file.
        generated: what `model_card` gives for its bundle, without notes.
    """
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    start = generated.rstrip()
    return text.removeprefix(start).strip() if text.startswith(start) else ""


def summarize_evaluation(record: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a `bloodfilm evaluate --json` record what a manifest should carry: the figures.

    Likewise of the record of the benchmark that leaves one patient out.
    """
    if "patients" in record and "pooled" in record:
        return {k: record[k] for k in ("samples", "patients", "pooled") if k in record}
    kept: dict[str, Any] = {k: record[k] for k in ("settings", "fields") if k in record}
    detection, reading = record.get("detection"), record.get("reading")
    if detection:
        kept["detection"] = {
            k: detection[k] for k in ("level", "scores", "intervals", "resampled") if k in detection
        }
    if reading:
        questions = {
            name: {k: q[k] for k in ("scores", "intervals", "baselines", "calibration_error")}
            for name, q in reading["questions"].items()
        }
        kept["reading"] = {"cells": reading["cells"], "questions": questions}
        if "blasts" in reading:
            kept["reading"]["blasts"] = reading["blasts"]
    return kept


def _further_looks(m: Manifest) -> list[str]:
    spec = m.classifier.look_again
    if spec is None:
        return []
    return [
        f"Where no class, or group of kindred ones, reaches {spec.below:g} at a first look, the "
        f"cell is classified again, turned by {' and '.join(str(90 * k) for k in spec.turns)} "
        "degrees, and the probabilities of all looks are averaged.",
    ]


def _by_film(m: Manifest) -> list[str]:
    spec = m.classifier.film_offset
    if spec is None:
        return []
    return [
        "The group of a cell is told without what the cells of its film, a folder or a slide, have "
        f"in common, from {spec.least_cells} cells on; a cell alone is named by itself.",
    ]


def _abilities(m: Manifest) -> str:
    trained = m.trained_leaves
    attributes = [a for a in m.attributes.attributes if a.name not in m.untrained.attributes]
    lines = [
        f"Finds {', '.join(m.object_types)} in fields brought to {m.detector.um_per_px:g} um per "
        "pixel.",
        f"Names each {m.roles.classified}: {', '.join(trained)}; where it is not certain, a "
        "group of these.",
        *_further_looks(m),
        *_by_film(m),
        f"Describes each {m.roles.classified}:",
        *(f"- {a.title}: {', '.join(_offered(m, a))}" for a in attributes),
    ]
    if m.outlines is not None:
        lines.append(f"\nOutlines each {m.roles.classified} and its nucleus, and measures both.")
    if m.classifier.measured is not None and m.outlines is not None:
        fitted = ", ".join(
            f"{m.attributes[name].title} ({model.cells} cells"
            f"{', and the network' if model.network else ''})"
            for name, model in m.classifier.measured.attributes.items()
        )
        lines.append(
            "\nThese attributes follow the measured shape and colour of the cell, and its class, "
            f"fitted to training cells: {fitted}. Where a cell cannot be outlined, the "
            "network answers alone, and the cell has the issue `attributes-not-measured`."
        )
    return "\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:])


def _offered(m: Manifest, attribute: Attribute) -> list[str]:
    absent = m.untrained.values.get(attribute.name, ())
    return [value for value in attribute.values if value not in absent]


def _gaps(m: Manifest) -> str:
    lines = []
    if m.untrained.classes:
        lines.append(
            f"- Classes without training cells: {', '.join(m.untrained.classes)}. Such a cell gets "
            "another class, a group of classes, or the issue `unfamiliar`."
        )
    if m.untrained.attributes:
        listed = ", ".join(m.untrained.attributes)
        lines.append(f"- Attributes that are annotated in no training cell: {listed}.")
    for name, values in m.untrained.values.items():
        lines.append(f"- Values of {name} that no training cell has: {', '.join(values)}.")
    return "\n".join(lines) or "Every class and attribute of its vocabulary was in training."


def _sources(part: str, training: Mapping[str, Any]) -> str:
    sources = training.get("sources", {})
    rows = [
        (side, s["name"], s["split"], str(s["fields"]), s["licence"])
        for side, entries in sources.items()
        for s in entries
    ]
    if not rows:
        return f"{part.capitalize()}: not recorded."
    table = _table(("side", "data set", "split", "images", "licence"), rows)
    return f"{part.capitalize()}:\n\n{table}"


def _exemplars(m: Manifest) -> Iterable[str]:
    if m.exemplars is not None:
        cells = ", ".join(f"{count} {label}" for label, count in m.exemplars.labels.items())
        yield (
            "The bundle holds descriptions of some of these cells, no pictures, so that "
            f"`bloodfilm learn` can add classes without the data: {cells}."
        )


def _left_out(metrics: Mapping[str, Any]) -> Iterable[str]:
    """Yield what the recipe is worth on patients left out of training, before all other figures."""
    for record in metrics.values():
        if not isinstance(record, Mapping) or "pooled" not in record:
            continue
        yield "## On patients it has never seen"
        yield (
            "Each row is one patient, named by a network that was trained in the same way on "
            "everything but that patient. Each diagnosis is one patient with one stain: whoever is "
            "left out takes kinds of cells along that no other patient has. This and no other "
            "figure says what to expect of a new patient."
        )
        attributes = record["pooled"]["attributes"]
        measured = any("measured" in scores for scores in attributes.values())
        answers = [name for name in _ATTRIBUTES if measured or name != "measured"]
        rows = [
            _patient_row(name, part, answers)
            for name, part in (*record["patients"].items(), ("all", record["pooled"]))
        ]
        head = (
            "patient",
            "cells",
            "coarse class",
            "balanced",
            "fine class",
            "attributes, balanced",
            *(["measured"] if measured else []),
            "labelled class alone",
            "named class alone",
            "blasts: AUROC",
            "precision",
            "recall",
        )
        yield _table(head, rows)
        yield (
            "Attributes over all patients left out, balanced accuracy of the network, and of "
            "measured shape and colour with the class:"
            if measured
            else "Attributes over all patients left out, balanced accuracy:"
        )
        yield _table(
            (
                "attribute",
                *(["network", "measured"] if measured else ["balanced accuracy"]),
                "labelled class alone",
                "named class alone",
            ),
            [
                (name, *(_figure(scores.get(k)) for k in answers))
                for name, scores in attributes.items()
            ],
        )


_ATTRIBUTES = ("balanced", "measured", "class_only_labelled", "class_only_predicted")
"""What attributes are judged by: the network, measures, and what the class alone tells."""


def _patient_row(name: str, part: Mapping[str, Any], answers: Iterable[str]) -> tuple[str, ...]:
    keys = (
        *(f"attributes_{k}" for k in answers),
        "blast_auroc",
        "blast_precision",
        "blast_recall",
    )
    classes = (
        part["coarse"]["accuracy"],
        part["coarse"]["balanced"],
        part["fine"]["accuracy"],
    )
    return (name, str(part["cells"]), *map(_figure, (*classes, *(part.get(k) for k in keys))))


def _metrics(metrics: Mapping[str, Any]) -> Iterable[str]:
    for name, record in metrics.items():
        if isinstance(record, Mapping) and ("detection" in record or "reading" in record):
            yield f"### {name}"
            yield from _evaluation(record)
    validation = metrics.get("validation")
    if isinstance(validation, Mapping):
        rows = [
            (part, figure, f"{value:.4f}")
            for part, figures in validation.items()
            for figure, value in figures.items()
        ]
        yield "### Validation data (used for model selection)"
        yield _table(("part", "figure", "value"), rows)


def _evaluation(record: Mapping[str, Any]) -> Iterable[str]:
    detection = record.get("detection")
    if detection:
        rows = [
            (DETECTION_NAMES[k], _figure(detection["scores"].get(k)), _span(v))
            for k, v in detection.get("intervals", {}).items()
            if k in DETECTION_NAMES
        ]
        yield _table(("detection", "value", "95 % interval"), rows)
    reading = record.get("reading")
    if reading:
        answers: list[tuple[str, ...]] = []
        for name, question in reading["questions"].items():
            scores = question["scores"]
            answers.append(
                (
                    name,
                    _figure(scores.get("accuracy")),
                    _figure(scores.get("macro_f1")),
                    _figure(scores.get("balanced_accuracy")),
                    _span(question.get("intervals", {}).get("macro_f1")),
                )
            )
        head = ("question", "accuracy", "macro-F1", "balanced accuracy", "macro-F1, 95 %")
        yield _table(head, answers)
        blasts = reading.get("blasts")
        if blasts:
            yield (
                f"{blasts['blasts']} blasts against {blasts['others']} other cells: area under the "
                f"ROC curve {_figure(blasts['auroc']['value'])} ({_span(blasts['auroc'])})."
            )


def _priors(m: Manifest) -> Iterable[str]:
    priors = m.training.get("priors")
    if priors:
        yield "## Prior odds"
        yield (
            "The training collection over-represents rare cells. The odds of these classes are "
            "multiplied by a factor that suits routine films: "
            + ", ".join(f"{name} by {factor:g}" for name, factor in priors.items())
            + "."
        )


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "–"


def _span(interval: Any) -> str:
    if not isinstance(interval, Mapping):
        return "–"
    return f"{_figure(interval.get('low'))} to {_figure(interval.get('high'))}"


def _thresholds(m: Manifest) -> str:
    rows = [(f"score of a {kind}", f"{value:.3f}") for kind, value in m.detector.thresholds.items()]
    rows += [
        ("probability of a class", f"{m.classifier.class_confidence:.3f}"),
        ("probability of an attribute's value", f"{m.classifier.attribute_confidence:.3f}"),
    ]
    return _table(("minimum", "value"), rows)


def _operating_point(record: Mapping[str, Any] | None) -> Iterable[str]:
    if record is None:
        return
    yield (
        "The score of a white cell and its threshold were chosen on these sites together; *without "
        "it*: on the others alone. Where only some cells are boxed, false ones are not known."
    )
    keys = "found", "false_per_field"
    rows = [
        (
            name,
            str(site.get("cells", "–")),
            *(
                _figure(part.get(k))
                for part in (site, site.get("chosen_without_it", {}))
                for k in keys
            ),
        )
        for name, site in record["sites"].items()
    ]
    head = ("site", "cells", "found", "false per field")
    yield _table((*head, "without it: found", "without it: false per field"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
