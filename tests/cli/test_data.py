"""`bloodfilm data`: what a person sees, and what lands on disk."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.cli.data import READABLE, WRITABLE
from bloodfilm.core import Cell, Dataset, Domain, Field, Region
from bloodfilm.core.dataset_codes import UNUSABLE_SHAPE, dataset_issue
from bloodfilm.formats import READERS, TABLES, WRITERS, open_dataset, save_dataset


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def drawn(tmp_path):
    """A small native set with images, of two patients; returns its folder."""
    place = tmp_path / "pixels"
    place.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64)).save(place / name)
    first = (
        Cell((1, 1, 9, 9), "monocyte", {"nuclear_shape": "regular"}),
        Cell((20, 1, 9, 9), "red cell"),
        Cell((40, 1, 9, 9), None, ignore=True),
    )
    second = (Cell((1, 1, 9, 9), "myeloblast"), Cell((9, 9, 9, 9), "monocyte"))
    domain = Domain("H", 40, "C2")
    half = Region.rect(0, 0, 32, 64)
    fields = (
        Field(place / "a.png", 64, 64, first, half, domain, patient="10", split="train"),
        Field(place / "b.png", 64, 64, second, patient="9", split="test", diagnosis="AML"),
    )
    dataset = Dataset(
        "drawn", fields, issues=(dataset_issue(UNUSABLE_SHAPE, "one thing is wrong"),)
    )
    save_dataset(dataset, tmp_path / "set", "bloodfilm")
    return tmp_path / "set"


def test_help_names_every_format():
    assert READABLE.split(", ") == sorted(READERS)
    assert WRITABLE.split(", ") == sorted({*WRITERS, *TABLES})


def test_info_counts(drawn):
    result = run("info", drawn, "--json")
    assert result.exit_code == 0
    info = json.loads(result.output)
    assert (info["format"], info["fields"], info["cells"], info["ignored"]) == (
        "bloodfilm",
        2,
        5,
        1,
    )
    assert list(info["classes"].items()) == [("myeloblast", 1), ("monocyte", 2), ("red cell", 1)]
    shape = info["attributes"]["nuclear_shape"]
    assert shape["known"] == 1 and shape["share"] == pytest.approx(1 / 3)
    assert info["splits"] == {"train": 1, "test": 1}
    assert list(info["patients"]) == ["9", "10"]
    assert info["domains"] == {"H/40X/C2": 1, "unknown": 1}
    assert info["region_share"] == pytest.approx(0.75)
    assert [found["message"] for found in info["issues"]] == ["one thing is wrong"]


def test_info_reads_well(drawn):
    said = run("info", drawn).output
    assert "patients    2: 9 (1), 10 (1)" in said
    assert "known area  75.0% of a field" in said
    assert said.index("myeloblast") < said.index("monocyte") < said.index("red cell")
    assert "issues: 1\n  one thing is wrong" in said


def test_convert_says_what_was_lost(drawn, tmp_path):
    target = tmp_path / "yolo"
    words = ("convert", drawn, target, "--to", "yolo", "--copy-images")
    assert run(*words).exit_code == 2 and not target.exists()  # they lie beside the set
    result = run(*words, "--allow-outside")
    assert result.exit_code == 0
    assert f"wrote {target}: 2 fields as yolo" in result.output
    assert "left out: attributes of 1 cells" in result.output
    assert "left out: patient of 2 fields" in result.output
    assert "1 issue in" in result.output
    assert len(open_dataset(target)[0].cells) == 3


def test_convert_there_and_back_loses_nothing(drawn, tmp_path):
    before = open_dataset(drawn).fields
    for format, name in (("coco", "a.json"), ("index", "b.parquet"), ("bloodfilm", "c.json")):
        if format == "index":
            pytest.importorskip("pyarrow")
        result = run("convert", drawn, tmp_path / name, "--to", format)
        assert result.exit_code == 0 and "left out" not in result.output
        drawn = tmp_path / name
        assert open_dataset(drawn).fields == before


def test_convert_to_text_labels(drawn, tmp_path):
    words = ("--to", "lld", "--columns", 12, "--link", "--allow-outside")
    result = run("convert", drawn, tmp_path / "x", *words)
    assert result.exit_code == 0
    assert (tmp_path / "x" / "txt_labels" / "AttriDet" / "train" / "a.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["info", "nowhere"], "nowhere: does not exist"),
        (["info", "SET", "--format", "xml"], "no format 'xml'"),
        (["info", "SET", "--labels", "complete"], "format bloodfilm has no option 'labels'"),
        (["convert", "SET", "SET", "--to", "bloodfilm"], "allow to overwrite"),
        (["convert", "SET", "x", "--to", "folder"], "copy or link them"),
        (["convert", "SET", "x", "--to", "yolo", "--link", "--copy-images"], "exclude each other"),
    ],
)
def test_what_cannot_be_done_is_one_line(drawn, tmp_path, monkeypatch, arguments, what):
    monkeypatch.chdir(tmp_path)
    result = run(*(drawn if a == "SET" else a for a in arguments))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and what in line


def test_info_on_real_lld(real_data):
    info = json.loads(run("info", real_data / "lld40x", "--json").output)
    assert (info["fields"], info["cells"]) == (272, 1373)
    assert info["attributes"]["cytoplasmic_vacuoles"]["known"] == 0
    assert list(info["patients"]) == ["1", "12", "24", "27", "32"]


def test_strange_classes_are_listed_drafted_and_mapped(tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(image)
    cell = Cell((1, 1, 9, 9), None, source_label="Hairy cell")
    save_dataset(Dataset("odd", (Field(image, 64, 64, (cell,)),)), tmp_path / "set.json", "coco")
    done = run("info", tmp_path / "set.json", "--draft-classes", tmp_path / "map.toml")
    assert done.exit_code == 0 and "Hairy cell" in done.output
    text = (tmp_path / "map.toml").read_text()
    assert '"Hairy cell" = ""' in text
    (tmp_path / "map.toml").write_text(text.replace('= ""', '= "lymphocyte"'))
    options = ("--to", "voc", "--classes", tmp_path / "map.toml")
    assert run("convert", tmp_path / "set.json", tmp_path / "out", *options).exit_code == 0
    assert "lymphocyte" in (tmp_path / "out" / "Annotations" / "a.xml").read_text()
    plain = run("convert", tmp_path / "set.json", tmp_path / "kept", "--to", "voc")
    assert "class 'Hairy cell' is not in the taxonomy; 1 cells keep that name" in plain.output


def test_label_studio_offers_what_is_asked_for(tmp_path, drawn):
    options = ("--to", "label_studio", "--offer-classes", "monocyte, WBC")
    options += ("--offer-attributes", "nucleolus")
    assert run("convert", drawn, tmp_path / "x.json", *options).exit_code == 0
    text = (tmp_path / "x.config.xml").read_text()
    assert text.index('value="monocyte"') < text.index('value="white cell"')
    assert 'value="basophil"' not in text and 'name="cell_size"' not in text
    wrong = run("convert", drawn, tmp_path / "y.json", "--to", "coco", "--offer-classes", "WBC")
    assert wrong.exit_code == 2 and "has no option 'offer_classes'" in wrong.output
