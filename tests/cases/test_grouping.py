"""Which images belong to which case: folders, tables, and tables that are wrong."""

import unicodedata
from pathlib import Path

import pytest

from bloodfilm.cases.grouping import group_images
from bloodfilm.core import issue_codes
from bloodfilm.core.errors import DataError
from bloodfilm.imaging.discovery import discover, find_images


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("p/1/a.png", "p/1/deep/b.png", "p/2/a.png", "p/stray.png", "q/2/c.png", "d.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def grouped(given, cases="folders"):
    found = group_images(find_images(given), given, cases)
    return found, {c.name: [found.images[k].as_posix() for k in c.images] for c in found.cases}


def test_sub_folders_are_cases_and_images_beside_them_one_more(place):
    assert grouped(["p"])[1] == {
        "p": ["p/stray.png"],
        "1": ["p/1/a.png", "p/1/deep/b.png"],
        "2": ["p/2/a.png"],
    }


def test_cases_of_one_name_are_told_apart(place):
    assert list(grouped(["p", "q"])[1]) == ["p", "1", "p/2", "q/2"]


def test_files_by_name_and_patterns_are_a_case_per_folder(place):
    assert grouped(["p/*/a.png", "d.png"])[1] == {
        "1": ["p/1/a.png"],
        "2": ["p/2/a.png"],
        place.name: ["d.png"],
    }


def test_everything_is_one_case(place):
    found, cases = grouped(["p"], "one")
    assert list(cases) == ["p"] and len(found.images) == 4
    assert list(grouped(["p", "q"], "one")[1]) == ["case"]


def test_a_folder_of_images_is_one_case(place):
    assert grouped(["p/1/deep"])[1] == {"deep": ["p/1/deep/b.png"]}


def test_several_patients_in_one_folder_are_named(place):
    for name in ("12_01_400_AML.png", "9_02_400_ALL.png"):
        (place / "p" / "1" / name).write_bytes(b"")
    found, _ = grouped(["p"])
    (issue,) = [i for c in found.cases for i in c.issues]
    assert issue.code == issue_codes.SEVERAL_PATIENTS and issue.data["patients"] == ["9", "12"]
    assert "--cases" in issue.message


def test_one_file_in_the_folders_of_two_cases_is_said(place):
    (place / "p" / "2" / "again.png").symlink_to(place / "p" / "1" / "a.png")
    (place / "p" / "2" / "twice.png").symlink_to(place / "p" / "2" / "a.png")
    found = discover(["p"])
    grouping = group_images(found.images, ["p"], repeats=found.repeats)
    (shared,) = grouping.issues
    assert shared.code == issue_codes.SHARED_IMAGE
    assert shared.data == {"images": 1, "cases": ["1", "2"]}
    assert "p/2/again.png, of case 2, is the same file as p/1/a.png" in shared.message
    assert {c.name: len(c.images) for c in grouping.cases} == {"p": 1, "1": 2, "2": 1}


# ---- tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "image,patient\np/1/a.png,Ann\np/2/a.png,Bo\np/1/deep/b.png,Ann\n",
        "\ufeffPatient ID\tFile name\nAnn\tp/1/a.png\nBo\tp/2/a.png\nAnn\tp/1/deep/b.png\n",
        "file;case\r\np\\1\\a.png;Ann\r\np/2/a.png;Bo\r\nb;Ann\r\n",
    ],
)
def test_a_table_says_whose_an_image_is(place, text):
    Path("t.csv").write_text(text, "utf-8", newline="")
    found, cases = grouped(["p"], "t.csv")
    assert cases == {"Ann": ["p/1/a.png", "p/1/deep/b.png"], "Bo": ["p/2/a.png"]}
    (left_out,) = found.issues
    assert left_out.code == issue_codes.IMAGE_NOT_LISTED
    assert left_out.data["images"] == ["p/stray.png"]


def test_accents_are_one_character_or_two_and_paths_those_of_another_machine(place):
    """Systems and spreadsheets compose accents differently."""
    composed, apart = (unicodedata.normalize(form, "Ärzte é") for form in ("NFC", "NFD"))
    folder = place / "p" / apart
    folder.mkdir()
    (folder / f"1 {apart}.png").write_bytes(b"1")
    rows = (
        f"p/{composed}/1 {composed}.png;{composed}",
        f"C:\\films\\p\\1\\a.png;{apart}",
        "D:\\films\\p\\9\\a.png;x",
    )
    Path("t.csv").write_text("\n".join(["image;patient", *rows]), "utf-8")
    found, cases = grouped(["p"], "t.csv")
    assert {k: set(v) for k, v in cases.items()} == {
        composed: {"p/1/a.png", f"p/{apart}/1 {apart}.png"}
    }
    lost = next(i for i in found.issues if i.code == issue_codes.IMAGE_NOT_FOUND)
    assert lost.data["rows"] == ["line 4: D:\\films\\p\\9\\a.png"]


def test_images_are_found_beside_the_table(place):
    (place / "p" / "t.csv").write_text("image,patient\n1/a.png,Ann\n", "utf-8")
    assert grouped(["p"], "p/t.csv")[1] == {"Ann": ["p/1/a.png"]}


def test_what_a_table_says_wrongly_is_named_and_the_rest_goes_on(place):
    rows = (
        "p/1/a.png,Ann",
        "p/1/a.png,Ann",
        "p/2/a.png,Bo",
        "p/2/a.png,Ann",
        "p/none.png,Bo",
        "a.png,Bo",
        "p/stray.png,",
        "p/stray.png",
        "b.png,Bo",
    )
    Path("t.csv").write_text("\n".join(["image,patient", *rows]), "utf-8")
    found, cases = grouped(["p"], "t.csv")
    assert cases == {"Ann": ["p/1/a.png"], "Bo": ["p/1/deep/b.png"]}
    issues = {(i.code, i.severity): i for i in found.issues}
    assert issues[issue_codes.LISTED_TWICE, "warning"].data["lines"] == [2, 3]
    disputed = issues[issue_codes.LISTED_TWICE, "error"]
    assert disputed.data["images"] == ["p/2/a.png (Ann, Bo)"]
    lost = issues[issue_codes.IMAGE_NOT_FOUND, "error"]
    assert lost.data["rows"] == ["line 6: p/none.png", "line 7: a.png (fits 2 images)"]
    assert issues[issue_codes.PATIENT_MISSING, "error"].data["rows"] == [
        "line 8: p/stray.png",
        "line 9: p/stray.png",
    ]
    assert issues[issue_codes.IMAGE_NOT_LISTED, "warning"].data["images"] == ["p/stray.png"]
    assert all("t.csv" in i.message and "\n" not in i.message for i in found.issues)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("image,patient\n", "no rows"),
        ("picture,patient\na,b\n", "no column 'image'"),
        ("image,file,patient\na,b,c\n", "several column 'image'"),
        ("image,name\na,b\n", "no column 'patient'"),
        ("image,patient\nx.png,Ann\n", "names none of the 4 images with a patient: .*x.png"),
        ("image,patient\np/1/a.png,A\np/1/a.png,B\n", r"none of the 4 .*a.png \(A, B\)"),
        (b"image,patient\n\xff,b\n", "byte 14 is not UTF-8"),
        ('image,patient\n"a,b\n', "not a CSV table"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(place, text, says):
    data = text if isinstance(text, bytes) else text.encode()
    Path("t.csv").write_bytes(data)
    with pytest.raises(DataError, match=rf"t\.csv: .*{says}") as error:
        grouped(["p"], "t.csv")
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_there_is_refused(place):
    with pytest.raises(DataError, match=r"t\.csv"):
        grouped(["p"], "t.csv")
