"""Four fields of one patient, each photographed at 100x and at 40x."""

import numpy as np
import pytest

from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.scale import measure
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.registration.align import register
from bloodfilm.registration.pairing import by_name
from bloodfilm.registration.view import ImageCandidate


@pytest.fixture(scope="module")
def photographs(real_data):
    folders = [real_data / "lld_pairs" / name for name in ("100x", "40x")]
    if not all(f.is_dir() for f in folders):
        pytest.skip("needs lld_pairs of the real data")
    paths = [find_images([f]) for f in folders]
    assert by_name(*paths) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    images = [[open_image(p) for p in side] for side in paths]
    return [[ImageCandidate(i, canonical_view(i)) for i in side] for side in images]


@pytest.mark.parametrize("number", range(4))
def test_red_cells_found_in_each_alone_meet(photographs, number):
    source, target = (side[number] for side in photographs)
    found = register(source, target)
    assert found.aligned
    assert found.confidence > 0.95
    # The centres of red cells, found by their outlines, had no part in the registration.
    moved = measure(source.image).centres @ found.matrix[:, :2].T + found.matrix[:, 2]
    there = measure(target.image).centres
    gap = np.hypot(*(moved[:, None] - there[None]).transpose(2, 0, 1))
    mutual = gap.argmin(axis=0)[gap.argmin(axis=1)] == np.arange(len(moved))
    near = gap.min(axis=1)[mutual & (gap.min(axis=1) < 20)]
    assert len(near) >= 7
    assert np.median(near) < 4


def test_other_fields_of_the_patient_are_refused(photographs):
    source = photographs[0][0]
    for target in photographs[1][1:]:
        assert not register(source, target).aligned
