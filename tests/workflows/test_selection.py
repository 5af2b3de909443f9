"""Which fields of an annotated set a command works on, and those whose image is missing."""

from pathlib import Path

import pytest

from bloodfilm.core import Cell, Dataset, Domain, Field
from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import FIELD_FAILED
from bloodfilm.core.progress import NoProgress
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.workflows.complete import CompletionJob, complete
from bloodfilm.workflows.name_cells import NamingJob, name_cells
from bloodfilm.workflows.selection import open_selected, select_fields
from fake_bundle import draw, lay_out, save, write_bundle

CELL = Cell((96.0, 136.0, 48.0, 48.0), "nucleated cell")


class Reports(NoProgress):
    """Keeps what is reported."""

    def __init__(self):
        self.issues = []

    def report(self, issue):
        self.issues.append(issue)


def field_of(path, microscope=None, split=None):
    domain = Domain(microscope, um_per_px=0.25, pixel_aspect_ratio=1.0)
    return Field(Path(path), 480, 320, (CELL,), domain=domain, split=split)


FIELDS = [
    field_of("a.png", "A", "train"),
    field_of("b.png", "B", "train"),
    field_of("c.png", "A", "val"),
]


def test_fields_of_splits_and_microscopes():
    assert select_fields(FIELDS, Path("set")) == FIELDS
    assert select_fields(FIELDS, Path("set"), splits=["train"]) == FIELDS[:2]
    assert select_fields(FIELDS, Path("set"), splits=["train"], microscopes=["A"]) == FIELDS[:1]
    assert select_fields(FIELDS, Path("set"), microscopes=["B", "A"]) == FIELDS


@pytest.mark.parametrize(
    ("fields", "asked", "line"),
    [
        (FIELDS, {"splits": ["test"]}, "set: no field of split 'test'; there: train, val"),
        (FIELDS, {"microscopes": ["C"]}, "set: no field of microscope 'C'; there: A, B"),
        (
            FIELDS,
            {"splits": ["val"], "microscopes": ["B"]},
            "set: no field of these splits is of these microscopes",
        ),
        ([], {}, "set: holds no field"),
    ],
)
def test_a_choice_that_leaves_none_is_refused(fields, asked, line):
    with pytest.raises(DataError) as raised:
        select_fields(fields, Path("set"), **asked)
    assert str(raised.value) == line


@pytest.fixture
def half_gone(tmp_path):
    """A set of two fields, the image of one of which is missing."""
    save(tmp_path / "here.png", draw(lay_out(120.0, 80.0, [(30.0, 40.0, "monocyte")]), (480, 320)))
    fields = tuple(field_of(tmp_path / name) for name in ("gone.png", "here.png"))
    save_dataset(Dataset("d", fields), tmp_path / "set", "bloodfilm")
    return tmp_path / "set"


def test_fields_without_their_image_are_kept_to_be_named(half_gone):
    dataset = open_selected(half_gone)
    assert [f.path.name for f in dataset] == ["gone.png", "here.png"] and not dataset.issues


def test_commands_that_complete_and_name_cells_name_an_image_that_is_missing(half_gone, tmp_path):
    bundle, reports = write_bundle(tmp_path / "bundle"), Reports()
    made = complete(CompletionJob(dataset=half_gone, out=tmp_path / "c", bundle=bundle), reports)
    assert [Path(f.path).name for f in made.failures] == ["gone.png"] and made.fields == 1
    completed = open_dataset(tmp_path / "c")
    assert len(completed) == 1 and not completed.issues
    named = Reports()
    with pytest.raises(DataError, match="the model is sure of none"):
        name_cells(NamingJob(dataset=half_gone, out=tmp_path / "n", least=1.0), named)
    for got in (reports, named):
        (failure,) = got.issues
        assert failure.code == FIELD_FAILED and "gone.png" in failure.message
