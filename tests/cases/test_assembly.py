"""A case from overlapping fields of a drawn film: no cell lost, none counted twice."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from bloodfilm.cases.assembly import AssemblyOptions, CaseFiles, assemble_case
from bloodfilm.cases.landmarks import SeenFields, common_scale, field_detail
from bloodfilm.core import issue_codes
from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.results import CellResult, FieldResult, with_ids
from bloodfilm.imaging.picture_key import pixel_digest
from bloodfilm.imaging.sources import open_source
from fixtures.drawn_case import SIZE, UM, Shot, assembled, photograph, physical, whole_cells
from fixtures.made_up_results import make_model

GRID = [Shot(60 + 40 * x, 55 + 38 * y) for y in range(3) for x in range(4)]


@pytest.fixture(scope="module")
def grid():
    """Twelve fields of 85 x 66 um, each overlapping its neighbours by half or less."""
    return photograph(GRID)


@pytest.fixture(scope="module")
def case(grid):
    return assembled(grid)


def test_no_cell_is_lost_and_none_counted_twice(grid, case):
    found = Counter(physical(grid, case))
    assert max(found.values()) == 1
    assert whole_cells(grid) <= set(found)
    cut = [cell for cell in case.cells if cell.issues]
    assert all(c.issues[0].code == issue_codes.CUT_BY_EDGE for c in cut)
    assert {p.part for p in case.placements} == {0}


def test_the_order_of_the_fields_does_not_matter(grid, case):
    mixed = [grid[k] for k in np.random.default_rng(3).permutation(len(grid))]
    assert Counter(physical(mixed, assembled(mixed))) == Counter(physical(grid, case))


@pytest.mark.slow
def test_workers_change_nothing(grid, case):
    assert assembled(grid, workers=3).to_json() == case.to_json()


@pytest.mark.slow
def test_turned_fields_of_other_exposure_and_magnification_are_joined():
    rng = np.random.default_rng(1)
    shots = [
        replace(
            shot,
            degrees=float(rng.uniform(-180, 180)),
            exposure=float(rng.uniform(0.75, 1.1)),
            zoom=float(rng.uniform(0.85, 1.15)),
        )
        for shot in GRID[:8]
    ]
    fields = photograph(shots, seed=1)
    case = assembled(fields)
    found = Counter(physical(fields, case))
    assert max(found.values()) == 1 and whole_cells(fields) <= set(found)


def test_a_placement_maps_pixels_to_the_glass(grid):
    case = assembled(grid[:4])
    first = grid[0].result.view
    for shot, placement in zip(GRID, case.placements, strict=False):
        matrix = np.array(placement.matrix)
        corner = matrix @ [0, 0, 1]
        assert corner == pytest.approx([shot.x - GRID[0].x, shot.y - GRID[0].y], abs=0.5)
        assert matrix[0, 0] == pytest.approx(first.um_per_px_x, rel=0.01)


@pytest.mark.slow
def test_a_focus_series_is_one_field_read_at_its_sharpest():
    blurs = (0.8, 0.5, 0.3, 0.15, 0.0, 0.1, 0.2, 0.4, 0.6)
    fields = photograph([Shot(90, 80, blur=blur) for blur in blurs], seed=2)
    case = assembled(fields)
    assert [p.number for p in case.placements if p.counted] == [4]
    assert {i.code for p in case.set_aside for i in p.issues} == {issue_codes.SAME_PLACE}
    assert all(p.issues[0].data["path"] == "s2-4.png" for p in case.set_aside)
    found = physical(fields, case, counted=False)
    assert len(found) == len(set(found)) == len(fields[4].ids)
    assert all(cell.shown.field == 4 and len(cell.views) == 9 for cell in case.cells)


def test_fields_of_distinct_glass_are_never_joined():
    fields = [f for seed in range(20, 28) for f in photograph([Shot(70, 60)], seed=seed)]
    case = assembled(fields)
    assert len({p.part for p in case.placements}) == len(fields)
    assert all(len(cell.views) == 1 for cell in case.cells)


def test_copies_are_set_aside_and_named(grid):
    field = grid[5]
    same_bytes = replace(
        field, result=replace(field.result, image=replace(field.result.image, path="b.png"))
    )
    other_file = replace(field.result.image, path="c.png", sha256="c" * 64)
    same_pixels = replace(field, result=replace(field.result, image=other_file))
    _, packed = cv2.imencode(".jpg", field.image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    pixels = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    stored = replace(field.result.image, path="d.jpg", sha256="d" * 64)
    recoded = replace(field, image=pixels, result=replace(field.result, image=stored))
    case = assembled([field, same_bytes, same_pixels, recoded])
    assert [p.counted for p in case.placements] == [True, False, False, False]
    assert [p.issues[0].code for p in case.set_aside] == [
        issue_codes.DUPLICATE_IMAGE,
        issue_codes.DUPLICATE_IMAGE,
        issue_codes.COPIED_FIELD,
    ]
    assert len(case.cells) == len(field.ids) and case.other["red cell"] == sum(
        c.object_type == "red cell" for c in field.result.cells
    )


def test_blurred_and_empty_fields_are_set_aside_but_not_if_all_are(grid):
    blurred = issue(issue_codes.LOW_SHARPNESS, "blurred")
    empty = issue(issue_codes.NO_CELLS, "nothing found")

    def marked(field, *issues, **changes):
        return replace(field, result=replace(field.result, issues=issues, **changes))

    fields = [grid[0], marked(grid[1], blurred), marked(grid[2], empty, cells=())]
    case = assembled(fields)
    assert [p.counted for p in case.placements] == [True, False, False]
    assert [p.issues for p in case.set_aside] == [(blurred,), (empty,)]
    assert set(case.uncounted) <= {issue_codes.LOW_SHARPNESS, issue_codes.CUT_BY_EDGE}
    alone = assembled([marked(grid[0], blurred), marked(grid[2], empty, cells=())])
    assert [p.counted for p in alone.placements] == [True, False]
    nothing = assembled([marked(grid[2], empty, cells=())])
    assert [i.code for i in nothing.issues] == [issue_codes.NOTHING_COUNTED]
    assert nothing.issues[0].data["reasons"] == {issue_codes.NO_CELLS: 1}


@pytest.mark.parametrize(
    ("rule", "counts"),
    [
        ("two-sides", {"left": True, "top": True, "right": False, "bottom": False}),
        ("whole", dict.fromkeys(("left", "top", "right", "bottom"), False)),
        ("all", dict.fromkeys(("left", "top", "right", "bottom"), True)),
    ],
)
def test_cells_that_every_field_cuts_count_by_the_rule(rule, counts):
    fields = photograph(
        [Shot(60 + 60 * k, 60) for k in range(3)], glass=(240, 120), whites=40, seed=5
    )
    case = assembled(fields, edges=rule)
    cut = [c for c in case.cells if c.issues and c.issues[0].code == issue_codes.CUT_BY_EDGE]
    assert cut
    for cell in cut:
        sides = cell.issues[0].data["sides"]
        assert cell.counted == all(counts[side] for side in sides)
    assert all(c.counted for c in case.cells if not c.issues)


def test_two_sides_count_every_cell_of_adjoining_fields_once():
    """Fields that touch without overlap cut cells in two: one half counts.

    A half of which hardly anything is to be seen is not detected.
    """
    width, height = (side * UM for side in SIZE)
    shots = [Shot(60 + width * x, 50 + height * y) for y in range(2) for x in range(2)]
    fields = photograph(shots, glass=(260, 210), whites=40, seed=6)
    found = Counter(physical(fields, assembled(fields)))
    inside = {
        seen.item.id
        for field in fields
        for seen in field.truth.white
        if 60 - width / 2 + 10 < seen.item.x < 60 + 1.5 * width - 10
        and 50 - height / 2 + 10 < seen.item.y < 50 + 1.5 * height - 10
    }
    slivers = {seen.item.id for f in fields for seen in f.truth.white if seen.ignore}
    assert max(found.values()) == 1
    assert len(inside - slivers) > 5 and inside - slivers <= set(found)


def test_a_strip_too_narrow_to_be_recognised_counts_no_cell_twice_by_whole_cells():
    """A cell wider than the strip is whole in one field at most, cut in the other."""
    width, strip = SIZE[0] * UM, 2.0
    shots = [Shot(60 + (width - strip) * k, 60) for k in range(4)]
    fields = photograph(shots, glass=(60 + 4 * width, 120), whites=150, seed=9)
    twice = [
        name
        for name, times in Counter(name for f in fields for name in f.shown).items()
        if times > 1
    ]
    assert twice
    case = assembled(fields, edges="whole")
    assert len({p.part for p in case.placements}) == len(fields)
    assert max(Counter(physical(fields, case)).values()) == 1


def test_the_sharper_of_two_views_is_shown():
    fields = photograph([Shot(80, 70, blur=0.35), Shot(100, 75)], seed=7)
    case = assembled(fields)
    twice = [c for c in case.cells if len(c.views) == 2]
    assert twice and all(p.counted for p in case.placements)
    whole = whole_cells(fields, [1])
    for cell in twice:
        names = {v.field: fields[v.field].ids[v.id] for v in cell.views}
        assert len(set(names.values())) == 1
        if names[1] in whole:
            assert cell.shown.field == 1


def test_views_that_disagree_are_told(grid):
    one, two = grid[5], grid[6]
    renamed = tuple(replace(c, label="monocyte") for c in two.result.cells)
    case = assembled([one, replace(two, result=replace(two.result, cells=renamed))])
    both = [c for c in case.cells if len(c.views) == 2]
    named = [i for c in both for i in c.issues if i.code == issue_codes.VIEWS_DISAGREE]
    labels = {v: c.label for v, c in ((c.id, c) for c in one.result.cells)}
    unlike = [c for c in both if any(labels.get(v.id) not in (None, "monocyte") for v in c.views)]
    assert len(named) == len(unlike) > 0


def test_a_field_that_cannot_be_opened_again_still_counts(grid):
    def gone(result):
        raise DataError(f"{result.path}: cannot be read")

    case = assemble_case(
        CaseFiles("c", (0, 1)),
        [grid[0].result, grid[1].result],
        make_model(),
        AssemblyOptions(load=gone),
    )
    assert [p.counted for p in case.placements] == [True, True]
    assert [i.message for p in case.placements for i in p.issues] == [
        "not compared with the other fields: cannot be read"
    ] * 2


def test_fields_that_were_seen_are_not_opened_again(grid, case):
    opened = []

    def load(result):
        opened.append(result.path)
        return next(f.image for f in grid if f.result.path == result.path)

    digests = (replace(f.result.image, pixels=pixel_digest(f.image)) for f in grid)
    given = [replace(f.result, image=image) for f, image in zip(grid, digests, strict=True)]
    seen = SeenFields({result.path for result in given[1:]})
    for drawn, result in zip(grid, given, strict=True):
        seen.see(open_source(drawn.image, result.path), result)
    logged = [FieldResult.from_json(result.to_json()) for result in given]
    files, model = CaseFiles("drawn", tuple(range(len(grid)))), make_model()
    before = assemble_case(files, logged, model, AssemblyOptions(load=load))
    sharpness_alone = len(opened) - len(grid)
    opened.clear()
    again = assemble_case(files, logged, model, AssemblyOptions(load=load, seen=seen))
    assert again.to_json() == before.to_json()
    assert len(opened) == sharpness_alone + 1
    # At another scale, or of other pixels, it is not what was seen.
    um = common_scale(logged)
    assert seen.detail(logged[1], um) is not None
    assert seen.detail(logged[1], 2 * um) is None
    changed = replace(logged[1], image=replace(logged[1].image, pixels="0" * 64))
    assert seen.detail(changed, um) is None
    assert seen.detail(logged[0], um) is None


def test_no_more_fields_are_kept_than_there_is_room_for(grid):
    few = [f.result for f in grid[:3]]
    um = common_scale(few)
    size = 2 * field_detail(grid[0].image, few[0], um).detail.size
    seen = SeenFields({result.path for result in few}, room=2 * size)
    for drawn in grid[:3]:
        seen.see(open_source(drawn.image, drawn.result.path), drawn.result)
    assert [seen.detail(result, um) is not None for result in few] == [True, True, False]


def test_fields_with_one_pattern_of_red_cells_and_other_white_cells_are_not_one(grid):
    """The same picture, whose nucleated cell is said to be elsewhere, is no copy."""

    def showing(path, checksum, box, image):
        cells = with_ids([CellResult(box, 0.9, "nucleated cell", "lymphocyte", 0.9)], path)
        ref = replace(grid[5].result.image, path=path, sha256=checksum * 64)
        return replace(grid[5], image=image, result=replace(grid[5].result, image=ref, cells=cells))

    changed = grid[5].image.copy()
    changed[0, 0] = 0
    one = showing("a.png", "a", (63.0, 63.0, 94.0, 94.0), grid[5].image)
    other = showing("b.png", "b", (315.0, 252.0, 94.0, 94.0), changed)
    assert all(p.counted for p in assembled([one, other]).placements)
    again = showing("b.png", "b", (66.0, 60.0, 94.0, 94.0), changed)
    assert [p.counted for p in assembled([one, again]).placements] == [True, False]
