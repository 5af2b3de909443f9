"""A slide is analysed tile by tile: every cell once, wherever the tiles lie."""

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.boxes import iou
from bloodfilm.core.errors import DataError
from bloodfilm.core.issues import codes
from bloodfilm.core.polygons import Region
from bloodfilm.core.results import FieldResult
from bloodfilm.imaging.sources.open_slide import open_slide
from bloodfilm.inference.model import load_model
from bloodfilm.inference.runner import analyze_many
from bloodfilm.inference.slides import (
    SlidePlan,
    SlideSelection,
    analyze_tiles,
    combined,
    plan_slide,
    plan_slide_tiles,
)
from bloodfilm.inference.slides.plan import with_tiles
from bloodfilm.inference.slides.tiles import MARGIN_UM
from fake_bundle import Disc, dark, draw, lay_out, save, write_bundle

SIZE = 2200, 1500
UM = 0.25


@pytest.fixture(scope="module")
def truth():
    """White cells (x, y, class), um, some of them where the seams of tiles lie."""
    rng = np.random.default_rng(5)
    found = []
    while len(found) < 24:
        x, y = rng.uniform(20, SIZE[0] * UM - 20), rng.uniform(20, SIZE[1] * UM - 20)
        if all(np.hypot(x - a, y - b) > 40 for a, b, _ in found):
            found.append((float(x), float(y), "lymphocyte" if len(found) % 2 else "monocyte"))
    seam = 140.75  # the first seam of tiles
    found = [c for c in found if np.hypot(c[0] - seam, c[1] - seam) > 40]
    return [*found, (seam, seam, "monocyte")]


@pytest.fixture(scope="module")
def slide(tmp_path_factory, truth):
    discs = lay_out(SIZE[0] * UM, SIZE[1] * UM, truth, step=13.0, keep_away=12.0)
    # The loose grid is no film by its looks: pallor and colours are those of discs.
    pixels = draw(discs, SIZE, UM)
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        common = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib", "metadata": None}
        dots = {"resolution": (1e4 / UM, 1e4 / UM), "resolutionunit": "CENTIMETER"}
        file.write(pixels, subifds=1, **common, **dots)
        file.write(cv2.resize(pixels, None, fx=0.25, fy=0.25), subfiletype=1, **common)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def plan(model, slide):
    source = open_slide(slide)
    found = plan_slide(source, model.analyzer, SlideSelection(region=Region.everything()))
    source.close()
    return found


@pytest.fixture(scope="module")
def result(model, slide):
    return model.analyze_slide(slide, region=Region.everything())


def boxes(result):
    return np.array([c.box for c in result.cells]).reshape(-1, 4)


sizes = st.integers(1, 4000)


# Sides in units of a tile's core, so that no draw makes millions of tiles.
sides = st.floats(0.01, 12.0)


@given(
    sides=st.tuples(sides, sides),
    um=st.floats(0.05, 2.0),
    tile=st.floats(70.0, 500.0),
    shift=st.tuples(st.integers(0, 3000), st.integers(0, 3000)),
    seed=st.integers(0, 1000),
)
def test_every_point_has_exactly_one_owner(sides, um, tile, shift, seed):
    width, height = (max(1, round(side * (tile - 2 * MARGIN_UM) / um)) for side in sides)
    tiles = plan_slide_tiles((width, height), (um, um * 1.1), tile, shift)
    rng = np.random.default_rng(seed)
    points = rng.random((64, 2)) * [width + 20, height + 20] - 10
    # Seams themselves, where an error of one pixel would show.
    corners = np.array([t.core[:2] for t in tiles[:: max(1, len(tiles) // 64)]], dtype=float)
    every = np.concatenate([points, corners])
    owners = np.sum([t.owns(every) for t in tiles], axis=0)
    assert (owners == 1).all()
    assert sum(t.core[2] * t.core[3] for t in tiles) == width * height


@given(width=sizes, height=sizes, um=st.floats(0.05, 2.0))
def test_tiles_are_read_with_a_margin_wider_than_any_cell(width, height, um):
    for tile in plan_slide_tiles((width, height), (um, um)):
        (cx, cy, cw, ch), (x, y, w, h) = tile.core, tile.region
        assert x <= max(0, cx - MARGIN_UM / um) or x == 0
        assert y <= max(0, cy - MARGIN_UM / um) or y == 0
        assert x + w >= min(width, cx + cw + MARGIN_UM / um)
        assert y + h >= min(height, cy + ch + MARGIN_UM / um)
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height


def test_every_cell_is_found_once(result, truth):
    expected = np.array([((x - 6) / UM, (y - 6) / UM, 12 / UM, 12 / UM) for x, y, _ in truth])
    overlap = iou(expected, boxes(result))
    assert len(result.cells) == len(truth)
    assert (overlap.max(axis=1) > 0.7).all()
    named = [result.cells[i].label for i in overlap.argmax(axis=1)]
    assert named == [name for _, _, name in truth]


def test_counts_and_area_are_of_the_whole_slide(result, truth):
    assert result.slide is not None
    assert result.slide.counts["nucleated cell"] == len(truth)
    assert result.slide.counts["red cell"] > 300
    assert result.slide.analyzed_mm2 == pytest.approx(SIZE[0] * SIZE[1] * UM**2 / 1e6)
    assert result.slide.failed_tiles == 0
    assert (result.image.width, result.image.height) == SIZE
    assert FieldResult.from_json(result.to_json()).slide is not None


@pytest.mark.parametrize(
    ("tile_um", "offset"), [(204.8, (170, 333)), (130.0, (0, 0)), (300.0, (77, 9))]
)
def test_other_tiles_give_the_same_cells(model, slide, plan, result, tile_um, offset):
    source = open_slide(slide)
    tiles = plan_slide_tiles(SIZE, plan.view.um_per_px, tile_um, offset)
    other = with_tiles(plan, tiles)
    assert {t.core for t in other.tiles} != {t.core for t in plan.tiles}
    again = combined(
        source, other, analyze_tiles(source, model.analyzer, other, tiles), "nucleated cell"
    )
    source.close()
    overlap = iou(boxes(result), boxes(again))
    assert len(again.cells) == len(result.cells)
    assert (overlap.max(axis=1) > 0.8).all()
    assert [c.label for c in again.cells] == [c.label for c in result.cells]
    assert again.slide.counts["red cell"] == pytest.approx(
        result.slide.counts["red cell"], rel=0.005
    )


def test_the_classifier_sees_the_crop_of_the_slide(model, slide, plan, monkeypatch):
    """A cell on a seam is cropped as if the slide had been in memory."""
    source = open_slide(slide)
    whole = source.read_region(0, 0, *SIZE)
    seen = []
    plain = model.analyzer.classifier.crops

    def crops(view, image, centres):
        made = plain(view, image, centres)
        seen.append((view, image, np.asarray(centres), made))
        return made

    monkeypatch.setattr(model.analyzer.classifier, "crops", crops)
    (tile,) = [t for t in plan.tiles if t.owns([(141 / UM, 141 / UM)])[0]]
    list(analyze_tiles(source, model.analyzer, plan, [tile]))
    source.close()
    x, y = tile.region[:2]
    checked = 0
    for _, _, centres, made in seen:
        for centre, crop in zip(centres, made, strict=True):
            at = centre + np.array([x, y])
            if tile.owns(at[None])[0]:
                own = plain(plan.view.view, whole, at[None])[0]
                assert (own == crop).all()
                checked += 1
    assert checked


def test_the_order_of_work_changes_nothing(model, slide, plan):
    source = open_slide(slide)
    one = list(analyze_tiles(source, model.analyzer, plan, plan.tiles, workers=1))
    three = list(analyze_tiles(source, model.analyzer, plan, plan.tiles, workers=3))
    source.close()
    assert [r.to_json() for r in one] == [r.to_json() for r in three]


def test_a_plan_is_read_back(plan):
    again = SlidePlan.from_json(plan.to_json(), SIZE)
    assert again.to_json() == plan.to_json()
    with pytest.raises(DataError, match="not the record"):
        SlidePlan.from_json({"view": {}}, SIZE)


def test_a_region_keeps_the_cells_in_it(model, slide, result, truth):
    region = Region.polygon([(100, 100), (1500, 60), (900, 1300)])
    part = model.analyze_slide(slide, region=region)
    centres = boxes(result)[:, :2] + boxes(result)[:, 2:] / 2
    inside = region.contains(centres)
    assert 0 < inside.sum() < len(truth)
    assert len(part.cells) == inside.sum()
    assert {c.id for c in part.cells} == {
        c.id for c, kept in zip(result.cells, inside, strict=True) if kept
    }
    assert part.slide.zone == "region"
    assert part.slide.zone_mm2 == pytest.approx(region.area(*SIZE) * UM**2 / 1e6, rel=1e-3)


def test_a_region_beside_the_slide_is_refused(model, slide):
    with pytest.raises(DataError, match="outside the slide"):
        model.analyze_slide(slide, region=Region.rect(9000, 9000, 100, 100))


def test_a_sample_is_random_over_the_zone_and_the_same_again(model, slide, plan):
    source = open_slide(slide)

    def cores(fields, seed):
        wanted = SlideSelection(region=Region.everything(), fields=fields, seed=seed)
        return [t.core for t in plan_slide(source, model.analyzer, wanted).tiles]

    first = cores(4, 0)
    assert first == cores(4, 0)
    assert len(set(first)) == 4
    assert first != cores(4, 1)
    assert first != [t.core for t in plan.tiles[:4]]
    wanted = SlideSelection(region=Region.everything(), fields=500)
    everything = plan_slide(source, model.analyzer, wanted)
    source.close()
    assert len(everything.tiles) == len(plan.tiles)
    assert "sample-reduced" in codes(everything.issues)


def test_one_bad_tile_is_named_and_the_rest_goes_on(model, slide, result, tmp_path):
    path = tmp_path / "bad.tif"
    data = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[12], page.databytecounts[12]
    data[offset + 10 : offset + count] = bytes(count - 10)
    path.write_bytes(data)
    found = model.analyze_slide(path, region=Region.everything())
    (bad,) = [i for i in found.issues if i.code == "area-unreadable"]
    # Nine tiles a row: the thirteenth is the fourth of the second row.
    assert bad.data["names"] == ["tile 13 of 54"]
    assert bad.data["areas"] == [[768, 256, 256, 256]]
    centres = boxes(result)[:, :2] + boxes(result)[:, 2:] / 2
    far = (np.abs(centres - [896, 384]) > 128 + 30).any(axis=1)
    overlap = iou(boxes(result)[far], boxes(found))
    assert (overlap.max(axis=1) > 0.95).all()


def test_a_tile_that_fails_does_not_end_the_slide(model, slide, plan, monkeypatch):
    source = open_slide(slide)
    plain = source.read_region

    def read(x, y, width, height, downsample=1.0):
        if (x, y, width, height) == plan.tiles[5].region:
            raise MemoryError
        return plain(x, y, width, height, downsample)

    monkeypatch.setattr(source, "read_region", read)
    outcomes = analyze_tiles(source, model.analyzer, plan, plan.tiles)
    found = combined(source, plan, outcomes, "nucleated cell")
    source.close()
    assert found.slide.failed_tiles == 1
    assert found.slide.tiles == len(plan.tiles) - 1
    (failed,) = [i for i in found.issues if i.code == "tiles-failed"]
    assert "memory" in failed.message
    assert failed.severity == "error"


def test_a_slide_of_which_nothing_can_be_decoded_is_not_called_empty(model, tmp_path):
    path = tmp_path / "lost.tif"
    pixels = np.full((900, 900, 3), 240, np.uint8)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    tifffile.imwrite(path, pixels, **options)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        for at, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            data[at : at + count] = bytes(count)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"16 parts cannot be decoded \(tile") as refused:
        model.analyze_slide(path)
    assert "empty glass" not in str(refused.value)


def test_empty_glass_is_refused(model, tmp_path):
    path = tmp_path / "glass.tif"
    rng = np.random.default_rng(0)
    pixels = rng.integers(238, 243, (900, 900, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", metadata=None)
    with pytest.raises(DataError, match="empty glass"):
        model.analyze_slide(path)


def test_a_cell_of_the_seam_lies_where_it_was_drawn(truth):
    """The fixture puts a cell on a seam, or the tests above would prove little."""
    tiles = plan_slide_tiles(SIZE, (UM, UM))
    x, y, _ = truth[-1]
    edges = {t.core[0] for t in tiles}
    assert any(abs(x / UM - edge) < 12 for edge in edges if edge)
    assert Disc(x, y, 12.0, dark("monocyte")).x == x


def test_a_slide_among_fields_is_analysed_once(model, slide, tmp_path, monkeypatch):
    """It has no part in the scale of the fields of its folder, and is not analysed for that."""
    fields = [tmp_path / f"{i}.png" for i in range(3)]
    for path in fields:
        save(path, draw(lay_out(120.0, 80.0, [(40.0, 40.0, "lymphocyte")]), (480, 320)))
    real, seen = model.analyze, []
    monkeypatch.setattr(type(model.analyzer), "outlines_cells", True)
    monkeypatch.setattr(
        model, "analyze", lambda image, **rest: (seen.append(image.name), real(image, **rest))[1]
    )
    outcomes = list(analyze_many([*fields, slide], model, scale_group=lambda image: 0))
    assert [isinstance(o, FieldResult) for o in outcomes] == [True] * 4
    assert outcomes[-1].slide is not None
    assert sum("slide.tif" in name for name in seen) == 1
