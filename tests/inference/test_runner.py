"""Many files: in order, one bad file harms no other, scale pooled over the folder."""

from pathlib import Path

import numpy as np
import pytest

from bloodfilm.core.errors import DataError, OutputError
from bloodfilm.core.issue_codes import FEW_RED_CELLS, SCALE_ASSUMED, SCALE_CORRECTED
from bloodfilm.core.issues import codes
from bloodfilm.core.progress import Cancellation, CancelledError
from bloodfilm.core.results import FieldFailure, FieldResult
from bloodfilm.imaging.scale import POOL_SAMPLE, ScalePrior, pool_scale, with_detected
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import RunPlan, analyze_many, by_folder
from fake_bundle import Disc, box_of, dark, draw, lay_out, save, write_bundle

SIZE = (480, 320)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(load_bundle(write_bundle(tmp_path_factory.mktemp("bundle"))), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine fields; number 5 holds one red cell only, number 3 is no image."""
    place = tmp_path_factory.mktemp("fields")
    for i in range(9):
        spots = [(30.0 + 5 * i, 40.0, "lymphocyte")]
        discs = lay_out(120.0, 80.0, spots) if i != 5 else [Disc(60.0, 40.0)]
        save(place / f"{i}.png", draw(discs, (480, 320)))
    (place / "3.png").write_bytes(b"not a picture")
    return place


def paths_of(folder):
    return sorted(folder.glob("*.png"))


def record(outcomes):
    return [o.to_json() for o in outcomes]


def test_outcomes_come_in_the_order_of_the_files(folder, model):
    outcomes = list(analyze_many(paths_of(folder), model, workers=3))
    named = [o.path for o in outcomes]
    assert named == [str(p) for p in paths_of(folder)]


def test_a_broken_file_is_a_failure_with_a_reason_and_the_rest_goes_on(folder, model):
    outcomes = list(analyze_many(paths_of(folder), model))
    (failure,) = [o for o in outcomes if isinstance(o, FieldFailure)]
    assert failure.path.endswith("3.png")
    assert "not an image" in failure.reason and failure.path not in failure.reason
    assert sum(isinstance(o, FieldResult) for o in outcomes) == 8


def test_the_number_of_workers_changes_nothing(folder, model):
    one, three = (record(analyze_many(paths_of(folder), model, workers=n)) for n in (1, 3))
    assert one == three


def test_a_run_taken_up_again_gives_the_same_results(folder, model):
    whole = record(analyze_many(paths_of(folder), model))
    rest = record(analyze_many(paths_of(folder), model, plan=RunPlan(range(6, 9))))
    assert whole[6:] == rest and len(rest) == 3


def test_a_field_with_too_few_red_cells_borrows_the_scale_of_its_folder(folder, model):
    outcomes = list(analyze_many(paths_of(folder), model))
    poor = outcomes[5]
    assert isinstance(poor, FieldResult)
    assert poor.view.scale_source == "pooled"
    assert FEW_RED_CELLS not in codes(poor.issues)
    others = [o.view.um_per_px_y for o in outcomes if isinstance(o, FieldResult)]
    assert poor.view.um_per_px_y == pytest.approx(np.median(others), rel=0.03)
    alone = next(analyze_many([folder / "5.png"], model))
    assert isinstance(alone, FieldResult)
    assert alone.view.scale_source == "assumed"
    assert FEW_RED_CELLS in codes(alone.issues)


def test_a_bug_in_one_field_does_not_end_the_run(folder, model, monkeypatch):
    def analyze(image, **rest):
        if Path(image.name).name == "4.png":
            raise ZeroDivisionError("oops")
        return real(image, **rest)

    real = model.analyze
    monkeypatch.setattr(model, "analyze", analyze)
    outcomes = list(analyze_many(paths_of(folder), model))
    failures = {o.path[-5:]: o.reason for o in outcomes if isinstance(o, FieldFailure)}
    assert "internal error (ZeroDivisionError: oops)" in failures["4.png"]
    assert len(outcomes) == 9


def test_files_are_read_only_a_little_ahead(folder, model, monkeypatch):
    """A consumer that stops to think must not find a thousand fields in memory."""
    opened = []
    real = model.analyze
    monkeypatch.setattr(
        model, "analyze", lambda image, **rest: (opened.append(image), real(image, **rest))[1]
    )
    outcomes = analyze_many(paths_of(folder), model, workers=1)
    next(outcomes)
    outcomes.close()
    assert len(opened) <= 4


def test_opencv_gets_its_threads_back(folder, model):
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        list(analyze_many(paths_of(folder)[:1], model))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


# ---- what can be analysed, and what shares a scale ---------------------------------------------


def test_paths_may_be_strings(folder, model):
    names = [str(path) for path in paths_of(folder)[:2]]
    assert record(analyze_many(names, model)) == record(analyze_many(paths_of(folder)[:2], model))


def test_arrays_and_files_give_the_same_cells(folder, model):
    files = [folder / f"{i}.png" for i in (0, 1, 2, 4)]
    arrays = [open_image(path) for path in files]
    from_files = list(analyze_many(files, model))
    from_arrays = list(analyze_many(arrays, model, workers=2))
    for one, other in zip(from_files, from_arrays, strict=True):
        assert [c.box for c in one.cells] == [c.box for c in other.cells]
        assert one.view == other.view
    assert [o.image.path for o in from_arrays] == ["image 0", "image 1", "image 2", "image 3"]


def test_what_is_no_image_fails_by_its_number_and_the_rest_goes_on(folder, model):
    outcomes = list(analyze_many([folder / "0.png", np.zeros(7), None], model))
    assert isinstance(outcomes[0], FieldResult)
    assert [o.path for o in outcomes[1:]] == ["image 1", "image 2"]
    assert "of shape (7,) is no image" in outcomes[1].reason
    assert "NoneType is no image" in outcomes[2].reason


def test_fields_share_a_scale_by_the_group_that_is_named(folder, model):
    paths = [folder / "0.png", folder / "1.png", folder / "5.png"]  # the last shows one red cell
    sources = {
        name: [o.view.scale_source for o in analyze_many(paths, model, scale_group=group)]
        for name, group in (
            ("folder", by_folder),
            ("none", None),
            ("apart", lambda path: path.stem == "5"),
        )
    }
    assert sources["folder"] == ["pooled"] * 3
    assert sources["none"] == ["measured", "measured", "assumed"]
    assert sources["apart"] == ["pooled", "pooled", "assumed"]


def test_each_image_may_have_a_prior_of_its_own(folder, model):
    paths = paths_of(folder)[:2]
    priors = [ScalePrior(0.4, 1.0), None]
    first, second = analyze_many(paths, model, prior=priors)
    assert (first.view.scale_source, first.view.um_per_px_y) == ("user", 0.4)
    assert second.view.scale_source == "pooled"
    with pytest.raises(ValueError, match="1 priors for 2 images"):
        list(analyze_many(paths, model, prior=priors[:1]))


def test_a_run_is_followed_and_can_be_stopped(folder, model):
    seen, done = [], []

    class Follows(Cancellation):
        def update(self, stage, done, total):
            seen.append((stage, done, total))
            if done == 3:
                self.cancel()

    with pytest.raises(CancelledError):
        done.extend(analyze_many(paths_of(folder), model, progress=Follows(), workers=1))
    assert seen[:3] == [("fields", 1, 9), ("fields", 2, 9), ("fields", 3, 9)]
    assert len(seen) < 9


def test_the_scale_of_a_group_is_pooled_from_a_sample_spread_over_it():
    loaded = []

    def load(number):
        loaded.append(number)
        if number == 0:
            raise DataError("broken")
        return None if number == 10 else draw(lay_out(80.0, 60.0), (320, 240))

    found = pool_scale(list(range(100)), load)
    assert len(loaded) == POOL_SAMPLE and loaded == sorted(loaded)
    assert (loaded[0], loaded[-1]) == (0, 99)
    assert set(found.measurements) == set(loaded) - {0, 10}
    each = [m.diameter for m in found.measurements.values()]
    assert found.pooled.groups[0].diameter == pytest.approx(np.median(each), rel=0.01)
    assert pool_scale([1], load).pooled is None and len(loaded) == POOL_SAMPLE


# ---- where outlines of red cells tell no scale -------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """Let the detector see red cells of 30 px wherever it is asked; lists the fields it saw."""
    fields = []

    def remeasure(_, image, measurement):
        fields.append(image.shape)
        return with_detected(measurement, [(40.0 * i, 50.0, 30.0, 30.0) for i in range(8)])

    monkeypatch.setattr(Analyzer, "remeasure", remeasure)
    return fields


@pytest.fixture(scope="module")
def silent_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("silent")
    for i in range(12):
        save(place / f"{i}.png", draw([], (320, 240)))
    return place


def test_where_outlines_are_silent_the_detector_measures_a_part_of_the_sample(
    model, silent_folder, asked
):
    outcomes = list(analyze_many(paths_of(silent_folder), model, workers=2))
    assert len(asked) == 6
    assert [o.view.um_per_px_x for o in outcomes] == pytest.approx([0.25] * 12, rel=0.01)
    assert {o.view.scale_source for o in outcomes} == {"pooled"}
    assert {o.view.ruler for o in outcomes} == {"outlines", "detector"}
    assert all(SCALE_ASSUMED not in codes(o.issues) for o in outcomes)


def test_where_outlines_tell_the_scale_the_detector_is_not_asked(model, folder, asked):
    outcomes = list(analyze_many(paths_of(folder), model))
    assert asked == []
    assert {o.view.ruler for o in outcomes if isinstance(o, FieldResult)} == {"outlines"}


def test_a_lone_silent_field_is_measured_by_the_detector(model, silent_folder, asked):
    (outcome,) = analyze_many(paths_of(silent_folder)[:1], model)
    assert (outcome.view.scale_source, outcome.view.ruler) == ("measured", "detector")
    assert FEW_RED_CELLS in codes(outcome.issues)
    assert SCALE_ASSUMED not in codes(outcome.issues)


def test_a_field_that_nothing_measures_has_no_confidence(model, silent_folder):
    (outcome,) = analyze_many(paths_of(silent_folder)[:1], model)
    assert (outcome.view.scale_source, outcome.view.confidence) == ("assumed", 0)
    assert SCALE_ASSUMED in codes(outcome.issues)


def test_what_is_made_of_the_pixels_is_made_in_the_worker(folder, model):
    """The hook gets the decoded field and its result; what it raises ends the run."""
    seen = {}

    def note(source, result):
        seen[result.path] = source.size == (result.image.width, result.image.height)

    outcomes = list(analyze_many(paths_of(folder), model, plan=RunPlan(on_field={"notes": note})))
    assert seen == {o.path: True for o in outcomes if not isinstance(o, FieldFailure)}
    assert all("notes" in o.timings for o in outcomes if not isinstance(o, FieldFailure))

    def fail(source, result):
        raise OutputError("disk full")

    with pytest.raises(OutputError, match="disk full"):
        list(analyze_many(paths_of(folder), model, plan=RunPlan(on_field={"fails": fail})))


def test_a_close_up_alone_is_found(model):
    cell = Disc(60.0, 40.0, 60.0, dark("lymphocyte"))
    (near,) = analyze_many([draw([cell], SIZE)], model)
    (found,) = [c for c in near.cells if c.object_type == "nucleated cell"]
    assert found.box == pytest.approx(tuple(box_of(cell)), abs=16)
    assert near.view.scale_source == "assumed" and not near.countable
    assert {SCALE_CORRECTED, SCALE_ASSUMED} <= codes(near.issues)


def test_a_close_up_in_a_folder_of_another_scale_is_found(tmp_path, model):
    for i in range(8):
        save(tmp_path / f"{i}.png", draw(lay_out(120.0, 80.0, [(30.0, 40.0, "lymphocyte")]), SIZE))
    cell = Disc(60.0, 40.0, 34.0, dark("lymphocyte"))
    save(tmp_path / "close.png", draw([cell], SIZE))
    *others, near = analyze_many(paths_of(tmp_path), model)
    assert isinstance(near, FieldResult) and near.image.path.endswith("close.png")
    (found,) = [c for c in near.cells if c.object_type == "nucleated cell"]
    x, y, w, h = box_of(cell)
    assert found.box == pytest.approx((x, y, w, h), abs=12)
    assert near.view.scale_source == "assumed"
    assert {SCALE_CORRECTED, SCALE_ASSUMED} <= codes(near.issues)
    usual = others[1]
    assert usual.view.scale_source != "assumed" and SCALE_CORRECTED not in codes(usual.issues)
    assert near.view.um_per_px_y < 0.7 * usual.view.um_per_px_y
