"""The benchmarks of real cases, on a few fields: each cell counts once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def figures(real_data, name, tmp_path, *options):
    """Run a benchmark on one set and return what it found."""
    if not (real_data / "bcisc").is_dir():
        pytest.skip("needs the set bcisc")
    out = tmp_path / "figures.json"
    command = [sys.executable, FOLDER / name, "--sets", "bcisc", "--json", out, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(out.read_text())
    return found


@pytest.mark.slow
def test_cells_of_photographs_that_overlap_count_once(real_data, tmp_path):
    found = figures(real_data, "mosaics.py", tmp_path, "--fields", "2", "--cuts", "4")
    assert found["cells"] > 0
    assert found["counted once"] == found["cells"]
    assert found["false_joins"] == {} and found["joined_at_another_place"] == 0
    joined, pairs = found["joined_of_pairs"]["< 1000 um"]
    assert joined == pairs > 0


@pytest.mark.slow
def test_a_field_with_many_copies_counts_once(real_data, tmp_path):
    found = figures(real_data, "copies.py", tmp_path, "--fields", "1")
    assert found["pictures_that_count_for_a_field"] == [1]
    assert "counted" not in found["said"]["c-bytes"]
    assert found["said"]["i-empty"] == {"no-cells": 1}
