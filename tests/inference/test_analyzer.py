"""One field through the whole chain, with graphs whose answers are known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core.boxes import iou
from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.core.issue_codes import (
    CUT_BY_EDGE,
    LOW_NUCLEATED_PROBABILITY,
    LOW_SHARPNESS,
    LOW_STAIN_CONTRAST,
    NO_CELLS,
    SCALE_CONFLICT,
    SCALE_CORRECTED,
    UNFAMILIAR,
)
from bloodfilm.core.issues import codes
from bloodfilm.imaging.scale import Group, Pooled, ScalePrior, measure
from bloodfilm.imaging.sharpness import measure_sharpness
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.classifier import CellClassification
from bloodfilm.inference.fusion import ProductFusion
from bloodfilm.inference.model import Model
from bloodfilm.inference.outlines import CellOutliner
from fake_bundle import ANSWERS, RED, WHITE, Disc, box_of, dark, draw, lay_out, write_bundle
from fake_outlines import SPEC, Drawn

NUCLEATED = [(50.0, 40.0, "lymphocyte"), (110.0, 70.0, "eosinophil"), (60.0, 86.0, "basophil")]


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory):
    return Model(load_bundle(write_bundle(tmp_path_factory.mktemp("bundle"))), device="cpu")


def field(um_per_px=0.25, squeeze=1.0, width_um=160.0, height_um=120.0, nucleated=NUCLEATED):
    discs = lay_out(width_um, height_um, nucleated)
    size = round(width_um * squeeze / um_per_px), round(height_um / um_per_px)
    return discs, draw(discs, size, um_per_px, squeeze)


def boxes(result):
    return np.array([cell.box for cell in result.cells]).reshape(-1, 4)


@pytest.mark.parametrize(
    ("um_per_px", "squeeze"), [(0.25, 1.0), (0.1442, 0.5625), (0.09, 1.0), (0.3, 1.2)]
)
@pytest.mark.parametrize("stated", [True, False])
def test_boxes_are_mapped_back_through_scale_and_aspect_ratio(analyzer, um_per_px, squeeze, stated):
    discs, image = field(um_per_px, squeeze)
    domain = ScalePrior(um_per_px, squeeze) if stated else None
    result = analyzer.analyze(image, prior=domain)
    overlap = iou([box_of(d, um_per_px, squeeze) for d in discs], boxes(result))
    assert len(result.cells) == len(discs)
    # The graphs find a disc's outline to about a canonical pixel: 0.75 is a shift of 2 px in 30.
    assert overlap.max(axis=1).min() > 0.75
    found = {c.label: c for c in result.cells if c.object_type == "nucleated cell"}
    assert set(found) == {"lymphocyte", "eosinophil", "basophil"}
    assert (result.image.width, result.image.height) == image.shape[1::-1]
    expected = 12.0 * result.view.um_per_px_y / um_per_px
    for cell in found.values():
        assert cell.diameter_um == pytest.approx(expected, rel=0.08)


def test_a_cell_lies_where_box_and_outline_settle(analyzer, monkeypatch):
    _, image = field()
    usual = {c.label: c for c in analyzer.analyze(image).cells if c.object_type == "nucleated cell"}
    small = CellOutliner(SPEC.model_copy(update={"box_agreement": 0.7}), Drawn(cell=(15.0, 15.0)))
    monkeypatch.setattr(analyzer.analyzer, "_outliner", small)
    cells = analyzer.analyze(image).cells
    settled = {c.label: c for c in cells if c.object_type == "nucleated cell"}
    assert len(settled) == len(NUCLEATED) and len(cells) > len(settled)
    for label, cell in settled.items():
        before, after = np.array(usual[label].box), np.array(cell.box)
        assert after[2:] == pytest.approx(0.75 * before[2:], rel=0.05)
        assert after[:2] + after[2:] / 2 == pytest.approx(before[:2] + before[2:] / 2, abs=1.0)
        assert cell.diameter_um == pytest.approx(0.75 * usual[label].diameter_um, rel=0.05)
        assert cell.confidence == usual[label].confidence


@pytest.mark.parametrize(
    ("label", "platelet_stays"), [("lymphocyte", False), ("nucleated cell", False),
                                  ("giant platelet", True), ("other object", True)],
)  # fmt: skip
def test_what_is_named_as_no_cell_takes_no_place_from_a_platelet(analyzer, label, platelet_stays):
    box = (40.0, 30.0, 20.0, 20.0)
    kinds = [analyzer.analyzer.kinds.index(name) for name in ("nucleated cell", "platelet")]
    found = Detections(np.array([box, box]), np.array([0.95, 0.9]), np.array(kinds))
    named = {0: CellClassification(label, 0.9)}
    keep, _ = analyzer.analyzer._confirm(found, named)
    assert keep.tolist() == [True, platelet_stays]


def test_nucleated_cells_are_read_and_the_others_are_not(analyzer):
    _, image = field()
    cells = analyzer.analyze(image).cells
    for cell in cells:
        if cell.object_type == "red cell":
            assert (cell.label, cell.label_confidence) == ("red cell", cell.confidence)
            assert not cell.probabilities and not cell.attributes
        else:
            answers = {n: a.value for n, a in cell.attributes.items()}
            # Never learnt, says the manifest, and of two minds.
            assert answers.pop("cytoplasmic_vacuoles") is None
            assert answers.pop("cell_size") is None
            assert all(value == ANSWERS[name] for name, value in answers.items())
            assert "monoblast" not in cell.probabilities


def test_cells_come_top_to_bottom_then_left_to_right(analyzer):
    _, image = field()
    places = [(round(c.box[1], 1), round(c.box[0], 1)) for c in analyzer.analyze(image).cells]
    assert places == sorted(places)


def test_the_same_field_gives_the_same_record(analyzer, tmp_path):
    _, image = field()
    again = Model(load_bundle(write_bundle(tmp_path)), device="cpu")
    first, second = (json.dumps(a.analyze(image).to_json()) for a in (analyzer, again))
    assert first == second


def test_a_field_of_many_tiles_loses_and_doubles_nothing(tmp_path):
    def small_tiles(manifest):
        manifest["detector"].update(tile=320, overlap=96)

    tiled = Model(load_bundle(write_bundle(tmp_path, small_tiles)), device="cpu")
    # No whole number of tiles; cells lie on every seam, for there are some everywhere.
    discs, image = field(width_um=263.0, height_um=211.0)
    assert iou(*[[box_of(d) for d in discs]] * 2).sum() == pytest.approx(len(discs))
    result = tiled.analyze(image, prior=ScalePrior(0.25, 1.0))
    assert len(result.cells) == len(discs)
    assert iou([box_of(d) for d in discs], boxes(result)).max(axis=1).min() > 0.75


def test_a_cell_at_the_edge_is_flagged_and_its_box_ends_there(analyzer):
    _, image = field(nucleated=[(80.0, 117.0, "lymphocyte")])
    cell = next(c for c in analyzer.analyze(image).cells if c.object_type == "nucleated cell")
    assert CUT_BY_EDGE in codes(cell.issues)
    assert cell.box[1] + cell.box[3] <= image.shape[0]


def test_a_cell_like_nothing_learnt_is_flagged(analyzer):
    discs, _ = field(nucleated=[])
    strange = Disc(80.0, 60.0, 12.0, (80, 190, 90))
    rest = [d for d in discs if np.hypot(d.x - 80, d.y - 60) > 24]
    result = analyzer.analyze(draw([*rest, strange], (640, 480)))
    (cell,) = [c for c in result.cells if c.object_type == "nucleated cell"]
    assert codes(cell.issues) == {UNFAMILIAR}


def test_a_wrong_scale_of_its_own_is_corrected_by_the_red_cells_found(analyzer):
    discs, image = field(0.25)
    finer = measure(field(0.193)[1])  # as if the contours of this one had been misread
    wrong = replace(finer, width=image.shape[1], height=image.shape[0])
    assert wrong.is_measurable
    result = analyzer.analyze(image, measurement=wrong)
    assert SCALE_CORRECTED in codes(result.issues)
    assert result.view.scale_source == "measured"
    assert result.view.um_per_px_y == pytest.approx(0.25, rel=0.05)
    assert len(result.cells) == len(discs)
    assert iou([box_of(d) for d in discs], boxes(result)).max(axis=1).min() > 0.75


def test_a_pooled_scale_is_doubted_but_used(analyzer):
    _, image = field(0.25)
    silent = measure(draw([Disc(20.0, 20.0)], (640, 480)))  # one red cell tells nothing
    wrong = Pooled((Group(21.0, 1.0, 0.02, 200, 10, 0.97, frozenset({(640, 480)})),))
    result = analyzer.analyze(image, prior=ScalePrior(pooled=wrong), measurement=silent)
    assert SCALE_CONFLICT in codes(result.issues)
    assert result.view.scale_source == "pooled"
    assert result.view.um_per_px_y == pytest.approx(7.5 / 21, rel=0.05)


def test_a_contradicted_provided_scale_is_used_with_an_issue(analyzer):
    _, image = field(0.25)
    result = analyzer.analyze(image, prior=ScalePrior(0.33, 1.0))
    assert result.view.um_per_px_y == 0.33
    assert SCALE_CONFLICT in codes(result.issues)


def test_an_empty_field_says_so_and_is_not_called_blurred(analyzer):
    result = analyzer.analyze(draw([], (320, 240)))
    assert result.cells == () and NO_CELLS in codes(result.issues)
    assert LOW_SHARPNESS not in codes(result.issues)
    assert result.view.sharpness is None
    json.dumps(result.to_json(), allow_nan=False)


def test_blur_is_noticed():
    import cv2

    _, image = field()
    blurred = cv2.GaussianBlur(image, (0, 0), 4)
    assert measure_sharpness(blurred) < 16 < measure_sharpness(image)


def test_a_blurred_field_says_so(analyzer):
    import cv2

    _, image = field()
    sharp = analyzer.analyze(image)
    blurred = analyzer.analyze(cv2.GaussianBlur(image, (0, 0), 4))
    assert LOW_SHARPNESS not in codes(sharp.issues)
    assert LOW_SHARPNESS in codes(blurred.issues)


def test_the_lowest_score_may_be_chosen_for_nucleated_cells(analyzer):
    _, image = field()
    strict = Model(analyzer.bundle, device="cpu", min_score=1.0)
    kinds = {c.object_type for c in strict.analyze(image).cells}
    assert kinds == {"red cell"}
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Model(analyzer.bundle, device="cpu", min_score=1.5)


def test_a_field_with_more_cells_than_a_batch_is_read_whole(analyzer):
    spots = [(25.0 * i, 25.0 * j) for i in range(1, 9) for j in range(1, 8)]
    discs = [Disc(x, y, 11.0, dark("monocyte")) for x, y in spots]
    image = draw(discs, (920, 800))
    result = analyzer.analyze(image, prior=ScalePrior(0.25, 1.0))
    assert [c.label for c in result.cells].count("monocyte") == len(spots) > 32


def test_a_background_this_program_does_not_render_is_refused(tmp_path):
    bundle = load_bundle(write_bundle(tmp_path, lambda m: m["reader"].update(background=255)))
    with pytest.raises(BundleError, match="background of 255"):
        Model(bundle, device="cpu")


LOOKALIKE = (120, 60, 90)
"""Dark enough for the fake detector, too pale for the fake reader."""


@pytest.fixture(scope="module")
def careful(tmp_path_factory):
    def warm(manifest):
        manifest["reader"]["temperatures"]["nucleated"] = 2.0

    return load_bundle(write_bundle(tmp_path_factory.mktemp("careful"), warm, confirms=True))


def test_verification_rejects_what_only_looks_like_a_nucleated_cell(analyzer, careful):
    discs, _ = field()
    (x, y, _), *_ = NUCLEATED
    fooled = [replace(d, colour=LOOKALIKE) if (d.x, d.y) == (x, y) else d for d in discs]
    image = draw(fooled, (640, 480))
    told = ScalePrior(0.25, 1.0)

    def listed(one):
        cells = one.analyze(image, prior=told).cells
        return [c for c in cells if c.object_type == "nucleated cell"]

    strict = ProductFusion(verification=0.5)
    assert len(listed(analyzer)) == 3
    found = listed(Model(careful, device="cpu", fusion=strict))
    assert {c.label for c in found} == {"eosinophil", "basophil"}
    every = listed(Model(careful, device="cpu", min_score=0.0, fusion=strict))
    scores = sorted(c.confidence for c in every)
    # Who asks for everything sees it, with what verification left: the root of 0.02 at most.
    assert {
        c.nucleated_probability < 0.5 for c in every if LOW_NUCLEATED_PROBABILITY in codes(c.issues)
    } == {True}
    assert (
        sum(LOW_NUCLEATED_PROBABILITY in codes(c.issues) for c in every)
        == sum(c.nucleated_probability < 0.5 for c in every)
        > 0
    )
    assert len(every) >= 3 and scores[0] < 0.15 and scores[-2] > 0.6


def test_what_absorbs_like_the_red_cells_around_it_is_no_nucleated_cell(analyzer, careful):
    discs, _ = field()
    (x, y, _), *_ = NUCLEATED
    # As dark as a nucleus, but only more of what every red cell absorbs.
    dense = tuple(round(w * (r / w) ** 5) for r, w in zip(RED, WHITE, strict=True))
    assert dense[0] < 150
    fooled = [replace(d, colour=dense) if (d.x, d.y) == (x, y) else d for d in discs]
    told = ScalePrior(0.25, 1.0)

    def listed(image, **how):
        cells = Model(careful, device="cpu", **how).analyze(image, prior=told).cells
        return [c for c in cells if c.object_type == "nucleated cell"]

    image = draw(fooled, (640, 480))
    assert len(listed(image, fusion=ProductFusion(contrast=0, verification=0))) == 3
    kept = listed(image)
    assert {c.label for c in kept} == {"eosinophil", "basophil"}
    assert min(c.stain_contrast for c in kept) > 0.2 and not any(
        LOW_STAIN_CONTRAST in codes(c.issues) for c in kept
    )
    shown = [c for c in listed(image, min_score=0.0) if LOW_STAIN_CONTRAST in codes(c.issues)]
    assert shown and max(c.confidence for c in shown) < 0.1
    # Without colour there is nothing to compare, and nothing is dropped for it.
    grey = np.repeat(image[:, :, :1], 3, axis=2)
    assert all(c.stain_contrast is None for c in listed(grey, min_score=0.0))


def test_a_bundle_that_promises_to_confirm_must_be_able_to(tmp_path):
    def overpromise(manifest):
        manifest["reader"]["confirms"] = True

    folder = write_bundle(tmp_path / "b", overpromise)
    with pytest.raises(BundleError, match="nucleated"):
        Model(load_bundle(folder), device="cpu")


# ---- thresholds --------------------------------------------------------------------------------


def above(result, limits):
    """What a user sees at a bundle's own thresholds."""
    return [c.to_json() for c in result.cells if c.confidence >= limits[c.object_type]]


def crowded():
    """Nucleated cells, look-alikes, dense red cells and red cells, some of them touching."""
    discs, _ = field()
    dense = tuple(round(w * (r / w) ** 5) for r, w in zip(RED, WHITE, strict=True))
    more = [Disc(30.0, 60.0, 9.0, LOOKALIKE), Disc(90.0, 30.0, 11.0, dense)]
    return draw([*discs, *more, Disc(52.0, 52.0, 8.0, dark("monocyte"))], (640, 480))


@pytest.mark.parametrize("min_score", [0.0, 0.1, 0.3, 0.6, 0.9])
def test_no_min_score_moves_a_box_or_changes_a_score(careful, min_score):
    image = crowded()
    limits = careful.manifest.detector.thresholds
    normal = Model(careful, device="cpu").analyze(image)
    asked = Model(careful, device="cpu", min_score=min_score).analyze(image)
    nucleated = [c.to_json() for c in asked.cells if c.object_type == "nucleated cell"]
    shown = [c.to_json() for c in normal.cells if c.object_type == "nucleated cell"]
    assert [c for c in nucleated if c["score"] >= 0.6] == [
        c for c in shown if c["score"] >= max(min_score, 0.6)
    ]
    assert all(c["score"] >= min_score for c in nucleated)
    # A box as a red cell may be one only because the nucleated cell on it was not asked for.
    red = [c.to_json() for c in normal.cells if c.object_type == "red cell"]
    assert [c for c in red if c not in [a.to_json() for a in asked.cells]] == []
    assert limits["nucleated cell"] == 0.6


@pytest.mark.parametrize("floor", [0.0, 0.02, 0.3])
def test_what_is_evaluated_is_what_is_reported(careful, floor):
    image = crowded()
    limits = careful.manifest.detector.thresholds
    normal = Model(careful, device="cpu").analyze(image)
    evaluated = Model(careful, device="cpu", score_floor=floor).analyze(image)
    assert len(evaluated.cells) > len(normal.cells)
    assert above(evaluated, limits) == above(normal, limits) == [c.to_json() for c in normal.cells]
    with pytest.raises(ConfigError, match="score floor"):
        Model(careful, device="cpu", score_floor=-0.1)


def test_the_shipped_bundle_gives_the_same_cells_whatever_is_asked_for():
    from bloodfilm.inference.bundle import default_bundle
    from bloodfilm.synthetic import render_field

    bundle = default_bundle()
    limits = bundle.manifest.detector.thresholds
    image, _ = render_field(seed=11)
    normal = Model(bundle, device="cpu").analyze(image)
    cells = [c.to_json() for c in normal.cells]
    assert any(c.object_type == "nucleated cell" for c in normal.cells)
    for how in ({"min_score": 0.0}, {"score_floor": 0.02}):
        more = Model(bundle, device="cpu", **how).analyze(image)
        assert len(more.cells) > len(cells)
        assert above(more, limits) == cells


def test_a_low_threshold_does_not_have_every_speck_classified(careful, monkeypatch):
    from bloodfilm.inference import classifier as module

    read = []
    real = module.run_graph
    monkeypatch.setattr(
        module,
        "run_graph",
        lambda session, file, inputs, shapes: (
            read.append(len(inputs["crops"])),
            real(session, file, inputs, shapes),
        )[1],
    )
    image = crowded()
    Model(careful, device="cpu", min_score=0.0).analyze(image)
    pixels = 640 * 480
    assert 0 < sum(read) <= 10 + 150e-6 * pixels


def test_only_open_cells_are_looked_at_again_and_turned(tmp_path, monkeypatch):
    from bloodfilm.inference import classifier as module

    folder = write_bundle(
        tmp_path, lambda m: m["reader"].update(look_again={"below": 0.8, "turns": [1, 2, 3]})
    )
    model = Model(load_bundle(folder), device="cpu")
    leaves = model.bundle.manifest.leaves
    size = model.bundle.manifest.classifier.size
    crops = np.zeros((3, size, size, 3), dtype=np.uint8)
    crops[:, 0] = [[[10]], [[20]], [[30]]]  # the upper edge says which cell it is
    sure = {10: (0.95,) * 4, 20: (0.5, 0.9, 0.1, 0.3), 30: (0.1, 0.2, 0.3, 0.4)}
    seen = []

    def look(session, file, inputs, shapes):
        probabilities = []
        for crop in inputs["crops"]:
            edges = [crop[0], crop[:, 0], crop[-1], crop[:, -1]]  # after 0 to 3 turns to the left
            turn = next(
                k for k, edge in enumerate(edges) if (edge == edge[0, 0]).all() and edge.any()
            )
            number = int(edges[turn][0, 0])
            seen.append((number, turn))
            p = sure[number][turn]
            row = np.full(len(leaves), (1 - p) / (len(leaves) - 1))
            row[leaves.index("monocyte")] = p
            probabilities.append(row)
        n = len(probabilities)
        rest = [np.zeros(shapes[name], dtype=np.float32) for name in list(shapes)[1:]]
        return [np.log(np.array(probabilities)).reshape(n, -1).astype(np.float32), *rest]

    monkeypatch.setattr(module, "run_graph", look)
    classified = model.analyzer.classify(crops)
    assert seen[:3] == [(10, 0), (20, 0), (30, 0)]
    assert sorted(seen[3:]) == [(k, turn) for k in (20, 30) for turn in (1, 2, 3)]
    shares = [c.probabilities["monocyte"] for c in classified]
    # One leaf was never learnt, and its share is the others'.
    rest = [(1 - p) / (len(leaves) - 1) for p in (0.5, 0.9, 0.1, 0.3)]
    expected = np.mean([p / (1 - r) for p, r in zip((0.5, 0.9, 0.1, 0.3), rest, strict=True)])
    assert shares[1] == pytest.approx(expected, abs=1e-5)
    assert shares[0] > 0.9 > shares[1] > shares[2]


def test_detections_beyond_the_maximum_number_are_reported(careful, monkeypatch):
    from bloodfilm.inference import analyzer as module

    image = crowded()
    every = Model(careful, device="cpu", min_score=0.0).analyze(image)
    assert "detections-limited" not in {i.code for i in every.issues}
    monkeypatch.setattr(module, "UNCERTAIN_PER_PIXEL", 0.0)
    limited = Model(careful, device="cpu", min_score=0.0).analyze(image)
    (told,) = [i for i in limited.issues if i.code == "detections-limited"]
    assert told.data["left_out"] > 0 and len(limited.cells) < len(every.cells)
    above_all = [c.to_json() for c in every.cells if c.confidence >= 0.6]
    assert [c.to_json() for c in limited.cells if c.confidence >= 0.6] == above_all
