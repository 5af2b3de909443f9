"""The zone of morphology is the monolayer; its shapes, areas and cells agree."""

import json

import numpy as np
import pytest

from bloodfilm.core.polygons import Region
from bloodfilm.formats.qupath.regions import read_regions
from bloodfilm.imaging.zone import RedCellReference, find_zone, whole_slide, zone_of_region
from bloodfilm.imaging.zone.features import BlockFeatures, block_features
from bloodfilm.imaging.zone.find import choose, score_blocks
from bloodfilm.imaging.zone.picture import zone_picture
from bloodfilm.imaging.zone.zone import Zone, outlines_of
from bloodfilm.synthetic.slides import AREAS, SlideFilm, SlideSpec

MONOLAYER = AREAS.index("monolayer")


class DrawnSource:
    """A drawn slide in place of a file."""

    name = "drawn"
    identity = "drawn"
    pixel_size = None
    issues = ()

    def __init__(self, film):
        self.film = film
        self.size = film.spec.width, film.spec.height
        self.pixels = film.draw(0, 0, *self.size)

    def read_region(self, x, y, width, height, downsample=1.0):
        import cv2

        part = self.pixels[y : y + height, x : x + width]
        size = max(1, round(width / downsample)), max(1, round(height / downsample))
        return cv2.resize(part, size, interpolation=cv2.INTER_AREA)

    def thumbnail(self, size):
        return self.read_region(0, 0, *self.size, downsample=max(1.0, max(self.size) / size))

    def close(self):
        pass


def reference_of(film):
    """How the drawn red cells absorb, measured where they lie."""
    from bloodfilm.imaging.stain import red_cell_absorbance

    x, y, w, h = (round(v / film.spec.um_per_px) for v in film.layout.rect_of(MONOLAYER))
    corner = x + w // 4, y + h // 2
    pixels = film.draw(*corner, 300, 300)
    boxes = film.red_boxes(*corner, 300, 300) - [*corner, 0, 0]
    white = tuple(float(v) for v in film.profile.white)
    found = red_cell_absorbance(pixels, white, boxes)
    assert found is not None
    return RedCellReference(white, tuple(found.tolist()))


@pytest.fixture(scope="module")
def film():
    return SlideFilm(SlideSpec(width=4000, height=2400, um_per_px=0.5, seed=2))


@pytest.fixture(scope="module")
def zone(film):
    return find_zone(DrawnSource(film), (0.5, 0.5), reference_of(film))


@pytest.mark.slow
def test_the_zone_is_the_monolayer(film, zone):
    rows, columns = zone.chosen.shape
    shifts = [(u, v) for u in (0.02, 0.5, 0.98) for v in (0.02, 0.5, 0.98)]
    inside = np.zeros((rows, columns))
    for u, v in shifts:
        where = [((c + u) * 128.0, (r + v) * 128.0) for r in range(rows) for c in range(columns)]
        inside += film.layout.area_of(where).reshape(rows, columns) == MONOLAYER
    # Blocks at the border hold two areas; none of another area alone is in the zone.
    assert (inside[zone.chosen] > 0).all()
    whole = inside == len(shifts)
    assert zone.chosen[whole].mean() > 0.85
    assert not zone.issues


@pytest.mark.slow
def test_what_is_not_film_scores_nothing(film, zone):
    rows, columns = zone.scores.shape
    for name in ("glass", "thick", "pen"):
        area = AREAS.index(name)
        inside = [
            (r, c)
            for r in range(rows)
            for c in range(columns)
            if (
                film.layout.area_of(
                    [((c + u) * 128.0, (r + v) * 128.0) for u in (0, 0.99) for v in (0, 0.99)]
                )
                == area
            ).all()
        ]
        assert all(zone.scores[place] < 0.1 for place in inside), name


def test_a_slide_without_monolayer_has_an_uncertain_zone_or_none():
    thick = BlockFeatures(0.9, 2.0, 0.02, 10, 0.9, 0.2, 0.0)
    poor = BlockFeatures(0.4, 1.0, 0.25, 40, 0.8, 0.2, 0.0)
    nothing, _ = choose(score_blocks([[thick] * 6] * 6))
    assert not nothing.any()
    chosen, uncertain = choose(score_blocks([[poor] * 6] * 6))
    assert chosen.any()
    assert uncertain


def test_pallor_counts_only_where_the_slide_shows_any():
    pale = BlockFeatures(0.35, 1.0, 0.9, 90, 0.7, 0.2, 0.0)
    flat = BlockFeatures(0.35, 1.0, 0.9, 90, 1.1, 0.2, 0.0)
    mixed = score_blocks([[pale] * 4, [flat] * 4])
    assert mixed[0].min() > 0.9
    assert mixed[1].max() == 0
    assert score_blocks([[flat] * 4] * 2).min() > 0.9


MASK = np.array(
    [
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 1],
        [0, 1, 1, 1, 0, 1, 0],
        [0, 0, 0, 0, 1, 0, 0],
    ],
    dtype=bool,
)


def test_outlines_have_holes_and_separate_parts():
    parts = outlines_of(MASK)
    assert [len(rings) for rings in parts] == [2, 1, 1, 1]
    assert parts[0] == [
        [(1, 0), (4, 0), (4, 3), (1, 3)],
        [(2, 1), (2, 2), (3, 2), (3, 1)],
    ]


@pytest.mark.parametrize("seed", range(8))
def test_the_geojson_of_a_zone_holds_just_its_points(tmp_path, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 9)) < 0.55
    # The slide ends inside the last blocks.
    zone = Zone(9 * 20 - 7, 7 * 16 - 3, (20, 16), (0.5, 0.5), "found", mask)
    path = tmp_path / "zone.geojson"
    path.write_text(json.dumps(zone.to_geojson()))
    region = read_regions(path)
    points = rng.random((3000, 2)) * [zone.width, zone.height]
    assert (region.contains(points) == zone.contains(points)).all()
    area = region.area(zone.width, zone.height) * 0.25 / 1e6
    assert zone.area_mm2() == pytest.approx(area)


def test_areas_of_parts_add_up():
    rng = np.random.default_rng(3)
    found = Zone(173, 109, (20, 16), (0.5, 0.5), "found", rng.random((7, 9)) < 0.5)
    drawn = zone_of_region(173, 109, (0.5, 0.5), Region.polygon([(10, 10), (150, 40), (60, 100)]))
    parts = [
        (x, y, min(50, 173 - x), min(40, 109 - y)) for x in (0, 50, 100, 150) for y in (0, 40, 80)
    ]
    for zone in (found, drawn, whole_slide(173, 109, (0.5, 0.5))):
        assert sum(zone.area_mm2([part]) for part in parts) == pytest.approx(zone.area_mm2())


def test_blocks_of_a_region_hold_all_its_points():
    rng = np.random.default_rng(4)
    for _ in range(20):
        corners = rng.random((5, 2)) * [3000, 2000]
        zone = zone_of_region(3000, 2000, (1.0, 1.0), Region.polygon(corners.tolist()))
        points = rng.random((2000, 2)) * [3000, 2000]
        for x, y in points[zone.contains(points)]:
            assert zone.touches(x, y, 1, 1)


def test_a_region_beside_the_slide_is_empty():
    zone = zone_of_region(1000, 1000, (1.0, 1.0), Region.rect(2000, 2000, 50, 50))
    assert not zone.chosen.any()


def test_the_picture_is_the_overview_where_there_is_no_film():
    overview = np.full((120, 180, 3), 240, np.uint8)
    scores = np.zeros((12, 18))
    scores[3:6, 4:9] = 0.9
    zone = Zone(1800, 1200, (100, 100), (1.28, 1.28), "found", scores > 0.5, scores)
    drawn = zone_picture(overview, zone)
    assert drawn.shape == overview.shape
    assert (drawn[100:, 120:] == 240).all()
    assert (drawn[40:50, 55:80] != 240).any()


def test_a_block_under_a_pen_is_foreign_through_and_through():
    reference = RedCellReference((245.0, 245.0, 245.0), (0.1, 0.5, 0.3))
    pen = np.full((200, 200, 3), (20, 30, 200), np.uint8)
    with np.errstate(all="raise"):
        assert block_features(pen, reference).foreign > 0.9
