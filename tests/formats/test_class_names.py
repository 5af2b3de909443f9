"""Class names: what the tree knows, what differs between sets, and what nobody knows is kept."""

from pathlib import Path

import pytest
from PIL import Image

from bloodfilm.core import DEFAULT_TAXONOMY, Cell, DataError, Dataset, Field, Region
from bloodfilm.core.issues import messages
from bloodfilm.formats import WRITERS, open_dataset, save_dataset
from bloodfilm.formats.shared.class_names import draft_class_map, meaning_of, read_class_map


@pytest.fixture
def strange(tmp_path) -> Dataset:
    """One field with cells of classes that no tree knows, one of them outlined."""
    path = tmp_path / "a.png"
    Image.new("RGB", (200, 100)).save(path)
    triangle = Region.polygon([(60, 20), (90, 20), (60, 50)])
    cells = (
        Cell((10, 10, 20, 30), None, source_label="Hairy cell"),
        Cell((60, 20, 30, 30), None, source_label="köhler", outline=triangle),
        Cell((120, 20, 30, 30), "monocyte"),
        Cell((160, 20, 30, 30), None, ignore=True, source_label="ghost"),
    )
    return Dataset("set", (Field(path, 200, 100, cells),))


@pytest.mark.parametrize("format", sorted(set(WRITERS) - {"folder"}))
def test_a_name_that_no_tree_knows_survives_every_format(tmp_path, strange, format):
    if format == "index":
        pytest.importorskip("pyarrow")
    place = tmp_path / "out" if format != "index" else tmp_path / "out.parquet"
    lost = list(messages(save_dataset(strange, place, format, images="copy")))
    read = open_dataset(place)
    names = [c.class_name for c in read[0].cells]
    assert names[:3] == ["Hairy cell", "köhler", "monocyte"]
    assert read[0].cells[3].ignore
    assert read[0].cells[3].class_name == (None if format == "yolo" else "ghost")
    assert [c.label for c in read[0].cells] == [None, None, "monocyte", None]
    outline = read[0].cells[1].outline
    if outline is None:
        assert "left out: outline of 1 cells" in lost
    else:
        assert outline.area(200, 100) == pytest.approx(450, abs=16)
        assert not any("outline" in line for line in lost)


def test_folders_keep_strange_names(tmp_path, strange):
    for name in ("monocyte", "Hairy cell"):
        (tmp_path / "in" / name / "0001-1000").mkdir(parents=True)
        image = tmp_path / "in" / name / "0001-1000" / f"{name}.png"
        Image.new("RGB", (64, 64)).save(image)
    read = open_dataset(tmp_path / "in")
    assert sorted(c.class_name for f in read for c in f.cells) == ["Hairy cell", "monocyte"]
    save_dataset(read, tmp_path / "out", "folder", images="copy")
    assert (tmp_path / "out" / "Hairy cell" / "Hairy cell.png").is_file()


def test_an_unknown_name_is_listed_with_its_count(tmp_path, strange):
    save_dataset(strange, tmp_path / "x.json", "coco")
    read = open_dataset(tmp_path / "x.json")
    said = [line for line in messages(read.issues) if "is not in the taxonomy" in line]
    assert len(said) == 3 and "class 'Hairy cell' is not in the taxonomy; 1 cells" in said[0]
    assert read.class_counts() == {"Hairy cell": 1, "köhler": 1, "monocyte": 1, "ignore": 1}


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(root / name / f"{name}_1.png")
    return root


def test_the_company_of_a_name_says_what_it_means(tmp_path):
    munich = open_dataset(folders(tmp_path / "m", "MYB", "MMZ", "NGS", "FGC"))
    labels = {f.path.parent.name: f.cells[0].label for f in munich}
    assert labels["MYB"] == "myelocyte" and labels["FGC"] == "abnormal promyelocyte"
    alone = open_dataset(folders(tmp_path / "a", "MYB", "monocyte"))
    (cell,) = [f.cells[0] for f in alone if f.path.parent.name == "MYB"]
    assert cell.label is None and cell.source_label == "MYB"


def test_a_map_of_the_user_comes_first(tmp_path, strange):
    save_dataset(strange, tmp_path / "x.json", "coco")
    file = tmp_path / "map.toml"
    file.write_text('[classes]\n"Hairy cell" = "WBC"\n"köhler" = "ignore"\nghost = ""\n')
    own = read_class_map(file, DEFAULT_TAXONOMY)
    assert own == {"Hairy cell": "white cell", "köhler": "ignore"}
    cells = open_dataset(tmp_path / "x.json", classes=own)[0].cells
    assert [c.label for c in cells] == ["white cell", None, "monocyte", None]
    assert [c.ignore for c in cells] == [False, True, False, True]


def test_a_draft_of_the_map_lists_what_to_fill_in(tmp_path, strange):
    text = draft_class_map(strange)
    assert '"Hairy cell" = ""  # 1 cells' in text
    (tmp_path / "map.toml").write_text(text, encoding="utf-8")
    assert read_class_map(tmp_path / "map.toml", DEFAULT_TAXONOMY) == {}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[classes]\na = 1\n", "needs a table"),
        ("a = 'b'\n", "needs a table"),
        ("[classes\n", "not TOML"),
        ('[classes]\nKSC = "smudge"\nART = "nonsense"\n', "'ART': no class 'nonsense'"),
    ],
)
def test_a_bad_map_is_one_line(tmp_path, content, what):
    (tmp_path / "map.toml").write_text(content)
    with pytest.raises(DataError, match=r"map\.toml") as caught:
        read_class_map(tmp_path / "map.toml", DEFAULT_TAXONOMY)
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_names_are_compared_without_case_and_separators():
    own = {"Giant-Cell": "platelet"}
    assert meaning_of("giant_cell", DEFAULT_TAXONOMY, own) == ("platelet", False)
    assert meaning_of("None", DEFAULT_TAXONOMY, {}) == (None, True)
    assert meaning_of("Hairy cell", DEFAULT_TAXONOMY, {}) is None
