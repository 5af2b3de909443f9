"""Results of an analysis as proposals: the same cells in every form, scores kept, marks kept."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bloodfilm.core import DataError
from bloodfilm.core.results.tables import cell_columns, cell_values
from bloodfilm.formats import detect, open_dataset, save_dataset
from bloodfilm.formats.judged import refuse_unjudged
from bloodfilm.training.config import DatasetConfig
from bloodfilm.training.data.sources import open_sources
from bloodfilm.workflows.complete import CompletionJob, complete
from bloodfilm.workflows.cross_evaluate import CrossOptions, TestSet, cross_evaluate
from bloodfilm.workflows.evaluate import EvaluationOptions, evaluate
from fixtures.made_up_results import SHAPE


def outlined(box):
    x, y, w, h = box
    return replace(SHAPE, outline=((x + 2, y), (x + w, y + 4), (x + w - 2, y + h), (x, y + h - 2)))


@pytest.fixture
def result(run, field, failure, tmp_path):
    first = field("a.png", 1)
    cells = list(first.cells)
    place = next(k for k, c in enumerate(cells) if c.object_type == "nucleated cell")
    cells[place] = replace(cells[place], shape=outlined(cells[place].box))  # of one only
    first = replace(first, cells=tuple(cells))
    made = run([first, field("b.png", 2)], [failure("bad.png", "cut short")])
    made.write(tmp_path)
    return made


def white(run):
    return [(f, c) for f in run.fields for c in f.cells if c.object_type == "nucleated cell"]


def uncertain(run, cell):
    warned = any(issue.severity != "info" for issue in cell.issues)
    return warned or cell.label not in run.model.taxonomy.leaves


def saved(folder, to, **options):
    losses = save_dataset(open_dataset(folder, **options), folder / "out", to)
    return folder / "out", losses


def test_a_result_is_recognised_and_read_as_proposals(result, tmp_path):
    assert detect(tmp_path) == detect(tmp_path / "result.json") == "result"
    dataset = open_dataset(tmp_path)
    assert [str(issue) for issue in dataset.issues] == ["bad.png: no result (cut short)"]
    cells = [cell for item in dataset for cell in item.cells]
    assert [c.id for c in cells] == [c.id for _, c in white(result)]
    assert all(item.region.is_nothing for item in dataset)
    for shown, (_, cell) in zip(cells, white(result), strict=True):
        assert shown.prediction.score == round(cell.confidence, 4)
        assert shown.prediction.uncertain == uncertain(result, cell)
    every = [cell for item in open_dataset(tmp_path, all_cells=True) for cell in item.cells]
    assert len(every) == sum(len(f.cells) for f in result.fields) > len(cells)
    with pytest.raises(DataError, match=r"bad\.png"):
        open_dataset(tmp_path, strict=True)


def test_proposals_are_no_truth(result, tmp_path):
    proposals = open_dataset(tmp_path)
    for check in (
        lambda: refuse_unjudged(proposals, "r"),
        lambda: evaluate(EvaluationOptions(dataset=tmp_path)),
        lambda: cross_evaluate(CrossOptions(sets=(TestSet(tmp_path),))),
        lambda: open_sources([DatasetConfig(path=Path("result.json"))], tmp_path),
        lambda: complete(CompletionJob(dataset=tmp_path, out=tmp_path / "new")),
    ):
        with pytest.raises(DataError, match="the results of an analysis are proposals"):
            check()
    corrected, _ = saved(tmp_path, "bloodfilm")
    refuse_unjudged(open_dataset(corrected), "c")


def test_images_are_found_beside_a_result_that_was_moved(result, run, tmp_path):
    near = [replace(f, image=replace(f.image, path=f"images/{Path(f.path).name}")) for f in result]
    run(near).write(tmp_path)
    assert [item.path for item in open_dataset(tmp_path)] == [
        tmp_path / "images" / "a.png",
        tmp_path / "images" / "b.png",
    ]


def test_the_tables_hold_the_same_values(result, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    names = result.model.schema.names
    expected = [cell_values(f.path, c, names) for f, c in white(result)]
    saved(tmp_path, "parquet")
    table = parquet.read_table(tmp_path / "out" / "cells.parquet")
    assert tuple(table.column_names) == cell_columns(names)
    assert [tuple(row.values()) for row in table.to_pylist()] == expected
    saved(tmp_path, "csv")
    with (tmp_path / "out" / "cells.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == cell_columns(names)
    for row, values in zip(rows[1:], expected, strict=True):
        for text, value in zip(row, values, strict=True):
            wanted = "" if value is None else value
            assert text == wanted or float(text) == pytest.approx(wanted)


def test_a_data_set_without_scores_is_no_table(tmp_path, result):
    saved(tmp_path, "bloodfilm")
    with pytest.raises(DataError, match="index"):
        save_dataset(open_dataset(tmp_path / "out"), tmp_path / "t.csv", "csv")


def test_coco_holds_the_same_cells(result, tmp_path):
    folder, losses = saved(tmp_path, "coco")
    content = json.loads((folder / "annotations.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    for entry, (_, cell) in zip(content["annotations"], white(result), strict=True):
        assert entry["source_id"] == cell.id
        assert entry["bbox"] == [round(v, 1) for v in cell.box]
        assert names[entry["category_id"]] == cell.label
        assert entry["score"] == round(cell.confidence, 4)
        assert entry["uncertain"] == uncertain(result, cell)
        assert entry["issues"] == [issue.code for issue in cell.issues]
        outlines = [] if cell.shape is None else [[v for p in cell.shape.outline for v in p]]
        assert entry["segmentation"] == [pytest.approx(o, abs=0.06) for o in outlines]
    assert not any("scores" in str(loss) for loss in losses)


def test_qupath_opens_detections_with_their_scores(result, tmp_path):
    folder, _ = saved(tmp_path, "qupath")
    found = []
    for name in ("a", "b"):
        features = json.loads((folder / f"{name}.png.geojson").read_text())["features"]
        found += [f for f in features if f["properties"]["objectType"] == "detection"]
    for feature, (_, cell) in zip(found, white(result), strict=True):
        said = feature["properties"]
        assert said["classification"]["name"] == cell.label
        assert said["measurements"]["score"] == round(cell.confidence, 4)
        assert said["measurements"]["uncertain"] == int(uncertain(result, cell))
        assert said["metadata"]["id"] == cell.id
        ring = feature["geometry"]["coordinates"][0]
        first = cell.box[:2] if cell.shape is None else cell.shape.outline[0]
        assert ring[0] == ring[-1] == pytest.approx([round(v, 1) for v in first], abs=0.05)
        assert cell.shape is None or len(ring) == len(cell.shape.outline) + 1


def test_label_studio_gets_predictions_not_annotations(result, tmp_path):
    folder, _ = saved(tmp_path, "label_studio")
    tasks = json.loads((folder / "label-studio.json").read_text())
    boxes = [
        (task, item)
        for task in tasks
        for item in task["predictions"][0]["result"]
        if item["type"] == "rectanglelabels"
    ]
    assert all(task["annotations"] == [] for task in tasks)
    for (task, item), (_, cell) in zip(boxes, white(result), strict=True):
        assert item["value"]["rectanglelabels"] == [cell.label]
        assert item["score"] == round(cell.confidence, 4)
        marked = {
            other["id"]
            for other in task["predictions"][0]["result"]
            if other["from_name"] == "uncertain"
        }
        assert (item["id"] in marked) == uncertain(result, cell)
    assert 'name="uncertain"' in (folder / "label-studio.config.xml").read_text()


def test_cvat_gets_boxes_that_say_they_were_made_automatically(result, tmp_path):
    folder, _ = saved(tmp_path, "cvat")
    boxes = list(ElementTree.parse(folder / "annotations.xml").iter("box"))
    labels = json.loads((folder / "annotations.labels.json").read_text())
    for box, (_, cell) in zip(boxes, white(result), strict=True):
        said = {a.get("name"): a.text for a in box.iter("attribute")}
        assert box.get("label") == cell.label and box.get("source") == "auto"
        assert float(said["score"]) == pytest.approx(round(cell.confidence, 4))
        assert said["uncertain"] == str(uncertain(result, cell)).lower()
        offered = next(entry for entry in labels if entry["name"] == cell.label)
        assert {"score", "class_score", "uncertain"} <= {a["name"] for a in offered["attributes"]}


def test_yolo_says_what_it_cannot_keep(result, tmp_path):
    folder, losses = saved(tmp_path, "yolo")
    assert any("scores and marks of uncertain names" in str(loss) for loss in losses)
    lines = [
        line
        for name in ("a", "b")
        for line in (folder / f"labels/all/{name}.txt").read_text().splitlines()
    ]
    assert len(lines) == len(white(result))


@pytest.mark.parametrize("to", ["qupath", "cvat", "coco"])
def test_proposals_that_were_looked_at_keep_their_names_and_attributes(result, tmp_path, to):
    folder, _ = saved(tmp_path, to)
    back = open_dataset(folder, to)
    assert {issue.code for issue in back.issues} <= {"not-kept"}
    cells = [cell for item in back for cell in item.cells]
    assert [c.label for c in cells] == [c.label for _, c in white(result)]
    values = [{n: a.value for n, a in c.attributes.items() if a.value} for _, c in white(result)]
    assert [dict(c.attributes) for c in cells] == values


def test_corrections_in_label_studio_are_read_back(result, tmp_path):
    """An accepted prediction is an annotation of the same results."""
    folder, _ = saved(tmp_path, "label_studio")
    file = folder / "label-studio.json"
    tasks = json.loads(file.read_text())
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    file.write_text(json.dumps(tasks))
    back = open_dataset(folder, "label_studio")
    assert {issue.code for issue in back.issues} <= {"not-kept"}
    cells = [cell for item in back for cell in item.cells]
    assert [c.label for c in cells] == [c.label for _, c in white(result)]
    values = [{n: a.value for n, a in c.attributes.items() if a.value} for _, c in white(result)]
    assert [dict(c.attributes) for c in cells] == values
