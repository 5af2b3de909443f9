"""A table read from an index by column is the one that reading field by field gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodfilm.core import LLD_SCHEMA, Cell, Dataset, Domain, Field, Region
from bloodfilm.core.cell_table import CellTable
from bloodfilm.formats import open_dataset
from bloodfilm.formats.parquet import index
from bloodfilm.formats.parquet.columns import table_of

pytest.importorskip("pyarrow")

SIDES = st.floats(1, 600).map(lambda v: round(v, 2))
ATTRIBUTES = {a.name: [*a.values, "of no schema"] for a in LLD_SCHEMA.attributes} | {"mood": ["x"]}
CELLS = st.builds(
    Cell,
    st.none() | st.tuples(SIDES, SIDES, SIDES, SIDES),
    st.sampled_from([None, "neutrophil", "white cell", "red cell"]),
    st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in ATTRIBUTES.items()}),
    st.booleans(),
    st.none() | st.text("ab1", max_size=3),
)
FIELDS = st.builds(
    Field,
    st.integers(0, 10**6).map(lambda i: Path(f"/images/{i}.png")),
    st.none() | st.integers(1, 5000),
    st.none() | st.integers(1, 5000),
    st.lists(CELLS, max_size=4).map(tuple),
    st.sampled_from([Region.everything(), Region.nothing(), Region.rect(1, 2, 30, 40)]),
    st.sampled_from([Domain(), Domain("H", 40, "C2", 0.56, 0.14)]),
    st.none() | st.sampled_from(["1", "2"]),
    st.sampled_from([None, "train", "test"]),
    st.sampled_from([None, "CLL"]),
    st.sampled_from([{}, {"field": "7", "photograph": "9"}, {"twin": "a"}]),
)


def contents(table: CellTable):
    """What a table says, whatever the order in which classes were met."""
    names = [table.class_of(i) for i in range(len(table))]
    arrays = (table.field, np.nan_to_num(table.box, nan=-1), table.codes)
    return table.rows, names, sorted(table.names), [a.tolist() for a in arrays], list(table.ids)


@settings(max_examples=30, deadline=None)
@given(st.lists(FIELDS, max_size=6))
def test_an_index_gives_the_same_table(tmp_path_factory, fields):
    file = tmp_path_factory.mktemp("index") / "a.parquet"
    dataset = Dataset("a", tuple(fields))
    index.write(dataset, file)
    assert contents(table_of(open_dataset(file))) == contents(table_of(dataset))


def test_it_is_read_over_several_row_groups(tmp_path, monkeypatch):
    from bloodfilm.formats.parquet import index as module

    monkeypatch.setattr(module, "GROUPS_AT_ONCE", 2)
    cells = [Cell((i + 1.0, 2, 30, 40), ("neutrophil", "monocyte")[i % 3 > 0]) for i in range(9)]
    base = Field(Path("/images/a.png"), 640, 640)
    fields = [
        replace(base, path=Path(f"/images/{i}.png"), cells=tuple(cells[: i % 10]))
        for i in range(50)
    ]
    file = tmp_path / "a.parquet"
    header = index.Header.of(Dataset("a", ()))
    index.write_fields(iter(fields), file, header, rows=7)
    found, wanted = table_of(open_dataset(file)), table_of(Dataset("a", tuple(fields)))
    assert contents(found) == contents(wanted)
    assert np.array_equal(found.starts, wanted.starts)
