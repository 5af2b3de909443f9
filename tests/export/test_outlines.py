"""An outline network in a bundle: added, taken over, refused, and used by the analysis."""

import shutil

import numpy as np
import pytest
import torch

from bloodfilm.core.boxes import iou
from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.export import quantize
from bloodfilm.export.outlines import NO_OUTLINES, OUTLINES_FILE, open_outlines, set_outlines
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.inference.model import load_model
from bloodfilm.synthetic import SceneSpec, render_field
from bloodfilm.training.config import parse_config
from bloodfilm.training.loop import train
from bloodfilm.training.tasks import make_task
from tiny import silent

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network that has hardly learnt anything, but says something of every crop."""
    out = tmp_path_factory.mktemp("run")
    config = parse_config(
        {
            "task": "outlines",
            "outlines": {"cells": 32, "validation_cells": 4, "widths": [8, 12, 16]},
            "optim": {"epochs": 4, "batch": 4, "lr": 0.005, "ema": 0.9, "precision": "fp32"},
            "appearance": {"normalise": True, "stain": 0, "optics": 0},
        },
        "test.toml",
    )
    train(make_task(config, out, silent), config, out, torch.device("cpu"))
    return out


@pytest.fixture
def plain(tmp_path):
    """The shipped bundle, without outlines."""
    shipped = default_bundle()
    place = tmp_path / "plain"
    shutil.copytree(shipped.path, place)
    data = {**shipped.manifest.to_json(), "outlines": None}
    type(shipped.manifest).model_validate(data).write(place)
    return place


def test_a_bundle_gets_outlines_and_analysis_uses_them(run, plain):
    image, _ = render_field("pbc-like", SceneSpec(whites=3), seed=3)
    before = load_model(plain).analyze(image)
    assert all(cell.shape is None for cell in before.cells)
    set_outlines(plain, open_outlines(run), "notes at the end")
    bundle = load_bundle(plain)
    assert bundle.manifest.outlines.file == OUTLINES_FILE
    assert "outlines_sha256" in bundle.identity()
    card = (plain / "MODEL_CARD.md").read_text()
    assert "Outlines each nucleated cell and its nucleus" in card and "drawn films" in card
    assert card.rstrip().endswith("notes at the end")
    after = load_model(plain).analyze(image)
    # The same cells; a box that its outline contradicts is averaged with that of the outline.
    said = [[(c.object_type, c.confidence) for c in result.cells] for result in (before, after)]
    assert said[0] == said[1]
    boxes = [np.array([c.box for c in result.cells]) for result in (before, after)]
    assert (np.diagonal(iou(*boxes)) > 0.5).all()
    assert [c.label for c in after.cells] == [c.label for c in before.cells]
    outlined = [c for c in after.cells if c.shape is not None]
    assert outlined and all(c.object_type == "nucleated cell" for c in outlined)
    for cell in outlined:
        xy = np.array(cell.shape.outline)
        x, y, w, h = cell.box
        assert (xy >= [x - w, y - h]).all() and (xy <= [x + 2 * w, y + 2 * h]).all()


def test_a_bundle_gives_its_outlines_to_another(run, plain, tmp_path):
    part = open_outlines(run)
    set_outlines(plain, part, "what the authors added")
    set_outlines(plain, part)
    assert (plain / "MODEL_CARD.md").read_text().rstrip().endswith("\n\nwhat the authors added")
    again = open_outlines(plain)
    assert (again.spec, again.onnx) == (part.spec, part.onnx)
    assert again.metrics == part.metrics and again.parity == part.parity
    assert again.training["config"]["task"] == "outlines"


def test_a_network_in_eight_bits_draws_the_same_masks(run, plain):
    exact, small = open_outlines(run), open_outlines(run, int8=True)
    assert 0.98 <= small.parity["int8_outlines"] <= 1 and "int8_outlines" not in exact.parity
    assert b"DequantizeLinear" in small.onnx and b"DequantizeLinear" not in exact.onnx
    set_outlines(plain, small)
    assert open_outlines(plain).parity == small.parity
    image, _ = render_field("pbc-like", SceneSpec(whites=2), seed=4)
    load_model(plain).analyze(image)
    # What was said of a network goes with it.
    set_outlines(plain, exact)
    assert "int8_outlines" not in load_bundle(plain).manifest.metrics["parity"]


def test_a_network_that_eight_bits_change_is_refused(run, monkeypatch):
    monkeypatch.setattr(quantize, "MIN_MASK_AGREEMENT", 1.01)
    with pytest.raises(BundleError, match=r"eight-bit outline network agrees .* without --int8"):
        open_outlines(run, int8=True)


def test_without_a_part_nothing_is_changed(plain):
    before = (plain / "manifest.json").read_bytes()
    set_outlines(plain, NO_OUTLINES)
    assert (plain / "manifest.json").read_bytes() == before


def test_what_is_no_outline_network_is_refused(run, plain, tmp_path):
    with pytest.raises(ConfigError, match="has no outline network"):
        open_outlines(plain)
    with pytest.raises(ConfigError, match=r"run\.json"):
        open_outlines(tmp_path)


def test_a_damaged_graph_is_refused(run, plain):
    set_outlines(plain, open_outlines(run))
    graph = plain / OUTLINES_FILE
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="checksum"):
        load_bundle(plain)
    graph.unlink()
    with pytest.raises(BundleError, match="missing"):
        load_bundle(plain)
