"""What a benchmark on sites left out hands to an export."""

import json

import pytest

from bloodfilm.core.errors import ConfigError
from bloodfilm.export.publish import read_calibration
from bloodfilm.training.calibration import ClassifierCalibration

CALIBRATION = {"temperature": 1.1, "confidence": 0.8, "metrics": {"class_ece": 0.02}}
SETS = {"coverage": 0.9, "least": {"monocyte": 0.2}, "cells": {"monocyte": 40}, "sites": ["krd"]}
CONFUSION = {"true": ["monocyte"], "named": ["monocyte"], "counts": [[40]], "sites": ["krd"]}


def test_class_sets_and_confusion_travel_to_the_classifier(tmp_path):
    path = tmp_path / "loso.json"
    path.write_text(
        json.dumps(
            {
                "calibration": CALIBRATION,
                "conformal": SETS,
                "confusion": CONFUSION,
                "look_again": {"below": 0.8},
            }
        )
    )
    found = read_calibration(path)
    assert found.conformal is not None and found.conformal.least == {"monocyte": 0.2}
    assert found.confusion == CONFUSION
    own = ClassifierCalibration({"class": 1.0}, 0.9, 0.5, None, {})
    changed = own.with_class(found)
    assert changed.conformal == found.conformal and changed.confusion == CONFUSION
    assert changed.look_again is not None and changed.look_again.below == 0.8
    path.write_text(json.dumps({"calibration": CALIBRATION}))
    plain = own.with_class(read_calibration(path))
    assert plain.conformal is None and plain.confusion is None and plain.look_again is None


@pytest.mark.parametrize(
    "change",
    [
        {"confusion": {"true": ["a"]}},
        {"conformal": {"coverage": 3, "least": {}}},
        {"look_again": {"below": 2}},
    ],
)
def test_damaged_ones_are_refused(tmp_path, change):
    path = tmp_path / "loso.json"
    path.write_text(json.dumps({"calibration": CALIBRATION, **change}))
    with pytest.raises(ConfigError, match=r"loso\.json"):
        read_calibration(path)
