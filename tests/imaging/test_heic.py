"""HEIC photographs of phones: read with the extra `heic`, refused by name without it."""

import base64
import struct
import sys

import numpy as np
import pytest

from bloodfilm.core import DataError
from bloodfilm.imaging.discovery import discover
from bloodfilm.imaging.headers import image_size
from bloodfilm.imaging.sources.image_file import open_with_notes

# A drawn picture of 64 x 48 pixels: grey, a violet and a pink rectangle; and the same picture to be
# shown turned by a quarter (item property irot), as phones store it.
PLAIN = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAUQAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo"
    "dmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAA"
    "AwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAAB"
    "AAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAUxt"
    "ZGF0AAABQCgBrwY48XPszH/X3oR0FJfsVd+g1PPst3lhD2Ywmfd+vdmktU/zg/me18i9YMhEEvSGLjk5w7aJCLXXVa11"
    "2LosL5z3R2BsH9sYxg6tKUB00xOdNc2l/S65vWbY0G5+WmHE7/iZJZ8b/fPveOISa22gqOLNHfCP/6+LW856cLPWdUdB"
    "LrMrJXxjRMBd9f0uVFq411umfV/2f+O/sZf9Zw/B8es2ttFzM6fkcO8znQjn6i6VU3Q2ldIN+syPOkecTRDXhOkXX5Wy"
    "nn2WIQaINdZzq4GfzMm3Iuw81C2ckfDGoXXGNPbLPZ2RI698mSH+KXCD/sR2crpGKg30d7hxwT1xfDZl9bweOsiA3WYI"
    "dQ5qi6ZCqBt0VrTO1d1y7gHtcpzmyY299qUfQYQFkOvbG0Hx/w9LxXb28yEeVVNoUauA"
)
TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAAUQAAgAAAAADMAABAAAAAAAAACQAAAA4aWluZgAAAAAA"
    "AgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADm"
    "aXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAq"
    "QgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQAN"
    "AAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEA"
    "AQAAAXBtZGF0AAABQCgBrwY48XPszH/X3oR0FJfsVd+g1PPst3lhD2Ywmfd+vdmktU/zg/me18i9YMhEEvSGLjk5w7aJ"
    "CLXXVa112LosL5z3R2BsH9sYxg6tKUB00xOdNc2l/S65vWbY0G5+WmHE7/iZJZ8b/fPveOISa22gqOLNHfCP/6+LW856"
    "cLPWdUdBLrMrJXxjRMBd9f0uVFq411umfV/2f+O/sZf9Zw/B8es2ttFzM6fkcO8znQjn6i6VU3Q2ldIN+syPOkecTRDX"
    "hOkXX5Wynn2WIQaINdZzq4GfzMm3Iuw81C2ckfDGoXXGNPbLPZ2RI698mSH+KXCD/sR2crpGKg30d7hxwT1xfDZl9bwe"
    "OsiA3WYIdQ5qi6ZCqBt0VrTO1d1y7gHtcpzmyY299qUfQYQFkOvbG0Hx/w9LxXb28yEeVVNoUauAAAAABkV4aWYAAE1N"
    "ACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA"
)


def drawn():
    picture = np.full((48, 64, 3), 225, np.uint8)
    picture[8:24, 8:40] = (120, 40, 130)
    picture[30:44, 40:60] = (230, 150, 140)
    return picture


def near(pixels, picture):
    """Whether two pictures are the same but for compression: colours agree away from edges."""
    return pixels.shape == picture.shape and float(np.median(abs(pixels.astype(int) - picture))) < 3


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(PLAIN)
    (tmp_path / "IMG_2.heic").write_bytes(TURNED)
    return tmp_path


def test_photographs_of_a_folder_are_found_and_measured(folder):
    """Their names and sizes are known without the extra."""
    found = discover([folder]).images
    assert [path.name for path in found] == ["IMG_1.HEIC", "IMG_2.heic"]
    assert [image_size(path) for path in found] == [(64, 48), (48, 64)]


def test_pictures_are_read_upright(folder):
    pytest.importorskip("pi_heif", reason="needs the extra heic")
    plain, turned = (open_with_notes(path) for path in sorted(folder.iterdir()))
    assert near(plain.pixels, drawn()) and plain.issues == ()
    assert near(turned.pixels, np.rot90(drawn(), -1))


def test_without_the_extra_each_is_refused_with_the_remedy(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    for path in folder.iterdir():
        with pytest.raises(DataError) as said:
            open_with_notes(path)
        assert str(said.value).startswith(f"{path}: it is an HEIC photograph")
        assert "pip install 'bloodfilm[heic]', or save it as JPEG" in str(said.value)


def test_damage_and_sizes_that_contradict_are_one_line(tmp_path):
    pytest.importorskip("pi_heif", reason="needs the extra heic")
    at = PLAIN.index(b"ispe") + 8
    hostile = {
        "cut": (PLAIN[:-200], "the HEIC"),
        "header": (PLAIN[:40], "the HEIC header is cut off"),
        "huge": (
            PLAIN[:at] + struct.pack(">II", 9000, 9000) + PLAIN[at + 8 :],
            "no photograph fits into so few",
        ),
        "larger": (PLAIN[:at] + struct.pack(">II", 640, 480) + PLAIN[at + 8 :], "HEIC"),
    }
    for name, (data, words) in hostile.items():
        path = tmp_path / f"{name}.heic"
        path.write_bytes(data)
        with pytest.raises(DataError) as said:
            open_with_notes(path)
        assert words in str(said.value) and "\n" not in str(said.value)
