"""`bloodfilm attributes` from drawn cells to a bundle whose attributes follow their nuclei."""

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core import Cell, Dataset, Domain, Field
from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.progress import NoProgress
from bloodfilm.evaluation.crop_evaluation import read_true_cells
from bloodfilm.export.card import CARD
from bloodfilm.export.measured_attributes import (
    MeasuredCalibration,
    collect_measured,
    measured_cells,
    read_measured_calibration,
)
from bloodfilm.export.recovered import vocabulary_of
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.inference.classifier import CellClassifier
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.workflows.measured_attributes import MeasuredJob, measure_attributes

pytestmark = pytest.mark.slow
UM, SIDE, GRID = 0.1, 160, 3
GLASS, CYTOPLASM, NUCLEUS = (240, 235, 238), (190, 195, 225), (95, 55, 140)
VALUES = ("regular", "irregular")


def a_field(path, number, patient, split):
    """Draw nine cells of 12 um: nuclei as large and as dark as each other, round or long."""
    rng = np.random.default_rng([7, number])
    side = GRID * SIDE
    image = np.full((side, side, 3), GLASS, np.uint8)
    cells = []
    for i in range(GRID**2):
        middle = np.array([i % GRID, i // GRID]) * SIDE + SIDE / 2 + rng.uniform(-8, 8, 2)
        x, y = (round(float(v)) for v in middle)
        long = (i + number) % 2
        radius = rng.uniform(28, 32)
        axes = (radius * 1.65, radius / 1.65) if long else (radius, radius)
        turn = float(rng.uniform(0, 180))
        cv2.circle(image, (x, y), 60, CYTOPLASM, -1, cv2.LINE_AA)
        rounded = tuple(round(float(a)) for a in axes)
        cv2.ellipse(image, (x, y), rounded, turn, 0, 360, NUCLEUS, -1, cv2.LINE_AA)
        box = (x - 60.0, y - 60.0, 121.0, 121.0)
        given = {"nuclear_shape": VALUES[long]}
        if patient in ("p0", "p1"):
            given["cytoplasm"] = ("scanty", "abundant")[i % 2]
        cells.append(Cell(box, "lymphocyte", given))
    image = cv2.GaussianBlur(image, (0, 0), 1.5) + rng.normal(0, 2, image.shape)
    cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8)[..., ::-1])
    domain = Domain(um_per_px=UM, pixel_aspect_ratio=1.0)
    return Field(path, side, side, cells=tuple(cells), domain=domain, patient=patient, split=split)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight fields of four patients, one of validation, and one to test on."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "nuclei").mkdir()
    fields = [
        a_field(folder / "nuclei" / f"{i}.png", i, f"p{i // 2}" if i < 8 else f"new{i}", split)
        for i, split in enumerate(["train"] * 8 + ["val", "test"])
    ]
    save_dataset(
        Dataset("nuclei", tuple(fields), licence="CC0-1.0"), folder / "nuclei", "bloodfilm"
    )
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The shipped bundle, as if its classifier had been trained on the drawn set."""
    folder = tmp_path_factory.mktemp("bundle") / "drawn"
    folder.mkdir()
    shipped = default_bundle()
    for name in shipped.manifest.files:
        (folder / name).write_bytes((shipped.path / name).read_bytes())
    record = dict(shipped.manifest.training["classifier"])
    data = {**record["config"]["data"], "train": [{"path": "nuclei", "splits": ["train"]}]}
    data["validation"] = [{"path": "nuclei", "splits": ["val"]}]
    record["config"] = {**record["config"], "data": data}
    shipped.manifest.with_training(classifier=record).write(folder)
    return folder


@pytest.fixture(scope="module")
def measured(bundle, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "measured"
    return measure_attributes(MeasuredJob(bundle=bundle, data=root, out=out))


def test_two_populations_that_differ_in_their_nuclei_are_told_apart(bundle, root, measured):
    assert measured.attributes["nuclear_shape"][0] == 72
    before, after = load_bundle(bundle), load_bundle(measured.out)
    model = after.manifest.classifier.measured.attributes["nuclear_shape"]
    assert model.values == VALUES and list(model.classes) == ["lymphocyte"]
    right = []
    for place in (before, after):
        (field,) = (f for f in _fields(root) if f.split == "test")
        found, failures = read_true_cells([field], place, place.taxonomy, device="cpu")
        assert not failures and len(found.pairs) == 9
        answers = [p.result.attributes["nuclear_shape"].probabilities for p in found.pairs]
        wanted = [p.cell.attributes["nuclear_shape"] for p in found.pairs]
        right.append(sum(max(a, key=a.get) == w for a, w in zip(answers, wanted, strict=True)))
    assert right[1] == 9 > right[0]


def _fields(root):
    return open_dataset(root / "nuclei", format="bloodfilm").fields


def test_networks_and_everything_else_stay(bundle, measured):
    before, after = load_bundle(bundle).manifest, load_bundle(measured.out).manifest
    for name in before.files:
        assert (bundle / name).read_bytes() == (measured.out / name).read_bytes()
    spec = after.classifier.measured
    assert after == before.with_measured(spec)
    card = (measured.out / CARD).read_text()
    assert "follow the measured shape" in card and "nuclear shape (72 cells)" in card


def test_without_an_outline_the_network_answers_and_the_class_is_untouched(measured):
    manifest = load_bundle(measured.out).manifest
    classifier = CellClassifier(manifest)
    logits = np.zeros((1, manifest.attributes.width))
    (said,) = classifier.read(np.zeros((1, len(manifest.leaves))), logits, np.zeros(1))
    assert classifier.lacks_measures(said, None)
    assert said.attributes["nuclear_shape"].probabilities == {"regular": 0.5, "irregular": 0.5}


def test_a_calibration_of_patients_left_out_is_used(bundle, root, tmp_path):
    record = tmp_path / "patients.json"
    figures = {"samples": 1, "patients": {}, "pooled": {}}
    measured = {"temperatures": {"nuclear_shape": 3.5}, "confidence": 0.7}
    record.write_text(json.dumps({"measured": measured, **figures}))
    found = read_measured_calibration(record)
    assert found == MeasuredCalibration(measured["temperatures"], 0.7, figures)
    record.write_text(json.dumps({"measured": measured}))
    out = tmp_path / "out"
    done = measure_attributes(
        MeasuredJob(
            bundle=bundle, data=root, out=out, attributes=["nuclear_shape"], calibration=record
        )
    )
    assert done.attributes["nuclear_shape"] == (72, 3.5)
    assert load_bundle(out).manifest.classifier.attribute_confidence == 0.7


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "holds no calibration of measured attributes"),
        ('{"measured": {"temperatures": []}}', "holds no calibration"),
        ('{"measured": {"temperatures": {"a": 0}}}', "must be above 0"),
        ('{"measured": {"temperatures": {"a": NaN}}}', "nan|NaN|JSON"),
        ('{"measured": {"temperatures": {}, "confidence": 2}}', "between 0 and 1"),
    ],
)
def test_a_record_without_a_calibration_is_refused(text, complaint, tmp_path):
    record = tmp_path / "patients.json"
    record.write_text(text)
    with pytest.raises(BloodfilmError, match=complaint) as raised:
        read_measured_calibration(record)
    assert str(record) in str(raised.value) and "\n" not in str(raised.value)


def test_a_record_may_leave_the_confidence_out(tmp_path):
    record = tmp_path / "patients.json"
    record.write_text('{"measured": {"temperatures": {"nuclear_shape": 2}}}')
    assert read_measured_calibration(record) == MeasuredCalibration({"nuclear_shape": 2.0})


def test_what_cannot_be_fitted_is_refused_and_nothing_is_written(bundle, root, tmp_path):
    def refused(complaint, **changes):
        out = tmp_path / "none"
        job = MeasuredJob(**{"bundle": bundle, "data": root, "out": out, **changes})
        with pytest.raises(BloodfilmError, match=complaint):
            measure_attributes(job)
        assert not out.exists()

    refused("no attribute 'girth'", attributes=["girth"])
    refused("was not trained", attributes=["nucleolus"])
    refused("no training cell that can be outlined", attributes=["cell_size"])
    refused("none was held out", attributes=["cytoplasm"])
    refused("no such folder", data=root / "missing")
    with pytest.raises(BloodfilmError, match="is the bundle itself"):
        measure_attributes(MeasuredJob(bundle=bundle, data=root, out=bundle))


def test_cells_are_measured_with_their_patients(bundle, root):
    cells = collect_measured(load_bundle(bundle), root, ["nuclear_shape"], NoProgress())
    assert len(cells) == 72 and np.bincount(cells.groups).tolist() == [18] * 4
    assert cells.probabilities.sum(1) == pytest.approx(1.0)
    assert (cells.allowed.sum(1) == 1).all()
    assert np.isfinite(cells.measures).all()
    assert np.exp(cells.measures[:, 0]) == pytest.approx(12.0, rel=0.15)


def test_a_cell_without_a_box_is_outlined_in_the_middle_of_its_image(root, bundle):
    (field,) = (f for f in _fields(root) if f.split == "test")
    x, y, w, h = map(int, field.cells[0].box)
    image = cv2.imread(str(field.path))[y - 12 : y + h + 12, x - 12 : x + w + 12]
    path = root / "one.png"
    cv2.imwrite(str(path), image)
    alone = Field(
        path,
        image.shape[1],
        image.shape[0],
        cells=(Cell(None, "lymphocyte", field.cells[0].attributes),),
        domain=field.domain,
    )
    place = load_bundle(bundle)
    words = vocabulary_of(place)
    given = Dataset("one", (alone,)), Dataset("many", (field,))
    one, many = (
        measured_cells(
            place,
            words,
            [SourcedField(d.fields[0], d, 1.0)],
            ["nuclear_shape"],
            NoProgress(),
        )
        for d in given
    )
    assert len(one) == 1 and len(many) == 9
    shape = slice(0, 5)  # colours depend on the white of a field
    assert one.measures[0, shape] == pytest.approx(many.measures[0, shape], abs=0.08)


def test_validation_cells_tell_of_an_attribute_of_few_patients(bundle, root):
    held = collect_measured(load_bundle(bundle), root, ["nuclear_shape"], held_out=True)
    assert len(held) == 9
    assert collect_measured(load_bundle(bundle), root, ["cytoplasm"], held_out=True) is None


def test_the_command_names_what_it_fitted(bundle, root, tmp_path):
    out = tmp_path / "out"
    given = ["attributes", str(bundle), "--data", str(root), "--out", str(out)]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "nuclear_shape: fitted to 72 cells" in done.output and str(out) in done.output
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 2
