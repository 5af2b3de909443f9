"""Domains, fields and data sets."""

from pathlib import Path

import pytest

from bloodfilm.core import Cell, DataError, Dataset, Domain, Field


@pytest.mark.parametrize("key", ["magnification", "pixel_aspect_ratio", "um_per_px"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_domain_of_nonsense_is_refused(key: str, value: float) -> None:
    with pytest.raises(DataError, match=f"{key} must be a positive number"):
        Domain(**{key: value})


def test_domains_round_trip_and_have_names() -> None:
    domain = Domain("H", 40, "C2", pixel_aspect_ratio=0.5625)
    assert Domain.from_json(domain.to_json()) == domain
    assert domain.name == "H/40X/C2"
    assert Domain().name == "unknown"
    with pytest.raises(DataError, match="domain"):
        Domain.from_json({"lens": 3})


def _dataset() -> Dataset:
    cells = (
        Cell((0, 0, 5, 5), "monocyte"),
        Cell((5, 5, 5, 5), None, ignore=True),
        Cell((9, 9, 5, 5), None),
    )
    return Dataset(
        "two", (Field(Path("a.png"), cells=cells, split="train"), Field(Path("b.png"), split="val"))
    )


def test_counts_by_label() -> None:
    assert _dataset().class_counts() == {"monocyte": 1, "ignore": 1, "unnamed": 1}


def test_splits_and_filters() -> None:
    data = _dataset()
    assert [f.path.name for f in data.split("val")] == ["b.png"]
    assert len(data.split("train", "val")) == 2
    assert data.where(lambda f: not f.cells)[0].path.name == "b.png"


def test_a_field_knows_nothing_unless_told() -> None:
    field = Field(Path("x.png"))
    assert field.region.is_everything
    assert field.domain == Domain()
    assert field.with_cells((Cell(None, "basophil"),)).cells[0].box is None
