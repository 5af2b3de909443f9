"""The size of a cell follows its measured diameter: fitted, kept in the manifest, applied."""

import numpy as np
import pytest
from pydantic import ValidationError

from bloodfilm.core.attributes import Attribute
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.results import AttributeResult
from bloodfilm.export.diameters import diameters_of
from bloodfilm.inference.bundle import default_bundle
from bloodfilm.inference.classifier import CellClassification, CellClassifier
from bloodfilm.inference.manifest import DiameterSpec, Manifest

SIZE = Attribute("cell_size", ("small", "medium", "large"))
SPEC = DiameterSpec(attribute="cell_size", values={"small": (9.0, 0.1), "large": (14.0, 0.1)})


def cells(middle, spread, count):
    return np.exp(np.log(middle) + spread * np.random.default_rng(0).normal(size=count))


def test_median_and_spread_are_of_the_logarithm():
    found = [("small", um) for um in cells(9.0, 0.1, 4001)]
    found += [("large", um) for um in cells(14.0, 0.2, 4001)] + [("medium", 11.0)] * 3
    spec = diameters_of(SIZE, found)
    assert list(spec.values) == ["small", "large"]  # three cells tell nothing of medium ones
    assert spec.values["small"] == pytest.approx((9.0, 0.1), rel=0.05)
    assert spec.values["large"] == pytest.approx((14.0, 0.2), rel=0.05)


def test_one_outlier_does_not_widen_a_distribution_and_equal_cells_have_some_width():
    found = [("small", 9.0)] * 20 + [("small", 40.0)] + [("large", 14.0)] * 20
    assert diameters_of(SIZE, found).values == {"small": (9.0, 0.08), "large": (14.0, 0.08)}


def test_one_value_alone_is_refused():
    with pytest.raises(ConfigError, match="two values need 10"):
        diameters_of(SIZE, [("small", 9.0)] * 50)


def test_shares_follow_the_densities():
    assert SPEC.densities(9.0)["small"] > 1000 * SPEC.densities(9.0)["large"]
    middle = float(np.sqrt(9.0 * 14.0))  # as far from both in the logarithm
    densities = SPEC.densities(middle)
    assert densities["small"] == pytest.approx(densities["large"])


@pytest.fixture(scope="module")
def manifest():
    return default_bundle().manifest


def reading(**shares):
    best = max(shares, key=shares.get)
    return CellClassification(
        "monocyte", 0.9, attributes={"cell_size": AttributeResult(best, shares[best], shares)}
    )


def test_the_answer_of_the_network_and_the_diameter_are_multiplied(manifest):
    reader = CellClassifier(manifest.with_diameters(SPEC))
    middle = float(np.sqrt(9.0 * 14.0))
    undecided = reader.with_diameter(reading(small=0.75, large=0.25), middle)
    assert undecided.attributes["cell_size"].probabilities == pytest.approx(
        {"small": 0.75, "large": 0.25}
    )
    large = reader.with_diameter(reading(small=0.75, large=0.25), 14.0)
    answer = large.attributes["cell_size"]
    assert answer.value == "large" and answer.probability > 0.99
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert large.label == "monocyte"


def test_a_value_that_was_never_measured_is_not_given(manifest):
    reader = CellClassifier(manifest.with_diameters(SPEC))
    answer = reader.with_diameter(reading(small=0.1, medium=0.8, large=0.1), 9.0)
    assert answer.attributes["cell_size"].probabilities["medium"] == 0
    assert answer.attributes["cell_size"].value == "small"


def test_without_diameters_or_without_a_measured_cell_nothing_changes(manifest):
    given = reading(small=0.75, large=0.25)
    assert CellClassifier(manifest).with_diameter(given, 14.0) == given
    nothing = CellClassification("monocyte", 0.9)
    assert CellClassifier(manifest.with_diameters(SPEC)).with_diameter(nothing, 14.0) == nothing
    measured = CellClassifier(manifest.with_diameters(SPEC))
    assert measured.with_diameter(given, 0.0) == given


def test_the_manifest_keeps_them_and_refuses_foreign_values(manifest):
    kept = Manifest.model_validate(manifest.with_diameters(SPEC).to_json())
    assert kept.classifier.diameters == SPEC
    assert "diameters" not in manifest.to_json()["classifier"]
    for wrong in ({"attribute": "girth"}, {"values": {"tiny": (5.0, 0.1), "large": (14.0, 0.1)}}):
        with pytest.raises(ValidationError, match=r"classifier\.diameters"):
            manifest.with_diameters(DiameterSpec(**{**SPEC.model_dump(), **wrong}))
