"""A picture that was analysed before in a run is named, and its cells do not count again."""

import cv2
import numpy as np
import pytest

import bloodfilm
from bloodfilm.core import issue_codes
from bloodfilm.evaluation.differential import differential
from bloodfilm.inference.repeats import same_places
from fake_bundle import draw, lay_out, save, write_bundle

SIZE = (480, 320)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bloodfilm.load_model(write_bundle(tmp_path_factory.mktemp("bundle")))


def field(*nucleated):
    """Draw a field with nucleated cells at some places, the red cells as they fall around them."""
    discs = lay_out(120.0, 80.0, [(x, y, "monocyte") for x, y in nucleated])
    rng = np.random.default_rng(len(nucleated))
    return draw([d for d in discs if d.diameter > 10 or rng.random() < 0.8], SIZE)


def repeats(run):
    found = {}
    for result in run:
        for issue in result.issues:
            if issue.code == issue_codes.DUPLICATE_IMAGE:
                found[result.path.rpartition("/")[2]] = issue.data["same"]
                assert issue.data["path"].endswith("a.png") and not result.countable
    return found


def test_one_picture_in_several_files_counts_once(tmp_path, model):
    image = field((60.0, 40.0), (30.0, 30.0))
    save(tmp_path / "a.png", image)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    bgr = image[..., ::-1]
    for name in ("c.bmp", "d.tif"):
        cv2.imwrite(str(tmp_path / name), bgr)
    cv2.imwrite(str(tmp_path / "e.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
    save(tmp_path / "f.png", field((60.0, 40.0), (30.0, 30.0), (90.0, 50.0)))
    run = bloodfilm.analyze(tmp_path, model)
    same = {"b.png": "file", "c.bmp": "pixels", "d.tif": "pixels", "e.jpg": "appearance"}
    assert repeats(run) == same
    count = differential(run)
    assert count.nucleated == 5 and count.fields_left_out == 4
    ids = [cell.id for result in run for cell in result.cells]
    assert len(ids) == len(set(ids))
    stored = bloodfilm.analyze(tmp_path, model, out=tmp_path / "out", report=False)
    assert repeats(stored) == same


def test_a_turned_or_mirrored_copy_counts_once_and_an_unsharp_plane_where_it_is_sharp(
    tmp_path, model
):
    image = field((60.0, 40.0), (30.0, 22.0))
    folder = tmp_path / "film"
    blurred = cv2.GaussianBlur(image, (0, 0), 1.0)  # the first file, and not the one to read
    turned = {
        "b.png": image,
        "c.png": image[:, ::-1],
        "d.png": image[::-1],
        "e.png": image.transpose(1, 0, 2),
        "f.png": np.rot90(image, 3)[:, ::-1],
    }
    for name, picture in {"a.png": blurred, **turned}.items():
        save(folder / name, np.ascontiguousarray(picture))
    run = bloodfilm.analyze(folder, model)
    (case,) = run.cases
    said = {
        run.fields[p.number].path.rpartition("/")[2]: (p.counted, tuple(i.code for i in p.issues))
        for p in case.placements
    }
    assert said["a.png"] == (False, (issue_codes.SAME_PLACE,))
    assert said["b.png"] == (True, ())
    assert {said[name] for name in list(turned)[1:]} == {(False, (issue_codes.DUPLICATE_IMAGE,))}
    assert len(case.cells) == 2 and all(c.counted and len(c.views) == 6 for c in case.cells)
    assert {run.fields[c.shown.field].path for c in case.cells} == {str(folder / "b.png")}


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ([], [], True),
        ([(0.1, 0.1, 0.1, 0.1)], [], False),
        ([(0.1, 0.1, 0.1, 0.1)], [(0.11, 0.1, 0.1, 0.1)], True),
        ([(0.1, 0.1, 0.1, 0.1)], [(0.3, 0.1, 0.1, 0.1)], False),
        ([(n / 10, 0.1, 0.05, 0.05) for n in range(8)], [(0.1, 0.1, 0.05, 0.05)], False),
        (
            [(n / 10, 0.1, 0.05, 0.05) for n in range(8)],
            [(n / 10, 0.1, 0.05, 0.05) for n in range(7)],
            True,
        ),
    ],
)
def test_cells_lie_in_the_same_places(one, two, same):
    boxes = [np.array(b, dtype=float).reshape(-1, 4) for b in (one, two)]
    assert same_places(*boxes) is same and same_places(*boxes[::-1]) is same
