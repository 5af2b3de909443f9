"""Repair of text labels of every width: what is certain goes, all else stays byte for byte."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from bloodfilm.audit import Options, audit, open_source
from bloodfilm.core import ConfigError, DataError
from bloodfilm.formats import open_dataset
from bloodfilm.repair import check_request
from fixtures.repairing import repair

IMAGE = "7_3_12_400_AML"
WIDTHS = (5, 11, 12, 15, 16)
GOOD = (0.25, 0.5, 0.1, 0.2)


def line(columns, box=GOOD, label=1, codes=None, patch="100 620 50 630"):
    """One line of so many columns; the patch is in the order px1 px2 py1 py2."""
    attributes = {5: 0, 11: 6, 12: 7, 15: 6, 16: 7}[columns]
    words = [str(label), *(f"{v:.6f}" for v in box)]
    words += patch.split() if columns > 12 else []
    words += (codes or ["1"] * 7)[-attributes:] if attributes else []
    return " ".join(words)


def write(root, lines, name=IMAGE, kind="Text", split="train", subset="H_40X_C2", shade=0):
    image = root / subset / "Images" / split / f"{name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (640, 640), (shade, 0, 0)).save(image)
    file = root / subset / "txt_labels" / kind / split / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{one}\n" for one in lines))
    return file


def repair_set(root, out, **options):
    source = open_source(root)
    findings = audit(source, Options(pixels=False))
    before = digest(root)
    done = repair(source, findings, out, **options)
    assert digest(root) == before
    return done


def digest(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return [(str(p), hashlib.sha1(p.read_bytes()).hexdigest()) for p in files]


def faults(columns):
    """Return (lines, what each becomes): `None` for gone, the line itself for untouched."""
    stray = ["1", "1", "7", "1", "1", "1", "1"]
    cured = ["1", "1", "2", "1", "1", "1", "1"]
    cases = [
        (line(columns), line(columns)),
        (line(columns), None),  # an exact repeat
        (line(columns, (0.5, 0.5, 0.1, 0.2)), line(columns, (0.5, 0.5, 0.1, 0.2))),
        (line(columns, (0.505, 0.5, 0.1, 0.2)), None),  # the same cell twice
        (line(columns, (0.7, 0.3, 0.0, 0.2)), None),  # zero size
        (
            line(columns, (0.8, 0.2, 0.005, 0.1)),
            line(columns, (0.8, 0.2, 0.005, 0.1), label=0),
        ),  # a sliver
        (
            line(columns, (0.95, 0.8, 0.2, 0.1)),
            line(columns, (0.925, 0.8, 0.15, 0.1)),
        ),  # over the edge
        (line(columns, (0.3, 0.2, 0.1, 0.1), 9), line(columns, (0.3, 0.2, 0.1, 0.1), 9)),
    ]
    if columns > 5:
        box = (0.6, 0.8, 0.1, 0.1)
        cases.append((line(columns, box, 2, stray), line(columns, box, 2, cured)))
    if columns < 15:
        cases.append((line(columns, (1.2, 0.5, 0.1, 0.1)), None))  # outside
    return cases


@pytest.mark.parametrize("columns", WIDTHS)
def test_every_width_is_repaired_line_by_line(tmp_path, columns):
    cases = faults(columns)
    file = write(tmp_path / "set", [before for before, _ in cases])
    done = repair_set(tmp_path / "set", tmp_path / "out")
    after = (tmp_path / "out" / file.relative_to(tmp_path / "set")).read_text().splitlines()
    assert after == [now for _, now in cases if now is not None]
    changed = sum(before != now for before, now in cases)
    assert len(done.changes) == changed
    log = [json.loads(x) for x in (tmp_path / "out" / "changes.jsonl").read_text().splitlines()]
    for entry in log:
        place = int(entry["annotation"].removeprefix("line ")) - 1
        assert entry["file"] == str(file)
        assert (entry["before"], entry["after"]) == cases[place]
    again = audit(open_source(tmp_path / "out"), Options(pixels=False))
    kinds = {f.code for f in again if f.severity != "info"}
    assert kinds <= {"few-patients"}
    assert open_dataset(tmp_path / "out")[0].cells


def test_cell_size_becomes_four_and_a_class_nobody_knows_is_left(tmp_path):
    codes = ["9", "1", "1", "1", "1", "1", "1"]
    lines = [line(12, codes=codes), line(12, (0.6, 0.5, 0.1, 0.2), 77)]
    file = write(tmp_path / "set", lines)
    done = repair_set(tmp_path / "set", tmp_path / "out")
    after = (tmp_path / "out" / file.relative_to(tmp_path / "set")).read_text().splitlines()
    assert after == [line(12, codes=["4", *codes[1:]]), lines[1]]
    assert [(f.code, f.annotations) for f in done.left if f.annotations] == [
        ("stray-code", ("line 2",))
    ]


@pytest.mark.parametrize("columns", [15, 16])
def test_patches_are_written_in_the_order_of_most_files(tmp_path, columns):
    box, patch = GOOD, "100 200 280 400"
    for number in range(3):  # sure: px1 px2 py1 py2
        write(tmp_path / "set", [line(columns, box, patch="100 200 50 400")], f"7_{number}_1_400_A")
    other = write(tmp_path / "set", [line(columns, box, patch="100 50 200 400")], "7_8_1_400_A")
    both = write(tmp_path / "set", [line(columns, box, patch=patch)], "7_9_1_400_A")
    lost = write(tmp_path / "set", [line(columns, box, patch="400 500 400 500")], "7_10_1_400_A")
    done = repair_set(tmp_path / "set", tmp_path / "out")
    assert [c.action for c in done.changes] == ["patch order"]

    def after(file):
        return (tmp_path / "out" / file.relative_to(tmp_path / "set")).read_text().strip()

    assert after(other) == line(columns, box, patch="100 200 50 400")
    assert after(both) == line(columns, box, patch=patch)
    assert after(lost) == line(columns, box, patch="400 500 400 500")
    assert [(f.code, f.file) for f in done.left if f.code == "patch-order"] == [
        ("patch-order", str(lost))
    ]


def test_each_folder_is_judged_by_its_own_lines(tmp_path):
    """A box repeated in one folder of text labels and not in another loses no line there."""
    one = write(tmp_path / "set", [line(12), line(12)], kind="AttriDet")
    two = write(tmp_path / "set", [line(5)], kind="WBC_Detection")
    repair_set(tmp_path / "set", tmp_path / "out")
    for file, wanted in ((one, [line(12)]), (two, [line(5)])):
        after = tmp_path / "out" / file.relative_to(tmp_path / "set")
        assert after.read_text().splitlines() == wanted


def test_a_patient_of_test_goes_to_test_and_the_copy_reads_so(tmp_path):
    root = tmp_path / "set"
    moved = write(root, [line(12)], "7_1_1_400_AML")
    write(root, [line(12)], "7_2_2_400_AML", split="test", subset="H_100X_C1")
    write(root, [line(12)], "8_1_1_400_AML", shade=40)
    done = repair_set(root, tmp_path / "out")
    assert [(c.action, c.before) for c in done.changes] == [("field moved", f"train/{moved.name}")]
    splits = {f.path.name: f.split for f in open_dataset(tmp_path / "out")}
    assert splits["7_1_1_400_AML.png"] == "test" and splits["8_1_1_400_AML.png"] == "train"
    assert not [f for f in done.left if f.code == "patient-leak"]


def test_pictures_twice_are_listed_once(tmp_path):
    root = tmp_path / "set"
    noise = np.random.default_rng(0).integers(0, 255, (640, 640, 3), dtype=np.uint8)
    for name in ("7_1_1_400_AML", "7_2_2_400_AML"):
        file = write(root, [line(12)], name)
        Image.fromarray(noise).save(root / "H_40X_C2" / "Images" / "train" / f"{file.stem}.png")
    source = open_source(root)
    done = repair(source, audit(source), tmp_path / "out")
    assert [c.action for c in done.changes] == ["field taken out"]
    assert len(list((tmp_path / "out").rglob("*.txt"))) == 1


def test_a_file_that_cannot_be_read_is_copied_and_left(tmp_path):
    root = tmp_path / "set"
    write(root, [line(12)])
    bad = write(root, [], "7_4_2_400_AML")
    bad.write_bytes(b"1 \xe4 0.5")
    odd = write(root, ["1 0.5", "x y"], "7_5_2_400_AML")
    (bad.parent / "notes.md").write_text("mine")
    done = repair_set(root, tmp_path / "out")
    out = tmp_path / "out" / bad.parent.relative_to(root)
    assert (out / bad.name).read_bytes() == bad.read_bytes()
    assert (out / odd.name).read_bytes() == odd.read_bytes()
    assert (out / "notes.md").read_text() == "mine"
    left = [(f.code, f.annotations) for f in done.left if f.code == "unreadable-labels"]
    assert sorted(left) == [
        ("unreadable-labels", ()),
        ("unreadable-labels", ("line 1",)),
        ("unreadable-labels", ("line 2",)),
    ]


def test_a_subset_alone_keeps_its_name(tmp_path):
    """Its name says which microscope it is of."""
    write(tmp_path / "set", [line(12), line(12)])
    repair_set(tmp_path / "set" / "H_40X_C2", tmp_path / "out")
    (field,) = open_dataset(tmp_path / "out")
    assert field.domain.name == "H/40X/C2" and len(field.cells) == 1


def test_a_link_into_the_original_is_no_way_around(tmp_path):
    root = tmp_path / "set"
    write(root, [line(12)])
    (tmp_path / "way").symlink_to(root)
    with pytest.raises(DataError, match="lies in the original"):
        repair(open_source(root), [], tmp_path / "way" / "out")


def test_findings_of_rules_that_are_off_are_left(tmp_path):
    write(tmp_path / "set", [line(12), line(12)])
    done = repair_set(tmp_path / "set", tmp_path / "out", off=["exact-repeats"])
    assert done.changes == []
    assert [f.code for f in done.left if f.annotations] == ["exact-repeat"]


def test_other_formats_are_still_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "a.png")
    (tmp_path / "classes.txt").write_text("WBC\n")
    source = open_source(tmp_path)
    with pytest.raises(ConfigError, match="only labels of LLD's layout"):
        check_request(source.labels, tmp_path, tmp_path / "out")
