"""Tables from spreadsheets and from hand: values under their columns, or one line that says why."""

import sys

import pytest

from bloodfilm.core import DataError
from bloodfilm.core.csv_text import csv_line, guard, parse_table, unguard

ROWS = [{"image": "a.png", "patient": "Ann"}, {"image": "b,c.png", "patient": "Bo"}]


@pytest.mark.parametrize(
    "text",
    [
        'image,patient\na.png,Ann\n"b,c.png",Bo\n',
        "image;patient\na.png;Ann\nb,c.png;Bo\n",
        "image\tpatient\r\na.png\tAnn\r\n\r\nb,c.png\tBo\r\n",
        "sep=;\nimage;patient\na.png;Ann\nb,c.png;Bo",
        "sep=|\r\nimage|patient\r\na.png|Ann\r\nb,c.png|Bo\r\n",
        '\n\n image , patient ,,\na.png,Ann,,\n"b,c.png",Bo,,\n,,,\n',
    ],
)
def test_tables_as_spreadsheets_write_them(text):
    rows = parse_table(text, "t.csv", ("image", "patient")).rows
    assert [{k: row[k] for k in ("image", "patient")} for row in rows] == ROWS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "t.csv: is empty"),
        ("\n ,,\n", "t.csv: is empty"),
        ("image,name\na,b\n", "t.csv: line 1: no column 'patient'"),
        ("sep=;\n\nimage,patient\n", "t.csv: line 3: no column 'image', 'patient'"),
        ("image,patient,image\na,b,c\n", "t.csv: line 1: two columns 'image'"),
        ("image,patient\na,b\nDoe, Jane.png,c\n", "t.csv: line 3: 3 values for 2 columns"),
        ('image,patient\n"a\nb",1\nc,d,e\n', "t.csv: line 4: 3 values for 2 columns"),
        ('image,patient\n"a,b\nc,d\n', "not a CSV table"),
        ('image,patient\n"a"b,c\n', "t.csv: line 2: not a CSV table"),
        ("image,patient\n" + "x" * 200_000 + ",a\n", "t.csv: line 2: not a CSV table"),
    ],
)
def test_what_would_move_values_is_refused_by_its_line(text, words):
    with pytest.raises(DataError) as said:
        parse_table(text, "t.csv", ("image", "patient"))
    assert words in str(said.value) and "\n" not in str(said.value)


def test_names_keep_their_line_breaks_and_separators():
    names = ["a\u2028b", "c\x0bd", "e\rf", "g\nh", 'i"j', " k", "l,m;n\to", "=1"]
    text = csv_line(["name", "n"]) + "".join(csv_line([guard(n), "1"]) for n in names)
    assert [unguard(row["name"]) for row in parse_table(text, "t.csv").rows] == names


def test_rows_that_end_early_take_no_memory():
    columns = [f"c{n}" for n in range(1000)]
    table = parse_table(",".join(columns) + "\na\n" + "b,c\n", "t.csv", ("c0", "c999"))
    assert [len(row) for row in table.rows] == [1, 2]
    assert [row["c999"] for row in table.rows] == ["", ""]
    assert sys.getsizeof(table.rows[0]) < 1000
    with pytest.raises(KeyError):
        table.rows[0]["c1000"]
