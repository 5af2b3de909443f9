"""The Parquet index: lossless, lazy, and open at once however large it is."""

import pickle
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, Cell, DataError, Dataset, Field, Region
from bloodfilm.core.dataset_codes import UNSEALED
from bloodfilm.core.issues import codes
from bloodfilm.formats import detect, open_dataset, save_dataset
from bloodfilm.formats.parquet import index
from bloodfilm.formats.parquet.columns import table_of

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


@pytest.mark.parametrize(
    ("fields", "cells", "origin", "words"),
    [
        (200_000, 0, 0, "states 200,000 fields or cells"),
        (10, 20_000, 0, "states 200,000 fields or cells"),
        (1, 0, 80_000_000, "unpack to 80,"),
    ],
)
def test_a_small_index_that_states_much_is_not_read(tmp_path, fields, cells, origin, words):
    """Repeated values take next to no bytes, but each of them becomes an object."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cell = dict.fromkeys("xywh", 1.0) | {"class": None, "ignore": False, "attributes": []}
    row = {"image": "a.png", "cells": [cell] * cells, "origin": "x" * origin}
    schema = index._columns().with_metadata({index.KEY: HEADER.to_bytes()})
    table = pa.concat_tables([pa.Table.from_pylist([row], schema=schema)] * fields)
    file = tmp_path / "x.parquet"
    pq.write_table(table.combine_chunks(), file, compression="zstd")
    assert file.stat().st_size < 100_000
    with pytest.raises(DataError, match=words):
        open_dataset(file)


@pytest.mark.parametrize("column", ["class", "id", "source_class", "key", "value", "origin"])
def test_a_long_text_that_is_repeated_through_a_dictionary_is_not_unpacked(tmp_path, column):
    """A megabyte, stored once, stands for ten gigabytes in ten thousand cells or fields."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not hasattr(pq.ParquetWriter, "add_key_value_metadata"):
        pytest.skip("this version of pyarrow cannot write such a file")
    count = 10_000
    text = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(count, np.int32)), pa.array(["x" * 1_000_000])
    )
    number, short = pa.array(np.ones(count)), pa.array(["a"] * count)
    cells = {**dict.fromkeys("xywh", number), "ignore": pa.array([False] * count)}
    cells |= {name: text if name == column else short for name in ("class", "id", "source_class")}
    pair = [text if name == column else short for name in ("key", "value")]
    each = pa.array(np.arange(count + 1, dtype=np.int32))
    cells["attributes"] = pa.MapArray.from_arrays(each, *pair)
    struct = pa.StructArray.from_arrays(list(cells.values()), list(cells))
    fields = count if column == "origin" else 1
    ends = np.linspace(0, count, fields + 1).astype(np.int32)
    one, none = pa.array([9] * fields, pa.int32()), pa.nulls(fields, pa.string())
    table = pa.table(
        {
            "image": pa.array([f"{n}.png" for n in range(fields)]),
            **dict.fromkeys(("width", "height"), one),
            **dict.fromkeys(("patient", "split", "diagnosis"), none),
            "origin": text if column == "origin" else none,
            "cells": pa.ListArray.from_arrays(pa.array(ends), struct),
        }
    )
    file = tmp_path / "x.parquet"
    with pq.ParquetWriter(file, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table)
        header = HEADER.to_bytes().replace(b'"sealed": true', b'"a": 1')
        writer.add_key_value_metadata({index.KEY: header})
    assert file.stat().st_size < 200_000
    before = pa.default_memory_pool().max_memory()
    dataset = open_dataset(file)
    for read in (lambda: dataset.fields[0], lambda: list(dataset), lambda: table_of(dataset)):
        with pytest.raises(DataError, match=r"row group 0: column '.*' unpacks to more") as refused:
            read()
        assert len(str(refused.value).splitlines()) == 1
    assert pa.default_memory_pool().max_memory() - before < 1 << 28


# ---- damage ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """An index of 40 fields in five row groups."""
    file = tmp_path_factory.mktemp("small") / "small.parquet"
    index.write_fields(many(40), file, HEADER, rows=8)
    return file


def content(file: Path) -> tuple:
    """Return all that an index says, read field by field."""
    dataset = open_dataset(file, "index")
    schema = dataset.schema.to_json()
    return list(dataset), dataset.taxonomy.to_json(), schema, dataset.name, dataset.issues


@pytest.mark.slow
def test_no_flipped_bit_goes_unnoticed(small, tmp_path):
    data = small.read_bytes()
    file = tmp_path / "flipped.parquet"
    footer = len(data) - int.from_bytes(data[-8:-4], "little") - 600
    places = [*range(0, footer, 89), *range(footer, len(data), 2)]
    for number, place in enumerate(places):
        changed = bytearray(data)
        changed[place] ^= 1 << number % 8
        file.write_bytes(changed)
        with pytest.raises(DataError, match=r"flipped\.parquet: [^\n]*$"):
            content(file)


def test_no_flipped_bit_of_a_column_goes_unnoticed(small, tmp_path):
    data = small.read_bytes()
    file = tmp_path / "flipped.parquet"
    footer = len(data) - int.from_bytes(data[-8:-4], "little") - 600
    for place in range(4, footer, 499):
        file.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        dataset = open_dataset(file, "index")
        with pytest.raises(DataError, match=r"row group \d has changed since"):
            list(dataset.fields.heads())
        with pytest.raises(DataError, match=r"row group \d has changed since"):
            table_of(dataset)


def test_only_what_is_read_is_verified(small, tmp_path):
    data = bytearray(small.read_bytes())
    data[len(data) // 40] ^= 1  # in the first row group
    file = tmp_path / "first.parquet"
    file.write_bytes(data)
    fields = open_dataset(file, "index").fields
    assert fields[39] == list(many(40))[39]
    with pytest.raises(DataError, match="row group 0 has changed"):
        fields[0]


def test_other_readers_of_parquet_read_a_sealed_file(small):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(small).num_rows == 40
    assert parquet.ParquetFile(small).metadata.num_row_groups == 5


def test_an_index_without_checksums_opens_with_a_word(small, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "seal", lambda source, *_: source.close())
    old = index.Header.to_bytes
    monkeypatch.setattr(
        index.Header, "to_bytes", lambda self: old(self).replace(b'"sealed": true, ', b"")
    )
    file = tmp_path / "old.parquet"
    index.write_fields(many(40), file, HEADER, rows=8)
    monkeypatch.undo()
    found, *_, issues = content(file)
    assert found == list(many(40))
    assert codes(issues) == {UNSEALED} and "old.parquet: has no checksums" in str(issues[0])
    again = tmp_path / "again.parquet"
    save_dataset(open_dataset(file), again, "index")
    assert content(again)[-1] == ()
    assert content(small)[-1] == ()


def test_an_index_that_lost_its_checksums_is_refused(small, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "copied.parquet"
    table = parquet.read_table(small)
    parquet.write_table(table, file)
    with pytest.raises(DataError, match="its checksums are lost"):
        open_dataset(file)
