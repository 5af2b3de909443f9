"""The benchmark of a million cells, on a few: its set is what it says, and its steps run."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))
from million import FAULTS, SUBSETS, many_fields  # noqa: E402

sys.path.remove(str(FOLDER))


def test_the_set_has_as_many_fields_and_cells_as_asked_for_and_is_the_same_again():
    fields = list(many_fields(1200, 5000))
    assert len(fields) == 1200 and sum(len(f.cells) for f in fields) == 5000
    assert {f.domain.name for f in fields} == {f"{m}/{x}X/{c}" for m, x, c in SUBSETS}
    assert fields[:500] == list(islice(many_fields(1200, 5000), 500))
    assert len({f.path for f in fields}) == 1200
    assert {f.diagnosis for f in fields if f.split == "test"} >= {"ALL", "CLL"}
    assert len({c.id for f in fields for c in f.cells}) == 5000


@pytest.mark.slow
def test_every_step_runs_and_is_recorded(tmp_path):
    out = tmp_path / "million.json"
    command = [sys.executable, FOLDER / "million.py", "--fields", "240", "--cells", "1000"]
    command += ["--json", out, "--without-training"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(out.read_text())
    assert report["fields"] == 240 and report["cells"] == 1000
    assert all(row["seconds"] > 0 and row["peak_mb"] > 0 for row in report["steps"])
    streamed = next(row for row in report["steps"] if "turn" in row["what"])
    assert streamed["its_cells"] == 1000
    assert sum(FAULTS.values()) < 0.01
