"""How much memory the texts of an index take once they are unpacked.

Parquet stores a text that occurs often once, in a dictionary, and its rows as numbers. A few bytes
can thus stand for gigabytes: a text of a megabyte, repeated a hundred thousand times. What the
texts of a row group unpack to is measured on the numbers, before they are unpacked.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.formats.parquet.seal import DamagedIndexError

SMALL = 1 << 16
"""Bytes: a column of a row group that cannot unpack to more is neither measured nor counted."""


class Unpacked:
    """Adds up what the row groups that were read unpack to.

    Args:
        path: the index.
        metadata: of the Parquet file.
        most: bytes that all of its texts may take.
    """

    def __init__(self, path: Path, metadata: Any, most: float) -> None:
        self._path = path
        self._metadata = metadata
        self._most = most
        self._total = 0
        self._measured: set[int] = set()

    def check(self, group: int) -> None:
        """Measure a row group, once.

        Raises:
            DamagedIndexError: if the texts measured so far take more than they may.
        """
        if group in self._measured:
            return
        columns = [name for name, most in self._texts(group) if most > SMALL]
        for name in columns:
            table = self._coded.read_row_group(group, columns=[name], use_threads=False)
            table.validate(full=True)  # before anything follows its numbers
            self._total += sum(map(_size, _coded_texts(table)))
            if self._total > self._most:
                raise DamagedIndexError(
                    f"{self._path}: row group {group}: column {name!r} unpacks to more than an "
                    "index of its size holds; write it anew"
                )
        self._measured.add(group)

    def _texts(self, group: int) -> Iterator[tuple[str, int]]:
        """Yield the columns of text of a row group, and more bytes than each can unpack to."""
        found = self._metadata.row_group(group)
        for number in range(found.num_columns):
            column = found.column(number)
            if column.physical_type == "BYTE_ARRAY":
                yield column.path_in_schema, column.num_values * column.total_uncompressed_size

    @cached_property
    def _coded(self) -> Any:
        """The file, opened so that its dictionaries stay as they are."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._metadata.schema
        columns = [schema.column(number) for number in range(len(schema))]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        return pq.ParquetFile(pa.memory_map(str(self._path)), read_dictionary=texts)


def _coded_texts(table: Any) -> Iterator[Any]:
    """Yield the dictionary arrays of a table, however deep they lie."""
    import pyarrow as pa

    waiting = [chunk for column in table.columns for chunk in column.chunks]
    while waiting:
        array = waiting.pop()
        if isinstance(array, pa.DictionaryArray):
            yield array
        elif isinstance(array, pa.StructArray):
            waiting += [array.field(number) for number in range(array.type.num_fields)]
        elif isinstance(array, pa.MapArray):
            waiting += [array.keys, array.items]
        elif isinstance(array, pa.ListArray):
            waiting.append(array.values)


def _size(array: Any) -> int:
    """Return the bytes of all texts of a dictionary array."""
    import pyarrow.compute as pc

    lengths = pc.binary_length(array.dictionary).fill_null(0).to_numpy(zero_copy_only=False)
    numbers = array.indices.drop_null().to_numpy(zero_copy_only=False)
    return int(np.bincount(numbers, minlength=len(lengths)) @ lengths.astype(np.int64))
