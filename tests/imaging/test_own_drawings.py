"""Pictures that bloodfilm drew are no fields, wherever they lie."""

from pathlib import Path

from PIL import Image

from bloodfilm.formats import open_dataset
from bloodfilm.imaging.discovery import DRAWINGS, discover, mark_drawings, walk


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64)).save(path)
    return path


def test_drawings_are_passed_over_and_named(tmp_path):
    field = picture(tmp_path / "field.png")
    picture(tmp_path / "plan" / "plan.jpg")
    picture(tmp_path / "plan" / "pictures" / "0001-field.jpg")
    kept = picture(tmp_path / "plan" / "other.png")
    mark_drawings(tmp_path / "plan", ("plan.jpg", "pictures"))
    found = discover([tmp_path])
    assert set(found.images) == {field, kept}
    assert set(found.drawings) == {tmp_path / "plan" / n for n in ("plan.jpg", "pictures")}
    assert {folder / n for folder, names in walk(tmp_path) for n in names} == {field, kept}
    assert len(open_dataset(tmp_path)) == 2


def test_marks_add_up(tmp_path):
    mark_drawings(tmp_path, ("b.png",))
    mark_drawings(tmp_path, ("a.png", "b.png"))
    assert (tmp_path / DRAWINGS).read_text() == "a.png\nb.png\n"


def test_a_plan_beside_the_fields_adds_no_field(tmp_path):
    from bloodfilm.active_learning.plan_files import write_plan
    from bloodfilm.core import Dataset, Field, Region

    image = picture(tmp_path / "field.png")
    item = Field(image, 64, 64, region=Region.rect(5, 5, 20, 20))
    write_plan(Dataset("plan", (item,)), tmp_path / "plan")
    assert discover([tmp_path]).images == (image,)
