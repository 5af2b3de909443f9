"""`bloodfilm films --lld`: a set in LLD's layout, its faults listed, and what is refused."""

import json
import zipfile

import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset


def run(*arguments):
    return CliRunner().invoke(app, ["films", *map(str, arguments)])


def test_a_set_in_lld_layout_with_its_faults_listed(tmp_path):
    out = tmp_path / "bed"
    subsets = ("--lld", "L_100X_C2", "--lld", "H_40X_C2")
    size = ("--fields", 2, "--patients", 3, "--side", 320)
    result = run(out, *subsets, *size, "--fault", "sliver", "--fault", "missing image")
    assert result.exit_code == 0, result.output
    listed = json.loads((out / "planted.json").read_text())
    assert [entry["fault"] for entry in listed] == ["sliver", "missing image"]
    assert listed[0]["file"].startswith("L_100X_C2/Images/train/")
    with zipfile.ZipFile(out / "L_100X_C2" / "labels.zip") as archive:
        names = {"WBC_detection/train.json", "WBC_detection/test.json"}
        assert set(archive.namelist()) == names
    dataset = open_dataset(out)
    assert {f.domain.name for f in dataset} == {"L/100X/C2", "H/40X/C2"}
    assert len(dataset) == 11 and "1 of 12 images are missing" in "\n".join(
        messages(dataset.issues)
    )
    sparse = open_dataset(out, labels="SLA-Det")
    assert all(f.region.polygons and len(f.cells) for f in sparse if f.cells)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--lld", "H_20X_C1"], "no subset 'H_20X_C1'"),
        (["--fault", "sliver"], "give --lld too"),
        (["--scene", "night"], "--scene night: choose from normal, hard, empty"),
        (["--scene", "hard", "--look", "pbc-like"], "leave out --look"),
        (["--lld", "H_40X_C2", "--fault", "rust"], "no fault 'rust'; known: overlap"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path, arguments, what):
    result = run(tmp_path / "bed", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and what in line
    assert not (tmp_path / "bed").exists()


def test_fields_that_mislead(tmp_path):
    for scene in ("hard", "empty"):
        result = run(tmp_path / scene, "--scene", scene, "--fields", 4, "--small", "--seed", 3)
        assert result.exit_code == 0, result.output
        dataset = open_dataset(tmp_path / scene)
        assert len(dataset) == 4 and all(f.path.is_file() for f in dataset)
        labels = {c.label for f in dataset for c in f.cells}
        assert "red cell" in labels
        nucleated = {
            n for n in labels if n and dataset.taxonomy.is_under(n, "nucleated cell")
        } | labels & {"smudge cell", "squashed nucleus"}
        assert bool(nucleated) == (scene == "hard")
