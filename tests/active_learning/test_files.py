"""Budgets, costs, and a plan on disk."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.active_learning.budget import MIN_SHARE, Budget, expected, plan_within
from bloodfilm.active_learning.costs import Rates, cost_of
from bloodfilm.active_learning.fields import bundle_scores
from bloodfilm.active_learning.plan_files import draw_region
from bloodfilm.active_learning.planning import Planner, RegionScores
from bloodfilm.active_learning.region_scores import from_detections
from bloodfilm.cli.annotate import app
from bloodfilm.core import Cell, Field, Region
from bloodfilm.core.dataset_codes import PLANNED
from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.issues import codes
from bloodfilm.formats import open_dataset
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.bundle import default_bundle
from bloodfilm.synthetic import render_field
from bloodfilm.training.config import DatasetConfig
from bloodfilm.training.data.sources import open_sources
from bloodfilm.workflows.complete import CompletionJob, complete


def image(folder: Path, name: str = "a.png") -> Path:
    folder.mkdir(exist_ok=True)
    pixels = np.full((80, 120, 3), 235, np.uint8)
    cv2.circle(pixels, (90, 50), 9, (130, 40, 90), -1)
    cv2.imwrite(str(folder / name), pixels)
    return folder / name


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize(
    ("text", "budget"),
    [("10%", Budget(0.1)), (" 30 min", Budget(minutes=30)), ("1.5h", Budget(minutes=90))],
)
def test_budgets_are_read(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["10", "0%", "101%", "-3min", "0h", "ten"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        Budget.parse(text)


def test_a_time_is_spent_on_boxes_and_fields() -> None:
    rates = Rates(box_seconds=6, field_seconds=6)
    item = from_detections(9, 9, np.ones((20, 4)), np.ones(20), np.zeros(20))
    shares = Budget(minutes=5).shares([item] * 10, rates)  # 300 s: 10 fields, 40 of 200 boxes
    assert shares == pytest.approx([0.2] * 10)
    assert Budget(minutes=999).shares([item] * 10, rates) == [1.0] * 10
    poor = Budget(minutes=0.5).shares([item] * 10, rates)
    assert set(poor) == {0.0, MIN_SHARE}
    assert sum(s > 0 for s in poor) == 3
    assert Budget(minutes=1).shares([], rates) == []
    assert len(Budget(minutes=1).shares([RegionScores(9, 9)], rates)) == 1


@pytest.mark.parametrize("by", ["random", "cells", "uncertainty"])
def test_a_planner_that_finds_more_cells_still_keeps_the_time(by: Planner) -> None:
    rng = np.random.default_rng(0)
    crowded = rng.normal(50, 4, (12, 2)).clip(0, 90)  # all cells in one place
    boxes = np.hstack([crowded, np.full((12, 2), 5.0)])
    items = [from_detections(100, 100, boxes, np.full(12, 0.8), np.zeros(12))] * 6
    rates = Rates(box_seconds=10, field_seconds=5)
    shares, regions = plan_within(items, Budget(minutes=4), rates, by)
    spent = rates.minutes(expected(items, regions), sum(s > 0 for s in shares))
    assert 0 < spent <= 4
    area = plan_within(items, Budget(share=0.2), rates, by)[0]
    assert area == [0.2] * 6


def test_costs_are_counted_and_the_rest_is_extrapolated() -> None:
    cells = tuple(Cell((i, 0, 2, 2), "cell") for i in range(4))
    ignored = Cell((0, 0, 3, 3), None, ignore=True)
    part = Field(Path("a"), 100, 100, (*cells, ignored), Region.rect(0, 0, 50, 50))
    untouched = Field(Path("b"), 100, 100, (), Region.nothing())
    rates = Rates(box_seconds=10, field_seconds=20)
    cost = cost_of([part, untouched], rates)
    assert (cost.fields, cost.unmarked, cost.boxes, cost.clicks) == (1, 1, 4, 12)
    assert cost.area_share == pytest.approx(0.125)
    assert cost.minutes == pytest.approx(1.0)
    assert cost.full_boxes == pytest.approx(32)
    assert cost.estimated
    truth = [Field(Path(n), 100, 100, cells * 3) for n in "ab"]
    known = cost_of([part, untouched], rates, truth)
    assert known.full_boxes == 24
    assert not known.estimated
    assert known.full_minutes == pytest.approx((24 * 10 + 40) / 60)


def test_a_plan_is_written_in_every_form(tmp_path: Path) -> None:
    image(tmp_path / "fields")
    out = tmp_path / "plan"
    said = run(
        "plan", str(tmp_path / "fields"), "--out", str(out), "--budget", "10%", "--by", "cells"
    )
    assert "10.0%" in said
    assert "1 of about 1 nuclei, by their colour" in said
    (item,) = open_dataset(out / "bloodfilm.json")
    assert item.region.contains([[90.5, 50.5]]).all()
    assert item.region.area(120, 80) == pytest.approx(960, rel=0.1)
    assert item.cells == ()
    coco = json.loads((out / "coco.json").read_text())
    (mark,) = coco["annotations"]
    x, _, w, h = mark["bbox"]
    assert w * h == pytest.approx(960, rel=0.01)
    assert x <= 90 <= x + w
    assert mark["area"] == pytest.approx(960, rel=0.01)
    assert coco["images"][0]["file_name"] == "a.png"
    tasks = json.loads((out / "label-studio.json").read_text())
    (back,) = open_dataset(out / "label-studio.json", format="label_studio")
    assert back.region.is_nothing  # proposed, not marked
    tasks[0]["annotations"] = tasks[0]["predictions"]
    (out / "marked.json").write_text(json.dumps(tasks))
    (back,) = open_dataset(out / "marked.json", format="label_studio")
    assert back.path == item.path
    assert back.region.contains([[90.5, 50.5], [5, 5]]).tolist() == [True, False]
    assert back.region.area(120, 80) == pytest.approx(960, rel=0.05)
    assert "<PolygonLabels" in (out / "label-studio.config.xml").read_text()
    assert (out / "plan.jpg").exists()
    assert len(list((out / "pictures").iterdir())) == 1
    with pytest.raises(OutputError, match="overwrite"):
        run("plan", str(tmp_path / "fields"), "--out", str(out), "--by", "cells")
    run("plan", str(tmp_path / "fields"), "--out", str(out), "--overwrite", "--by", "random")


def test_a_plan_replaces_no_picture(tmp_path: Path) -> None:
    fields = tmp_path / "fields"
    paths = [image(fields, "a.png"), image(fields, "plan.jpg")]
    before = [p.read_bytes() for p in paths]
    words = ["plan", str(fields), "--out", str(fields), "--by", "cells"]
    for more in ([], ["--overwrite"]):
        with pytest.raises(DataError, match=r"plan\.jpg: is an input"):
            run(*words, *more)
    other = tmp_path / "plan"
    other.mkdir()
    (other / "plan.jpg").write_text("mine")
    with pytest.raises(DataError, match=r"plan\.jpg: exists"):
        run("plan", str(fields), "--out", str(other), "--by", "cells")
    (other / "pictures").symlink_to(fields)
    with pytest.raises(DataError, match="is a link to"):
        run("plan", str(fields), "--out", str(other), "--by", "cells", "--overwrite")
    assert [p.read_bytes() for p in paths] == before
    assert {p.name for p in other.iterdir()} == {"plan.jpg", "pictures"}
    assert {p.name for p in fields.iterdir()} == {"a.png", "plan.jpg"}


def test_the_shipped_model_is_asked_where_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fields" / "one.png"
    path.parent.mkdir()
    drawn, _ = render_field("pbc-like", seed=1)
    cv2.imwrite(str(path), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    said = run("plan", str(path.parent), "--out", str(tmp_path / "plan"))
    assert "chosen by uncertainty" in said
    # Dark spots would be far fewer than the red cells that a model expects, too.
    (field,) = bundle_scores([path], default_bundle(), ScalePrior())
    assert isinstance(field, RegionScores)
    assert f"of about {field.cells.sum():.0f} cells" in said and field.cells.sum() > 5


@pytest.mark.parametrize("by", ["random", "uncertainty"])
def test_a_broken_file_is_named_and_the_others_are_planned(tmp_path: Path, by: str) -> None:
    fields = image(tmp_path / "fields").parent
    (fields / "b.png").write_bytes(b"")
    words = ["plan", str(fields), "--out", str(tmp_path / "plan"), "--by", by]
    said = CliRunner().invoke(app, words, catch_exceptions=False)
    assert said.exit_code == 1
    assert said.stderr.count(f"{fields / 'b.png'}: the file is empty") == 1
    assert "of 1 fields" in said.stdout and "1 file, named above" in said.stdout
    (planned,) = open_dataset(tmp_path / "plan" / "bloodfilm.json")
    assert planned.path.name == "a.png"
    (fields / "a.png").unlink()
    words[3] = str(tmp_path / "none")
    with pytest.raises(DataError, match="none of its 1 files could be opened"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "none").exists()


def test_pictures_fade_what_is_not_to_be_marked(tmp_path: Path) -> None:
    pixels = np.full((40, 60, 3), 100, np.uint8)
    item = Field(Path("a"), 60, 40, (), Region.rect(10, 10, 20, 20))
    picture = draw_region(pixels, item)
    assert picture[20, 20].tolist() == [100] * 3
    assert picture[35, 50].tolist() == [170] * 3


def test_cost_of_a_plan_is_told(tmp_path: Path) -> None:
    image(tmp_path / "fields")
    run(
        "plan",
        str(tmp_path / "fields"),
        "--out",
        str(tmp_path / "plan"),
        "--budget",
        "25%",
        "--by",
        "cells",
    )
    said = run("cost", str(tmp_path / "plan" / "bloodfilm.json"))
    assert "area     25." in said or "area     24." in said
    found = json.loads(run("cost", str(tmp_path / "plan" / "bloodfilm.json"), "--json"))
    assert found["boxes"] == 0 and found["planned"]
    assert "1 field planned, none annotated yet" in said and "saved" not in said


def test_a_plan_is_not_taken_for_regions_without_cells(tmp_path: Path) -> None:
    image(tmp_path / "fields")
    out = tmp_path / "plan"
    run("plan", str(tmp_path / "fields"), "--out", str(out), "--budget", "25%", "--by", "cells")
    plan = open_dataset(out / "bloodfilm.json")
    assert PLANNED in codes(plan.issues)
    with pytest.raises(DataError, match="a plan of regions, which nobody annotated yet"):
        complete(CompletionJob(dataset=out / "bloodfilm.json", out=tmp_path / "completed"))
    source = DatasetConfig(path=Path("plan/bloodfilm.json"))
    with pytest.raises(DataError, match=r"bloodfilm\.json: a plan of regions"):
        open_sources([source], tmp_path)
    annotated = json.loads((out / "bloodfilm.json").read_text())
    annotated["issues"] = [i for i in annotated["issues"] if i["code"] != "planned"]
    (out / "bloodfilm.json").write_text(json.dumps(annotated))
    assert len(open_sources([source], tmp_path)) == 1
