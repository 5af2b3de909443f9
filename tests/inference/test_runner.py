"""Many files: in order, one bad file harms no other, scale pooled over the folder."""

import numpy as np
import pytest

from bloodfilm.core.issue_codes import FEW_RED_CELLS
from bloodfilm.core.issues import codes
from bloodfilm.core.results import FieldFailure, FieldResult
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.runner import analyze_paths
from fake_bundle import Disc, draw, lay_out, save, write_bundle


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory):
    return Analyzer(load_bundle(write_bundle(tmp_path_factory.mktemp("bundle"))), "cpu")


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


def test_outcomes_come_in_the_order_of_the_files(folder, analyzer):
    outcomes = list(analyze_paths(paths_of(folder), analyzer, workers=3))
    named = [o.path for o in outcomes]
    assert named == [str(p) for p in paths_of(folder)]


def test_a_broken_file_is_a_failure_with_a_reason_and_the_rest_goes_on(folder, analyzer):
    outcomes = list(analyze_paths(paths_of(folder), analyzer))
    (failure,) = [o for o in outcomes if isinstance(o, FieldFailure)]
    assert failure.path.endswith("3.png")
    assert "not an image" in failure.reason and failure.path not in failure.reason
    assert sum(isinstance(o, FieldResult) for o in outcomes) == 8


def test_the_number_of_workers_changes_nothing(folder, analyzer):
    one, three = (record(analyze_paths(paths_of(folder), analyzer, workers=n)) for n in (1, 3))
    assert one == three


def test_a_run_taken_up_again_gives_the_same_results(folder, analyzer):
    whole = record(analyze_paths(paths_of(folder), analyzer))
    rest = record(analyze_paths(paths_of(folder), analyzer, todo=range(6, 9)))
    assert whole[6:] == rest and len(rest) == 3


def test_a_field_with_too_few_red_cells_borrows_the_scale_of_its_folder(folder, analyzer):
    outcomes = list(analyze_paths(paths_of(folder), analyzer))
    poor = outcomes[5]
    assert isinstance(poor, FieldResult)
    assert poor.view.scale_source == "pooled"
    assert FEW_RED_CELLS not in codes(poor.issues)
    others = [o.view.um_per_px_y for o in outcomes if isinstance(o, FieldResult)]
    assert poor.view.um_per_px_y == pytest.approx(np.median(others), rel=0.03)
    alone = next(analyze_paths([folder / "5.png"], analyzer))
    assert isinstance(alone, FieldResult)
    assert alone.view.scale_source == "assumed"
    assert FEW_RED_CELLS in codes(alone.issues)


def test_a_bug_in_one_field_does_not_end_the_run(folder, analyzer, monkeypatch):
    def analyze(image, path, *rest):
        if path.name == "4.png":
            raise ZeroDivisionError("oops")
        return real(image, path, *rest)

    real = analyzer.analyze
    monkeypatch.setattr(analyzer, "analyze", analyze)
    outcomes = list(analyze_paths(paths_of(folder), analyzer))
    failures = {o.path[-5:]: o.reason for o in outcomes if isinstance(o, FieldFailure)}
    assert "internal error (ZeroDivisionError: oops)" in failures["4.png"]
    assert len(outcomes) == 9


def test_files_are_read_only_a_little_ahead(folder, analyzer, monkeypatch):
    """A consumer that stops to think must not find a thousand fields in memory."""
    import bloodfilm.inference.runner as pipeline

    opened = []
    real = pipeline.open_with_notes
    monkeypatch.setattr(
        pipeline, "open_with_notes", lambda path: (opened.append(path), real(path))[1]
    )
    outcomes = analyze_paths(paths_of(folder), analyzer, workers=1)
    next(outcomes)
    outcomes.close()
    assert len(opened) <= 4


def test_opencv_gets_its_threads_back(folder, analyzer):
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        list(analyze_paths(paths_of(folder)[:1], analyzer))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
