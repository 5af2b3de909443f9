"""The Parquet index: lossless, lazy, and open at once however large it is."""

import pickle
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, Cell, DataError, Dataset, Field, Region
from bloodfilm.formats import detect, open_dataset
from bloodfilm.formats.parquet import index

pytest.importorskip("pyarrow")

HEADER = index.Header("many", DEFAULT_TAXONOMY, LLD_SCHEMA)


def many(count, cells=5):
    """Yield fields without pixels, each unlike the others."""
    names = DEFAULT_TAXONOMY.names
    for i in range(count):
        listed = tuple(
            Cell(
                (i % 600 + 0.25, j * 7.5, 30, 40),
                names[(i + j) % len(names)],
                {"nuclear_shape": "regular"} if j % 2 else {},
                id=f"{i}-{j}",
            )
            for j in range(cells)
        )
        region = Region.everything() if i % 3 else Region.rect(i % 7, 0, 10, 10)
        path = Path(f"/images/{i:06d}.png")
        yield Field(path, 640, 640, listed, region, patient=str(i % 48), split="train")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """An index of 20,000 fields and 100,000 cells, written from a generator."""
    file = tmp_path_factory.mktemp("index") / "large.parquet"
    assert index.write_fields(many(20_000), file, HEADER) == []
    return file


def test_any_record_is_what_was_written(large):
    dataset = open_dataset(large)
    assert len(dataset) == 20_000
    wanted = {i: field for i, field in enumerate(many(20_000)) if i % 3_333 == 0 or i == 19_999}
    for i in reversed(wanted):
        assert dataset[i] == wanted[i]
    assert dataset[-1] == wanted[19_999]
    assert dataset.fields[9_999:10_001] == (dataset[9_999], dataset[10_000])
    with pytest.raises(IndexError):
        dataset[20_000]


def test_a_pass_over_all_sees_every_cell(large):
    counts = open_dataset(large).class_counts()
    assert sum(counts.values()) == 100_000


def test_records_are_made_when_asked_for(large):
    fields = open_dataset(large).fields
    assert len(fields._groups) == 0
    for i in range(0, 20_000, 500):
        assert fields[i].width == 640
    assert len(fields._groups) == index.KEPT_GROUPS


def test_writing_takes_no_more_fields_than_a_row_group(tmp_path):
    file = tmp_path / "x.parquet"
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Watched(Mapping):
        def __getitem__(self, key):
            raise KeyError(key)

        def __iter__(self):
            return iter(())

        def __len__(self):
            return 0

        __hash__ = object.__hash__

    def watched():
        nonlocal most
        for field in many(1_000, cells=1):
            meta = Watched()
            alive.add(meta)
            most = max(most, len(alive))
            yield replace(field, meta=meta)

    index.write_fields(watched(), file, HEADER, rows=50)
    assert most <= 60
    assert len(open_dataset(file)) == 1_000


def test_it_travels_to_other_processes(large):
    fields = open_dataset(large).fields
    again = pickle.loads(pickle.dumps(fields))
    assert len(pickle.dumps(fields)) < 1_000
    assert again[123] == fields[123]


def test_row_groups_are_small(large):
    import pyarrow.parquet as pq

    meta = pq.ParquetFile(large).metadata
    assert max(meta.row_group(i).num_rows for i in range(meta.num_row_groups)) == index.ROWS


def test_an_empty_set(tmp_path):
    file = tmp_path / "x.parquet"
    index.write(Dataset("none", ()), file)
    assert open_dataset(file).fields == ()


def test_a_broken_or_foreign_file_is_one_line(tmp_path, large):
    import pyarrow as pa
    import pyarrow.parquet as pq

    cut = tmp_path / "cut.parquet"
    cut.write_bytes(large.read_bytes()[:1000])
    assert detect(cut) == "index"
    with pytest.raises(DataError, match=r"cut.parquet: not a whole Parquet file"):
        open_dataset(cut)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(DataError, match="no bloodfilm index"):
        open_dataset(foreign)


def test_without_pyarrow_it_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from bloodfilm.formats import open_dataset\n"
        "from bloodfilm.core import BloodfilmError\n"
        "try: open_dataset(sys.argv[1])\n"
        "except BloodfilmError as error: print(error)\n"
    )
    file = tmp_path / "x.parquet"
    file.write_bytes(b"PAR1")
    run = [sys.executable, "-c", code, str(file)]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "pip install 'bloodfilm[index]'" in said
