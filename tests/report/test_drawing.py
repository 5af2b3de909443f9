import numpy as np
import pytest

from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.report.drawing import contact_sheet, draw_field, true_size
from bloodfilm.report.html.palette import NEUTRAL, ink, legend


def grey(width=100, height=80):
    return np.full((height, width, 3), 200, dtype=np.uint8)


@pytest.mark.parametrize(
    ("squeeze", "longest", "size"),
    [
        (1.0, None, (100, 80)),
        (1.02, None, (100, 80)),  # within what a measured field strays
        (0.5, None, (200, 80)),
        (2.0, None, (100, 160)),
        (0.5, 100, (100, 40)),
        (float("nan"), None, (100, 80)),
        (0.0, None, (100, 80)),
    ],
)
def test_true_size(squeeze, longest, size):
    assert true_size(100, 80, squeeze, longest) == size


def test_draw_field_draws_at_the_box_and_nowhere_far(cell):
    image = grey()
    drawn = draw_field(image, [cell(box=(20.0, 40.0, 30.0, 20.0))], squeeze=0.5, names=False)
    assert drawn.shape == (80, 200, 3) and drawn.dtype == np.uint8
    assert (image == 200).all()  # the original stays as it was
    colour = ink("lymphocyte", DEFAULT_TAXONOMY).rgb
    assert tuple(drawn[50, 40]) == colour and tuple(drawn[50, 100]) == colour
    assert (drawn[:, 110:] == 200).all() and (drawn[:30] == 200).all()


def test_undecided_is_dashed(cell):
    box = (10.0, 10.0, 60.0, 60.0)
    whole, dashed = (
        draw_field(grey(), [cell(label, box=box)], names=False)
        for label in ("segmented neutrophil", "neutrophil")
    )
    colour = np.array(ink("neutrophil", DEFAULT_TAXONOMY).rgb)
    coloured = [int((picture == colour).all(axis=2).sum()) for picture in (whole, dashed)]
    assert 0.3 * coloured[0] < coloured[1] < 0.8 * coloured[0]


def test_names_are_written_inside_the_picture(cell):
    cells = [cell(box=(95.0, 0.0, 5.0, 5.0)), cell(box=(0.0, 75.0, 5.0, 5.0))]
    named, bare = draw_field(grey(), cells), draw_field(grey(), cells, names=False)
    assert (named != bare).any()


def test_contact_sheet_shows_every_crop():
    crops = [np.full((64, 64, 3), v, dtype=np.uint8) for v in (10, 20, 30, 40)]
    sheet = contact_sheet(crops, ["a", "ü 白", "", "x" * 90], columns=3, side=64)
    assert all(int((sheet == v).all(axis=2).sum()) >= 64 * 64 for v in (10, 20, 30, 40))
    assert contact_sheet([], []).shape[2] == 3
    with pytest.raises(ValueError, match="captions"):
        contact_sheet(crops, ["a"])


def test_colours_differ_between_families():
    families = ["monoblast", "myelocyte", "neutrophil", "eosinophil", "basophil", "monocyte"]
    families += ["lymphocyte", "erythroblast"]
    assert len({ink(name, DEFAULT_TAXONOMY).colour for name in families}) == len(families)
    assert ink("no such name", DEFAULT_TAXONOMY).dashed
    assert ink("white cell", DEFAULT_TAXONOMY).colour == NEUTRAL
    names = [name for name, _ in legend({"monoblast", "neutrophil"}, DEFAULT_TAXONOMY)]
    assert names == ["neutrophil", "blast or blast equivalent", "dashed: not named more closely"]
