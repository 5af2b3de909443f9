"""One physical cell has one identity over overlapping fields and over subsets, and one split."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core import Cell, Dataset, Domain, Field
from bloodfilm.core.cell_table import PHYSICAL
from bloodfilm.duplicates.identity import identify, with_identities
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.formats.parquet.columns import table_of
from bloodfilm.splits.grouping import group_fields
from bloodfilm.synthetic import SceneSpec, ViewTransform, get_profile, render_field, render_pair

SIDE = 480


def save(path, image):
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


def window(folder, name, photograph, corner, turned=False, patient=None):
    """Cut a field out of a photograph: its cells keep the photograph's names in their labels."""
    image, truth = photograph
    x, y = corner
    part = image[y : y + SIDE, x : x + SIDE]
    cells = []
    for cell in truth.cells:
        if cell.ignore or cell.box is None:
            continue
        left, top, w, h = cell.box[0] - x, cell.box[1] - y, *cell.box[2:]
        if min(left, top) < 0 or max(left + w, top + h) > SIDE:
            continue
        if turned:
            left, top = SIDE - left - w, SIDE - top - h
        cells.append(Cell((left, top, w, h), cell.label, id=f"{name} {cell.id}"))
    pixels = np.ascontiguousarray(part[::-1, ::-1] if turned else part)
    path = save(folder / f"{name}.png", pixels)
    return Field(path, SIDE, SIDE, tuple(cells), domain=Domain("H", 40, "C2"), patient=patient)


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory):
    """Three windows of one photograph, the second turned, and one of another."""
    folder = tmp_path_factory.mktemp("fields")
    looks = [render_field("lld40x-like", seed=s, size=(900, 800)) for s in (5, 6)]
    return Dataset(
        "windows",
        (
            window(folder, "a", looks[0], (10, 20)),
            window(folder, "b", looks[0], (150, 210), turned=True),
            window(folder, "c", looks[0], (330, 40)),
            window(folder, "d", looks[1], (0, 0)),
        ),
    )


@pytest.fixture(scope="module")
def found(overlapping):
    return identify(table_of(overlapping))


def test_boxes_of_one_cell_and_no_others_have_one_identity(overlapping, found):
    named = with_identities(overlapping, found)
    by_identity, by_truth = {}, {}
    for before, after in zip(overlapping, named, strict=True):
        photograph = "other" if before.path.stem == "d" else "one"
        for cell, same in zip(before.cells, after.cells, strict=True):
            assert same.id.startswith(PHYSICAL) and replace(same, id=cell.id) == cell
            true = (photograph, cell.id.split()[1])
            by_truth.setdefault(true, set()).add(same.id)
            by_identity.setdefault(same.id, set()).add(true)
    assert all(len(ids) == 1 for ids in by_truth.values())
    assert all(len(trues) == 1 for trues in by_identity.values())
    assert len(by_truth) < sum(len(f.cells) for f in overlapping)


def test_the_pairs_are_listed_with_turn_and_shift(found):
    pairs = {(o.first, o.second): o for o in found.overlaps}
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}
    assert pairs[0, 1].turned and not pairs[0, 2].turned and pairs[1, 2].turned
    assert pairs[0, 2].shift == (320, 20)


def test_a_split_keeps_fields_of_one_cell_together(overlapping, found):
    assert len(set(group_fields([table_of(overlapping)]).tolist())) == 4
    table = table_of(with_identities(overlapping, found))
    shared = {(o.first, o.second) for o in found.overlaps if found.shared(o.first, o.second)}
    groups = group_fields([table]).tolist()
    assert shared and all(groups[one] == groups[two] for one, two in shared)
    assert groups[3] not in groups[:3]


def test_the_command_lists_and_writes(overlapping, tmp_path):
    pytest.importorskip("pyarrow")
    save_dataset(overlapping, tmp_path / "set.json", "bloodfilm")
    words = ["data", "overlaps", tmp_path / "set.json", "--json", tmp_path / "pairs.json"]
    words += ["--dataset", tmp_path / "named.parquet"]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    assert "a.png = b.png" in result.output and "turned by 180 degrees" in result.output
    content = json.loads((tmp_path / "pairs.json").read_text())
    assert len(content["overlaps"]) == 3 and content["boxes"] > content["physical_cells"]
    assert sum(len(g) - 1 for g in content["cells"]) == (
        content["boxes"] - content["physical_cells"]
    )
    ids = [c.id for f in open_dataset(tmp_path / "named.parquet") for c in f.cells]
    assert len(set(ids)) == content["physical_cells"]


def test_a_cell_has_one_identity_over_subsets(tmp_path):
    looks = [get_profile("lld100x-like"), get_profile("lld40x-like")]
    pair = render_pair(*looks, spec=SceneSpec(whites=3), placement=ViewTransform(), seed=4)
    fields = []
    for (image, truth), domain in zip(
        (pair.first, pair.second), (Domain("H", 100, "C1"), Domain("H", 40, "C2")), strict=True
    ):
        name = f"{domain.magnification:.0f}.png"
        cells = tuple(c for c in truth.cells if not c.ignore)
        height, width = image.shape[:2]
        path = save(tmp_path / name, image)
        more = {"domain": domain, "patient": "1", "meta": {"field": "7"}}
        fields.append(Field(path, width, height, cells, **more))
    dataset = Dataset("retaken", tuple(fields))
    found = identify(table_of(dataset))
    (one,) = found.reacquired
    assert one.aligned and found.shared(0, 1) >= 2
    for group in found.groups():
        assert len({found.table.ids[c] for c in group}) == 1
    assert identify(table_of(dataset), reacquired=False).groups() == []
