"""Leaks of patients, re-acquisitions, lonely slides: over several data sets at once."""

from audit.tables import codes, row, table
from bloodfilm.audit import Options, audit, groups
from bloodfilm.core import Cell, Dataset, Domain, Field
from bloodfilm.core.dataset_codes import UNUSABLE_SHAPE, dataset_issue

CELL = ((10.0, 10.0, 50.0, 60.0), "monoblast")


def test_a_patient_in_two_splits_of_two_sets():
    one = table((row("a/6_1.png", "6", "train"), [CELL]))
    two = table((row("b/6_1.png", "6", "test", subset="H_100X_C1"), [CELL]))
    (found,) = groups.patient_leaks([one, two])
    assert found.severity == "error"
    assert "patient 6" in found.message and "H/100X/C1" in found.message
    assert {found.file, *found.others} == {"a/6_1.png", "b/6_1.png"}


def test_one_number_in_two_data_sets_is_two_patients():
    one = table((row("a/6_1.png", "6", "train"), [CELL]), name="LLD")
    two = table((row("b/6_1.png", "6", "test"), [CELL]), name="another")
    assert list(groups.patient_leaks([one, two])) == []


def test_reacquisitions_are_counted():
    t = table(
        (row("a.png", number="3"), [CELL]),
        (row("b.png", subset="H_100X_C1", number="3"), [CELL]),
        (row("c.png", number="4"), [CELL]),
    )
    (found,) = groups.reacquisitions([t])
    assert found.message.startswith("1 fields")


def test_one_slide_with_most_of_a_class():
    many = [((float(i), 10.0, 50.0, 60.0), "lymphoblast") for i in range(40)]
    t = table(
        (row("a.png", "1"), many), (row("b.png", "2"), many[:3]), (row("c.png", "3"), many[:3])
    )
    (found,) = groups.one_slide([t])
    assert "patient 1 holds 87%" in found.message


def test_few_patients_names_the_diagnoses():
    t = table((row("a.png", "1", diagnosis="CLL"), [CELL]))
    (found,) = groups.few_patients([t])
    assert "CLL in train: 1" in found.message


def test_a_dataset_of_any_format_can_be_audited(tmp_path):
    box = (10.0, 10.0, 40.0, 40.0)
    cells = (Cell(box, "neutrophil"), Cell(box, "neutrophil"))
    fields = (
        Field(tmp_path / "a.png", 100, 100, cells, domain=Domain("H"), patient="1", split="train"),
        Field(tmp_path / "b.png", 100, 100, (), domain=Domain("H"), patient="1", split="test"),
    )
    left_out = dataset_issue(UNUSABLE_SHAPE, "b.png: box 3 left out", file="b.png")
    found = audit(Dataset("mine", fields, issues=(left_out,)), Options(False))
    assert {
        ("patient-leak", "error"),
        ("exact-repeat", "error"),
        ("reader-problem", "warning"),
    } <= set(codes(found))
    assert sum(f.code == "missing-image" for f in found) == 2
    assert [f.severity for f in found] == sorted(
        (f.severity for f in found), key=["error", "warning", "info"].index
    )


def test_many_missing_images_of_a_folder_are_one_finding_that_names_them(tmp_path):
    (tmp_path / "there.png").touch()
    names = ["there.png", *(f"{i}.png" for i in range(groups.MAX_LISTED_MISSING + 1))]
    t = table(*((row(str(tmp_path / name), "1"), []) for name in names))
    (found,) = groups.missing_images([t])
    assert found.file == str(tmp_path) and "51 of this folder's 52 images" in found.message
    assert len(found.others) == 51 and str(tmp_path / "there.png") not in found.others
