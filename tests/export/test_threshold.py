"""The threshold is chosen on what the finished bundle itself says."""

import json

import pytest

from bloodfilm.core import Dataset
from bloodfilm.export.threshold import set_threshold
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.training.data.sourced_field import SourcedField
from fake_bundle import Disc, dark, labelled_field, write_bundle

HARD_NEGATIVE = (120, 60, 90)


def field(path, *discs):
    """A field whose dark discs alone are labelled as what they are; red cells tell the scale."""
    item = labelled_field(path, *discs)
    return SourcedField(item, Dataset("drawn", (item,)), 1.0)


@pytest.fixture
def held(tmp_path):
    cell, other = Disc(80.0, 30.0, 12.0, dark("monocyte")), Disc(30.0, 30.0, 12.0, HARD_NEGATIVE)
    return [field(tmp_path / f"{i}.png", cell, other) for i in range(3)]


def test_set_threshold_uses_the_verification_head(tmp_path, held):
    plain = write_bundle(tmp_path / "plain")
    careful = write_bundle(tmp_path / "careful", confirms=True)
    assert set_threshold(plain, held) == pytest.approx(2 / 3)  # three right of six
    assert set_threshold(careful, held) == 1.0
    manifest = json.loads((careful / "manifest.json").read_text())
    threshold = manifest["detector"]["thresholds"]["nucleated cell"]
    # The hard negative's score is at most the root of 0.0004, the cell's nearly one.
    assert 0.05 < threshold <= 1
    assert manifest["metrics"]["validation"]["detector"]["f1_confirmed_cell"] == 1.0
    assert load_bundle(careful).manifest.detector.thresholds["nucleated cell"] == threshold
