"""The benchmark of sparse labels on LLD: what is marked, what is fitted, what is reported."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))

from sparse_lld import (  # noqa: E402
    Cells,
    Described,
    Job,
    View,
    grouped,
    heads,
    jobs,
    sparse_config,
    table,
)

sys.path.remove(str(FOLDER))

from bloodfilm.active_learning.planning import RegionScores  # noqa: E402
from bloodfilm.core import DEFAULT_TAXONOMY  # noqa: E402
from bloodfilm.training.config import CorrectionSection, ModelSection  # noqa: E402
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY  # noqa: E402

LEAVES = DEFAULT_VOCABULARY.leaves
PATIENTS = np.repeat(["1", "12", "24"], 40)


def described(labels, shift):
    """Cells whose class, and size, is the first component of their description."""
    rng = np.random.default_rng(len(labels))
    n = len(labels)
    x = rng.normal(size=(3, n, 4)).astype(np.float32) * 0.2
    x[:, :, 0] += shift
    allowed = np.array([DEFAULT_TAXONOMY.leaf_mask(name, LEAVES) for name in labels])
    codes = np.full((n, len(DEFAULT_VOCABULARY.schema.names)), -1)
    codes[:, 0] = 2 * (shift > 0.5)
    return x, allowed, codes


def cells(known=("lymphocyte", "myeloblast")):
    """Three patients of 40 cells in eight fields of 100 x 100 px, and as many permissive cells."""
    names = np.array(["lymphoblast", "lymphocyte"])
    truth = np.arange(120) % 2
    x, allowed, codes = described(names[truth], truth.astype(float))
    n, width = len(x[0]), DEFAULT_VOCABULARY.schema.width
    fields = np.arange(n) // 5
    places = np.column_stack([np.tile([10, 30, 50, 70, 90], n // 5), np.full(n, 50)]).astype(float)
    zeros = np.zeros((3, n, len(LEAVES)), np.float32)
    blank = np.zeros((3, n, width), np.float32)
    lld = Described(x, zeros, blank, allowed, codes, np.ones(n), fields, PATIENTS, places)
    p, labels, unknown = described(np.array(["lymphocyte"] * 20), np.ones(20))
    none = np.zeros(20)
    permissive = Described(
        p[:1], zeros[:1, :20], blank[:1, :20], labels, np.full_like(unknown, -1),
        np.ones(20), none.astype(int), none.astype(str), np.zeros((20, 2)),
    )  # fmt: skip
    given = object.__new__(Cells)
    given.config = SimpleNamespace(correction=CorrectionSection(samples=1))
    given.words = DEFAULT_VOCABULARY
    given.known = [leaf in known for leaf in LEAVES]
    given.cells, given.permissive = lld, permissive
    patients = [PATIENTS[fields == i][0] for i in range(24)]
    given.lld = [SimpleNamespace(field=SimpleNamespace(patient=p)) for p in patients]
    given.scores = [RegionScores(100, 100) for _ in patients]
    return given


def test_marked_cells_are_of_other_patients_and_lie_in_the_regions():
    given = cells()
    assert (given.cells.patients[given.marked(Job("heads", "12", 1.0))] != "12").all()
    assert len(given.marked(Job("heads", "12", 1.0))) == 80
    assert not len(given.marked(Job("heads", "12", 0.0, "none")))
    some = given.marked(Job("heads", "12", 0.3, "random", 1))
    assert 0 < len(some) < 80 and (given.cells.patients[some] != "12").all()
    assert np.array_equal(some, given.marked(Job("heads", "12", 0.3, "random", 1)))
    assert not np.array_equal(some, given.marked(Job("heads", "12", 0.3, "random", 2)))


def test_labels_of_the_others_teach_class_and_attributes():
    given = cells()
    taught = heads(Job("heads", "12", 1.0), given)
    assert taught["cells"] == 80
    assert taught["class"] > 0.9 and taught["attributes"] > 0.9
    floor = heads(Job("heads", "12", 0.0, "none"), given)
    assert floor["cells"] == 0 and floor["attributes"] == pytest.approx(0.5)


def test_detectors_start_at_the_bundles_size_and_learn_by_the_shipped_method():
    before = SimpleNamespace(model=ModelSection(width=24))
    view = View(0.2, 256, 40, 5e-4)
    full = sparse_config(Job("detector", "1", 1.0), before, view)
    some = sparse_config(Job("detector", "1", 0.1, "random", 2), before, view)
    assert full.model.width == some.model.width == 24 and some.seed == 2
    assert full.sparse.teacher == "none" and some.sparse.teacher == "average"
    assert some.optim.epochs * some.optim.samples == 40 * some.optim.batch


def test_every_share_is_run_for_every_patient_seed_and_planner():
    every = list(jobs())
    assert len(set(every)) == len(every) == 2 * 5 * (2 + 3 * 2 * 3)
    assert {j.share for j in every} == {0, 1, 0.1, 0.05, 0.01}


def result(part, patient, share, planner, seed, **scores):
    job = {"part": part, "patient": patient, "share": share, "planner": planner, "seed": seed}
    return {"job": job, "cells": 10, **scores}


def test_what_is_kept_is_held_against_the_same_patients_in_full():
    runs = [
        result("detector", "1", 1.0, "all", 0, ap50=0.8),
        result("detector", "12", 1.0, "all", 0, ap50=1.0),
        result("detector", "1", 0.1, "random", 0, ap50=0.6),
        result("detector", "1", 0.1, "random", 1, ap50=0.8),
        result("detector", "12", 0.1, "random", 0, ap50=0.9),
    ]
    (group,) = [g for g in grouped(runs) if g["share"] == 0.1]
    assert group["seeds"] == 2 and group["patients"] == 2
    assert group["mean"] == pytest.approx((0.75 + 0.8) / 2)
    assert group["kept"] == pytest.approx((0.75 / 0.9 + 1.0) / 2, abs=1e-4)


def test_the_table_says_where_patients_are_missing():
    runs = [
        result("heads", str(p), share, "all" if share == 1 else "cells", 0, **scores)
        for share in (1.0, 0.05)
        for p, scores in enumerate([{"class": 0.5 + share / 4, "attributes": 0.5}] * 5)
    ] + [result("detector", "1", 1.0, "all", 0, ap50=0.9)]
    lines = table(grouped(runs)).splitlines()
    assert lines[2] == "| 100% |  | 10 | 0.750 | 100.0% | 0.500 | 100.0% | 0.900 (1) | 100.0% |"
    assert lines[3].startswith(
        "| 5% | by expected cells | 10 | 0.512 | 68.3% | 0.500 | 100.0% | – |"
    )
