"""`bloodfilm learn` from drawn cells to a bundle: learnt, refused, and what cannot be used."""

import json

import numpy as np
import pytest

import bloodfilm
from bloodfilm.export.class_graph import Describer
from bloodfilm.export.exemplars import (
    collect_exemplars,
    read_exemplars,
    set_exemplars,
)
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.workflows.learn import LearnJob, learn
from bloodfilm.workflows.learn_cells import CellSource
from fake_bundle import dark, draw, lay_out, save
from learnable import UM, draw_cell, write_learnable
from tiny import write_set

pytestmark = pytest.mark.slow
NEW, GROUP = "hairy cell", "lymphocyte lineage"
GREEN = (60, 200, 90)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that describes cells of the data set that it says it was trained on."""
    root = tmp_path_factory.mktemp("known")
    write_set(root / "discs", 8, 6)
    folder = write_learnable(root / "bundle")
    set_exemplars(folder, collect_exemplars(load_bundle(folder), root))
    return folder


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Twelve pictures of a green cell, and six of a known one from the same place."""
    root = tmp_path_factory.mktemp("cells")
    for number in range(12):
        draw_cell(root / "Hairy_Cell" / f"{number}.png", GREEN, number)
    for number in range(6):
        draw_cell(root / "LYT" / f"{number}.png", dark("lymphocyte"), number)
    return root


def job(bundle, cells, out, um_per_px=UM, **more):
    source = CellSource(path=cells, um_per_px=um_per_px)
    return LearnJob(bundle=bundle, cells=source, out=out, **{"new": {NEW: GROUP}, **more})


@pytest.fixture(scope="module")
def learnt(bundle, cells, tmp_path_factory):
    out = tmp_path_factory.mktemp("learnt") / "new"
    return learn(job(bundle, cells, out, licence="CC0-1.0", max_loss=0.5))


def test_a_class_is_learnt_and_the_networks_stay(bundle, cells, learnt, tmp_path):
    assert learnt.accepted, learnt.reasons
    parent, child = bloodfilm.load_bundle(bundle), bloodfilm.load_bundle(learnt.out)
    assert (parent.path / "detector.onnx").read_bytes() == (
        child.path / "detector.onnx"
    ).read_bytes()
    assert child.taxonomy.parent(NEW) == GROUP and NEW in child.manifest.trained_leaves
    assert child.manifest.licence == "CC0-1.0" and NEW in child.manifest.name
    crops = np.stack([np.full((128, 128, 3), v, np.uint8) for v in (40, 120, 200)])
    one, two = (Describer(b).describe(crops).outputs for b in (parent, child))
    places = [child.manifest.leaves.index(leaf) for leaf in parent.manifest.leaves]
    assert (two["classes"][:, places] == one["classes"]).all()
    assert (two["attributes"] == one["attributes"]).all()
    report = json.loads((learnt.out / "learning.json").read_text())
    assert report["accepted"] and report["cells"]["counts"] == {NEW: 12, "lymphocyte": 6}
    assert report["parent"]["sha256"] == parent.sha256
    assert len(report["files"]) == 18 and "Hairy_Cell/0.png" in report["files"]
    (record,) = child.manifest.training["learnt"]
    assert record["classes"][NEW]["cells"] == 12 and "files" not in record
    card = (learnt.out / "MODEL_CARD.md").read_text()
    assert "## Classes added" in card and f"| {NEW} | {GROUP} | 12 |" in card


def test_the_cells_learnt_from_are_described_for_what_is_learnt_next(
    bundle, learnt, cells, tmp_path
):
    before, after = (read_exemplars(load_bundle(place)) for place in (bundle, learnt.out))
    assert after.counts()[NEW] == 12
    assert after.counts()["lymphocyte"] == before.counts()["lymphocyte"] + 6
    for number in range(8):
        draw_cell(tmp_path / "cells" / "monoblast" / f"{number}.png", (200, 60, 60), number)
    done = learn(job(learnt.out, tmp_path / "cells", tmp_path / "next", new={}, max_loss=1 - 1e-9))
    # A class that the tree has and that nothing had taught: no --new. A loss is no reason here.
    assert not [r for r in done.reasons if "balanced" in r]
    assert list(done.report["classes"]) == ["monoblast"]
    assert set(done.report["known"]["labels"]) >= {NEW, "lymphocyte"}


def test_analysis_counts_the_new_class(learnt, tmp_path):
    model = bloodfilm.load_model(learnt.out)
    places = [(18.0, 26.0, "lymphocyte"), (52.0, 22.0, "monocyte")]
    save(
        tmp_path / "field.png", draw(lay_out(70, 52, places, step=13.0, keep_away=13.0), (280, 208))
    )
    run = bloodfilm.analyze(tmp_path / "field.png", model)
    (field,) = run
    cells = [c for c in field.cells if c.object_type == "nucleated cell"]
    assert len(cells) == 2 and all(NEW in c.probabilities for c in cells)
    assert bloodfilm.differential(run).white <= 2
