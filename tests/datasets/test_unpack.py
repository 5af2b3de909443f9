"""Archives that mean harm, and archives that do not."""

import stat
import subprocess
import zipfile

import pytest

from bloodfilm.core import DataError
from bloodfilm.datasets import archive as module
from bloodfilm.datasets.archive import unpack, unpack_together
from following import Recorder


def pack(path, entries, compression=zipfile.ZIP_STORED):
    """A zip of (name or ZipInfo, content) pairs."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def everything(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_files_are_unpacked_without_their_leading_folder(tmp_path):
    entries = [("top/a/x.txt", "x"), ("top/b.txt", "b"), ("top/", ""), ("__MACOSX/top/._b", "")]
    archive = pack(tmp_path / "z.zip", entries)
    followed = Recorder()
    out = tmp_path / "out"
    assert unpack(archive, out, strip=1, progress=followed) == 2
    assert everything(out) == ["a", "a/x.txt", "b.txt"]
    assert followed.last("unpacking z.zip") == (2, 2)


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/evil",
        "C:evil",
        "C:/evil",
        "..\\evil",
        "a/..\\..\\evil",
        "\\evil",
    ],
)
def test_names_that_lead_outside_are_refused(tmp_path, name):
    archive = pack(tmp_path / "z.zip", [("good", "g"), (name, "e")])
    (tmp_path / "deep").mkdir()
    with pytest.raises(DataError, match="outside"):
        unpack(archive, tmp_path / "deep" / "out")
    assert everything(tmp_path) == ["deep", "z.zip"]


def test_stripping_does_not_make_a_bad_name_good(tmp_path):
    archive = pack(tmp_path / "z.zip", [("../evil", "e")])
    with pytest.raises(DataError, match="outside"):
        unpack(archive, tmp_path / "out", strip=1)


def test_links_and_devices_are_refused(tmp_path):
    out = tmp_path / "out"
    archive = pack(tmp_path / "z.zip", [link("a", "/etc"), ("a/passwd", "e")])
    with pytest.raises(DataError, match="link"):
        unpack(archive, out)
    pipe = zipfile.ZipInfo("pipe")
    pipe.external_attr = (stat.S_IFIFO | 0o600) << 16
    with pytest.raises(DataError, match="device"):
        unpack(pack(tmp_path / "y.zip", [(pipe, "")]), out)
    assert not out.exists()


def test_a_link_that_is_there_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(outside)
    archive = pack(tmp_path / "z.zip", [("a/x", "x")])
    with pytest.raises(DataError, match="in the way"):
        unpack(archive, out)
    assert everything(outside) == []


def test_what_is_there_stays(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "b").write_text("mine")
    archive = pack(tmp_path / "z.zip", [("a", "a"), ("b", "b")])
    with pytest.raises(DataError, match="in the way"):
        unpack(archive, out)
    assert everything(out) == ["b"]
    assert (out / "b").read_text() == "mine"


def test_a_bomb_is_not_unpacked(tmp_path):
    zeros = bytes(module.SMALL + 1)
    archive = pack(tmp_path / "z.zip", [("zeros", zeros)], zipfile.ZIP_DEFLATED)
    assert archive.stat().st_size * module.MAX_RATIO < len(zeros)
    with pytest.raises(DataError, match="claim to hold"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_files_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILES", 3)
    archive = pack(tmp_path / "z.zip", [(str(i), "") for i in range(4)])
    with pytest.raises(DataError, match="too large"):
        unpack(archive, tmp_path / "out")


def test_a_member_that_holds_more_than_it_claims_is_not_unpacked(tmp_path):
    archive = pack(tmp_path / "z.zip", [("a", b"x" * 5000)], zipfile.ZIP_DEFLATED)
    data = archive.read_bytes()
    lie = data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    assert lie != data
    archive.write_bytes(lie)
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "out")
    assert everything(tmp_path / "out") == []


def test_names_that_differ_in_case_only_are_refused(tmp_path):
    archive = pack(tmp_path / "z.zip", [("Images/a", "1"), ("images/A", "2")])
    with pytest.raises(DataError, match="twice"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("damage", ["rubbish", "cut", "flipped", "empty"])
def test_damage_is_told_in_one_line_and_leaves_nothing(tmp_path, damage):
    archive = pack(tmp_path / "z.zip", [("a", b"abc" * 1000), ("b", b"xyz" * 1000)])
    data = archive.read_bytes()
    spoilt = {
        "rubbish": b"<html>Please sign in</html>",
        "cut": data[: len(data) // 2],
        "flipped": data[:3500] + bytes([data[3500] ^ 255]) + data[3501:],
        "empty": b"",
    }
    archive.write_bytes(spoilt[damage])
    with pytest.raises(DataError, match="not a valid zip") as error:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or everything(tmp_path / "out") == []


def test_an_archive_is_the_git_tree_it_should_be(tmp_path):
    repo = tmp_path / "repo"
    (repo / "a.d").mkdir(parents=True)
    (repo / "a").mkdir()
    for name in ("a.d/x", "a/y", "a.txt", "run"):
        (repo / name).write_text(name)
    (repo / "run").chmod(0o755)
    git = ["git", "-C", str(repo), "-c", "user.name=n", "-c", "user.email=e@x"]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    tree = subprocess.run(
        [*git, "rev-parse", "HEAD^{tree}"], check=True, capture_output=True, text=True
    ).stdout.strip()
    archive = tmp_path / "z.zip"
    subprocess.run(
        [*git, "archive", "--format=zip", "--prefix=top/", "-o", str(archive), "HEAD"], check=True
    )
    assert unpack(archive, tmp_path / "out", strip=1, tree=tree) == 4
    with pytest.raises(DataError, match="git tree"):
        unpack(archive, tmp_path / "other", strip=1, tree="0" * 40)
    assert not (tmp_path / "other").exists()


def test_zips_of_one_folder_are_put_together(tmp_path):
    one = pack(tmp_path / "one.zip", [("set/a.txt", "a"), ("set/labels/x.json", "{}")])
    two = pack(tmp_path / "two.zip", [("set/b.txt", "b"), ("set/labels/x.json", "{}")])
    followed = Recorder()
    out = tmp_path / "out"
    assert unpack_together([one, two], out, progress=followed) == 3
    files = ["set/a.txt", "set/b.txt", "set/labels/x.json"]
    assert [n for n in everything(out) if "." in n] == files
    size = one.stat().st_size + two.stat().st_size
    assert followed.last("unpacking") == (size, size)
    with pytest.raises(DataError, match="in the way"):
        unpack_together([one], out)
    assert [n for n in everything(out) if "." in n] == files


@pytest.mark.parametrize("fault", ["cut", "other", "case", "outside"])
def test_one_bad_zip_of_several_leaves_nothing(tmp_path, fault):
    one = pack(tmp_path / "one.zip", [("set/a.txt", "a" * 500)])
    entries = {
        "cut": [("set/b.txt", "b" * 500)],
        "other": [("set/a.txt", "another")],
        "case": [("set/A.txt", "b" * 500)],
        "outside": [("../b.txt", "b")],
    }
    two = pack(tmp_path / "two.zip", entries[fault])
    if fault == "cut":
        two.write_bytes(two.read_bytes()[:300])
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"two\.zip") as error:
        unpack_together([one, two], out)
    assert "\n" not in str(error.value)
    assert everything(out) == []
    assert not (tmp_path / "b.txt").exists()
