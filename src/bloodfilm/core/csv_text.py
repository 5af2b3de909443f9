"""CSV whose texts come from elsewhere: no spreadsheet runs them, no line is torn by them.

A spreadsheet takes a cell that starts with `=`, `+`, `-` or `@` for a formula. Such a text gets an
apostrophe before it, which spreadsheets show as text and `unguard` takes away again. Texts with
line breaks are quoted as RFC 4180 has it, also for a lone carriage return.

Tables that are read come from spreadsheets and from hand: parted by commas, semicolons or tabs,
with rows that end early. What would move a value into another column is refused.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core.errors import DataError

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_GUARDED = re.compile("''*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_QUOTED = re.compile('[",\r\n]|^ | $')


def guard(text: str) -> str:
    """Return text that no spreadsheet takes for a formula.

    >>> guard("=1+1"), guard("lymphocyte"), guard("'=1")
    ("'=1+1", 'lymphocyte', "''=1")
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unguard(text: str) -> str:
    """Return the text that `guard` was given.

    >>> [unguard(guard(t)) for t in ("=1", "'=1", "'a", "a")]
    ['=1', "'=1", "'a", 'a']
    """
    return text[1:] if _GUARDED.match(text) else text


def csv_line(values: Iterable[str]) -> str:
    r"""Return one line of a CSV file, with its end.

    >>> csv_line(["a", "b,c", 'd"e', "f\rg"])
    'a,"b,c","d""e","f\rg"\n'
    """
    return ",".join(map(_quoted, values)) + "\n"


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if _QUOTED.search(value) else value


# ---- reading ---------------------------------------------------------------------------------


class Row(dict[str, str]):
    """A row by column name; values that it lacks at its end are empty, and take no memory.

    Attributes:
        line: of the file, where it begins.
    """

    def __init__(self, columns: Mapping[str, int], values: Sequence[str], line: int) -> None:
        super().__init__(zip(columns, values, strict=False))
        self._columns = columns
        self.line = line

    def __missing__(self, column: str) -> str:
        if column in self._columns:
            return ""
        raise KeyError(column)


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        columns: names and their places, in the file's order.
        rows: those that are not blank.
    """

    columns: Mapping[str, int]
    rows: list[Row]


def parse_table(text: str, place: Path | str, columns: Iterable[str] = ()) -> Table:
    r"""Return the rows of CSV text.

    Columns may be parted by commas, semicolons or tabs, as spreadsheets write them; a first line
    `sep=;` says which. A row that ends early has empty values; blank lines are no rows.

    Args:
        text: of the table.
        place: the file, with which messages begin.
        columns: that it must have.

    Raises:
        DataError: that names the line: for a missing column, two columns of one name, a row with
            more values than there are columns (a comma in a name that is not quoted would move all
            values behind it), and text that is no table.

    >>> rows = parse_table("image;patient\na.png;1\n\nb.png\n", "t.csv").rows
    >>> [(row.line, row["image"], row["patient"]) for row in rows]
    [(2, 'a.png', '1'), (4, 'b.png', '')]
    """
    first, _, rest = text.partition("\n")
    skipped = 0
    said = first.strip().removeprefix("sep=") if first.startswith("sep=") else ""
    if len(said) == 1:
        text, separator, skipped = rest, said, 1
    else:
        separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: dict[str, int] = {}
    rows: list[Row] = []
    line = 0
    try:
        for values in reader:
            begun, line = line + 1 + skipped, reader.line_num
            if not any(map(str.strip, values)):
                continue
            if not header:
                header = _header(values, f"{place}: line {begun}", columns)
                continue
            if any(values[len(header) :]):
                raise DataError(
                    f"{place}: line {begun}: {len(values)} values for {len(header)} columns; quote "
                    "the value that holds a separator"
                )
            rows.append(Row(header, values, begun))
    except csv.Error as error:
        where = f"{place}: line {reader.line_num + skipped}"
        raise DataError(f"{where}: not a CSV table ({error}); save it again as CSV") from None
    if not header:
        raise DataError(f"{place}: is empty; it needs a header line with the names of its columns")
    return Table(header, rows)


def _header(values: Sequence[str], where: str, columns: Iterable[str]) -> dict[str, int]:
    """Return the places of a header's columns; those without a name have no place to be found."""
    header: dict[str, int] = {}
    for number, value in enumerate(values):
        name = value.strip() or f"\0{number}"
        if name in header:
            raise DataError(f"{where}: two columns {name!r}; rename or delete one of them")
        header[name] = number
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise DataError(f"{where}: no column {', '.join(map(repr, lacking))}; restore the header")
    return header
