"""CSV whose texts come from elsewhere: no spreadsheet runs them, no line is torn by them.

A spreadsheet takes a cell that starts with `=`, `+`, `-` or `@` for a formula. Such a text gets an
apostrophe before it, which spreadsheets show as text and `unguard` takes away again. Texts with
line breaks are quoted as RFC 4180 has it, also for a lone carriage return.
"""

import re
from collections.abc import Iterable

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
