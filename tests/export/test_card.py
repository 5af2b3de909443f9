"""The model card: what comes first, what is said of gaps."""

from bloodfilm.export.card import model_card, summarize_evaluation
from bloodfilm.inference.manifest import FilmOffsetSpec, Manifest
from fake_bundle import manifest

FIGURES = {
    "cells": 140,
    "coarse": {"accuracy": 0.8765, "balanced": None},
    "fine": {"accuracy": 0.25, "balanced": 0.5},
    "attributes": {
        "cell_size": {
            "balanced": 0.6111,
            "class_only_labelled": 0.7222,
            "class_only_predicted": 0.5333,
        }
    },
    "attributes_balanced": 0.6111,
    "attributes_class_only_labelled": 0.7222,
    "attributes_class_only_predicted": 0.5333,
    "blast_auroc": 0.9,
    "blast_precision": None,
    "blast_recall": 0.0,
}


def test_patients_left_out_come_before_every_other_figure():
    record = {"samples": 5, "patients": {"27": FIGURES}, "pooled": FIGURES, "calibration": {}}
    kept = summarize_evaluation(record)
    assert kept == {"samples": 5, "patients": {"27": FIGURES}, "pooled": FIGURES}
    plain = Manifest.model_validate(manifest({"detector.onnx": b"", "reader.onnx": b""}))
    card = model_card(plain.with_figures(left_out=kept))
    assert card.index("## On patients it has never seen") < card.index("## Intended use")
    assert "| 27 | 140 | 0.8765 | – | 0.2500 | 0.6111 | 0.7222 | 0.5333 | 0.9000 | – |" in card
    assert "| cell_size | 0.6111 | 0.7222 | 0.5333 |" in card
    assert "never seen" not in model_card(plain)


def test_measured_attributes_stand_beside_the_network_where_they_were_judged():
    scores = {**FIGURES["attributes"]["cell_size"], "measured": 0.6666}
    judged = {**FIGURES, "attributes": {"cell_size": scores}, "attributes_measured": 0.6666}
    plain = Manifest.model_validate(manifest({"detector.onnx": b"", "reader.onnx": b""}))
    card = model_card(plain.with_figures(left_out={"patients": {"27": judged}, "pooled": judged}))
    assert "| 27 | 140 | 0.8765 | – | 0.2500 | 0.6111 | 0.6666 | 0.7222 | 0.5333 | 0.9000 |" in card
    assert "| cell_size | 0.6111 | 0.6666 | 0.7222 | 0.5333 |" in card


def test_how_blasts_are_told_is_kept_and_said():
    area = {"value": 0.9123, "low": 0.8, "high": 0.95, "undefined": 0}
    reading = {"cells": 5, "questions": {}, "blasts": {"blasts": 3, "others": 2, "auroc": area}}
    kept = summarize_evaluation({"fields": 1, "reading": reading})
    plain = Manifest.model_validate(manifest({"detector.onnx": b"", "reader.onnx": b""}))
    card = model_card(plain.with_figures(lld=kept))
    said = "3 blasts against 2 other cells: area under the ROC curve 0.9123 (0.8000 to 0.9500)."
    assert said in card


def test_values_nobody_marked_are_listed_and_not_offered():
    data = manifest({"detector.onnx": b"", "reader.onnx": b""})
    data["unlearnt"] = {"classes": [], "attributes": [], "values": {"cell_size": ["medium"]}}
    card = model_card(Manifest.model_validate(data))
    assert "- Values of cell_size that no training cell has: medium." in card
    assert "small, large" in card and "small, medium, large" not in card


def test_the_sites_of_an_operating_point_are_listed():
    plain = Manifest.model_validate(manifest({"detector.onnx": b"", "reader.onnx": b""}))
    lab = {"cells": 20, "found": 0.95, "fields": 5, "false_per_field": 0.2}
    other = {"cells": 8, "found": 1.0, "chosen_without_it": {"cells": 8, "found": 0.875}}
    record = {"found": 0.9, "found_everywhere": 0.9, "sites": {"lab": lab, "elsewhere": other}}
    card = model_card(plain.with_figures(operating_point=record))
    assert "| lab | 20 | 0.9500 | 0.2000 | – | – |" in card
    assert "| elsewhere | 8 | 1.0000 | – | 0.8750 | – |" in card
    assert "without it" not in model_card(plain)


def test_further_looks_are_told():
    data = manifest({"detector.onnx": b"", "reader.onnx": b""})
    assert "first look" not in model_card(Manifest.model_validate(data))
    data["reader"]["look_again"] = {"below": 0.75, "turns": [1, 2]}
    card = model_card(Manifest.model_validate(data))
    assert (
        "reaches 0.75 at a first look, the cell is classified again, turned by 90 and 180 degrees"
        in card
    )


def test_naming_by_the_film_is_told():
    plain = Manifest.model_validate(manifest({"detector.onnx": b"", "reader.onnx": b""}))
    assert "in common" not in model_card(plain)
    card = model_card(plain.with_film_offset(FilmOffsetSpec(size=8, least_cells=20)))
    assert "in common, from 20 cells on" in card
