"""A field whose scale is measured wrongly is compared at that of the others."""

from collections import Counter
from dataclasses import replace

import pytest

from bloodfilm.cases.scales import scale_factors
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import FieldResult, ImageRef
from fixtures.drawn_case import Shot, assembled, photograph, physical, whole_cells


def fields_of(*scales, source="measured"):
    """Return results of fields of one size."""
    white = (240.0, 238.0, 235.0)
    return [
        FieldResult(
            ImageRef("a.png", 640, 480, ""),
            ViewRecord(scale, scale, source, "measured", 0.9, white, 20, 640, 480),
            (),
        )
        for scale in scales
    ]


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ((0.1,) * 8 + (0.14,), (1,) * 8 + (0.1 / 0.14,)),
        ((0.1, 0.101, 0.099, 0.1, 0.08), (1, 1, 1, 1, 1.25)),
        ((0.1,) * 8 + (0.108,), (1,) * 9),  # within the error of a measurement
        ((0.1,) * 8 + (0.25,), (1,) * 9),  # another objective
        ((0.1,) * 8 + (0.14,) * 3, (1,) * 11),  # another camera, as several fields say
        ((0.1,) * 3 + (0.14,) * 2, (1,) * 5),  # no scale is that of nearly all
        ((0.1,), (1,)),
    ],
)
def test_a_scale_that_few_fields_have_is_doubtful(scales, expected):
    assert scale_factors(fields_of(*scales)) == pytest.approx(expected)


def test_a_scale_that_the_user_or_the_file_states_is_not_doubted():
    for source in ("user", "metadata"):
        stated = fields_of(0.14, source=source)
        assert scale_factors([*fields_of(*[0.1] * 8), *stated]) == [1.0] * 9


def test_cells_of_a_field_with_a_wrong_scale_count_once():
    fields = photograph([Shot(60 + 40 * x, 60) for x in range(4)], glass=(240, 120), seed=12)
    measured = [replace(f.result.view, scale_source="measured") for f in fields]
    view = measured[2]
    wrong = {"um_per_px_x": view.um_per_px_x * 1.4, "um_per_px_y": view.um_per_px_y * 1.4}
    measured[2] = replace(view, **wrong)
    fields = [
        replace(f, result=replace(f.result, view=v)) for f, v in zip(fields, measured, strict=True)
    ]
    case = assembled(fields)
    assert {p.part for p in case.placements} == {0}
    found = Counter(physical(fields, case))
    assert max(found.values()) == 1 and whole_cells(fields, [0, 1, 3]) <= set(found)
