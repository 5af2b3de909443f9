"""A model takes what a program has at hand, from several threads, until it is closed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bloodfilm.core.errors import BundleError, ConfigError, DataError
from bloodfilm.core.issue_codes import METADATA_CONFLICT, SCALE_CORRECTED
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import PixelSize
from bloodfilm.imaging.scale import ScalePrior, measure
from bloodfilm.imaging.sources import ArraySource
from bloodfilm.inference.model import Model, load_model
from fake_bundle import draw, lay_out, save, write_bundle

PRIOR = ScalePrior(0.25, 1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def model(bundle):
    return load_model(bundle, device="cpu")


@pytest.fixture(scope="module")
def image():
    return draw(lay_out(120.0, 80.0, [(50.0, 40.0, "lymphocyte")]), (480, 320))


def cells(result):
    return [(c.box, c.label, c.confidence, c.id.partition("-")[0] != "") for c in result.cells]


def test_a_field_is_the_same_as_path_string_array_pil_image_and_source(model, image, tmp_path):
    path = save(tmp_path / "a.png", image)
    wanted = model.analyze(path, prior=PRIOR)
    assert {c.label for c in wanted.cells} == {"lymphocyte", "red cell"}
    assert wanted.image.path == str(path) and len(wanted.image.sha256) == 64
    for given in (str(path), image, image / 255.0, Image.open(path), ArraySource(image)):
        assert cells(model.analyze(given, prior=PRIOR)) == cells(wanted)
    assert model.analyze(image).image.path == "image"
    assert model.analyze(image, name="well 3").image.path == "well 3"


def test_a_grey_field_is_analysed(model, image):
    result = model.analyze(image[..., 0], prior=PRIOR)
    assert (result.image.width, result.image.height) == (480, 320)


def test_bad_input_is_one_line(model, tmp_path):
    for given, says in [
        (tmp_path / "none.png", "no such file"),
        (np.zeros((9, 9, 3), np.uint8), "too few"),
        (7, "int is no image"),
    ]:
        with pytest.raises(DataError, match=says) as caught:
            model.analyze(given)
        assert "\n" not in str(caught.value)


def test_a_source_stays_open_and_its_size_counts_unless_the_user_provides_a_scale(model, image):
    source = ArraySource(image, pixel_size=PixelSize(0.3, 0.3, "user"))
    read = model.analyze(source)
    assert (read.view.scale_source, read.view.um_per_px_y) == ("user", 0.3)
    known = model.analyze(source, prior=ScalePrior(0.15, 1.0))
    assert (known.view.scale_source, known.view.um_per_px_y) == ("user", 0.15)


def test_red_cells_come_before_the_metadata_of_a_file(model, image):
    read = model.analyze(ArraySource(image, pixel_size=PixelSize(0.5, 0.5, "metadata")))
    assert read.view.scale_source == "measured"
    assert read.view.metadata_um_per_px == (0.5, 0.5)
    assert codes(read.issues) & {METADATA_CONFLICT, SCALE_CORRECTED} == {METADATA_CONFLICT}


def test_red_cells_that_are_detected_correct_the_metadata_of_a_file(model, image):
    unmeasured = replace(measure(image), cells=0, arcs=0, confidence=0.0)

    def read(um):
        source = ArraySource(image, pixel_size=PixelSize(um, um, "metadata"))
        return model.analyze(source, measurement=unmeasured)

    right = read(0.25)
    assert (right.view.scale_source, right.view.um_per_px_y) == ("metadata", 0.25)
    assert not codes(right.issues) & {METADATA_CONFLICT, SCALE_CORRECTED}
    wrong = read(0.35)
    assert wrong.view.scale_source == "measured"
    assert wrong.view.um_per_px_y == pytest.approx(0.25, rel=0.15)
    assert {METADATA_CONFLICT, SCALE_CORRECTED} <= codes(wrong.issues)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_cannot_be_is_refused(value):
    with pytest.raises(DataError, match="must be a positive number"):
        ScalePrior(um_per_px=value)
    with pytest.raises(DataError, match="must be a positive number"):
        ScalePrior(pixel_aspect_ratio=value)


def test_threads_do_not_change_a_result(model, image):
    fields = [np.roll(image, 7 * i, axis=1) for i in range(6)]
    one = [model.analyze(field, prior=PRIOR).to_json() for field in fields]
    with ThreadPoolExecutor(4) as pool:
        many = list(pool.map(lambda f: model.analyze(f, prior=PRIOR).to_json(), fields))
    assert one == many


def test_a_closed_model_says_so(bundle, image):
    with load_model(bundle, device="cpu") as model:
        assert model.analyze(image).cells and "closed" not in repr(model)
    with pytest.raises(ConfigError, match="the model is closed"):
        model.analyze(image)
    assert "closed" in repr(model)


def test_loading_says_what_is_wrong(tmp_path, bundle):
    with pytest.raises(BundleError, match="no such bundle"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="min score"):
        load_model(bundle, min_score=2)
    assert load_model(str(bundle)).bundle.manifest.name == "fake"


def test_the_shipped_model_is_the_default():
    model = load_model()
    assert isinstance(model, Model) and model.classified_type in model.taxonomy
    assert "nuclear_chromatin" in model.schema.names
