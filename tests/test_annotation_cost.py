"""The annotation-cost benchmark: what is cut, what is counted, what is drawn."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))

from sparse import METHODS, Job  # noqa: E402
from sparse_curve import curve  # noqa: E402
from sparse_data import cut, halved  # noqa: E402
from sparse_report import grouped, left_out, line, paired, versus  # noqa: E402
from sparse_tables import fill, tables  # noqa: E402

sys.path.remove(str(FOLDER))

from bloodfilm.core import Region  # noqa: E402
from bloodfilm.training.data.canonical_fields import CanonicalField  # noqa: E402

JOB = Job("txl", "ours", 0.1, "random", 0, 160, 192, 48, 0.3)


def item() -> CanonicalField:
    rng = np.random.default_rng(0)
    boxes = np.hstack([rng.uniform(0, 180, (40, 2)), np.full((40, 2), 20.0)])
    image = rng.integers(0, 255, (200, 200, 3)).astype(np.uint8)
    values = np.eye(40, dtype=np.float32)
    nothing = np.zeros((0, 4))
    kinds = np.arange(40) % 3
    return CanonicalField(image, boxes, kinds, nothing, Region.everything(), values=values)


def test_labels_are_left_in_one_region_of_the_area_asked_for() -> None:
    whole = item()
    (part,) = cut([whole], 0.1, "random", 3)
    assert part.region.area(200, 200) == pytest.approx(4000, rel=0.02)
    middles = whole.boxes[:, :2] + whole.boxes[:, 2:] / 2
    kept = part.region.contains(middles)
    assert 0 < kept.sum() < 40
    assert (part.boxes == whole.boxes[kept]).all()
    assert part.values is not None
    assert (part.values.argmax(1) == np.flatnonzero(kept)).all()
    assert cut([whole], 1.0, "all", 0) == [whole]
    assert cut([whole], 0.1, "random", 4)[0].region != part.region


def test_halving_brings_boxes_along() -> None:
    small = halved(item())
    assert small.image.shape == (100, 100, 3)
    np.testing.assert_allclose(small.boxes * 2, item().boxes)


def test_a_job_is_known_by_all_that_decides_it() -> None:
    changes: list[dict[str, Any]] = [
        {"method": "region"}, {"share": 0.2}, {"seed": 1}, {"steps": 80}, {"start": False},
        {"planner": "cells"}, {"um": 0.2}, {"data": "lld-1"},
    ]  # fmt: skip
    keys = {JOB.key("test"), JOB.key("val"), *(replace(JOB, **c).key("test") for c in changes)}
    assert len(keys) == len(changes) + 2
    assert replace(JOB, start=False).name.endswith("imagenet")
    assert replace(JOB, data="lld-1").config().sparse.attributes > 0
    assert JOB.config().sparse.attributes == 0
    for method in METHODS:  # every method's settings are known keys
        replace(JOB, method=method).config()


def run(method: str, seed: int, ap50: float, **job: Any) -> dict[str, Any]:
    share = 1.0 if method == "full" else 0.1
    whole = {"data": "txl", "method": method, "share": share, "planner": "random", "seed": seed}
    whole |= {"steps": 160, "start": True} | job
    return {"job": whole, "cells": [seed, 2, 3], "scores": {"test": {"ap50": ap50, "ap": ap50 / 2}}}


def test_seeds_are_joined_and_set_against_full_supervision() -> None:
    runs = [run("full", s, v, planner="all") for s, v in enumerate((0.8, 0.9))]
    runs += [run("ours", s, v) for s, v in enumerate((0.7, 0.8))]
    runs.append(run("ours", 0, 0.3, start=False))
    groups = {(g["method"], g["start"]): g for g in grouped(runs)}
    ours = groups["ours", "films"]
    assert ours["seeds"] == [0, 1]
    assert ours["ap50"] == {"mean": 0.75, "sd": pytest.approx(0.0707)}
    assert ours["ap50_kept"]["mean"] == pytest.approx(0.75 / 0.85, abs=1e-4)
    assert "ap50_kept" not in groups["ours", "imagenet"]
    assert groups["ours", "imagenet"]["ap50"] == {"mean": 0.3, "sd": None}
    assert "ours (imagenet)" in line(groups["ours", "imagenet"])


def test_the_own_recipe_is_compared_with_others_that_had_the_same_labels() -> None:
    runs = [run("ours", s, v) for s, v in enumerate((0.7, 0.9, 0.8))]
    runs += [run("region", s, v) for s, v in ((0, 0.72), (1, 0.86), (4, 0.1))]
    runs += [run("published", 0, 0.5, planner="cells"), run("full", 0, 0.9, planner="all")]
    (duel,) = paired(runs)  # the others have no seed and no regions in common with ours
    assert (duel["rival"], duel["planner"], duel["seeds"]) == ("region", "random", [0, 1])
    assert duel["ap50"] == {"mean": 0.01, "sd": pytest.approx(0.0424), "ahead_in": 1}
    assert "bloodfilm - region" in versus(duel) and "ahead in 1 of 2" in versus(duel)


def test_patients_left_out_are_averaged_and_told_one_by_one() -> None:
    runs = []
    for seed, patient, value in ((0, "1", 0.6), (0, "12", 0.8), (1, "1", 0.8), (1, "12", 0.9)):
        one = run("ours", seed, 0.5, data=f"lld-{patient}")
        scores = {f"nucleated_cell_{k}": value for k in ("ap50", "ap")} | {"attribute_f1": 0.5}
        one["scores"]["test"] = scores
        runs.append(one)
    half = run("ours", 2, 0.5, data="lld-1")  # this seed has not come to the other patient
    half["scores"]["test"] = {**runs[0]["scores"]["test"], "nucleated_cell_ap50": 0.1}
    (group,) = left_out([*runs, half])
    assert group["seeds"] == [0, 1] and group["patients"] == ["1", "12"]
    assert group["nucleated_cell_ap50"] == {"mean": 0.775, "sd": pytest.approx(0.1061)}
    each = group["nucleated_cell_ap50_by_patient"]
    assert each["12"]["mean"] == 0.85 and each["1"]["mean"] == 0.5
    assert group["attribute_f1"]["mean"] == 0.5


def test_the_curve_is_a_picture_of_all_methods() -> None:
    runs = [run("full", 0, 0.9, planner="all")]
    runs += [run("ours", s, 0.8 + s / 50, share=share) for s in (0, 1) for share in (0.05, 0.1)]
    runs += [run("region", 0, 0.6), run("ours", 0, 0.85, planner="uncertainty")]
    picture = curve(grouped(runs), {"ap50": 0.4, "ap": 0.2})
    drawn = list(ElementTree.fromstring(picture).iter())
    texts = [e.text for e in drawn if e.tag.endswith("text")]
    # Nothing runs into the title.
    assert min(float(e.get("cy", "999")) for e in drawn) >= 84
    assert min(float(e.get(k, "999")) for e in drawn for k in ("y1", "y2")) >= 84
    for name in (
        "full supervision",
        "bloodfilm",
        "bloodfilm, where uncertain",
        "region loss only",
        "no real label at all",
        "5%",
    ):
        assert name in texts


def test_a_document_is_given_the_tables_of_the_runs_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    def scored(method: str, seed: int, ap50: float, **job: Any) -> dict[str, Any]:
        one = run(method, seed, ap50, **job)
        kinds = ("nucleated_cell_ap", "red_cell_ap", "platelet_ap")
        one["scores"]["test"] |= dict.fromkeys(kinds, 0.4)
        return one

    runs = [scored("full", s, v, planner="all") for s, v in enumerate((0.8, 0.9))]
    runs += [scored("ours", s, v) for s, v in enumerate((0.7, 0.8))]
    runs += [scored("region", s, 0.65) for s in (0, 1)] + [scored("ours: no views", 0, 0.9)]
    lld = scored("ours", 0, 0.5, data="lld-1")
    lld["scores"]["test"] |= {"nucleated_cell_ap50": 0.625, "attribute_f1": 0.25}
    groups, start = [*grouped(runs), *left_out([lld])], {"ap50": 0.3, "ap": 0.2}
    start |= dict.fromkeys(("nucleated_cell_ap", "red_cell_ap", "platelet_ap"), 0.1)
    found = tables(groups, paired(runs), start)
    rows = {row[2]: row for row in _rows(found["methods"])}
    assert list(rows) == ["method", "the start alone", "full supervision", "bloodfilm", RIVAL]
    assert rows["bloodfilm"][3:6] == ["2", "0.750 ± 0.071", "0.375 ± 0.035"]
    assert rows["bloodfilm"][6] == "88.2%" and rows["full supervision"][6] == ""
    assert [r[0] for r in _rows(found["duels"])[1:]] == [RIVAL]
    assert _rows(found["duels"])[1][3] == "+0.100 ± 0.071"
    assert _rows(found["parts"])[1][:4] == ["no views", "10% at random", "1", "-0.200"]
    assert _rows(found["lld"])[1] == ["1 (ALL)", "0.625", "0.400", "0.250"]
    assert _rows(found["lld"])[2] == ["12 (AML)", "–", "–", "–"]

    document = tmp_path / "doc.md"
    marked = "".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\nword\n" for name in found)
    document.write_text("head\n" + marked)
    fill(document, found)
    once = document.read_text()
    assert "old" not in once and once.startswith("head\n") and once.count("word\n") == len(found)
    fill(document, found)
    assert document.read_text() == once
    with pytest.raises(ValueError, match="no marker <!-- other -->"):
        fill(document, {"other": ""})


RIVAL = "region loss only"


def _rows(table: str) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in table.splitlines() if "---" not in line]
    return [[cell.strip() for cell in row] for row in lines]
