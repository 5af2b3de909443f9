"""With a bundle: what it finds and nobody marked is reported, marked and ignored cells are not."""

import numpy as np
import pytest

from bloodfilm.audit import Options, audit
from bloodfilm.audit.detections import unmarked_by_model
from bloodfilm.audit.image_statistics import MAP_STEP
from bloodfilm.audit.nuclei import Chromatin
from bloodfilm.core import BundleError, Cell, Dataset, Domain, Field
from bloodfilm.formats.parquet.columns import table_of
from fake_bundle import box_of, draw, lay_out, save, write_bundle

NUCLEATED = [(50.0, 40.0, "lymphocyte"), (110.0, 70.0, "eosinophil"), (60.0, 86.0, "basophil")]


@pytest.fixture
def field(tmp_path):
    discs = lay_out(160.0, 120.0, NUCLEATED)
    path = save(tmp_path / "a.png", draw(discs, (640, 480), 0.25, 1.0))
    boxes = [tuple(map(float, box_of(d))) for d in discs if d.diameter > 10]
    return path, boxes


def dataset(path, cells):
    domain = Domain(um_per_px=0.25, squeeze=1.0)
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
