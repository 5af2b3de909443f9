"""Whole fields: determinism, truth against pixels, scale and squeeze, pairs, cases, data sets."""

import numpy as np
import pytest

from bloodfilm.core import Cell, ConfigError, DataError, Region
from bloodfilm.core.boxes import iou
from bloodfilm.synthetic import (
    PROFILES,
    DatasetSpec,
    SceneSpec,
    ViewTransform,
    random_profile,
    render_case,
    render_cell,
    render_field,
    render_pair,
    vary_profile,
    write_dataset,
)
from bloodfilm.synthetic.morphology import CellObject, white_cell
from bloodfilm.synthetic.optics import camera_pose, render_view
from bloodfilm.synthetic.profiles import get_profile
from bloodfilm.synthetic.scene import Scene

SMALL = (200, 180)


def extent(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0])


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_profile_renders_and_repeats(profile):
    spec = SceneSpec(whites=2)
    image, truth = render_field(profile, spec, seed=3, size=(120, 100))
    again, _ = render_field(profile, spec, seed=3, size=(120, 100))
    other, _ = render_field(profile, spec, seed=4, size=(120, 100))
    assert image.shape == (100, 120, 3) and image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.array_equal(image, again)
    assert not np.array_equal(image, other)
    assert truth.domain.pixel_aspect_ratio == PROFILES[profile].pixel_aspect_ratio


@pytest.mark.parametrize("profile", ["pbc-like", "lld40x-like"])
def test_boxes_are_the_extent_of_the_masks(profile):
    spec = SceneSpec(whites=6, erythroblasts=1, artefacts={"smudge cell": 1}, red_density=2.0)
    _, truth = render_field(profile, spec, seed=8, size=(640, 640))
    checked = 0
    for index, seen in enumerate(truth.visible):
        if seen.item.kind != "white":
            continue
        mask = truth.mask(index)
        x, y, w, h = extent(mask)
        bx, by, bw, bh = seen.box
        # another cell may lie on this one, never the other way round
        assert bx <= x and by <= y and bx + bw >= x + w and by + bh >= y + h
        if not any(
            iou([seen.box], [o.box])[0, 0] > 0
            for o in truth.of_kind("white", "erythroblast", "artefact")
            if o is not seen
        ):
            assert (x, y, w, h) == seen.box
            checked += 1
    assert checked >= 3


def test_a_box_holds_the_dark_pixels_of_its_cell():
    profile = vary_profile(get_profile("pbc-like"), np.random.default_rng(0), by=0.0)
    item = white_cell("lymphocyte", 5, 17.0, 15.0)
    scene = Scene(34, 34, (item,), 0)
    image, truth = render_view(scene, profile, camera_pose(profile, (17, 17)), 0)
    dark = image.min(axis=2).astype(int) < image.min(axis=2).max() - 45
    x, y, w, h = extent(dark)
    assert np.allclose((x, y, w, h), truth.white[0].box, atol=2.5)


def test_cells_at_the_edge_are_cut_and_clipped():
    profile = get_profile("pbc-like")
    inside, sliver = (white_cell("monocyte", s) for s in (1, 2))
    width = profile.width * profile.um_x
    objects = (
        CellObject(**{**inside.__dict__, "x": 0.0, "y": 17.0}),
        CellObject(**{**sliver.__dict__, "x": width + sliver.diameter * 0.45, "y": 17.0}),
    )
    scene = Scene(width, 34, objects, 0)
    _, truth = render_view(scene, profile, camera_pose(profile, (width / 2, 17)), 0)
    half, edge = truth.white
    assert half.cut and half.box[0] == 0 and 0.3 < half.visible_fraction < 0.7
    assert half.full_box[0] < 0 and half.full_box[2] > half.box[2]
    assert edge.cut and edge.box[0] + edge.box[2] == profile.width
    assert edge.ignore and edge.cell.ignore and not half.ignore


@pytest.mark.parametrize(
    ("profile", "pixels"),
    [("pbc-like", 79), ("raabin-like", 136), ("bccd-like", 105), ("lld40x-like", 52)],
)
def test_scale_and_pixel_aspect_ratio_come_out_in_the_red_cells(profile, pixels):
    boxes = np.concatenate(
        [render_field(profile, SceneSpec(whites=1), seed=s)[1].red_boxes for s in range(3)]
    )
    assert len(boxes) > 8
    width, height = np.median(boxes[:, 2]), np.median(boxes[:, 3])
    assert height == pytest.approx(pixels, rel=0.07)
    assert width / height == pytest.approx(PROFILES[profile].pixel_aspect_ratio, rel=0.06)


def test_the_background_has_the_white_point():
    for name in ("pbc-like", "bccd-like", "lld40x-like"):
        image, _ = render_field(name, SceneSpec(whites=1), seed=1)
        light = image.sum(axis=2)
        lightest = image[light >= np.percentile(light, 75)]
        assert np.allclose(np.median(lightest, axis=0), PROFILES[name].white, atol=9)


def test_asked_cells_are_all_there_with_their_labels_and_attributes():
    asked = [
        "neutrophil",
        Cell(None, "monoblast", {"cytoplasmic_vacuoles": "prominent", "cell_size": "large"}),
        "basophil",
    ]
    _, truth = render_field("lld40x-like", SceneSpec(whites=asked, cut=0.0), seed=2)
    assert sorted(s.cell.label for s in truth.white) == ["basophil", "monoblast", "neutrophil"]
    blast = next(s for s in truth.white if s.item.label == "monoblast")
    assert blast.item.values["cytoplasmic_vacuoles"] == "prominent"
    assert blast.item.diameter > 14.6
    assert not any(s.cut for s in truth.white)
    neutrophil = next(s for s in truth.white if s.item.label == "neutrophil")
    assert neutrophil.item.form in ("band neutrophil", "segmented neutrophil")


def test_what_cannot_be_drawn_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="no look"):
        render_field("nowhere")
    with pytest.raises(ConfigError, match="no white cell"):
        render_cell("platelet")
    with pytest.raises(ConfigError, match="no mix"):
        render_field(spec=SceneSpec(mix="none such"))
    with pytest.raises(DataError, match="cell_size"):
        render_cell("monocyte", {"cell_size": "huge"})


@pytest.mark.parametrize(
    "placement",
    [
        ViewTransform(),
        ViewTransform(degrees=180, shift=(6.0, -4.0)),
        ViewTransform(degrees=25, shift=(-3.0, 5.0)),
        ViewTransform(degrees=-10, mirror=True),
    ],
)
def test_a_pair_shows_one_scene_and_its_matrix_maps_the_boxes(placement):
    pair = render_pair(
        "pbc-like", "lld40x-like", spec=SceneSpec(whites=2, cut=0), placement=placement, seed=8
    )
    first = {s.item.id: s for s in pair.first[1].visible if not s.cut}
    second = {s.item.id: s for s in pair.second[1].visible if not s.cut}
    shared = sorted(first.keys() & second.keys())
    assert any(i.startswith("cell") for i in shared) and len(shared) >= 5
    linear, shift = pair.matrix[:, :2], pair.matrix[:, 2]
    for key in shared:
        assert first[key].item == second[key].item
        x, y, w, h = first[key].full_box
        centre = linear @ [x + w / 2, y + h / 2] + shift
        bx, by, bw, bh = second[key].full_box
        # outlines are not symmetric: a turn moves the box's centre a little
        slack = 2.0 if placement.degrees % 180 == 0 else 6.0
        assert np.abs(centre - [bx + bw / 2, by + bh / 2]).max() < slack
    if placement.mirror:
        assert np.linalg.det(linear) < 0
    assert pair.first[0].shape != pair.second[0].shape


def test_a_pair_without_a_turn_maps_boxes_onto_each_other():
    pair = render_pair("pbc-like", "bccd-like", spec=SceneSpec(whites=2, cut=0), seed=1)
    scale = np.diag(pair.matrix[:, :2])
    second = {s.item.id: s.full_box for s in pair.second[1].white}
    for seen in pair.first[1].white:
        x, y, w, h = seen.full_box
        moved = (*(scale * [x, y] + pair.matrix[:, 2]), *(scale * [w, h]))
        assert iou([moved], [second[seen.item.id]])[0, 0] > 0.95


def test_fields_of_a_case_overlap_and_share_cells_by_identity():
    pictures = render_case(
        "lld40x-like", 3, spec=SceneSpec(whites=6, red_density=1.0), overlap=0.4, seed=2
    )
    assert len(pictures) == 3
    met: dict[str, list] = {}
    for _, truth in pictures:
        ids = [s.item.id for s in truth.visible]
        assert len(ids) == len(set(ids))
        for seen in truth.white:
            met.setdefault(seen.item.id, []).append((truth, seen))
    twice = [v for v in met.values() if len(v) > 1]
    assert twice
    for views in twice:
        places = []
        for truth, seen in views:
            assert seen.item == views[0][1].item
            x, y, w, h = seen.full_box
            inverse = np.linalg.inv(np.vstack([truth.matrix, [0, 0, 1]]))
            places.append((inverse @ [x + w / 2, y + h / 2, 1])[:2])
        assert np.ptp(places, axis=0).max() < 1.0  # um on the glass


def test_a_region_limits_the_truth_to_what_is_centred_in_it():
    _, truth = render_field("lld40x-like", SceneSpec(whites=6), seed=4)
    region = Region.rect(0, 0, truth.width / 2, truth.height)
    left = truth.limited(region)
    centres = [s.box[0] + s.box[2] / 2 for s in truth.visible]
    assert len(left.visible) == sum(c < truth.width / 2 for c in centres) < len(truth.visible)
    index = left.visible.index(left.white[0])
    assert np.array_equal(left.mask(index), truth.mask(truth.visible.index(left.white[0])))
    assert left.field("x.png").region == region


def test_a_set_is_written_with_patients_in_one_split_each(tmp_path):
    plan = DatasetSpec(
        profiles=("pbc-like", "lld40x-like"),
        patients=3,
        diagnoses=("CML", "normal"),
        spec=SceneSpec(whites=2),
        splits=(0.34, 0.33, 0.33),
        sparse=0.5,
        size=SMALL,
    )
    data = write_dataset(tmp_path / "a", 6, plan, seed=1)
    again = write_dataset(tmp_path / "b", 6, plan, seed=1)
    assert len(data) == 6 and {f.split for f in data} == {"train", "val", "test"}
    for one, two in zip(data, again, strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
        assert one.cells == two.cells and not one.region.is_everything
    splits: dict[str, set] = {}
    for field in data:
        splits.setdefault(field.patient, set()).add(field.split)
    assert all(len(s) == 1 for s in splits.values())
    with pytest.raises(ConfigError, match="diagnoses"):
        write_dataset(tmp_path, 1, DatasetSpec(diagnoses=("flu",)))


def test_random_looks_differ_and_render():
    rng = np.random.default_rng(0)
    profiles = [random_profile(rng, 160, 160) for _ in range(4)]
    assert len({profile.white for profile in profiles}) == 4
    for profile in profiles:
        assert render_field(profile, SceneSpec(whites=1), seed=0)[0].shape == (160, 160, 3)


def test_red_cells_keep_off_the_white_ones():
    _, truth = render_field(
        "pbc-like", SceneSpec(whites=1, red_density=13.0), seed=6, size=(400, 400)
    )
    white = truth.white[0].item
    for seen in truth.of_kind("red"):
        gap = np.hypot(seen.item.x - white.x, seen.item.y - white.y)
        assert gap > 0.5 * white.diameter + 0.35 * seen.item.diameter
