"""`bloodfilm learn` from drawn cells to a bundle: learnt, refused, and what cannot be used."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import bloodfilm
from bloodfilm.cli.app import app
from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.progress import NoProgress
from bloodfilm.export.class_graph import Describer
from bloodfilm.export.exemplars import (
    EXEMPLARS_FILE,
    collect_exemplars,
    read_exemplars,
    set_exemplars,
)
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.workflows.learn import LearnJob, learn
from bloodfilm.workflows.learn_cells import CellSource
from fake_bundle import dark, draw, lay_out, save
from learnable import UM, draw_cell, write_learnable
from tiny import write_set

pytestmark = pytest.mark.slow
NEW, GROUP = "hairy cell", "lymphocyte lineage"
GREEN = (60, 200, 90)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle that describes cells of the data set that it says it was trained on."""
    root = tmp_path_factory.mktemp("known")
    write_set(root / "discs", 8, 6)
    folder = write_learnable(root / "bundle")
    set_exemplars(folder, collect_exemplars(load_bundle(folder), root))
    return folder


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Twelve pictures of a green cell, and six of a known one from the same place."""
    root = tmp_path_factory.mktemp("cells")
    for number in range(12):
        draw_cell(root / "Hairy_Cell" / f"{number}.png", GREEN, number)
    for number in range(6):
        draw_cell(root / "LYT" / f"{number}.png", dark("lymphocyte"), number)
    return root


def job(bundle, cells, out, um_per_px=UM, **more):
    source = CellSource(path=cells, um_per_px=um_per_px)
    return LearnJob(bundle=bundle, cells=source, out=out, **{"new": {NEW: GROUP}, **more})


@pytest.fixture(scope="module")
def learnt(bundle, cells, tmp_path_factory):
    out = tmp_path_factory.mktemp("learnt") / "new"
    return learn(job(bundle, cells, out, licence="CC0-1.0", max_loss=0.5))


def test_a_class_is_learnt_and_the_networks_stay(bundle, cells, learnt, tmp_path):
    assert learnt.accepted, learnt.reasons
    parent, child = bloodfilm.load_bundle(bundle), bloodfilm.load_bundle(learnt.out)
    assert (parent.path / "detector.onnx").read_bytes() == (
        child.path / "detector.onnx"
    ).read_bytes()
    assert child.taxonomy.parent(NEW) == GROUP and NEW in child.manifest.trained_leaves
    assert child.manifest.licence == "CC0-1.0" and NEW in child.manifest.name
    crops = np.stack([np.full((128, 128, 3), v, np.uint8) for v in (40, 120, 200)])
    one, two = (Describer(b).describe(crops).outputs for b in (parent, child))
    places = [child.manifest.leaves.index(leaf) for leaf in parent.manifest.leaves]
    assert (two["classes"][:, places] == one["classes"]).all()
    assert (two["attributes"] == one["attributes"]).all()
    report = json.loads((learnt.out / "learning.json").read_text())
    assert report["accepted"] and report["cells"]["counts"] == {NEW: 12, "lymphocyte": 6}
    assert report["parent"]["sha256"] == parent.sha256
    assert len(report["files"]) == 18 and "Hairy_Cell/0.png" in report["files"]
    (record,) = child.manifest.training["learnt"]
    assert record["classes"][NEW]["cells"] == 12 and "files" not in record
    card = (learnt.out / "MODEL_CARD.md").read_text()
    assert "## Classes added" in card and f"| {NEW} | {GROUP} | 12 |" in card


def test_the_cells_learnt_from_are_described_for_what_is_learnt_next(
    bundle, learnt, cells, tmp_path
):
    before, after = (read_exemplars(load_bundle(place)) for place in (bundle, learnt.out))
    assert after.counts()[NEW] == 12
    assert after.counts()["lymphocyte"] == before.counts()["lymphocyte"] + 6
    for number in range(8):
        draw_cell(tmp_path / "cells" / "monoblast" / f"{number}.png", (200, 60, 60), number)
    done = learn(job(learnt.out, tmp_path / "cells", tmp_path / "next", new={}, max_loss=1 - 1e-9))
    # A class that the tree has and that nothing had taught: no --new. A loss is no reason here.
    assert not [r for r in done.reasons if "balanced" in r]
    assert list(done.report["classes"]) == ["monoblast"]
    assert set(done.report["known"]["labels"]) >= {NEW, "lymphocyte"}


def test_analysis_counts_the_new_class(learnt, tmp_path):
    model = bloodfilm.load_model(learnt.out)
    places = [(18.0, 26.0, "lymphocyte"), (52.0, 22.0, "monocyte")]
    save(
        tmp_path / "field.png", draw(lay_out(70, 52, places, step=13.0, keep_away=13.0), (280, 208))
    )
    run = bloodfilm.analyze(tmp_path / "field.png", model)
    (field,) = run
    cells = [c for c in field.cells if c.object_type == "nucleated cell"]
    assert len(cells) == 2 and all(NEW in c.probabilities for c in cells)
    assert bloodfilm.differential(run).white <= 2


def test_a_run_gives_the_same_bundle_again(bundle, cells, learnt, tmp_path):
    again = learn(job(bundle, cells, tmp_path / "again", licence="CC0-1.0", max_loss=0.5))
    for name in ("reader.onnx", EXEMPLARS_FILE, "learning.json"):
        assert (again.out / name).read_bytes() == (learnt.out / name).read_bytes()


def test_where_it_would_harm_nothing_is_written_and_one_line_says_why(
    bundle, cells, tmp_path, monkeypatch
):
    from bloodfilm.workflows import learn as module

    monkeypatch.setattr(module, "reasons_against", lambda *_: ["it would harm"])
    before = {p.name: p.read_bytes() for p in bundle.iterdir()}
    out = tmp_path / "new"
    command = ["learn", str(bundle), str(cells), "--new", f"{NEW}={GROUP}", "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--um-per-px", str(UM)])
    assert result.exit_code == 2
    assert "not learnt" in result.stderr and "it would harm" in result.stderr
    assert f"{NEW}, 12 cells" in result.stdout
    assert not out.exists() and {p.name: p.read_bytes() for p in bundle.iterdir()} == before


def test_a_labelled_set_is_checked_without_the_pictures_learnt_from(bundle, cells, tmp_path):
    root = tmp_path / "check"
    for number in range(4):
        draw_cell(root / "lymphocyte" / f"c{number}.png", dark("lymphocyte"), 100 + number)
    shutil.copy(cells / "LYT" / "0.png", root / "lymphocyte" / "same.png")
    said = []

    class Listener(NoProgress):
        def report(self, issue):
            said.append(str(issue))

    work = job(bundle, cells, tmp_path / "a", checks=[root], max_loss=0.5)
    with pytest.raises(BloodfilmError, match=r"c0\.png: nothing tells its pixel size"):
        learn(work)
    done = learn(replace(work, check_um_per_px=UM), Listener())
    (found,) = done.report["checks"].values()
    assert list(found["labels"]) == ["lymphocyte"]
    assert any("1 cells in pictures that were learnt from" in text for text in said)


def test_pictures_that_cannot_be_used_are_counted(bundle, cells, tmp_path):
    root = tmp_path / "cells"
    shutil.copytree(cells, root)
    Image.new("RGB", (3, 3)).save(root / "LYT" / "tiny.png")
    shutil.copy(root / "LYT" / "1.png", root / "LYT" / "again.png")
    (root / "LYT" / "broken.png").write_bytes(b"no picture")
    draw_cell(root / "Hairy cell" / "13.png", GREEN, 13)
    draw_cell(root / "ignore" / "0.png", GREEN, 50)
    done = learn(job(bundle, root, tmp_path / "new", max_loss=0.5))
    assert done.report["cells"]["counts"] == {NEW: 13, "lymphocyte": 6}  # two spellings, one class
    assert done.report["cells"]["left_out"] == {
        "to be ignored": 1,
        "that are there twice": 1,
        "in pictures that cannot be read": 2,
    }


def test_patients_are_held_out_whole_where_folders_name_them(bundle, tmp_path):
    root = tmp_path / "cells"
    for patient in range(4):
        for number in range(3):
            seed = 10 * patient + number
            draw_cell(root / f"patient {patient}" / NEW / f"{number}.png", GREEN, seed)
            draw_cell(
                root / f"patient {patient}" / "LYT" / f"{number}.png", dark("lymphocyte"), seed
            )
    done = learn(job(bundle, root, tmp_path / "new", max_loss=0.5))
    assert done.report["by_group"] and done.report["classes"][NEW]["groups"] == 4


def alone(root, name, count, colour=GREEN):
    for number in range(count):
        draw_cell(root / name / f"{number}.png", colour, number)
    return root


def conflicting(root):
    alone(root, NEW, 6)
    (root / "LYT").mkdir()
    shutil.copy(root / NEW / "0.png", root / "LYT" / "x.png")
    return root


@pytest.mark.parametrize(
    ("make", "change", "complaint"),
    [
        (lambda r: alone(r, NEW, 1), {}, "1 cells of 'hairy cell'; a class is learnt from 5"),
        (
            lambda r: alone(r, NEW, 6),
            {"um_per_px": None},
            "nothing tells its pixel size.*--um-per-px",
        ),
        (
            lambda r: alone(alone(r, NEW, 6), "hary cell", 2),
            {},
            r"'hary cell' \(2 cells\); add .*--new",
        ),
        (lambda r: alone(r, "hary cell", 6), {}, r"'hary cell' \(6 cells\)"),
        (
            lambda r: alone(r, "LYT", 6),
            {"new": {}},
            "the bundle knows all classes there: lymphocyte",
        ),
        (lambda r: alone(r, "LYT", 6), {}, "0 cells of 'hairy cell'"),
        (conflicting, {}, "the same picture as .*, there a .*, here a .*; keep one"),
        (
            lambda r: alone(r, NEW, 6),
            {"new": {NEW: "lymphocyte"}},
            "is a class itself.*put the new one",
        ),
        (lambda r: alone(r, NEW, 6), {"new": {NEW: "plants"}}, "no group of classes 'plants'"),
        (lambda r: alone(r, NEW, 6), {"new": {NEW: "red cell"}}, "red cell"),
        (
            lambda r: alone(r, NEW, 6),
            {"new": {"LYT": GROUP}},
            "that the bundle knows; leave --new out",
        ),
        (
            lambda r: alone(r, NEW, 6),
            {"new": {"monoblast": GROUP}},
            "has not learnt; leave --new out",
        ),
        (lambda r: alone(r, NEW, 6), {"new": {"neutrophil": GROUP}}, "group of classes"),
        (lambda r: alone(r, NEW, 6), {"new": {"ignore": GROUP}}, "call cells without a class so"),
        (lambda r: alone(r, NEW, 6), {"new": {NEW: GROUP, "hairy_cell": GROUP}}, "are one name"),
        (lambda r: alone(r, NEW, 6), {"blasts": ["monoblast"]}, "none of the new classes"),
        (lambda r: alone(r, NEW, 6), {"priors": {"lymphocyte": 0.1}}, "needs one of hairy cell"),
    ],
)
def test_what_cannot_be_done_is_one_line(bundle, tmp_path, make, change, complaint):
    root = make(tmp_path / "cells")
    with pytest.raises(BloodfilmError, match=complaint) as caught:
        learn(job(bundle, root, tmp_path / "new", **change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_folders_with_something_in_them_are_left_alone(bundle, cells, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BloodfilmError, match=r"holds notes\.txt already"):
        learn(job(bundle, cells, tmp_path))
    with pytest.raises(BloodfilmError, match="is the bundle itself"):
        learn(job(bundle, cells, bundle))


def test_a_bundle_without_exemplars_is_refused(cells, tmp_path):
    plain = write_learnable(tmp_path / "plain")
    with pytest.raises(BloodfilmError, match=r"would forget what it knows.*bloodfilm exemplars"):
        learn(job(plain, cells, tmp_path / "new"))


def test_a_box_of_two_classes_is_refused_by_its_place(bundle, tmp_path):
    """One cell of a field, marked twice: the message names the box, not one file twice."""
    pixels = np.full((200, 200, 3), 255, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    box = (60.0, 50.0, 80.0, 70.0)
    cells = tuple(bloodfilm.Cell(box, name) for name in ("lymphocyte", "monocyte"))
    field = bloodfilm.Field(tmp_path / "a.png", 200, 200, cells)
    bloodfilm.save_dataset(
        bloodfilm.Dataset("twice", (field,)), tmp_path / "marked.json", "bloodfilm"
    )
    source = CellSource(path=tmp_path / "marked.json", um_per_px=UM)
    asked = LearnJob(bundle=bundle, cells=source, out=tmp_path / "out", new={})
    with pytest.raises(BloodfilmError, match=r"a\.png: the box at \(60, 50\), 80 x 70 px, is"):
        learn(asked, NoProgress())
