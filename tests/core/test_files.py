"""Files appear whole, replace no input, and leave nothing behind."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bloodfilm.core import DataError, files
from bloodfilm.core.files import (
    atomic_write,
    atomic_write_bytes,
    copy_file,
    open_new,
    open_output,
    refuse_inputs,
    refuse_links,
    remove_leftovers,
    sha256_of,
    staging_folder,
    write_bytes,
    write_json,
    write_text,
    write_together,
)


def listed(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_checksum_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "abc") == digest


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as file:
        file.write("grün\r\n\udcff")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "grün\r\n".encode() + b"\xff"
    assert listed(path.parent) == ["a.txt"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write_bytes(tmp_path / "a") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == b"old" and listed(tmp_path) == ["a"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "x")
        with staging_folder(tmp_path) as staging:
            assert staging.stat().st_mode & 0o777 == 0o777 & ~mask
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    (tmp_path / "a").write_text("secret")
    (tmp_path / "a").chmod(0o600)
    write_json(tmp_path / "a", {"é": 1})
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a").read_text(encoding="utf-8") == '{\n "é": 1\n}\n'


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_replaced_and_not_written_through(tmp_path, there):
    victim = tmp_path / "victim"
    if there:
        victim.write_text("precious")
    (tmp_path / "a").symlink_to(victim)
    write_bytes(tmp_path / "a", b"new")
    assert not (tmp_path / "a").is_symlink() and (tmp_path / "a").read_bytes() == b"new"
    assert victim.read_text() == "precious" if there else not victim.exists()


def test_a_copy_onto_a_hard_link_leaves_the_other_name_alone(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    os.link(tmp_path / "b", tmp_path / "c")
    copy_file(tmp_path / "a", tmp_path / "c")
    assert [(tmp_path / n).read_text() for n in "abc"] == ["a", "b", "a"]


def test_a_folder_of_that_name_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        write_text(tmp_path, "x")
    with pytest.raises(DataError, match="is a folder"), open_output(tmp_path):
        pass


def test_several_files_are_replaced_together_or_not_at_all(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write_together({one: b"1", two: b"2"})
    with pytest.raises(TypeError):
        write_together({one: b"3", two: "no bytes"})
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")
    assert listed(tmp_path) == ["one", "two"]


def test_the_error_names_the_file_that_was_wanted(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / "file" / "a", "x")
    assert str(tmp_path / "file") in str(caught.value)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / "a", "x")
    assert caught.value.filename == str(tmp_path / "a") and caught.value.errno == errno.ENOSPC
    assert listed(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_an_error():
    with pytest.raises(OSError) as caught, open_output(Path("/dev/full")) as file:
        file.write("x")
    assert caught.value.errno == errno.ENOSPC


def test_a_new_file_is_opened_at_no_link(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    with pytest.raises(DataError, match="exists"):
        open_new(tmp_path / "a")
    assert not (tmp_path / "victim").exists()


# ---- leftovers -------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from bloodfilm.core.files import atomic_write_bytes, staging_folder
folder = Path(sys.argv[1])
with staging_folder(folder / "") as staging, atomic_write_bytes(folder / "big") as file:
    (staging / "half").write_bytes(b"x")
    file.write(b"x" * 100)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_write_left_is_removed_by_the_next(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        unfinished = listed(tmp_path)
        assert len(unfinished) == 2
        write_text(tmp_path / "mine", "x")  # it is at work: leave it
        assert listed(tmp_path) == sorted([*unfinished, "mine"])
        process.send_signal(signal.SIGKILL)
    assert listed(tmp_path) == sorted([*unfinished, "mine"])
    write_text(tmp_path / "mine", "y")
    assert listed(tmp_path) == ["mine"]


def test_only_unfinished_files_are_leftovers(tmp_path):
    (tmp_path / ".bloodfilm-0123abcd.part").write_text("left")
    (tmp_path / ".bloodfilm-89abcdef.part").symlink_to(tmp_path / "keep.txt")
    for name in ("keep.txt", ".bloodfilm-x.part", "model.pt.part", ".hidden"):
        (tmp_path / name).write_text("keep")
    assert remove_leftovers(tmp_path) == [".bloodfilm-0123abcd.part"]
    assert (tmp_path / "keep.txt").read_text() == "keep" and len(listed(tmp_path)) == 5


# ---- files that a user named -----------------------------------------------------------------


def test_a_link_that_a_user_names_stays_a_link(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with open_output(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    with open_output(pipe) as file:
        file.write("through")
    reader.join(10)
    assert got == ["through"] and pipe.is_fifo()


def test_a_device_is_written_to_and_stays(tmp_path):
    (tmp_path / "null").symlink_to(os.devnull)
    with open_output(tmp_path / "null") as file:
        file.write("gone")
    assert (tmp_path / "null").is_char_device()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_standard_streams_go_where_they_lead(tmp_path, name):
    code = (
        "from pathlib import Path; from bloodfilm.core.files import open_output\n"
        f"print('before')\nwith open_output(Path({name!r})) as f: f.write('between\\n')\n"
        "print('after')"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nbetween\nafter\n"


def test_a_socket_and_a_link_in_a_circle_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s")
        with pytest.raises(DataError, match="is a socket"), open_output(tmp_path / "s"):
            pass
    (tmp_path / "c").symlink_to("c")
    with pytest.raises(DataError, match="circle"), open_output(tmp_path / "c"):
        pass


# ---- inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["same", "spelling", "link", "hard link", "linked folder"])
def test_an_output_that_is_an_input_is_refused(tmp_path, how):
    place = tmp_path / "set"
    place.mkdir()
    (place / "a").write_text("a")
    output = tmp_path / "output"
    if how == "same":
        output = place / "a"
    elif how == "spelling":
        output = place / ".." / "set" / "a"
    elif how == "link":
        output.symlink_to(place / "a")
    elif how == "hard link":
        os.link(place / "a", output)
    else:
        output.symlink_to(place)
        output = output / "a"
    with pytest.raises(DataError, match="is an input"):
        refuse_inputs([output], [place / "a"])
    with pytest.raises(DataError, match="name a file elsewhere"):
        refuse_inputs([output], [place])
    (tmp_path / "other").symlink_to(place)
    with pytest.raises(DataError):
        refuse_inputs([output], [tmp_path])


def test_other_outputs_are_free(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("a")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "out").write_text("a")
    free = [
        tmp_path / "out",
        tmp_path / "in" / "new",
        tmp_path / "nothing",
        Path("/dev/null"),
    ]
    refuse_inputs(free, [tmp_path / "in", tmp_path / "in" / "a", tmp_path / "missing"])


def test_a_link_on_the_way_is_refused(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "else").mkdir()
    (tmp_path / "root" / "images").symlink_to(tmp_path / "else")
    with pytest.raises(DataError, match="is a link to"):
        refuse_links(tmp_path / "root", tmp_path / "root" / "images" / "train" / "a.png")
    refuse_links(tmp_path / "root", tmp_path / "root" / "labels" / "a.txt")
