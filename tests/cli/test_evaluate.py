"""`bloodfilm evaluate` from a data set on disk to tables, with a hand-made model."""

import json

import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core.results import CellResult, FieldResult, ImageRef
from fake_bundle import box_of, draw, lay_out, save, write_bundle
from fixtures.made_up_results import make_run, make_view

CELLS = [(40.0, 40.0, "monocyte"), (110.0, 40.0, "lymphocyte"), (75.0, 95.0, "monocyte")]


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two fields as COCO; the second has one cell that is not drawn."""
    root = tmp_path_factory.mktemp("data")
    discs = lay_out(150, 130, CELLS)
    boxes = [[float(v) for v in box_of(d)] for d in discs if d.diameter > 10]
    annotations, images = [], []
    for i, name in enumerate(("a.png", "b.png"), 1):
        save(root / "images" / name, draw(discs, (600, 520)))
        images.append({"id": i, "file_name": name, "width": 600, "height": 520})
        wanted = [*zip(boxes, (label for _, _, label in CELLS), strict=True)]
        if i == 2:
            wanted.append(([5.0, 460.0, 48.0, 48.0], "lymphocyte"))
        for box, label in wanted:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 1 + (label == "monocyte"),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": "lymphocyte"}, {"id": 2, "name": "monocyte"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "labels.json").write_text(json.dumps(document))
    return root / "labels.json"


def test_whole_path(dataset, bundle, tmp_path):
    out = tmp_path / "out" / "record.json"
    arguments = (dataset, "--bundle", bundle, "--bootstrap", 20, "--json", out, "--threads", 1)
    result = run(*arguments, "--images", dataset.parent / "images")
    assert result.exit_code == 0, result.output
    assert "AP50" in result.output
    data = json.loads(out.read_text())
    detection = data["detection"]
    assert list(detection["scores"]["per_class"]) == ["nucleated cell"]
    operating = detection["operating_point"]
    assert (operating["true_positives"], operating["missed"]) == (6, 1)
    assert 0.8 < detection["scores"]["ap50"] < 0.9
    assert (data["reading"]["read"], data["reading"]["cells"]) == (6, 7)
    assert data["reading"]["questions"]["class"]["scores"]["accuracy"] == 1.0
    assert data["bundle"] == "fake"


def test_reader_alone(dataset, bundle, tmp_path):
    out = tmp_path / "record.json"
    images = dataset.parent / "images"
    result = run(dataset, "--bundle", bundle, "--cells", "--json", out, "--images", images)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert data["detection"] is None
    assert (data["reading"]["read"], data["reading"]["cells"]) == (7, 7)
    scores = data["reading"]["questions"]["class"]["scores"]
    assert scores["accuracy"] == pytest.approx(6 / 7)


def test_asked_for_other_classes(dataset, bundle, tmp_path):
    out = tmp_path / "record.json"
    images = dataset.parent / "images"
    arguments = (dataset, "--bundle", bundle, "--cells", "--json", out, "--images", images)
    result = run(*arguments, "--classes", "monocyte lineage,neutrophil", "--bootstrap", 0)
    assert result.exit_code == 0, result.output
    reading = json.loads(out.read_text())["reading"]
    assert (reading["read"], reading["questions"]) == (4, {})
    assert "monocyte lineage" in reading["notes"][0]


def test_results_file(dataset, tmp_path):
    (x, y, label), *_ = CELLS
    box = [(x - 6) * 4, (y - 6) * 4, 48, 48]
    cell = CellResult(box, 0.9, "nucleated cell", label, 1.0)
    field = FieldResult(ImageRef("a.png", 600, 520), make_view(600, 520), (cell,))
    file = make_run([field]).write(tmp_path)
    images = dataset.parent / "images"
    result = run(dataset, "--predictions", file, "--bootstrap", 0, "--images", images)
    assert result.exit_code == 0, result.output
    assert "1 right, 0 false, 6 missed" in result.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scale", "guess"), "choose auto or truth"),
        (("--iou", "0.33"), "choose one of 0.50"),
        (("--level", "martian"), "no class 'martian'"),
        (("--split", "dusk"), "no field in split 'dusk'"),
        (("--labels", "nice"), "has no option 'labels'"),
    ],
)
def test_mistakes_are_one_line(dataset, bundle, options, says):
    result = run(dataset, "--bundle", bundle, "--images", dataset.parent / "images", *options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_model_and_a_results_file_exclude_each_other(dataset, bundle):
    result = run(dataset, "--bundle", bundle, "--predictions", dataset)
    assert result.exit_code == 2
    assert "runs no model" in result.stderr


def test_a_data_set_is_named_from_the_data_folder(dataset, bundle, tmp_path, monkeypatch):
    words = ("labels.json", "--bundle", bundle, "--bootstrap", 0, "--cells")
    root = dataset.parent
    images = ("--images", root / "images")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLOODFILM_DATA", raising=False)
    assert run(*words, *images).exit_code == 2
    assert run(*words, *images, "--data", root).exit_code == 0
    monkeypatch.setenv("BLOODFILM_DATA", str(root))
    assert run(*words, *images).exit_code == 0
    (tmp_path / "labels.json").write_text("{}")  # what is here comes first
    assert run(*words, *images).exit_code == 2
