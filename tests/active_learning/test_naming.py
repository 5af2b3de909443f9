"""Cells whose class nobody wrote down get one where a model is sure of it, and only there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bloodfilm.active_learning.naming import NamingRules, candidates, named
from bloodfilm.cli.app import app
from bloodfilm.core import Cell, Dataset, Domain, Field
from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.workflows.name_cells import NamingJob, name_cells

RULES = NamingRules()
BOX = (10.0, 10.0, 40.0, 40.0)
SOME = Cell(BOX, "nucleated cell")


def test_a_cell_gets_the_class_whose_leaves_sum_to_enough():
    sure = {"segmented neutrophil": 0.6, "band neutrophil": 0.35, "monocyte": 0.05}
    assert named(SOME, sure, DEFAULT_TAXONOMY, RULES) == Cell(BOX, "neutrophil")
    assert named(SOME, {**sure, "band neutrophil": 0.25}, DEFAULT_TAXONOMY, RULES) is None


def test_a_cell_is_named_only_below_its_label():
    kept = Cell(BOX, "granulocyte lineage")
    assert set(candidates(kept, DEFAULT_TAXONOMY, RULES)) == {
        "neutrophil",
        "eosinophil",
        "basophil",
    }
    assert named(kept, {"monocyte": 1.0}, DEFAULT_TAXONOMY, RULES) is None
    for cell in (Cell(BOX, "neutrophil"), Cell(BOX, "red cell"), Cell(BOX, None, ignore=True)):
        assert candidates(cell, DEFAULT_TAXONOMY, RULES) == ()


@pytest.fixture
def unnamed(tmp_path: Path) -> Path:
    """A field of noise with one cell without a class."""
    noise = np.random.default_rng(0).integers(150, 250, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    field = Field(tmp_path / "a.png", 80, 80, (SOME,), domain=Domain(um_per_px=0.2), split="train")
    save_dataset(Dataset("noise", (field,)), tmp_path / "set", "bloodfilm")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"least": 0.5}, "annotate names: the probability must lie above 0.5 and at most at 1"),
        ({"classes": ("lymphoblast",)}, "annotate names: the bundle has not learnt 'lymphoblast'"),
        ({"classes": ("ghost",)}, "annotate names: the bundle has not learnt 'ghost'"),
        ({"classes": ()}, "annotate names: no class to name cells by"),
        ({"classes": ("platelet",)}, "annotate names: the bundle has not learnt 'platelet'"),
        ({"splits": ("test",)}, "no field of split 'test'; there: train"),
        ({"microscopes": ("Axio",)}, "no field of microscope 'Axio'; there: none"),
        ({"least": 1.0}, "of 1 cell, the model is sure of none"),
    ],
)
def test_what_cannot_be_named_is_refused_in_one_line(unnamed, tmp_path, given, line):
    with pytest.raises(BloodfilmError) as raised:
        name_cells(NamingJob(dataset=unnamed, out=tmp_path / "out", **given))
    assert line in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_set_that_is_named_wholly_is_refused(tmp_path, unnamed):
    dataset = open_dataset(unnamed)
    (field,) = dataset.fields
    whole = replace(field, cells=(replace(SOME, label="monocyte"),))
    save_dataset(replace(dataset, fields=(whole,)), tmp_path / "whole", "bloodfilm")
    with pytest.raises(BloodfilmError, match="no cell to name"):
        name_cells(NamingJob(dataset=tmp_path / "whole", out=tmp_path / "out"))


def test_cells_of_a_known_microscope_get_their_own_class(real_data, tmp_path):
    """Of cells that lost their class, those that are named have their own class back."""
    dataset = open_dataset(real_data / "krd")
    truth = {}
    fields = []
    for n, field in enumerate(dataset.fields[::25]):
        cells = tuple(
            cell if (n + i) % 2 else replace(cell, label="nucleated cell")
            for i, cell in enumerate(field.cells)
        )
        truth[field.path.name] = field.cells
        fields.append(replace(field, cells=cells))
    (tmp_path / "cut.jpg").write_bytes(fields[0].path.read_bytes()[:999])
    cut = replace(fields[0], path=tmp_path / "cut.jpg")
    save_dataset(replace(dataset, fields=(*fields, cut)), tmp_path / "set", "bloodfilm")
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["annotate", "names", str(tmp_path / "set"), "-o", str(out)])
    assert result.exit_code == 1 and "cut.jpg" in result.output
    assert "Traceback" not in result.output
    got = open_dataset(out)
    compared = 0
    for field in got.fields:
        before = truth[field.path.name]
        assert len(field.cells) == len(before)
        for cell, was in zip(field.cells, before, strict=True):
            if cell.label == was.label and not cell.ignore:
                compared += 1
                continue
            assert cell.ignore and np.allclose(cell.box, was.box)
    assert compared >= len(got.fields)
    again = CliRunner().invoke(app, ["annotate", "names", str(tmp_path / "set"), "-o", str(out)])
    assert again.exit_code == 2 and "holds a data set" in again.output
    assert json.loads(next(out.glob("*.json")).read_text())["name"] == f"{dataset.name}, named"
