"""Masks in runs: what COCO and Label Studio's brush pack, drawn here and read back."""

import json
import tracemalloc
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

from bloodfilm.core import DataError
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset
from bloodfilm.formats.shared import masks
from bloodfilm.formats.shared.masks import (
    MAX_PARTS,
    MaskBudget,
    drawn_runs,
    unpack_brush,
    unpack_coco,
)

WIDTH, HEIGHT = 60, 40


def drawn_masks():
    """Yield masks as people paint them, and hard ones: holes, parts, edges, noise, one pixel."""
    cell = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(cell, (30, 20), (15, 9), 30, 0, 360, 1, -1)
    yield "cell", cell > 0
    ring = cell.copy()
    cv2.circle(ring, (30, 20), 4, 0, -1)
    ring[20, 30] = 1
    yield "ring with an island", ring > 0
    parts = cell.copy()
    cv2.rectangle(parts, (0, 0), (4, 39), 1, -1)
    cv2.circle(parts, (59, 39), 6, 1, -1)
    yield "parts at the edges", parts > 0
    yield "noise", np.random.default_rng(1).random((HEIGHT, WIDTH)) > 0.5
    one = np.zeros((HEIGHT, WIDTH), bool)
    one[39, 59] = True
    yield "last pixel", one
    yield "whole picture", np.ones((HEIGHT, WIDTH), bool)


MASKS = dict(drawn_masks())


def runs_of(mask, order):
    """Return the lengths of the runs of a mask, the first outside."""
    flat = np.concatenate([[False], mask.ravel(order=order), [False]])
    steps = np.flatnonzero(np.diff(flat.astype(np.int8)))
    return np.diff([0, *steps, mask.size]).tolist()[: len(steps) + (steps[-1] < mask.size)]


def pack_coco(counts):
    """Return run lengths as COCO's text."""
    text = ""
    for number, count in enumerate(counts):
        value, more = count - (counts[number - 2] if number > 2 else 0), True
        while more:
            low = value & 31
            value >>= 5
            more = value != (-1 if low & 16 else 0)
            text += chr(48 + (low | 32 * more))
    return text


def pack_brush(alpha, lengths=(3, 4, 8, 16), literal=False):
    """Return the packed bytes of an RGBA picture with that opacity, as Label Studio stores it."""
    rgba = np.zeros((*alpha.shape, 4), np.uint8)
    rgba[..., 3] = alpha
    values = rgba.ravel()
    bits = f"{len(values):032b}00111" + "".join(f"{n - 1:04b}" for n in lengths)
    if literal:
        for start in range(0, len(values), 200):
            some = values[start : start + 200]
            bits += f"010{len(some) - 1:08b}" + "".join(f"{v:08b}" for v in some)
    else:
        edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        for start, end in pairwise(edges):
            for at in range(start, end, 1 << lengths[3]):
                count = min(end - at, 1 << lengths[3])
                index = next(i for i, n in enumerate(lengths) if count <= 1 << n)
                bits += f"1{index:02b}{count - 1:0{lengths[index]}b}{values[at]:08b}"
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8))


def hull(mask):
    """Return the box around a mask's pixels, as OpenCV's contours say it."""
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    return tuple(cv2.boundingRect(np.concatenate(contours)))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_runs_draw_the_mask_and_its_hull(mask):
    for order in "CF":
        drawn = drawn_runs(runs_of(mask, order), (WIDTH, HEIGHT), by_column=order == "F")
        assert drawn.box == hull(mask)
        assert np.array_equal(drawn.region.mask(WIDTH, HEIGHT), mask)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_packed_runs_are_the_runs(mask):
    counts = runs_of(mask, "F")
    assert unpack_coco(pack_coco(counts)) == counts
    for literal in (False, True):
        packed = pack_brush(255 * mask, literal=literal)
        assert unpack_brush(packed, (WIDTH, HEIGHT)) == runs_of(mask, "C")


def coco(folder, *segmentations, size=(WIDTH, HEIGHT), picture=True, **more):
    if picture:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "segmentation": s} | more
        for n, s in enumerate(segmentations, 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "WBC"}],
        "annotations": annotations,
    }
    (folder / "labels.json").write_text(json.dumps(content))
    return open_dataset(folder / "labels.json")


@pytest.mark.parametrize("crowd", [0, 1])
@pytest.mark.parametrize("pack", [list, pack_coco])
def test_coco_masks_are_outlines(tmp_path, crowd, pack):
    masks = list(MASKS.values())
    listed = [{"size": [HEIGHT, WIDTH], "counts": pack(runs_of(m, "F"))} for m in masks]
    dataset = coco(tmp_path, *listed, iscrowd=crowd)
    assert dataset.issues == ()
    for cell, mask in zip(dataset[0].cells, masks, strict=True):
        assert cell.ignore == bool(crowd) and cell.box == hull(mask)
        assert np.array_equal(cell.outline.mask(WIDTH, HEIGHT), mask)


def test_a_coco_mask_is_scaled_with_the_picture(tmp_path):
    mask = MASKS["cell"].repeat(2, 0).repeat(2, 1)
    listed = {"size": [2 * HEIGHT, 2 * WIDTH], "counts": pack_coco(runs_of(mask, "F"))}
    (field,) = coco(tmp_path, listed, size=(2 * WIDTH, 2 * HEIGHT))
    assert field.cells[0].box == hull(MASKS["cell"])
    assert np.array_equal(field.cells[0].outline.mask(WIDTH, HEIGHT), MASKS["cell"])


HOSTILE = {
    "negative": ([HEIGHT, WIDTH], [-5, 2405]),
    "too long": ([HEIGHT, WIDTH], [5, 2400]),
    "too short": ([HEIGHT, WIDTH], [5, 5]),
    "nothing painted": ([HEIGHT, WIDTH], [2400]),
    "nothing": ([HEIGHT, WIDTH], []),
    "turned": ([WIDTH, HEIGHT], [100, 5, 2295]),
    "another size": ([HEIGHT + 1, WIDTH], [100, 5, 2355]),
    "no size": (None, [100, 5, 2295]),
    "no numbers": ([HEIGHT, WIDTH], ["a", None]),
    "fractions": ([HEIGHT, WIDTH], [0.5, 2399.5]),
    "infinite": ([HEIGHT, WIDTH], [1e300, 2]),
    "no counts": ([HEIGHT, WIDTH], None),
    "packed negative": ([HEIGHT, WIDTH], pack_coco([5, -9, 2404])),
    "packed, cut": ([HEIGHT, WIDTH], "ooo"),
    "packed, endless": ([HEIGHT, WIDTH], "o" * 100 + "0"),
    "packed, no such text": ([HEIGHT, WIDTH], "\u00e9\u00e9"),
}


@pytest.mark.parametrize(("size", "counts"), HOSTILE.values(), ids=HOSTILE)
def test_a_coco_mask_that_cannot_be_read_is_counted(tmp_path, size, counts):
    dataset = coco(tmp_path, {"size": size, "counts": counts}, bbox=[5, 5, 10, 10])
    (cell,) = dataset[0].cells
    assert cell.box == (5, 5, 10, 10) and cell.outline is None
    assert "outline as a run-length mask with" in "\n".join(messages(dataset.issues))
    dataset = coco(tmp_path, {"size": size, "counts": counts})
    assert not dataset[0].cells
    assert "nor an outline that can be read" in "\n".join(messages(dataset.issues))


def test_memory_follows_what_was_drawn_not_the_stated_size(tmp_path):
    side = 1_000_000
    counts = [side * 10 + 10, side * side // 2, side * side // 2 - side * 10 - 10]
    listed = {"size": [side, side], "counts": counts}
    tracemalloc.start()
    coco(tmp_path, listed, size=(side, side), picture=False)
    drawn = drawn_runs(counts, (side, side))
    coco(tmp_path, listed, size=(side, side))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert drawn.box == (0, 10, side, side // 2 + 1)
    with pytest.raises(DataError, match="a size that no picture has"):
        drawn_runs([1 << 60], (1 << 30, 1 << 30))


def test_noise_is_no_outline():
    dots = np.zeros((300, 300), bool)
    dots[::2, ::2] = True
    with pytest.raises(DataError, match=f"more than {MAX_PARTS:,} parts"):
        drawn_runs(runs_of(dots, "C"), (300, 300))
    steps = [0, *[1, 10_001] * 5000]
    with pytest.raises(DataError, match="pixels at which it changes"):
        drawn_runs([*steps, 10_000**2 - sum(steps)], (10_000, 10_000))


def test_masks_of_one_file_have_a_budget(tmp_path, monkeypatch):
    side, count = 300, 5
    steps = [0] + [n for _ in range(side) for n in (2, side + 3)]
    runs = [1, *steps[1:-1]]
    runs.append(side * (side + 4) - sum(runs))
    drawn = drawn_runs(runs, (side, side + 4), by_column=True)
    assert drawn.box == (0, 1, side, side + 1)
    grid = (side + 2) * (side + 1)
    monkeypatch.setattr(masks, "GRID_PER_FILE", 3 * grid)
    monkeypatch.setattr(masks, "GRID_PER_BYTE", 0)
    listed = [{"size": [side + 4, side], "counts": pack_coco(runs)}] * count
    Image.new("RGB", (side, side + 4)).save(tmp_path / "a.png")
    dataset = coco(tmp_path, *listed, size=(side, side + 4), picture=False, bbox=list(drawn.box))
    outlined = [cell.outline is not None for cell in dataset[0].cells]
    assert outlined == [True] * 3 + [False] * 2
    (lost,) = [m for m in messages(dataset.issues) if "not kept" in m]
    assert "more pixels than the masks of a file of that size may have of 2 cells" in lost


@pytest.mark.parametrize("polygon", [True, False])
def test_a_bbox_that_contradicts_its_outline_is_reported(tmp_path, polygon):
    x, y, w, h = hull(MASKS["cell"])
    corners = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    drawn = {"size": [HEIGHT, WIDTH], "counts": runs_of(MASKS["cell"], "F")}
    shape = corners if polygon else drawn
    near, far = [x - 1, y, w + 2, h + 1], [1, 1, 9, 8]
    assert coco(tmp_path, shape, bbox=near)[0].cells[0].outline is not None
    assert coco(tmp_path, shape, bbox=near).issues == ()
    dataset = coco(tmp_path, shape, bbox=far)
    (cell,) = dataset[0].cells
    assert cell.box == tuple(far) and cell.outline is None
    (said,) = messages(dataset.issues)
    assert said.startswith("labels.json: annotation 1: bbox (1, 1, 9, 8) and outline")
    with pytest.raises(DataError, match="correct one of them"):
        open_dataset(tmp_path / "labels.json", strict=True)


def test_subsets_as_datumaro_writes_them(tmp_path):
    """`annotations/instances_NAME.json`, `images/NAME/`: names may repeat between subsets."""
    (tmp_path / "annotations").mkdir()
    for number, subset in enumerate(("train", "default", "second_fold")):
        folder = tmp_path / "images" / subset
        folder.mkdir(parents=True)
        Image.new("RGB", (40 + number, 40)).save(folder / "a.png")
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 40 + number, "height": 40}],
            "categories": [{"id": 1, "name": "WBC"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [number, 1, 9, 9]}],
        }
        (tmp_path / "annotations" / f"instances_{subset}.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path)
    assert dataset.issues == ()
    found = {f.path.parent.name: (f.width, f.cells[0].box[0], f.split) for f in dataset}
    assert found == {
        "train": (40, 0, "train"),
        "default": (41, 1, None),
        "second_fold": (42, 2, None),
    }


def test_a_large_file_may_have_more_masks():
    assert MaskBudget(10_000_000).left == 10 * MaskBudget(1_000_000).left
    budget = MaskBudget()
    budget.spend(budget.left)
    with pytest.raises(DataError, match="more pixels"):
        budget.spend(1)


# ---- Label Studio ----------------------------------------------------------------------------


def studio(folder, *packed, size=(WIDTH, HEIGHT), label="WBC"):
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    results = [
        {
            "id": f"r{n}",
            "type": "brushlabels",
            "from_name": "brush",
            "to_name": "image",
            "original_width": size[0],
            "original_height": size[1],
            "value": {"format": "rle", "rle": rle, "brushlabels": [label]},
        }
        for n, rle in enumerate(packed, 1)
    ]
    task = {"data": {"image": "a.png"}, "annotations": [{"result": results}]}
    (folder / "tasks.json").write_text(json.dumps([task]))
    return open_dataset(folder / "tasks.json")


def test_what_the_brush_painted_is_an_outline(tmp_path):
    masks = list(MASKS.values())
    dataset = studio(tmp_path, *(pack_brush(255 * m) for m in masks))
    assert dataset.issues == ()
    for cell, mask in zip(dataset[0].cells, masks, strict=True):
        assert cell.box == hull(mask)
        assert np.array_equal(cell.outline.mask(WIDTH, HEIGHT), mask)


def test_soft_edges_of_the_brush_are_cut_at_half(tmp_path):
    mask = MASKS["cell"]
    soft = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) * 100
    soft[mask] = 200
    (field,) = studio(tmp_path, pack_brush(soft, literal=True))
    assert np.array_equal(field.cells[0].outline.mask(WIDTH, HEIGHT), mask)


def test_a_painted_region_is_where_all_is_known(tmp_path):
    mask = MASKS["ring with an island"]
    (field,) = studio(tmp_path, pack_brush(255 * mask), label="annotated region")
    assert np.array_equal(field.region.mask(WIDTH, HEIGHT), mask) and not field.cells


def test_a_painted_mask_is_scaled_with_the_picture(tmp_path):
    mask = MASKS["cell"].repeat(2, 0).repeat(2, 1)
    (field,) = studio(tmp_path, pack_brush(255 * mask), size=(2 * WIDTH, 2 * HEIGHT))
    assert field.cells[0].box == hull(MASKS["cell"])


GOOD = pack_brush(255 * MASKS["cell"])


@pytest.mark.parametrize(
    ("packed", "size", "said"),
    [
        (GOOD[:-9], (WIDTH, HEIGHT), "counts that end too early"),
        ([], (WIDTH, HEIGHT), "counts that end too early"),
        (GOOD, (2 * WIDTH, 2 * HEIGHT), "runs that do not fill its size"),
        (GOOD, (HEIGHT, WIDTH), "one of 40x60 px, the picture 60x40"),
        (GOOD, (0, HEIGHT), "states no original_width"),
        (GOOD, (-60, -40), "states no original_width"),
        ([*GOOD[:4], 0, *GOOD[5:]], (WIDTH, HEIGHT), "values that are not bytes"),
        ([*GOOD[:-3], 255, 255, 255, 255], (WIDTH, HEIGHT), "its mask has"),
        ([300, -1], (WIDTH, HEIGHT), "counts that cannot be unpacked"),
        (["a"], (WIDTH, HEIGHT), "counts that cannot be unpacked"),
        (pack_brush(0 * MASKS["cell"]), (WIDTH, HEIGHT), "no pixel"),
        ([255] * 4 + [57, 223, 255, 255] * 9, (WIDTH, HEIGHT), "its mask has"),
    ],
)
def test_a_brush_that_cannot_be_read_is_named(tmp_path, packed, size, said):
    dataset = studio(tmp_path, packed, GOOD, size=size)
    assert said in messages(dataset.issues)[0] and "left out" in messages(dataset.issues)[0]
    assert all(c.box == hull(MASKS["cell"]) for c in dataset[0].cells)
