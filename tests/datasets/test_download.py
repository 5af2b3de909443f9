"""Downloads from a server on this machine that cuts off, stalls, lies or goes on as asked."""

import hashlib

import numpy as np
import pytest

from bloodfilm.core import DataError
from bloodfilm.datasets import download as module
from bloodfilm.datasets.download import RetryPolicy, download, read_small
from datasets.serving import serving
from following import Recorder

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = RetryPolicy(timeout=0.3, tries=3, pause=0.01)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def get(server, folder, **options):
    options = {"sha256": SHA256, "size": len(CONTENT), "retry_policy": QUICK} | options
    return download(server.url, folder / "file", **options)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_arrives_whole_and_leaves_nothing_else(tmp_path):
    followed = Recorder()
    with serving(CONTENT, "well") as server:
        found = get(server, tmp_path, progress=followed)
    assert found == SHA256
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert names(tmp_path) == ["file"]
    assert followed.last("file") == (len(CONTENT), len(CONTENT))
    counts = [done for _, done, _ in followed.updates]
    assert counts == sorted(counts)


def test_a_cut_connection_goes_on_where_it_was(tmp_path):
    with serving(CONTENT, "cut", "cut", "well") as server:
        get(server, tmp_path)
    assert (tmp_path / "file").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


@pytest.mark.parametrize("trouble", ["stall", "silent", "hang_up", "rubbish", "busy"])
def test_trouble_is_tried_again(tmp_path, trouble):
    with serving(CONTENT, trouble, "well") as server:
        get(server, tmp_path)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("trouble", ["silent", "hang_up", "rubbish", "busy"])
def test_lasting_trouble_ends_in_one_line(tmp_path, trouble):
    with serving(CONTENT, trouble) as server, pytest.raises(DataError) as error:
        get(server, tmp_path)
    assert "gave up after 3 tries" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "file").exists()
    assert len(server.ranges) == 3


def test_a_later_call_goes_on(tmp_path):
    policy = RetryPolicy(timeout=0.3, tries=1, pause=0.01)
    with serving(CONTENT, "cut", "hang_up", "well") as server:
        with pytest.raises(DataError, match="bytes are kept"):
            get(server, tmp_path, retry_policy=policy)
        kept = (tmp_path / "file.part").stat().st_size
        assert kept == len(CONTENT) // 2
        get(server, tmp_path)
    assert server.ranges[-1] == f"bytes={kept}-"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_of_another_file_is_not_gone_on_with(tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    (tmp_path / "file.part.json").write_text('{"identity": "another", "tag": null}')
    with serving(CONTENT, "well") as server:
        get(server, tmp_path)
    assert server.ranges == [None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_starts_again(tmp_path):
    with serving(CONTENT, "cut", "no_range") as server:
        get(server, tmp_path)
    assert server.ranges[1] is not None
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_starts_again(tmp_path):
    other = CONTENT[::-1]
    with serving(CONTENT, "cut", "hang_up", "well") as server:
        with pytest.raises(DataError):
            get(server, tmp_path, sha256=None, retry_policy=RetryPolicy(0.3, 1, 0.01))
        server.content, server.tag = other, '"two"'
        get(server, tmp_path, sha256=None)
    assert (tmp_path / "file").read_bytes() == other


def test_a_wrong_part_is_not_appended(tmp_path):
    with serving(CONTENT, "cut", "wrong_range", "well") as server:
        get(server, tmp_path)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_whole_part_needs_no_more_bytes(tmp_path):
    with serving(CONTENT, "well") as server:
        (tmp_path / "file.part").write_bytes(CONTENT)
        (tmp_path / "file.part.json").write_text(f'{{"identity": "{server.url}", "tag": null}}')
        get(server, tmp_path, sha256=None, size=None)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_wrong_checksum_throws_the_file_away(tmp_path):
    with serving(CONTENT, "well") as server, pytest.raises(DataError, match="SHA-256"):
        get(server, tmp_path, sha256="0" * 64)
    assert names(tmp_path) == []


def test_a_wrong_length_is_refused_before_it_is_fetched(tmp_path):
    with serving(CONTENT, "well") as server, pytest.raises(DataError, match="announces"):
        get(server, tmp_path, size=len(CONTENT) + 1)
    assert names(tmp_path) == []


def test_a_wrong_length_is_refused_where_none_is_announced(tmp_path):
    with serving(CONTENT, "chunked") as server, pytest.raises(DataError, match="bytes came"):
        get(server, tmp_path, size=len(CONTENT) + 1)
    assert names(tmp_path) == []


def test_an_error_page_is_not_taken_for_the_file(tmp_path):
    with serving(CONTENT, "page") as server, pytest.raises(DataError):
        get(server, tmp_path)
    assert not (tmp_path / "file").exists()


def test_pieces_without_a_length_arrive_and_a_missing_end_is_noticed(tmp_path):
    with serving(CONTENT, "chunked_cut", "chunked") as server:
        get(server, tmp_path, size=None)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(server.ranges) == 2


def test_a_flood_is_stopped(tmp_path):
    with serving(CONTENT, "flood") as server, pytest.raises(DataError, match="more bytes"):
        get(server, tmp_path)
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").stat().st_size <= len(CONTENT)


def test_a_repacked_answer_is_refused(tmp_path):
    with serving(CONTENT, "repacked") as server, pytest.raises(DataError, match="re-packs"):
        get(server, tmp_path)


def test_a_missing_file_is_not_asked_for_again(tmp_path):
    with serving(CONTENT, "gone") as server, pytest.raises(DataError, match="404"):
        get(server, tmp_path)
    assert len(server.ranges) == 1


def test_redirects_stay_on_safe_addresses(tmp_path):
    with serving(CONTENT, "moved", "well") as server:
        get(server, tmp_path)
    with serving(CONTENT, "away") as server, pytest.raises(DataError, match="only https"):
        get(server, tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "http://example.invalid/x"])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(DataError, match="only https"):
        download(url, tmp_path / "file")
    with pytest.raises(DataError, match="only https"):
        read_small(url)


def test_a_disk_that_is_too_small_is_noticed_first(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with serving(CONTENT, "well") as server, pytest.raises(DataError, match="make room"):
        get(server, tmp_path)


def test_a_listing_is_small(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LISTING", 10)
    with serving(b"x" * 11, "well") as server, pytest.raises(DataError, match="larger"):
        read_small(server.url)
    with serving(b"x" * 10, "well") as server:
        assert read_small(server.url) == b"x" * 10
