"""The whole way: catalogue, download, check, unpack, record; and the command."""

import hashlib
import io
import json
import zipfile

import pytest
from PIL import Image
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.cli.fetch import NAMES
from bloodfilm.core import Cell, ConfigError, DataError, Dataset, Domain, Field
from bloodfilm.datasets import CATALOGUE, ArchivePart, DownloadSource, fetch
from bloodfilm.datasets.download import RetryPolicy, check_address
from bloodfilm.formats import save_dataset
from datasets.serving import serving

QUICK = RetryPolicy(timeout=0.5, tries=2, pause=0.01)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def zipped(**files):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name, content in files.items():
            file.writestr(f"top/{name}", content)
    return held.getvalue()


def source(*parts):
    return DownloadSource("drawn", "A drawn set", "https://example.invalid", "CC0", "nobody", parts)


def bring(parts, out, **options):
    options = {"accept_licence": True, "retry_policy": QUICK} | options
    return fetch(source(*parts), out, **options)


def test_an_archive_is_fetched_unpacked_and_recorded(tmp_path):
    data = zipped(a="1", b="2")
    with serving(data, "well") as server:
        part = ArchivePart(server.url, "set.zip", archive=True, strip=1)
        bring([part], tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "fetched.json"]
        record = json.loads((tmp_path / "fetched.json").read_text())["drawn"]["parts"]["set.zip"]
        assert record["sha256"] == hashlib.sha256(data).hexdigest()
        assert record["files"] == 2
        assert "nothing" in record["checked_against"]
        bring([part], tmp_path)
        assert len(server.ranges) == 1  # it was there already
        (tmp_path / "a").unlink()
        (tmp_path / "b").unlink()
        bring([part], tmp_path)
        assert (tmp_path / "a").read_text() == "1"


def test_plain_files_are_checked_and_not_overwritten(tmp_path):
    with serving(b"x,y\n", "well") as server:
        good = ArchivePart(server.url, "t.csv", hashlib.sha256(b"x,y\n").hexdigest(), 4)
        bring([good], tmp_path)
        bring([good], tmp_path)
        assert len(server.ranges) == 1
        (tmp_path / "t.csv").write_text("mine")
        with pytest.raises(DataError, match="in the way"):
            bring([good], tmp_path)
    assert (tmp_path / "t.csv").read_text() == "mine"


def test_a_damaged_archive_is_thrown_away(tmp_path):
    with serving(b"<html>", "well") as server:
        part = ArchivePart(server.url, "set.zip", archive=True)
        with pytest.raises(DataError, match="not a valid zip"):
            bring([part], tmp_path)
        server.content = zipped(a="1")
        bring([part], tmp_path)
    assert (tmp_path / "top" / "a").read_text() == "1"


def test_an_archive_kept_from_last_time_is_checked_again(tmp_path):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / "set.zip").write_bytes(zipped(evil="1"))
    data = zipped(good="1")
    with serving(data, "well") as server:
        part = ArchivePart(server.url, "set.zip", hashlib.sha256(data).hexdigest(), archive=True)
        bring([part], tmp_path)
    assert (tmp_path / "top" / "good").exists()
    assert not (tmp_path / "top" / "evil").exists()


def listing(server, **details):
    data = details.pop("data")
    details = {
        "download_url": server.url,
        "sha256_hash": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    } | details
    return json.dumps([{"filename": "set.zip", "content_details": details}]).encode()


def test_a_listing_gives_checksum_and_length(tmp_path):
    data = zipped(a="1")
    with serving(data, "well") as files, serving(b"", "well") as lists:
        part = ArchivePart(files.url, "set.zip", archive=True, strip=1, listing=lists.url)
        lists.content = listing(files, data=data, size=len(data) + 1)
        with pytest.raises(DataError, match="announces"):
            bring([part], tmp_path)
        lists.content = listing(files, data=data, sha256_hash="0" * 64)
        with pytest.raises(DataError, match="SHA-256"):
            bring([part], tmp_path)
        lists.content = listing(files, data=data)
        assert bring([part], tmp_path)["parts"]["set.zip"]["checked_against"] == "SHA-256"


@pytest.mark.parametrize("rubbish", [b"", b"<html>", b"{}", b"[]", b"[1]", b'[{"filename": 3}]'])
def test_a_listing_of_rubbish_is_refused(tmp_path, rubbish):
    with serving(rubbish, "well") as server:
        part = ArchivePart(server.url, "set.zip", archive=True, listing=server.url)
        with pytest.raises(DataError, match="interface has changed"):
            bring([part], tmp_path)


def test_no_licence_no_data(tmp_path):
    with serving(b"x", "well") as server:
        with pytest.raises(ConfigError, match="accept-licence"):
            bring([ArchivePart(server.url, "x")], tmp_path / "out", accept_licence=False)
        assert server.ranges == []
    assert not (tmp_path / "out").exists()


def test_the_catalogue_is_sound():
    assert NAMES.split(", ") == list(CATALOGUE)
    for known in CATALOGUE.values():
        assert known.licence and known.cite
        assert bool(known.parts) != bool(known.instructions)
        for part in known.parts:
            check_address(part.url)
            assert part.url.startswith("https://")
            # Whatever comes is checked against something that somebody published.
            assert part.sha256 or part.tree or part.listing


def run(*arguments):
    return CliRunner().invoke(app, ["data", "fetch", *map(str, arguments)])


def test_the_command_fetches(tmp_path, monkeypatch):
    with serving(zipped(a="1"), "well") as server:
        part = ArchivePart(server.url, "set.zip", archive=True, strip=1)
        monkeypatch.setitem(CATALOGUE, "drawn", source(part))
        refused = run("drawn", "--out", tmp_path / "out")
        assert refused.exit_code == 2
        assert "CC0" in refused.output
        result = run("drawn", "--out", tmp_path / "out", "--accept-licence")
    assert result.exit_code == 0, result.output
    assert "SHA-256" in result.output
    assert (tmp_path / "out" / "a").read_text() == "1"


def test_the_command_says_what_it_cannot_do(tmp_path):
    result = run("lld", "--out", tmp_path / "out", "--accept-licence")
    assert result.exit_code == 2
    assert "drive.google.com" in result.output
    assert "CC BY-NC-SA" in result.output
    assert not (tmp_path / "out").exists()
    assert run("nothing").exit_code == 2
    assert run("bccd").exit_code == 2


def test_zips_fetched_by_hand_are_unpacked_and_counted(tmp_path):
    set_ = write_lld(tmp_path / "made")
    zips = tmp_path / "zips"
    zips.mkdir()
    files = sorted(p for p in set_.rglob("*") if p.is_file())
    for number in range(2):
        with zipfile.ZipFile(zips / f"{number}.zip", "w") as archive:
            for path in files[number::2]:
                archive.write(path, path.relative_to(set_.parent))
    words = ("lld", "--zips", zips, "--out", tmp_path / "out")
    assert "CC BY-NC-SA" in run(*words).output and not (tmp_path / "out").exists()
    result = run(*words, "--accept-licence")
    assert result.exit_code == 0, result.output
    assert f"unpacked {len(files)} files of 2 zips" in result.output
    assert "3 fields" in result.output

    (zips / "0.zip").unlink()  # and with it two of the images
    result = run("lld", "--zips", zips, "--out", tmp_path / "half", "--accept-licence")
    assert "images are missing" in result.output
    assert run("lld", "--zips", tmp_path / "none", "--out", "x", "--accept-licence").exit_code == 2
    assert run("bccd", "--zips", zips, "--out", "x", "--accept-licence").exit_code == 2


def write_lld(root):
    """Write a set of three fields in LLD's layout; return its folder."""
    fields = []
    for number in range(3):
        path = root / f"1_{number}_1000_ALL.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (200, 200, 200)).save(path)
        cell = Cell((10.0, 10.0, 20.0, 20.0), "lymphoblast")
        more = {"domain": Domain("H", 100, "C1"), "patient": "1", "split": "train"}
        fields.append(Field(path, 64, 64, (cell,), **more))
    save_dataset(Dataset("LLD", tuple(fields)), root / "LLD", "lld", images="copy")
    return root / "LLD"
