"""Write the results of an analysis as one table of cells: CSV or Parquet, the same columns.

The columns are those of `cells.csv` (`core.results.tables`). Other data sets have no scores to put
into them and are refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from bloodfilm.core import DataError, Dataset
from bloodfilm.core.issues import Issue
from bloodfilm.core.optional import optional
from bloodfilm.core.results.tables import (
    CELLS_TABLE,
    CellTableWriter,
    cell_columns,
    cell_values,
    number_columns,
)
from bloodfilm.formats.result import Proposals
from bloodfilm.formats.shared.output import WriteOptions, output_file

PARQUET_NAME = "cells.parquet"
_FIELDS_AT_A_TIME = 200


def write_csv(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Write `*.csv`, or `cells.csv` in a folder."""
    proposals = _proposals(dataset, path)
    with (
        output_file(Path(path), ".csv", CELLS_TABLE, options) as (out, name),
        out.file(name).open("w", encoding="utf-8", newline="") as file,
    ):
        table = CellTableWriter(file, dataset.schema)
        for result in proposals.run.fields:
            table.write(result.path, proposals.kept(result))
    return []


def write_parquet(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Write `*.parquet`, or `cells.parquet` in a folder; needs pyarrow."""
    proposals = _proposals(dataset, path)
    arrow = optional("pyarrow", install="bloodfilm[index]", needed_by="parquet")
    parquet = optional("pyarrow.parquet", install="bloodfilm[index]", needed_by="parquet")
    names = dataset.schema.names
    numbers = number_columns(names)
    schema = arrow.schema(
        [
            (column, arrow.float64() if column in numbers else arrow.string())
            for column in cell_columns(names)
        ]
    )
    with (
        output_file(Path(path), ".parquet", PARQUET_NAME, options) as (out, name),
        parquet.ParquetWriter(out.file(name), schema) as writer,
    ):
        for rows in _rows(proposals, names):
            columns = [
                arrow.array(values, kind.type)
                for values, kind in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            writer.write_table(arrow.table(columns, schema=schema))
    return []


def _proposals(dataset: Dataset, path: Path) -> Proposals:
    if not isinstance(dataset.fields, Proposals):
        raise DataError(
            f"{path}: a table of cells holds results of an analysis; name its result.json, or "
            "write the data set as index"
        )
    return dataset.fields


def _rows(proposals: Proposals, names: tuple[str, ...]) -> Iterator[list[tuple[Any, ...]]]:
    rows: list[tuple[Any, ...]] = []
    held = 0
    for result in proposals.run.fields:
        rows += (cell_values(result.path, cell, names) for cell in proposals.kept(result))
        held += 1
        if held == _FIELDS_AT_A_TIME and rows:
            yield rows
            rows, held = [], 0
    if rows:
        yield rows
