"""Text from elsewhere is harmless in a terminal and in a CSV file, and comes back."""

import csv
import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.csv_text import csv_line, guard, unguard
from bloodfilm.core.errors import DataError
from bloodfilm.core.json_text import loads, parse_json
from bloodfilm.core.text import printable

SURROGATES = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
ANY_TEXT = st.text(st.one_of(st.characters(), SURROGATES))
FORMULAS = ("=1+1", "+1", "-2", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''@x")


@given(ANY_TEXT)
def test_what_is_printed_is_one_line_of_visible_characters(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(shown) & set("\x1b\x07\x9b\r\n\u202e\u2028")
    assert printable(shown) == shown


def test_ordinary_text_of_any_script_is_left_as_it_is():
    for text in ("fields/a b.png", "Blutausstrich Müller 3", "血液塗抹", "µm – ×", "naïve 😀"):
        assert printable(text) == text


@given(ANY_TEXT)
def test_what_is_guarded_comes_back_and_is_no_formula(text):
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_guarded(text):
    assert guard(text) == f"'{text}"
    assert unguard(guard(text)) == text


@given(st.lists(ANY_TEXT.map(lambda t: t.replace("\0", "")), min_size=1, max_size=6))
def test_a_line_of_csv_is_one_record(values):
    line = csv_line(values)
    (read,) = csv.reader(io.StringIO(line, newline="")) if values != [""] else ([""],)
    assert read == values


@pytest.mark.parametrize(
    "text", ['"\\ud800"', '{"a": ["\\uDFFF"]}', '{"\\udd00x": 1}', b'"a\\ud9ff"']
)
def test_half_a_character_in_json_is_refused(text):
    with pytest.raises(ValueError, match="half a character"):
        loads(text)
    if isinstance(text, str):
        with pytest.raises(DataError, match=r"x\.json: .*half a character"):
            parse_json(text, "x.json")


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"a\\udcff.png"', '"\\\\ud800"', '"\\u00e4"'])
def test_whole_characters_and_bytes_of_names_are_read(text):
    assert loads(text) == json.loads(text) == loads(text.encode())
