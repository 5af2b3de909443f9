"""Attributes by measured shape and colour: what is measured, its odds, the manifest, the answer."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from bloodfilm.core.errors import BundleError
from bloodfilm.core.results import AttributeResult, CellShape
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.inference.checksums import SUMS, sums_of
from bloodfilm.inference.classifier import CellClassification, CellClassifier
from bloodfilm.inference.manifest import (
    MANIFEST,
    DiameterSpec,
    Manifest,
    MeasuredAttribute,
    MeasuredAttributesSpec,
)
from bloodfilm.inference.measured_attributes import (
    LEAST_SHARE,
    MEASURES,
    class_shares,
    log_odds,
    measured_probabilities,
    measures_of,
)

SHAPE = CellShape(
    outline=((0.0, 0.0), (9.0, 0.0), (9.0, 9.0)),
    nucleus=(),
    area_um2=113.1,
    nucleus_area_um2=56.5,
    diameter_um=12.0,
    length_um=12.5,
    width_um=11.5,
    nucleus_ratio=0.5,
    circularity=0.9,
    nucleus_circularity=0.7,
    lobes=1,
    nucleus_rgb=(102, 51, 153),
    cytoplasm_rgb=(204, 204, 255),
)
LEAVES = ("lymphocyte", "monocyte", "myeloblast")
EVEN = {"nuclear_shape": {"regular": 0.5, "irregular": 0.5}}


def model(**changes):
    """Nuclear shape follows the nucleus's circularity alone; most monocytes are irregular."""
    weights = np.zeros((2, len(MEASURES)))
    weights[:, MEASURES.index("nucleus_circularity")] = (1.0, -1.0)
    given = {
        "values": ("regular", "irregular"),
        "centre": (0.5,) * len(MEASURES),
        "spread": (0.1,) * len(MEASURES),
        "weights": tuple(map(tuple, weights.tolist())),
        "bias": (0.0, 0.0),
        "classes": {"monocyte": (0.1, 0.9), "lymphocyte": (0.8, 0.2)},
        "temperature": 1.0,
        "cells": 50,
    }
    return MeasuredAttribute(**{**given, **changes})


def spec(**changes):
    return MeasuredAttributesSpec(measures=MEASURES, attributes={"nuclear_shape": model(**changes)})


def test_measures_are_in_their_order_and_what_is_not_seen_is_none():
    found = dict(zip(MEASURES, measures_of(SHAPE), strict=True))
    assert found["log_diameter"] == pytest.approx(np.log(12.0))
    assert found["nucleus_circularity"] == 0.7 and found["nucleus_red"] == pytest.approx(0.4)
    assert found["cytoplasm_blue"] == 1.0
    many = measures_of(replace(SHAPE, lobes=9, nucleus_circularity=None, nucleus_rgb=None))
    unseen = dict(zip(MEASURES, many, strict=True))
    assert unseen["lobes"] == 4
    assert np.isnan([unseen[k] for k in ("nucleus_circularity", "nucleus_red")]).all()


def test_odds_are_those_of_the_measures_times_what_the_class_tells():
    p = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    measures = np.tile(measures_of(SHAPE), (4, 1))
    z = log_odds(model(), measures, p, LEAVES, np.full((4, 2), 0.5))
    from_measures = 4.0  # two standard deviations, the weights are one apart to each side
    told = np.array([[0.1, 0.9], [0.8, 0.2], [0.45, 0.55], [0.5, 0.5]]) + LEAST_SHARE
    wanted = from_measures + np.log(told[:, 0] / told[:, 1])
    assert z[:, 0] - z[:, 1] == pytest.approx(wanted)


def test_the_networks_answer_counts_by_its_weight():
    given = measures_of(SHAPE)[None], np.array([[0.0, 0.0, 1.0]]), LEAVES
    own = np.array([[0.2, 0.8]])
    odds = [np.diff(log_odds(model(network=w), *given, own))[0, 0] for w in (0.0, 1.0, 3.0)]
    assert odds[1] - odds[0] == pytest.approx(np.log(4))
    assert odds[2] - odds[0] == pytest.approx(3 * np.log(4))
    impossible = log_odds(model(network=1.0), *given, np.array([[0.0, 1.0]]))
    assert np.isfinite(impossible).all()


def test_an_unknown_class_tells_nothing_and_an_unseen_measure_neither():
    assert class_shares(model(), ("myeloblast",)).tolist() == [[0.5, 0.5]]
    unseen = replace(SHAPE, nucleus_circularity=None)
    found = measured_probabilities(spec(), unseen, {"myeloblast": 1.0}, EVEN)
    assert found["nuclear_shape"] == pytest.approx({"regular": 0.5, "irregular": 0.5})


def test_a_temperature_makes_less_sure_and_changes_no_order():
    cold, hot = (
        measured_probabilities(spec(temperature=t), SHAPE, {"lymphocyte": 1.0}, EVEN)[
            "nuclear_shape"
        ]
        for t in (1.0, 4.0)
    )
    assert cold["regular"] > hot["regular"] > 0.5
    odds = [np.log(p["regular"] / p["irregular"]) for p in (cold, hot)]
    assert odds[0] == pytest.approx(4 * odds[1])


def test_an_attribute_that_the_network_does_not_answer_is_not_answered():
    found = measured_probabilities(spec(), SHAPE, {"lymphocyte": 1.0}, {"nuclear_shape": {}})
    assert found == {}


def test_a_measure_far_out_counts_as_four_standard_deviations():
    far = [replace(SHAPE, nucleus_circularity=v) for v in (0.95, 5.0)]
    found = [measured_probabilities(spec(), s, {"lymphocyte": 1.0}, EVEN) for s in far]
    assert found[0] == found[1]


# ---- in a bundle's classifier ------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest():
    """That of the shipped bundle, without its own measures."""
    data = default_bundle().manifest.to_json()
    data["classifier"].pop("measured", None)
    return Manifest.model_validate(data)


def reading(**attributes):
    given = {
        name: AttributeResult(max(p, key=p.get), max(p.values()), p)
        for name, p in attributes.items()
    }
    return CellClassification("lymphocyte", 0.9, {"lymphocyte": 1.0}, given)


SHAPES = {"regular": 0.3, "irregular": 0.7}


def test_a_measured_attribute_takes_the_place_of_the_networks_answer(manifest):
    classifier = CellClassifier(manifest.with_measured(spec()))
    given = reading(nuclear_shape=SHAPES, nuclear_chromatin={"open": 0.6, "coarse": 0.4})
    found = classifier.with_shape(given, SHAPE)
    wanted = measured_probabilities(spec(), SHAPE, {"lymphocyte": 1.0}, {"nuclear_shape": SHAPES})[
        "nuclear_shape"
    ]
    assert found.attributes["nuclear_shape"].probabilities == wanted
    assert found.attributes["nuclear_shape"].value == "regular"
    assert found.attributes["nuclear_chromatin"] == given.attributes["nuclear_chromatin"]
    assert (found.label, found.probabilities) == (given.label, given.probabilities)


def test_a_probability_below_the_confidence_gives_no_value(manifest):
    classifier = CellClassifier(manifest.with_measured(spec(), attribute_confidence=0.999999))
    found = classifier.with_shape(reading(nuclear_shape=SHAPES), SHAPE).attributes["nuclear_shape"]
    assert found.value is None and found.probability == found.probabilities["regular"]


def test_values_that_are_not_measured_get_nothing_and_measures_come_before_diameters(manifest):
    sized = MeasuredAttributesSpec(
        measures=MEASURES, attributes={"cell_size": model(values=("small", "large"))}
    )
    by_diameter = DiameterSpec(
        attribute="cell_size", values={"small": (9.0, 0.1), "large": (14.0, 0.1)}
    )
    classifier = CellClassifier(manifest.with_diameters(by_diameter).with_measured(sized))
    given = reading(cell_size={"small": 0.1, "medium": 0.8, "large": 0.1})
    found = classifier.with_shape(given, SHAPE).attributes["cell_size"].probabilities
    assert found["medium"] == 0.0 and found["small"] > 0.99 and sum(found.values()) == 1.0


def test_without_measures_nothing_changes(manifest):
    given = reading(nuclear_shape=SHAPES)
    assert CellClassifier(manifest).with_shape(given, SHAPE) == given
    classifier = CellClassifier(manifest.with_measured(spec()))
    nothing = CellClassification("red cell", 0.9)
    assert classifier.with_shape(nothing, SHAPE) == nothing
    assert classifier.lacks_measures(given, None)
    assert not classifier.lacks_measures(given, SHAPE) and not classifier.lacks_measures(
        nothing, None
    )
    assert not CellClassifier(manifest).lacks_measures(given, None)


# ---- in the manifest ---------------------------------------------------------------------------


def test_the_manifest_keeps_them_and_leaves_them_out_where_there_are_none(manifest):
    kept = Manifest.model_validate(json.loads(json.dumps(manifest.with_measured(spec()).to_json())))
    assert kept.classifier.measured == spec()
    assert "measured" not in manifest.to_json()["classifier"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weights": ((0.0,) * len(MEASURES),)}, "one row per value"),
        ({"spread": (0.1,)}, "one number per measure"),
        ({"spread": (0.0,) * len(MEASURES)}, "0, expected a number from 1e-09"),
        ({"bias": (float("nan"), 0.0)}, "expected a finite number"),
        ({"bias": (1e9, 0.0)}, "expected a number from -10000 to 10000"),
        ({"classes": {"monocyte": (0.5, 0.2)}}, "1 in sum"),
        ({"classes": {"monocyte": (1.0,)}}, "one share per value"),
        ({"values": ("regular", "regular")}, "distinct"),
        ({"temperature": 0.0}, "0, expected a number from 0.001"),
    ],
)
def test_what_cannot_be_computed_with_is_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        model(**changes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("girth", {}),
        ("nuclear_shape", {"values": ("regular", "starlike")}),
        ("nuclear_shape", {"classes": {"hairy cell": (0.5, 0.5)}}),
    ],
)
def test_what_the_bundle_does_not_have_is_refused(manifest, name, changes):
    given = MeasuredAttributesSpec(measures=MEASURES, attributes={name: model(**changes)})
    with pytest.raises(ValidationError, match=r"classifier\.measured"):
        manifest.with_measured(given)


def test_every_model_needs_all_measures():
    with pytest.raises(ValidationError, match="needs 1 measures"):
        MeasuredAttributesSpec(measures=("lobes",), attributes={"nuclear_shape": model()})


def test_a_damaged_part_of_a_bundle_is_named(manifest, tmp_path):
    source, folder = default_bundle().path, tmp_path / "bundle"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest.with_measured(spec()).write(folder)
    assert load_bundle(folder).manifest.classifier.measured == spec()
    data = json.loads((folder / MANIFEST).read_text())
    data["classifier"]["measured"]["attributes"]["nuclear_shape"]["weights"][1][3] = "1e5"
    text = json.dumps(data).encode()
    (folder / MANIFEST).write_bytes(text)
    names = (MANIFEST, *manifest.files)
    (folder / SUMS).write_text(sums_of(folder, names, {MANIFEST: text}))
    with pytest.raises(BundleError, match=r"manifest\.json: classifier\.measured\.attributes"):
        load_bundle(folder)


def test_other_measures_than_the_programs_are_refused(manifest, tmp_path):
    bundle = default_bundle()
    names = (*MEASURES[:-1], "girth")
    other = MeasuredAttributesSpec(measures=names, attributes={"nuclear_shape": model()})
    with pytest.raises(BundleError, match="follow other measures"):
        Analyzer(replace(bundle, manifest=manifest.with_measured(other)))
