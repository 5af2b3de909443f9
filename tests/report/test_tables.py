import csv

import pytest

from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.results import AttributeResult, FieldResult
from bloodfilm.report.tables import (
    cell_columns,
    cell_row,
    cells_table,
    describe_columns,
    write_cells_csv,
)


def as_dict(image, cell):
    return dict(zip(cell_columns(LLD_SCHEMA), cell_row(image, cell, LLD_SCHEMA), strict=True))


def test_columns():
    columns = cell_columns(LLD_SCHEMA)
    assert columns[:9] == ("image", "x", "y", "w", "h", "score", "kind", "class", "class_score")
    assert columns[9:11] == ("cell_size", "cell_size_probability")
    assert columns[-3:] == ("flags", "diameter_um", "stain_contrast")
    assert len(columns) == 9 + 2 * 7 + 3


def test_row_tells_sure_from_unsure_from_never_learnt(cell):
    row = as_dict(
        "a.png",
        cell(
            attributes={
                "nucleolus": AttributeResult("prominent", 0.91234, {}),
                "cytoplasm": AttributeResult(None, 0.55, {}),
                "cytoplasmic_vacuoles": AttributeResult(None, 0.0, {}),
            },
            flags=("cut by the edge", "unlike anything learnt"),
            diameter_um=12.345,
            stain_contrast=0.1234,
        ),
    )
    assert (row["nucleolus"], row["nucleolus_probability"]) == ("prominent", "0.9123")
    assert (row["cytoplasm"], row["cytoplasm_probability"]) == ("", "0.5500")
    assert (row["cytoplasmic_vacuoles"], row["cytoplasmic_vacuoles_probability"]) == ("", "")
    assert (row["cell_size"], row["cell_size_probability"]) == ("", "")
    assert row["flags"] == "cut by the edge; unlike anything learnt"
    assert row["diameter_um"] == "12.35" or row["diameter_um"] == "12.34"
    assert row["stain_contrast"] == "0.123"
    assert (row["x"], row["w"], row["class"]) == ("1.0", "3.0", "lymphocyte")


@pytest.mark.parametrize("column", ["diameter_um", "stain_contrast"])
def test_what_is_unknown_is_empty(cell, column):
    assert as_dict("a.png", cell())[column] == ""


@pytest.mark.parametrize("name", ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ta.png"])
def test_no_name_is_a_formula(cell, name):
    assert as_dict(name, cell())["image"] == f"./{name}"
    assert as_dict(f"dir/{name}", cell())["image"] == f"dir/{name}"


def test_csv_round_trip_of_hostile_names(cell, tmp_path):
    names = ['a,"b"\n.png', "ü ñ 白.png", "\udcff.png"]
    fields = [FieldResult(n, 9, 9, {}, (cell(), cell("monocyte"))) for n in names]
    path = tmp_path / "new" / "cells.csv"
    assert write_cells_csv(path, fields, LLD_SCHEMA) == 6
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == cell_columns(LLD_SCHEMA)
    assert [tuple(r) for r in rows[1:]] == list(cells_table(fields, LLD_SCHEMA))
    assert [r[0] for r in rows[1::2]] == names


def test_a_write_that_fails_leaves_nothing(cell, tmp_path):
    def broken():
        yield FieldResult("a.png", 9, 9, {}, (cell(),))
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_cells_csv(tmp_path / "cells.csv", broken(), LLD_SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_every_column_is_described():
    described = [n for names, _ in describe_columns(LLD_SCHEMA) for n in names.split(", ")]
    assert tuple(described) == cell_columns(LLD_SCHEMA)
