"""Fields of several sizes or scales in one case are said; those of one camera are not."""

from dataclasses import replace

import pytest

from bloodfilm.cases.cameras import several_cameras
from bloodfilm.core import issue_codes
from bloodfilm.core.results import FieldResult, ImageRef
from fixtures.made_up_results import make_view


def seen(width, height, um_per_px=0.25, source="measured"):
    view = replace(
        make_view(width, height, source=source), um_per_px_x=um_per_px, um_per_px_y=um_per_px
    )
    return FieldResult(ImageRef("a.png", width, height), view, ())


ONE = [seen(640, 480)] * 3


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ONE,
        [*ONE, seen(480, 640)],  # turned
        [*ONE, seen(640, 480, 0.3)],  # scales of one folder scatter
        [*ONE, seen(640, 480, 2.0, "assumed")],  # not measured
        [*ONE, seen(100, 90)],  # one picture of another kind
        [seen(100 + i, 90) for i in range(9)] + ONE,  # cut out by hand, each of its own size
    ],
)
def test_fields_of_one_camera_are_no_issue(fields):
    assert several_cameras(fields) is None


def test_fields_of_two_cameras_are_said_with_their_sizes_and_scales():
    found = several_cameras([*ONE, *[seen(512, 512, 0.1), seen(512, 512, source="assumed")]])
    assert found is not None and found.code == issue_codes.SEVERAL_CAMERAS
    assert "640 x 480 px at 0.25 um a pixel: 3; 512 x 512 px at 0.1 um a pixel: 2" in found.message
    assert "--cases" in found.message
    assert found.data["settings"][1] == {"size": [512, 512], "um_per_px": 0.1, "fields": 2}


def test_two_magnifications_of_one_camera_are_said():
    found = several_cameras([*ONE, *[seen(640, 480, 0.1)] * 2, seen(640, 480, source="assumed")])
    assert found is not None
    assert [(s["um_per_px"], s["fields"]) for s in found.data["settings"]] == [(0.25, 4), (0.1, 2)]
