"""What the reader's numbers are turned into: depth, abstention, what was never learnt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.colour_normalisation import ColourStandard, normalise
from bloodfilm.inference.classifier import (
    CellClassifier,
    kindred_masks,
    leaf_probabilities,
    open_cells,
    touches_edge,
)
from bloodfilm.inference.manifest import Manifest
from fake_bundle import LEAVES, manifest


def make_reader(**changes) -> CellClassifier:
    data = manifest({"detector.onnx": b"", "reader.onnx": b""})
    data["unlearnt"] = changes.pop("unlearnt", {"classes": [], "attributes": []})
    data["reader"].update(changes)
    return CellClassifier(Manifest.model_validate(data))


def logits(**leaves: float) -> np.ndarray:
    """Log probabilities; what is not named shares what is left."""
    left = max(1 - sum(leaves.values()), 1e-12) / (len(LEAVES) - len(leaves))
    named = {k.replace("_", " "): v for k, v in leaves.items()}
    return np.log([[named.get(leaf, left) for leaf in LEAVES]])


def read_one(reader: CellClassifier, classes, attributes=None, novelty=0.0):
    attributes = np.zeros((1, LLD_SCHEMA.width)) if attributes is None else attributes
    return reader.read(classes, attributes, np.array([novelty]))[0]


def test_a_sure_class_is_named_to_the_leaf():
    reading = read_one(make_reader(class_confidence=0.7), logits(eosinophil=0.9))
    assert (reading.label, round(reading.label_score, 6)) == ("eosinophil", 0.9)
    assert sum(reading.probabilities.values()) == pytest.approx(1)


def test_a_doubt_between_siblings_is_named_by_their_parent():
    unsure = logits(band_neutrophil=0.48, segmented_neutrophil=0.48)
    reading = read_one(make_reader(class_confidence=0.7), unsure)
    assert (reading.label, round(reading.label_score, 6)) == ("neutrophil", 0.96)


def test_a_doubt_across_lineages_stops_at_the_white_cell():
    reading = read_one(make_reader(class_confidence=0.7), logits(monocyte=0.48, lymphocyte=0.48))
    assert reading.label == "white cell"


def test_not_even_a_white_cell_for_sure():
    reading = read_one(make_reader(class_confidence=0.7), logits(erythroblast=0.5, lymphocyte=0.5))
    assert (reading.label, reading.label_score) == ("nucleated cell", 1.0)


@given(seed=st.integers(0, 2**32 - 1), confidence=st.floats(0.5, 1))
def test_the_node_is_sure_enough_and_no_deeper_one_is(seed, confidence):
    reader = make_reader(class_confidence=confidence)
    p = np.random.default_rng(seed).dirichlet(np.full(len(LEAVES), 0.3))
    node, score = reader.deepest_sure(p)

    def total(name):
        return p[np.array(DEFAULT_TAXONOMY.leaf_mask(name, LEAVES))].sum()

    assert score == pytest.approx(total(node))
    assert node == "nucleated cell" or score >= confidence
    assert all(total(child) < confidence for child in DEFAULT_TAXONOMY.children(node))


def test_a_class_never_learnt_gets_nothing_whatever_its_logit():
    reader = make_reader(unlearnt={"classes": ["monoblast"], "attributes": []})
    loud = np.zeros((1, len(LEAVES)))
    loud[0, LEAVES.index("monoblast")] = 1000.0
    reading = read_one(reader, loud)
    assert "monoblast" not in reading.probabilities
    assert sum(reading.probabilities.values()) == pytest.approx(1)


def test_a_temperature_softens_but_does_not_reorder():
    raw = np.array([[3.0, 1.0, 0.0]])
    sharp = leaf_probabilities(raw, [True] * 3)
    soft = leaf_probabilities(raw, [True] * 3, temperature=3.0)
    assert soft.max() < sharp.max()
    assert (np.argsort(soft) == np.argsort(sharp)).all()
    huge = leaf_probabilities(np.array([[1e4, -1e4, 0.0]]), [True] * 3)
    np.testing.assert_allclose(huge, [[1, 0, 0]])


def test_an_attribute_abstains_below_its_confidence_and_keeps_its_probabilities():
    values = np.zeros((1, LLD_SCHEMA.width))
    values[0, LLD_SCHEMA.slices["nuclear_shape"]] = np.log([0.35, 0.65])
    values[0, LLD_SCHEMA.slices["nucleolus"]] = np.log([0.45, 0.55])
    reader = make_reader(attribute_confidence=0.6)
    got = read_one(reader, logits(basophil=0.9), values).attributes
    assert (got["nuclear_shape"].value, got["nucleolus"].value) == ("irregular", None)
    assert got["nucleolus"].probability == pytest.approx(0.55)
    assert got["nucleolus"].probabilities["inconspicuous"] == pytest.approx(0.45)


def test_an_attribute_has_its_own_temperature():
    values = np.zeros((1, LLD_SCHEMA.width))
    values[0, LLD_SCHEMA.slices["nuclear_shape"]] = [0.0, 2.0]
    reader = make_reader(temperatures={"nuclear_shape": 2.0})
    answer = read_one(reader, logits(basophil=0.9), values).attributes["nuclear_shape"]
    assert answer.probability == pytest.approx(1 / (1 + np.exp(-1)))


def test_an_attribute_never_learnt_says_nothing():
    reader = make_reader(unlearnt={"classes": [], "attributes": ["nucleolus"]})
    loud = np.full((1, LLD_SCHEMA.width), 0.0)
    loud[0, LLD_SCHEMA.slices["nucleolus"]] = [50.0, 0.0]
    answer = read_one(reader, logits(basophil=0.9), loud).attributes["nucleolus"]
    assert (answer.value, answer.probability, dict(answer.probabilities)) == (None, 0.0, {})


def test_novelty_is_reported_above_its_threshold_and_never_without_one():
    cell = logits(basophil=0.9)
    assert not read_one(make_reader(novelty_threshold=2.0), cell, novelty=2.0).novel
    assert read_one(make_reader(novelty_threshold=2.0), cell, novelty=2.1).novel
    assert not read_one(make_reader(novelty_threshold=None), cell, novelty=1e9).novel


def test_no_cells_no_readings():
    empty = np.zeros((0, len(LEAVES))), np.zeros((0, LLD_SCHEMA.width)), np.zeros(0)
    assert make_reader().read(*empty) == []


def test_a_box_at_the_edge_is_cut():
    assert touches_edge((0.5, 20, 30, 30), 100, 100)
    assert touches_edge((20, 70, 30, 29.5), 100, 100)
    assert not touches_edge((2, 2, 30, 30), 100, 100)


STANDARD = {"white": 240.0, "depth": 62.0, "chroma": 38.0, "nucleus": [22.0, -32.0]}


def test_crops_come_in_the_colours_the_bundle_asks_for():
    rng = np.random.default_rng(3)
    image = rng.integers(60, 200, (160, 160, 3), np.uint8)
    white = (180.0, 190.0, 170.0)
    view = CanonicalView(0.1, 0.1, white, 9, 0.9, "measured", "measured", 160, 160)
    at = [(80.0, 80.0), (70.0, 90.0)]
    plain, standard = make_reader(), make_reader(colours=STANDARD)
    size, um = plain.spec.size, plain.spec.um_per_px
    assert np.array_equal(plain.crops(view, image, at), view.crops(image, at, size, um))
    own = view.crops(image, at, size, um, balanced=False)
    expected = [normalise(crop, ColourStandard()) for crop in own]
    assert np.array_equal(standard.crops(view, image, at), expected)


@pytest.mark.parametrize("change", [{"white": 0.0}, {"depth": -1.0}, {"tint": 3.0}])
def test_a_bundle_with_senseless_colours_is_refused(change):
    with pytest.raises(ValueError, match="colours"):
        make_reader(colours=STANDARD | change)


# ---- blasts, and what is no white cell -----------------------------------------------------------


def test_a_sure_blast_of_unsure_lineage_is_named_a_blast():
    unsure = logits(myeloblast=0.3, monoblast=0.3, lymphoblast=0.3)
    reading = read_one(make_reader(class_confidence=0.7), unsure)
    assert reading.label == "blast"
    kinds = DEFAULT_TAXONOMY.leaves_under("blast")
    assert reading.label_score == pytest.approx(sum(reading.probabilities[n] for n in kinds))
    assert reading.label_score > 0.9
    # Of one lineage, but which of its blasts?
    reading = read_one(make_reader(class_confidence=0.7), logits(monoblast=0.45, promonocyte=0.45))
    assert reading.label == "blast"


def test_who_learnt_one_kind_of_blast_cannot_tell_the_kinds():
    others = [n for n in DEFAULT_TAXONOMY.leaves_under("blast") if n != "myeloblast"]
    one = make_reader(unlearnt={"classes": others, "attributes": []}, class_confidence=0.7)
    reading = read_one(one, logits(myeloblast=0.9))
    assert reading.label == "blast" and reading.probabilities["myeloblast"] > 0.89
    two = make_reader(unlearnt={"classes": others[1:], "attributes": []}, class_confidence=0.7)
    assert read_one(two, logits(myeloblast=0.9)).label == "myeloblast"


def test_a_blast_that_is_as_likely_none_is_not_named_one():
    unsure = logits(myeloblast=0.3, monoblast=0.3, monocyte=0.35)
    assert read_one(make_reader(class_confidence=0.7), unsure).label == "white cell"
    sure = logits(monoblast=0.8, myeloblast=0.15)
    assert read_one(make_reader(class_confidence=0.7), sure).label == "monoblast"


OTHERS = DEFAULT_TAXONOMY.leaves_under("other object")


def reader_of_objects() -> CellClassifier:
    data = manifest({"detector.onnx": b"", "reader.onnx": b""})
    data["leaves"] = [*LEAVES, *OTHERS]
    data["unlearnt"] = {"classes": [], "attributes": []}
    data["reader"]["class_confidence"] = 0.7
    return CellClassifier(Manifest.model_validate(data))


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [
        ({"smudge cell": 0.9, "lymphocyte": 0.1}, "smudge cell"),
        ({"smudge cell": 0.4, "squashed nucleus": 0.4, "lymphocyte": 0.2}, "other object"),
        ({"smudge cell": 0.45, "lymphocyte": 0.55}, "nucleated cell"),
        ({"smudge cell": 0.2, "lymphocyte": 0.8}, "lymphocyte"),
        ({"smudge cell": 0.55, "lymphocyte": 0.45}, "other object"),
    ],
)
def test_what_is_more_probably_no_cell_is_named_so(probabilities, label):
    reader = reader_of_objects()
    p = np.array([probabilities.get(leaf, 0.0) for leaf in (*LEAVES, *OTHERS)])
    assert reader.deepest_sure(p)[0] == label


def test_a_value_never_learnt_is_not_offered():
    absent = {"classes": [], "attributes": [], "values": {"cell_size": ["medium"]}}
    reader = make_reader(unlearnt=absent)
    attributes = np.zeros((1, LLD_SCHEMA.width))
    attributes[0, LLD_SCHEMA.slices["cell_size"]] = [1.0, 50.0, 2.0]
    answer = read_one(reader, logits(eosinophil=0.9), attributes).attributes["cell_size"]
    assert answer.probabilities == pytest.approx({"small": 0.2689, "large": 0.7311}, abs=1e-4)
    assert answer.value == "large"


# ---- conformal sets --------------------------------------------------------------------------


def conformal_reader(**least):
    named = {k.replace("_", " "): v for k, v in least.items()}
    sets = {"coverage": 0.9, "least": dict.fromkeys(LEAVES, 0.2) | named}
    return make_reader(class_confidence=0.99, conformal=sets)


def test_a_set_of_one_class_names_the_leaf_whatever_the_confidence():
    reading = read_one(conformal_reader(), logits(eosinophil=0.6))
    assert (reading.label, round(reading.label_score, 6)) == ("eosinophil", 0.6)


@pytest.mark.parametrize(
    ("given_", "label"),
    [
        ({"band_neutrophil": 0.45, "segmented_neutrophil": 0.45}, "neutrophil"),
        ({"band_neutrophil": 0.45, "monocyte": 0.45}, "white cell"),
        ({"erythroblast": 0.45, "monocyte": 0.45}, "nucleated cell"),
        ({}, "nucleated cell"),
    ],
)
def test_a_cell_is_named_by_the_deepest_node_that_holds_its_set(given_, label):
    assert read_one(conformal_reader(), logits(**given_)).label == label


def test_a_class_with_a_low_limit_of_its_own_keeps_a_cell_open():
    doubtful = logits(lymphocyte=0.8, lymphoblast=0.15)
    assert read_one(conformal_reader(), doubtful).label == "lymphocyte"
    assert read_one(conformal_reader(lymphoblast=0.1), doubtful).label == "lymphocyte lineage"


def test_on_a_far_film_a_name_needs_its_set_and_the_confidence():
    films = {
        "features": ["a"], "sites": {"x": [0.0]}, "spread": [1.0], "limit": 3.0,
        "class_confidence": 0.95,
    }  # fmt: skip
    data = manifest({"detector.onnx": b"", "reader.onnx": b""})
    data["films"] = films
    sets = {"coverage": 0.9, "least": dict.fromkeys(LEAVES, 0.2)}
    data["reader"].update(class_confidence=0.5, conformal=sets)
    near, far = (CellClassifier(Manifest.model_validate(data), cautious=c) for c in (False, True))
    sure, likely = logits(eosinophil=0.97), logits(eosinophil=0.9)
    open_set = logits(eosinophil=0.75, monocyte=0.22)
    assert [read_one(near, x).label for x in (sure, likely)] == ["eosinophil"] * 2
    assert read_one(far, sure).label == "eosinophil"
    assert read_one(far, likely).label == "granulocyte lineage"
    assert read_one(near, open_set).label == "white cell"
    assert read_one(far, open_set).label in ("white cell", "nucleated cell")


def test_a_manifest_without_sets_is_written_as_before():
    data = manifest({"detector.onnx": b"", "reader.onnx": b""})
    assert "conformal" not in Manifest.model_validate(data).to_json()["classifier"]
    sets = {"coverage": 0.9, "least": {"monocyte": 0.3}, "cells": {"monocyte": 9}, "sites": ["a"]}
    data["reader"]["conformal"] = sets
    held = Manifest.model_validate(data).to_json()["classifier"]["conformal"]
    assert held == sets
    data["reader"]["conformal"] = {**sets, "least": {"unicorn": 0.3}}
    with pytest.raises(ValueError, match=r"classifier\.conformal: 'unicorn'"):
        Manifest.model_validate(data)


# ---- further looks ---------------------------------------------------------------------------


def group_of(label: str) -> list[str]:
    """The leaves of the first group that holds a leaf and more than it."""
    masks = kindred_masks(DEFAULT_TAXONOMY, LEAVES, "nucleated cell")
    own = masks[masks[:, LEAVES.index(label)]]
    widest = own[own.sum(axis=1).argmax()]
    return [leaf for leaf, held in zip(LEAVES, widest, strict=True) if held]


def test_kinds_of_one_class_belong_together_and_whole_lineages_do_not():
    assert set(group_of("band neutrophil")) == {"band neutrophil", "segmented neutrophil"}
    assert group_of("eosinophil") == ["eosinophil"]
    assert group_of("erythroblast") == ["erythroblast"]


@pytest.mark.parametrize(
    ("given_", "is_open"),
    [
        ({"eosinophil": 0.9}, False),
        ({"eosinophil": 0.7, "monocyte": 0.2}, True),
        ({"band_neutrophil": 0.45, "segmented_neutrophil": 0.45}, False),
        ({"eosinophil": 0.45, "segmented_neutrophil": 0.45}, True),
    ],
)
def test_a_cell_is_open_where_no_class_is_sure(given_, is_open):
    again = make_reader(look_again={"below": 0.8}).to_look_at_again(logits(**given_))
    assert again.tolist() == ([0] if is_open else [])
    assert not len(make_reader().to_look_at_again(logits(**given_)))


def test_without_any_class_every_cell_is_open():
    none = kindred_masks(DEFAULT_TAXONOMY, LEAVES, "nucleated cell")[:0]
    assert open_cells(np.ones((2, len(LEAVES))) / len(LEAVES), none, 0.8).tolist() == [0, 1]


def test_the_probabilities_of_all_looks_are_averaged_and_the_rest_is_the_first_looks():
    reader = make_reader(look_again={"below": 0.8, "turns": [1, 3]})
    assert reader.turns == (1, 3)
    n = 3
    first = [
        np.concatenate([logits(eosinophil=p) for p in (0.9, 0.5, 0.6)]).astype(np.float32),
        np.zeros((n, LLD_SCHEMA.width), dtype=np.float32),
        np.array([0.1, 0.2, 0.3], dtype=np.float32),
    ]
    turned = [[0.2, 0.9], [0.8, 0.3]]  # of cells 1 and 2, turn by turn
    size = LLD_SCHEMA.slices["cell_size"]
    sized = np.zeros((4, LLD_SCHEMA.width), dtype=np.float32)
    sized[:, size.start] = np.log([2, 3, 2, 3])  # of two or more values, the others 1
    more = [
        np.concatenate([logits(eosinophil=p) for turn in turned for p in turn]).astype(np.float32),
        sized,
        np.full(4, 9.0, dtype=np.float32),
    ]
    before = [part.copy() for part in first]
    after = reader.read(*reader.with_further_looks(first, np.array([1, 2]), more))
    assert [round(c.probabilities["eosinophil"], 5) for c in after] == [0.9, 0.5, 0.6]
    assert not any(c.novel for c in after)
    width = size.stop - size.start
    expected = [1 / width, *((1 / width + 2 * k / (k + width - 1)) / 3 for k in (2, 3))]
    value = LLD_SCHEMA["cell_size"].values[0]
    found = [c.attributes["cell_size"].probabilities[value] for c in after]
    assert found == pytest.approx(expected, abs=1e-5)
    for part, kept in zip(first, before, strict=True):
        np.testing.assert_array_equal(part, kept)


def test_a_manifest_without_further_looks_is_written_as_before():
    data = manifest({"detector.onnx": b"", "reader.onnx": b""})
    assert "look_again" not in Manifest.model_validate(data).to_json()["classifier"]
    data["reader"]["look_again"] = {"below": 0.8}
    held = Manifest.model_validate(data).to_json()["classifier"]["look_again"]
    assert held == {"below": 0.8, "turns": [2]}
    data["reader"]["look_again"] = {"below": 0.8, "turns": [4]}
    with pytest.raises(ValueError, match="turns"):
        Manifest.model_validate(data)
