"""What is known to be wrong with the real LLD copy is found; what is right is left alone."""

from pathlib import Path

import numpy as np
import pytest

from bloodfilm.audit import Options, audit, nuclei, open_source
from bloodfilm.audit.image_statistics import FieldStatistics, Survey
from bloodfilm.duplicates.fingerprints import to_grey
from bloodfilm.duplicates.overlaps import verify
from bloodfilm.imaging.sources.image_file import open_image


@pytest.fixture(scope="module")
def lld(real_data):
    return open_source(real_data / "lld40x")


@pytest.fixture(scope="module")
def labels(lld):
    return audit(lld, Options(pixels=False))


def test_the_box_with_two_classes(labels):
    (found,) = [f for f in labels if f.code == "two-classes"]
    assert Path(found.file).stem == "27_13_13_400_CML"
    assert found.severity == "error"


def test_the_stray_size_codes(labels):
    found = [f for f in labels if f.code == "stray-code"]
    assert len(found) == 2
    assert all("cell_size has code 3" in f.message for f in found)


def test_no_other_label_is_called_an_error(labels):
    assert {f.code for f in labels if f.severity == "error"} == {"two-classes", "stray-code"}


def _sample(lld, every=20):
    found = Survey(lld.table)
    for number in range(0, len(lld.table.rows), every):
        found.fields[number] = FieldStatistics.of_image(open_image(lld.table.rows[number].path))
    return found


def test_real_boxes_hold_nuclei_and_boxes_on_red_cells_do_not(lld):
    found = _sample(lld)
    chromatins = nuclei.find_chromatin(found)
    assert len(chromatins) == len(found.fields)
    values = np.concatenate([c.boxes / c.threshold for c in chromatins.values()])
    assert np.mean(values < 1) <= 0.01
    rng = np.random.default_rng(0)
    on_red = []
    for number, chromatin in chromatins.items():
        taken = lld.table.box[lld.table.cells_of(number)]
        density = found.fields[number].density[..., 1] / 64
        tone = float(found.fields[number].tone[1])
        for x, y in rng.uniform(20, [580, 550], (60, 2)):
            box = np.array([[x, y, 40.0, 70.0]])
            inside = density[int(y / 4) : int(y / 4) + 17, int(x / 4) : int(x / 4) + 10]
            clear = not (
                (taken[:, 0] < x + 50)
                & (taken[:, 0] + taken[:, 2] > x - 10)
                & (taken[:, 1] < y + 80)
                & (taken[:, 1] + taken[:, 3] > y - 10)
            ).any()
            # Over red cells: most of the window as dark as they are, none of it much darker.
            if clear and np.median(inside) > 0.6 * tone and np.max(inside) < 1.5 * tone:
                on_red.append(
                    float(nuclei.box_likeness(chromatin.likeness, box)[0]) / chromatin.threshold
                )
    assert len(on_red) > 30
    assert np.mean(np.array(on_red) < 1) > 0.9


@pytest.mark.parametrize(
    ("one", "two", "turned", "shift"),
    [
        ("12_2_2_400_AML", "12_3_2_400_AML", False, (28, -324)),
        ("32_1_63_400_CLL", "32_30_63_400_CLL", True, (-535, -160)),
        ("12_61_36_400_AML", "12_62_75_400_AML", False, (28, -581)),
    ],
)
def test_known_overlaps(real_data, one, two, turned, shift):
    from bloodfilm.duplicates.overlaps import find_overlaps, reduced, small_picture

    folder = real_data / "lld40x" / "H_40X_C2" / "Images" / "train"
    pictures = [to_grey(open_image(folder / f"{name}.webp")) for name in (one, two)]
    (found,) = find_overlaps(
        [small_picture(p) for p in pictures],
        pictures.__getitem__,
        [reduced(p) for p in pictures].__getitem__,
        (0, 1),
    )
    assert (found.shift, found.turned) == (shift, turned)
    assert found.ncc >= 0.989
    rough = [reduced(p) for p in pictures]
    assert not verify(pictures.__getitem__, rough.__getitem__, (0, 1), not turned, (0.0, 0.0))
