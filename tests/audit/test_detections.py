"""With a bundle: what it finds and nobody marked is reported, marked and ignored cells are not."""

import numpy as np
import pytest

from bloodfilm.audit import Options, audit
from bloodfilm.audit.detections import MIN_SCORE, unmarked_by_model
from bloodfilm.audit.image_statistics import MAP_STEP
from bloodfilm.audit.nuclei import Chromatin
from bloodfilm.core import BundleError, Cell, Dataset, Domain, Field
from bloodfilm.formats.parquet.columns import table_of
from bloodfilm.inference.model import load_model
from bloodfilm.inference.runner import analyze_many
from fake_bundle import box_of, draw, lay_out, save, write_bundle

NUCLEATED = [(50.0, 40.0, "lymphocyte"), (110.0, 70.0, "eosinophil"), (60.0, 86.0, "basophil")]


@pytest.fixture
def field(tmp_path):
    discs = lay_out(160.0, 120.0, NUCLEATED)
    path = save(tmp_path / "a.png", draw(discs, (640, 480), 0.25, 1.0))
    boxes = [tuple(map(float, box_of(d))) for d in discs if d.diameter > 10]
    return path, boxes


def dataset(path, cells):
    domain = Domain(um_per_px=0.25, pixel_aspect_ratio=1.0)
    return Dataset("mine", (Field(path, 640, 480, tuple(cells), domain=domain),))


def unmarked(found):
    return [f for f in found if f.code == "unmarked-white-cell"]


def test_model_detections_report_only_the_cell_without_a_box(field, tmp_path):
    path, boxes = field
    assert len(boxes) == 3
    bundle = write_bundle(tmp_path / "bundle")
    cells = [Cell(boxes[0], "lymphocyte"), Cell(boxes[1], None, ignore=True)]
    (finding,) = unmarked(audit(dataset(path, cells), Options(bundle=bundle)))
    x, y, w, h = finding.boxes[0]
    assert abs(x + w / 2 - boxes[2][0] - boxes[2][2] / 2) < 5
    assert abs(y + h / 2 - boxes[2][1] - boxes[2][3] / 2) < 5
    assert finding.severity == "warning" and finding.confidence > 0.5


def test_model_detections_report_nothing_where_all_are_marked(field, tmp_path):
    path, boxes = field
    bundle = write_bundle(tmp_path / "bundle")
    cells = [Cell(box, "white cell") for box in boxes]
    assert unmarked(audit(dataset(path, cells), Options(bundle=bundle))) == []


def test_a_missing_bundle_is_one_line(field, tmp_path):
    with pytest.raises(BundleError):
        audit(dataset(field[0], []), Options(bundle=tmp_path / "none"))


def test_a_detection_without_a_nucleus_is_a_remark(field, tmp_path):
    path, boxes = field
    table = table_of(dataset(path, []))
    bundle = write_bundle(tmp_path / "bundle")
    width, height = 640 // MAP_STEP, 480 // MAP_STEP
    for level, severity in ((2.0, "warning"), (1.0, "info")):
        chromatin = {0: Chromatin(np.full((height, width), level), np.zeros(0), 1.5)}
        found = list(unmarked_by_model(table, bundle, chromatin))
        assert len(found) == len(boxes) and {f.severity for f in found} == {severity}
        assert all((f.confidence < 0.5) == (severity == "info") for f in found)


def test_model_detections_are_those_of_an_analysis_of_the_same_files(tmp_path):
    """A field without red cells of its own borrows the scale of its folder, as in `analyze`."""
    folder = tmp_path / "fields"
    folder.mkdir()
    fields = []
    for name, discs in {
        "a": lay_out(160.0, 120.0, NUCLEATED),
        "b": lay_out(160.0, 120.0, NUCLEATED[:2]),
        "c": [d for d in lay_out(160.0, 120.0, NUCLEATED) if d.diameter > 10][:1],
    }.items():
        path = save(folder / f"{name}.png", draw(discs, (960, 720), 0.167, 1.0))
        fields.append(Field(path, 960, 720))
    table = table_of(Dataset("mine", tuple(fields)))
    bundle = write_bundle(tmp_path / "bundle")
    found = {(f.file, f.boxes[0]) for f in unmarked_by_model(table, bundle, {})}
    model = load_model(bundle)
    results = list(analyze_many([f.path for f in fields], model))
    assert found == {
        (str(r.path), c.box)
        for r in results
        for c in r.cells
        if c.object_type == "nucleated cell" and c.confidence >= MIN_SCORE
    }
    alone = model.analyze(fields[2].path)
    assert alone.view.scale_source != "pooled" == results[2].view.scale_source
