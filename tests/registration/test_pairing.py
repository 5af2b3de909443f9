"""Which photograph goes with which."""

from pathlib import Path

import pytest

from bloodfilm.core import DataError
from bloodfilm.registration.pairing import by_name, from_file, name_key

SOURCES = [Path("a/4_15_1000_ALL.png"), Path("a/4_16_1000_ALL.png"), Path("a/smear one.jpg")]
TARGETS = [
    Path("b/4_15_23_400_ALL.png"),
    Path("b/4_15_24_400_ALL.png"),
    Path("b/5_15_1_400_ALL.png"),
    Path("b/Smear one.png"),
]


def test_lld_names_pair_by_patient_and_field():
    assert by_name(SOURCES, TARGETS) == [(0, 0), (0, 1), (2, 3)]
    assert name_key(Path("48_8_39`_400_AML.png")) == ("lld", "48", "8")


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_list_pairs_what_it_says(tmp_path):
    table = write(
        tmp_path / "pairs.csv",
        "target,source,why",
        "5_15_1_400_ALL.png,4_16_1000_ALL,seen",
        "b/4_15_23_400_ALL.png,a/4_15_1000_ALL.png,",
    )
    assert from_file(table, SOURCES, TARGETS) == [(1, 2), (0, 0)]


def test_a_list_that_is_wrong_names_its_line(tmp_path):
    table = write(tmp_path / "p.csv", "source,target", "nowhere.png,Smear one.png")
    with pytest.raises(DataError, match=r"line 2: source 'nowhere\.png' is no image"):
        from_file(table, SOURCES, TARGETS)
    twice = [*TARGETS, Path("c/Smear one.png")]
    table = write(tmp_path / "p.csv", "source,target", "smear one.jpg,Smear one.png")
    with pytest.raises(DataError, match="several"):
        from_file(table, SOURCES, twice)
    table = write(tmp_path / "p.csv", "source,target", "smear one.jpg")
    with pytest.raises(DataError, match="line 2: target ''"):
        from_file(table, SOURCES, TARGETS)
    for lines in (("from,to", "a,b"), ("",), ("source,target",)):
        with pytest.raises(DataError, match=r"no column 'source', 'target'|is empty|no rows"):
            from_file(write(tmp_path / "p.csv", *lines), SOURCES, TARGETS)
    with pytest.raises(DataError, match="cannot be read"):
        from_file(tmp_path / "none.csv", SOURCES, TARGETS)
