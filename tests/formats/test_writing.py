"""Writing is all or nothing, and leaves what the user has alone."""

import os
from dataclasses import replace

import pytest
from PIL import Image

from bloodfilm.core import Cell, DataError, Dataset, Field
from bloodfilm.core.issues import messages
from bloodfilm.formats import WRITERS, open_dataset, save_dataset

TREES = ("folder", "lld", "qupath", "voc", "yolo")


@pytest.fixture
def dataset(tmp_path):
    place = tmp_path / "pixels"
    place.mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (32, 32), colour).save(place / name)
    cell = Cell((4, 4, 8, 8), "neutrophil")
    return Dataset("two", tuple(Field(place / n, 32, 32, (cell,)) for n in ("a.png", "b.png")))


def target(tmp_path, format):
    return tmp_path / {"cvat": "x.xml", "index": "x.parquet"}.get(
        format, "x" if format in TREES else "x.json"
    )


@pytest.mark.parametrize("format", WRITERS)
def test_nothing_is_overwritten_unasked(tmp_path, dataset, format):
    place = target(tmp_path, format)
    save_dataset(dataset, place, format, images="copy" if format in TREES else None)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(DataError, match="overwrite"):
        save_dataset(dataset, place, format, images="copy")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    save_dataset(dataset, place, format, images="copy", overwrite=True)
    assert len(open_dataset(place)) == 2


@pytest.mark.parametrize("format", WRITERS)
def test_a_write_that_fails_leaves_nothing(tmp_path, dataset, format):
    class BrokenError(Exception):
        pass

    class Fields(tuple):
        def __iter__(self):
            yield self[0]
            raise BrokenError

    broken = Dataset("broken", Fields(dataset.fields))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BrokenError):
        save_dataset(broken, target(tmp_path, format), format, images="copy")
    assert sorted(tmp_path.rglob("*")) == before


def test_overwriting_spares_other_files(tmp_path, dataset):
    place = tmp_path / "x"
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    save_dataset(dataset, place, "yolo", images="copy", overwrite=True)
    assert (place / "notes.txt").read_text() == "mine"
    assert (place / "data.yaml").is_file()


@pytest.mark.parametrize("how", ["copy", "link"])
def test_images_written_onto_themselves_survive(tmp_path, dataset, how):
    save_dataset(dataset, tmp_path / "x", "yolo", images="copy")
    again = open_dataset(tmp_path / "x")
    before = {f.path: f.path.read_bytes() for f in again}
    save_dataset(again, tmp_path / "x", "yolo", images=how, overwrite=True)
    assert {p: p.read_bytes() for p in before} == before
    assert not any(p.is_symlink() for p in before)


def test_links_point_at_the_images(tmp_path, dataset):
    save_dataset(dataset, tmp_path / "x", "yolo", images="link")
    (link, _) = sorted((tmp_path / "x" / "images" / "all").iterdir())
    assert link.is_symlink() and link.resolve() == dataset[0].path.resolve()


def test_the_written_folder_can_be_read_by_others(tmp_path, dataset):
    mask = os.umask(0)
    os.umask(mask)
    save_dataset(dataset, tmp_path / "x", "yolo", images="copy")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_set_moves_with_its_images(tmp_path, dataset):
    save_dataset(dataset, tmp_path / "x", "bloodfilm", images="copy")
    (tmp_path / "x").rename(tmp_path / "y")
    moved = open_dataset(tmp_path / "y")
    assert [f.path for f in moved] == [tmp_path / "y" / "images" / n for n in ("a.png", "b.png")]


def test_losses_are_said(tmp_path, dataset):
    lost = list(messages(save_dataset(dataset, tmp_path / "x.json", "coco")))
    assert lost == []
    lost = list(messages(save_dataset(dataset, tmp_path / "x", "voc")))
    assert lost == ["2 images were not put in place; copy or link them"]
    lost = list(messages(save_dataset(dataset, tmp_path / "z", "folder", images="link")))
    assert lost == ["left out: box of 2 cells"]


@pytest.mark.parametrize("format", sorted(set(WRITERS) - {"folder"}))
def test_a_useless_box_in_memory_does_not_reach_the_file(tmp_path, dataset, format):
    bad = Cell((float("nan"), 1, 2, 3), "neutrophil")
    field = dataset[0].with_cells((*dataset[0].cells, bad))
    place = target(tmp_path, format)
    lost = list(messages(save_dataset(Dataset("bad", (field,)), place, format, images="copy")))
    assert any("its box is not usable" in line for line in lost)
    read = open_dataset(place, format)
    assert len(read[0].cells) == 1 and read.issues == ()


def test_an_unknown_format_or_option_is_one_line(tmp_path, dataset):
    with pytest.raises(DataError, match="no format 'txl' can be written"):
        save_dataset(dataset, tmp_path / "x", "txl")
    with pytest.raises(DataError, match="has no option 'colour'"):
        save_dataset(dataset, tmp_path / "x", "yolo", colour=1)
    with pytest.raises(DataError, match="needs the images"):
        save_dataset(dataset, tmp_path / "x", "folder")
    with pytest.raises(DataError, match="json or text of"):
        save_dataset(dataset, tmp_path / "x", "lld", labels="text", columns=7)


@pytest.mark.parametrize("format", [f for f in TREES if f != "qupath"])  # it has no split folders
def test_a_split_does_not_lead_outside(tmp_path, dataset, format):
    leading = replace(dataset[0], split="../../escaped")
    with pytest.raises(DataError, match="would lie outside"):
        save_dataset(Dataset("x", (leading,)), tmp_path / "deep" / "x", format, images="copy")
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("how", ["copy", "link"])
@pytest.mark.parametrize(("format", "folder"), [("yolo", "images/all"), ("voc", "JPEGImages")])
def test_an_image_of_the_set_is_not_replaced_by_another(tmp_path, how, format, folder):
    place = tmp_path / "x"
    paths = [place / "another" / "a.png", place / folder / "a.png"]
    for path, colour in zip(paths, ("red", "blue"), strict=True):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), colour).save(path)
    before = [p.read_bytes() for p in paths]
    fields = tuple(Field(p, 32, 32, (Cell((4, 4, 8, 8), "neutrophil"),)) for p in paths)
    with pytest.raises(DataError, match="image of the set itself"):
        save_dataset(Dataset("two", fields), place, format, images=how, overwrite=True)
    assert [p.read_bytes() for p in paths] == before
    assert not any(p.is_symlink() for p in paths)
    assert {p.name for p in place.iterdir()} == {"another", folder.partition("/")[0]}


def test_a_file_that_a_source_links_to_is_not_replaced_by_a_link_to_itself(tmp_path, dataset):
    save_dataset(dataset, tmp_path / "x", "yolo", images="copy")
    real = tmp_path / "x" / "images" / "all" / "a.png"
    (tmp_path / "a.png").symlink_to(real)
    linked = Dataset("one", (replace(dataset[0], path=tmp_path / "a.png"),))
    for how in ("link", "copy"):
        save_dataset(linked, tmp_path / "x", "yolo", images=how, overwrite=True)
        assert not real.is_symlink() and real.read_bytes() == dataset[0].path.read_bytes()


def test_linked_images_can_be_replaced_by_copies(tmp_path, dataset):
    save_dataset(dataset, tmp_path / "x", "yolo", images="link")
    before = {f.path: f.path.read_bytes() for f in dataset}
    save_dataset(dataset, tmp_path / "x", "yolo", images="copy", overwrite=True)
    assert not any(p.is_symlink() for p in (tmp_path / "x").rglob("*"))
    assert {p: p.read_bytes() for p in before} == before


def test_nothing_is_written_through_a_linked_folder(tmp_path, dataset):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "images").symlink_to(tmp_path / "pixels")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for images in ("copy", "link"):
        with pytest.raises(DataError, match="is a link to"):
            save_dataset(dataset, tmp_path / "x", "yolo", images=images, overwrite=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("format", WRITERS)
def test_what_is_no_image_is_never_copied(tmp_path, dataset, format):
    (tmp_path / "pixels" / "a.png").write_text("PRIVATE KEY")
    place = target(tmp_path, format)
    lost = list(messages(save_dataset(dataset, place, format, images="copy")))
    assert f"left out: {dataset[0].path}, which is not an image" in lost
    made = [p for p in tmp_path.rglob("*") if p.is_file() and p != dataset[0].path]
    assert not any(b"PRIVATE" in p.read_bytes() for p in made)


@pytest.mark.parametrize("format", WRITERS)
def test_images_outside_of_the_set_are_copied_only_if_allowed(tmp_path, dataset, format):
    (tmp_path / "labels").mkdir()
    read = replace(dataset, source=tmp_path / "labels")
    place = target(tmp_path, format)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="allow_outside"):
        save_dataset(read, place, format, images="copy")
    assert sorted(tmp_path.rglob("*")) == before
    lost = list(messages(save_dataset(read, place, format, images="copy", allow_outside=True)))
    named = [f"from outside of {tmp_path / 'labels'}: {f.path}" for f in dataset]
    assert [line for line in lost if line.startswith("from outside")] == named


def test_images_that_a_set_links_to_belong_to_it(tmp_path, dataset):
    """A mended copy of a data set links to the images of the original."""
    save_dataset(dataset, tmp_path / "x", "yolo", images="link")
    save_dataset(dataset, tmp_path / "y", "voc", images="copy")
    (tmp_path / "y" / "JPEGImages").rename(tmp_path / "elsewhere")
    (tmp_path / "y" / "JPEGImages").symlink_to(tmp_path / "elsewhere")
    for name in ("x", "y"):
        made = tmp_path / f"copy of {name}"
        assert save_dataset(open_dataset(tmp_path / name), made, "coco", images="copy") == []
        copies = [p for p in (made / "images").iterdir() if not p.is_symlink()]
        assert sorted(p.name for p in copies) == ["a.png", "b.png"]


def test_a_set_without_fields_is_not_written(tmp_path):
    with pytest.raises(DataError, match="empty: no field to write"):
        save_dataset(Dataset("empty", ()), tmp_path / "x.json", "coco")
    assert not (tmp_path / "x.json").exists()


def test_a_fault_of_a_reader_is_not_taken_for_an_option_of_the_user(tmp_path, monkeypatch):
    from bloodfilm.formats import registry

    def broken(path, **options):
        raise TypeError("f() got an unexpected keyword argument 'x'")

    monkeypatch.setitem(registry.READERS, "coco", broken)
    with pytest.raises(TypeError):
        open_dataset(tmp_path, "coco")
    with pytest.raises(DataError, match="format voc has no option 'colour'"):
        open_dataset(tmp_path, "voc", colour="red")


def test_voc_counts_from_one_if_asked(tmp_path, dataset):
    save_dataset(dataset, tmp_path / "x", "voc", images="copy", one_based=True)
    assert "<xmin>5.0</xmin>" in (tmp_path / "x" / "Annotations" / "a.xml").read_text()
    assert "neutrophil:" in (tmp_path / "x" / "labelmap.txt").read_text()
    read = open_dataset(tmp_path / "x", one_based=True)
    assert read[0].cells[0].box == (4, 4, 8, 8)


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252", "utf-16", "gb18030"])
def test_xml_is_read_by_the_encoding_it_declares(tmp_path, dataset, encoding):
    save_dataset(dataset, tmp_path / "x", "voc", images="copy")
    file = tmp_path / "x" / "Annotations" / "a.xml"
    text = file.read_text().replace("neutrophil", "Zelle ü")
    file.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>\n{text}'.encode(encoding))
    cells = [f.cells[0] for f in open_dataset(tmp_path / "x") if f.path.stem == "a"]
    assert cells[0].source_label == "Zelle ü"


def test_tables_may_be_parted_as_spreadsheets_do(tmp_path):
    from bloodfilm.formats.shared.parsing import read_csv

    rows = [{"image": "a.png", "class": "WBC, large"}]
    for content in (
        'image,class\na.png,"WBC, large"\n',
        "image;class\na.png;WBC, large\n",
        "sep=;\nimage;class\na.png;WBC, large\n",
        "image\tclass\na.png\tWBC, large\n",
    ):
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le"):
            (tmp_path / "t.csv").write_bytes(content.encode(encoding))
            assert read_csv(tmp_path / "t.csv", ("image", "class")) == rows
