"""`bloodfilm evaluate` from a data set on disk to tables, with a hand-made model."""

import json

import cv2
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core import Cell, Dataset, Domain, Field
from bloodfilm.core.results import CellResult, FieldResult, ImageRef
from bloodfilm.formats import save_dataset
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


# ---- several models on several domains ---------------------------------------------------------


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder per microscope, as one native data set: large pixels, and small ones."""
    root = tmp_path_factory.mktemp("films")
    fields = []
    for scope, size in (("near", (600, 520)), ("far", (420, 364))):
        discs = lay_out(150, 130, CELLS)
        for i in range(2):
            path = root / scope / f"{i}.png"
            image = cv2.resize(draw(discs, (600, 520)), size, interpolation=cv2.INTER_AREA)
            image[0, 0] ^= 1 + i
            save(path, image)
            share = size[0] / 600
            boxes = [[float(v) * share for v in box_of(d)] for d in discs if d.diameter > 10]
            labels = (label for _, _, label in CELLS)
            cells = tuple(Cell(tuple(b), n) for b, n in zip(boxes, labels, strict=True))
            fields.append(
                Field(path, *size, cells, domain=Domain(scope, 100), patient=f"{scope}{i}")
            )
    save_dataset(Dataset("films", tuple(fields), licence="CC0-1.0"), root / "set", "bloodfilm")
    return root / "set"


def test_a_canonical_view_beats_a_fixed_input_size(films, bundle, tmp_path):
    record, picture = tmp_path / "matrix.json", tmp_path / "matrix.svg"
    arguments = [films, "--cross", "--by", "microscope", "--bootstrap", 20, "--threads", 1]
    arguments += ["--bundle", f"ours={bundle}", "--bundle", f"plain={bundle}"]
    arguments += ["--fixed-input", "plain=700", "--baseline", "plain"]
    arguments += ["--trained-on", "plain=near", "--trained-on", "ours=near"]
    result = run(*arguments, "--json", record, "--heat-map", picture)
    assert result.exit_code == 0, result.output
    assert "gain over plain" in result.output
    data = json.loads(record.read_text())
    by = {(c["method"], c["domain"]): c for c in data["cells"]}
    figures = {pair: {k: v["value"] for k, v in c["figures"].items()} for pair, c in by.items()}
    assert [figures["ours", d]["class_balanced"] for d in ("near", "far")] == [1.0, 1.0]
    assert {pair for pair, c in by.items() if c["new_to"]["classifier"]} == {
        ("ours", "far"),
        ("plain", "far"),
    }
    assert next(m for m in data["methods"] if m["name"] == "plain")["view"].endswith("700 px")
    # At 700 px a cell is as large as its share of the picture, whatever its micrometres.
    assert figures["plain", "far"]["found"] == figures["plain", "near"]["found"]
    assert picture.read_text().startswith("<svg")


def test_results_files_are_methods_too(films, bundle, tmp_path):
    done = CliRunner().invoke(
        app,
        ["analyze", str(films.parent / "near"), "-o", str(tmp_path / "r"), "--bundle", str(bundle)],
    )
    assert done.exit_code == 0, done.output
    record = tmp_path / "matrix.json"
    result = run(
        f"mine={films}", "--cross", "--by", "microscope", "--bootstrap", 0,
        "--predictions", f"table={tmp_path / 'r' / 'cells.csv'}", "--bundle", bundle,
        "--json", record,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    data = json.loads(record.read_text())
    by = {(c["method"], c["domain"]): c["figures"] for c in data["cells"]}
    assert by["table", "near"]["class_balanced"]["value"] == 1.0
    assert by["table", "far"]["found"]["value"] == 0.0  # the file says nothing of it
    assert any("AP counts only" in note for note in data["notes"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--by", "microscope"], "--by: only with --cross"),
        (["--cross", "--split", "test"], "--split: no part of --cross"),
        (["--cross", "--by", "colour"], "by 'colour': choose one of set, microscope"),
        (["--cross", "--baseline", "x"], "baseline 'x': no such method; there are"),
        (["--cross", "--fixed-input", "x=640"], "--fixed-input x: no such model"),
        (["--cross", "--fixed-input", "default=wide"], "--fixed-input wide: give a number"),
        (["--cross", "--fixed-input", "default=9"], "fixed input 9: must be 32 to"),
        (["--cross", "--trained-on", "default"], "--trained-on default: give NAME=VALUE"),
        (["--cross", "--predictions", "none.csv"], "none.csv: cannot be read"),
        (["--cross", "--bundle", "default", "--bundle", "default"], "two have this name"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(films, arguments, complaint):
    result = run(films, *arguments)
    assert result.exit_code == 2
    lines = [line for line in result.output.splitlines() if line]
    assert len(lines) == 1 and complaint in lines[0], result.output


def test_domains_need_different_names(films):
    result = run(films, films, "--cross")
    assert result.exit_code == 2
    assert "two sets have this name" in result.output


def test_a_split_is_named_behind_an_at_sign(films):
    result = run(f"{films}@test", "--cross")
    assert result.exit_code == 2
    assert "no field in split 'test'; it has none" in result.output
