import csv
import io

import pytest

from bloodfilm.core import issue_codes
from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.results import AttributeResult, CellShape
from bloodfilm.core.results.tables import (
    SHAPE_COLUMNS,
    CellTableWriter,
    cell_columns,
    cell_values,
    describe_columns,
)

NAMES = LLD_SCHEMA.names


def written(images):
    """Write a table; return its text."""
    file = io.StringIO(newline="")
    table = CellTableWriter(file, LLD_SCHEMA)
    rows = sum(table.write(name, cells) for name, cells in images)
    return file.getvalue(), rows


def as_dict(image, cell):
    text, _ = written([(image, [cell])])
    return next(csv.DictReader(io.StringIO(text, newline="")))


def test_columns():
    columns = cell_columns(NAMES)
    first = ("image", "x", "y", "w", "h", "score", "object_type", "class", "class_score")
    assert columns[:9] == first
    assert columns[9:11] == ("cell_size", "cell_size_probability")
    assert columns[-4:] == ("issues", "diameter_um", "stain_contrast", "cell_id")
    assert columns[23:29] == SHAPE_COLUMNS and len(columns) == 9 + 2 * 7 + 6 + 4


def test_row_tells_sure_from_unsure_from_never_learnt(cell):
    row = as_dict(
        "a.png",
        cell(
            attributes={
                "nucleolus": AttributeResult("prominent", 0.91234, {}),
                "cytoplasm": AttributeResult(None, 0.55, {}),
                "cytoplasmic_vacuoles": AttributeResult(None, 0.0, {}),
            },
            issues=(issue(issue_codes.CUT_BY_EDGE, "a"), issue(issue_codes.UNFAMILIAR, "b")),
            diameter_um=12.3,
            stain_contrast=0.1234,
            id="ab12",
        ),
    )
    assert (row["nucleolus"], row["nucleolus_probability"]) == ("prominent", "0.9123")
    assert (row["cytoplasm"], row["cytoplasm_probability"]) == ("", "0.5500")
    assert (row["cytoplasmic_vacuoles"], row["cytoplasmic_vacuoles_probability"]) == ("", "")
    assert (row["cell_size"], row["cell_size_probability"]) == ("", "")
    assert row["issues"] == "cut-by-edge unfamiliar"
    assert (row["diameter_um"], row["stain_contrast"]) == ("12.30", "0.123")
    assert (row["x"], row["w"], row["class"], row["score"]) == (
        "1.0",
        "3.0",
        "lymphocyte",
        "0.9000",
    )
    assert row["cell_id"] == "ab12"


def test_measurements_of_an_outlined_cell(cell):
    shape = CellShape(
        outline=((0, 0), (4, 0), (4, 4)),
        nucleus=(),
        area_um2=101.234,
        nucleus_area_um2=0.0,
        diameter_um=11.3,
        length_um=12.0,
        width_um=10.0,
        nucleus_ratio=0.4567,
        circularity=0.9876,
        nucleus_circularity=None,
        lobes=0,
        nucleus_rgb=None,
        cytoplasm_rgb=(1, 2, 3),
    )
    row = as_dict("a.png", cell(shape=shape))
    assert [row[name] for name in SHAPE_COLUMNS] == ["101.23", "0.00", "0.457", "0.988", "", "0"]


@pytest.mark.parametrize("column", ["diameter_um", "stain_contrast", *SHAPE_COLUMNS])
def test_what_is_unknown_is_empty(cell, column):
    assert as_dict("a.png", cell())[column] == ""


@pytest.mark.parametrize("name", ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ta.png"])
def test_no_name_is_a_formula(cell, name):
    assert as_dict(name, cell())["image"] == f"./{name}"
    assert as_dict(f"dir/{name}", cell())["image"] == f"dir/{name}"


def test_csv_round_trip_of_hostile_names(cell):
    names = ['a,"b"\n.png', "ü ñ 白.png", "\udcff.png"]
    text, count = written([(n, (cell(), cell("monocyte"))) for n in names])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == cell_columns(NAMES) and count == len(rows) - 1 == 6
    assert [r[0] for r in rows[1::2]] == names
    assert rows[1][7:9] == ["lymphocyte", "0.8000"]


def test_values_keep_their_types(cell):
    values = dict(zip(cell_columns(NAMES), cell_values("=a", cell(), NAMES), strict=True))
    assert (values["image"], values["x"], values["diameter_um"]) == ("=a", 1.0, None)


def test_every_column_is_described():
    described = [n for names, _ in describe_columns(LLD_SCHEMA) for n in names.split(", ")]
    assert tuple(described) == cell_columns(NAMES)
