"""Public sets that come as a table of cells: drawn in small, read by their own readers."""

import shutil

import pytest
from PIL import Image

from bloodfilm.core import DataError, Region
from bloodfilm.core.issues import messages
from bloodfilm.formats import detect, open_dataset


def draw(folder, table, *images, size=(200, 100)):
    (folder / "images").mkdir(parents=True)
    for name in images:
        Image.new("RGB", size).save(folder / "images" / name)
    (folder / "cells.csv").write_text(table)
    return folder


BCISC = """image,class,group,x,y,w,h
baso_1-1.png,basophil,1,10,10,30,40
baso_1-1.png,lymphocyte,1,100,20,20,20
eosi_2-1.png,eosinophil,2,,,,
"""


def test_bcisc_knows_its_boxes_and_nothing_else(tmp_path):
    root = draw(tmp_path / "set", BCISC, "baso_1-1.png", "eosi_2-1.png")
    assert detect(root) == "bcisc"
    first, second = open_dataset(root)
    assert [c.box for c in first.cells] == [(10, 10, 30, 40), (100, 20, 20, 20)]
    assert first.region == Region.union([Region.rect(10, 10, 30, 40), Region.rect(100, 20, 20, 20)])
    assert (first.width, first.height, first.patient) == (200, 100, "baso_1")
    assert second.cells == () and second.region.is_nothing
    assert second.meta == {"class": "eosinophil", "group": "2"}


def test_chula_ties_the_fields_of_a_slide(tmp_path):
    table = "image,slide,class,x,y,w,h\nB-30_1.png,30,basophil,86.7,16.7,12.0,17.3\n"
    root = draw(tmp_path / "set", table, "B-30_1.png")
    assert detect(root) == "chula"
    (field,) = open_dataset(root)
    assert field.patient == "30" and field.domain.camera == "OV5647"
    assert field.cells[0].label == "basophil"


def test_krd_takes_images_not_masks(tmp_path):
    root = draw(tmp_path / "set", "image,class,x,y,w,h\nimage1.webp,monocyte,5,6,7,8\n")
    (root / "masks").mkdir()
    Image.new("1", (200, 100)).save(root / "masks" / "image1.png")
    Image.new("RGB", (200, 100)).save(root / "images" / "image1.webp")
    assert detect(root) == "krd"
    (field,) = open_dataset(root)
    assert field.path == root / "images" / "image1.webp"
    assert field.region == Region.rect(5, 6, 7, 8)
    assert field.cells[0].outline is None  # the mask is empty
    mask = Image.new("1", (200, 100))
    mask.paste(1, (5, 6, 12, 14))
    mask.save(root / "masks" / "image1.png")
    (field,) = open_dataset(root)
    assert field.cells[0].outline.area(200, 100) == 7 * 8
    mask.resize((100, 50)).save(root / "masks" / "image1.png")
    dataset = open_dataset(root)
    assert dataset[0].cells[0].outline is None
    assert "has 100x50 px, its image 200x100; left out" in messages(dataset.issues)[0]


def test_lmu_scale_follows_the_size_of_its_images(tmp_path):
    table = "image,class,split\nMYO_0001.png,myeloblast,train\nNGS_0002.png,NGS,val\n"
    root = draw(tmp_path / "set", table, "MYO_0001.png", "NGS_0002.png", size=(400, 400))
    assert detect(root) == "lmu"
    first, second = open_dataset(root)
    assert first.cells[0].box is None and first.cells[0].label == "myeloblast"
    assert (second.cells[0].label, second.split) == ("segmented neutrophil", "val")
    assert first.domain.um_per_px == pytest.approx(0.071)
    assert first.region.is_nothing


def test_a_table_with_a_fault_says_where(tmp_path):
    table = BCISC.replace("100,20,20,20", "100,x,20,20").replace("10,10,30,40", "500,10,30,40")
    root = draw(tmp_path / "set", table, "baso_1-1.png", "eosi_2-1.png")
    dataset = open_dataset(root)
    assert sum(dataset.class_counts().values()) == 0
    assert "cells.csv: line 2: box lies outside the 200x100 image" in messages(dataset.issues)[0]
    assert (
        "cells.csv: line 3: box 100, x, 20, 20 is not four numbers" in messages(dataset.issues)[1]
    )
    with pytest.raises(DataError, match="line 2"):
        open_dataset(root, strict=True)
    (root / "cells.csv").write_text("image,class\na.png,x\n")
    with pytest.raises(DataError, match="no column 'group'"):
        open_dataset(root, format="bcisc")


def test_missing_images_are_named(tmp_path):
    root = draw(tmp_path / "set", BCISC, "baso_1-1.png")
    dataset = open_dataset(root)
    assert len(dataset) == 1
    assert (
        "1 of 2 images are missing and their fields left out: eosi_2-1.png"
        in messages(dataset.issues)[0]
    )


def test_bccd_types_name_the_only_white_cell(tmp_path):
    box = "<bndbox><xmin>{}</xmin><ymin>5</ymin><xmax>{}</xmax><ymax>20</ymax></bndbox>"
    root = tmp_path / "bccd"
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for number, kinds in enumerate((["WBC", "RBC"], ["WBC", "WBC"], ["RBC"])):
        name = f"BloodImage_0000{number}"
        Image.new("RGB", (64, 48)).save(root / "JPEGImages" / f"{name}.jpg")
        objects = "".join(
            f"<object><name>{kind}</name>{box.format(20 * i + 1, 20 * i + 15)}</object>"
            for i, kind in enumerate(kinds)
        )
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        )
    plain = open_dataset(root)
    assert plain.class_counts() == {"white cell": 3, "red cell": 2}
    (root / "types.csv").write_text(
        "image,class\nBloodImage_00000.jpg,eosinophil\nBloodImage_00001.jpg,monocyte\n"
        "BloodImage_00009.jpg,monocyte\n"
    )
    typed = open_dataset(root)
    assert typed.class_counts() == {"eosinophil": 1, "white cell": 2, "red cell": 2}
    said = "\n".join(messages(typed.issues))
    assert "'monocyte' is said of a field with 2 boxed white cells" in said
    assert "BloodImage_00009.jpg: is no image of the set" in said
    shutil.rmtree(root)
