"""Finding images: files, folders and patterns, in natural order, each once."""

import os
from pathlib import Path

import numpy as np
import pytest

from bloodfilm.core.errors import DataError
from bloodfilm.formats import open_dataset
from bloodfilm.imaging.discovery import find_images, walk
from fake_bundle import save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("f10.png", "f2.png", "F1.JPG", "notes.txt", ".hidden.png", "sub/a.tif", ".git/b.png")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(paths: list[Path], root: Path) -> list[str]:
    return [p.relative_to(root).as_posix() for p in paths]


def test_folder_is_searched_in_natural_order(folder: Path) -> None:
    assert names(find_images([folder]), folder) == ["F1.JPG", "f2.png", "f10.png", "sub/a.tif"]


def test_order_of_arguments_and_single_count(folder: Path) -> None:
    found = find_images([folder / "sub", folder / "f10.png", str(folder), folder / "sub/a.tif"])
    assert names(found, folder) == ["sub/a.tif", "f10.png", "F1.JPG", "f2.png"]


def test_a_named_file_is_kept_whatever_its_suffix(folder: Path) -> None:
    assert find_images([folder / "notes.txt"]) == [folder / "notes.txt"]


def test_pattern(folder: Path) -> None:
    assert names(find_images([folder / "f*.png"]), folder) == ["f2.png", "f10.png"]
    assert names(find_images([str(folder / "**" / "*.tif")]), folder) == ["sub/a.tif"]


def test_brackets_in_a_real_name_are_no_pattern(folder: Path) -> None:
    (folder / "a[1].png").write_bytes(b"x")
    assert names(find_images([folder / "a[1].png"]), folder) == ["a[1].png"]


def test_links_in_a_circle_end_and_links_to_nothing_are_listed(folder: Path) -> None:
    (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "again.png").symlink_to(folder / "f2.png")
    (folder / "broken.png").symlink_to(folder / "gone.png")
    found = names(find_images([folder]), folder)
    assert sorted(found) == ["F1.JPG", "again.png", "broken.png", "f10.png", "sub/a.tif"]


@pytest.mark.parametrize("wrong", ["none.png", "none/*.png", "empty"])
def test_nothing_found_is_an_error(folder: Path, wrong: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"no "):
        find_images([folder / wrong])


def test_a_folder_of_a_data_set_that_cannot_be_listed_is_refused(tmp_path, monkeypatch) -> None:
    real = os.scandir

    def scandir(path="."):
        if Path(os.fsdecode(path)).name == "closed":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    for name in ("lymphocyte/a.png", "lymphocyte/closed/b.png"):
        save(tmp_path / name, np.full((40, 40, 3), 200, np.uint8))
    assert len(open_dataset(tmp_path, "folder")) == 2
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"closed: .* cannot be listed \(permission denied"):
        open_dataset(tmp_path, "folder")
    with pytest.raises(DataError, match=r"closed: this folder cannot be listed"):
        list(walk(tmp_path))
