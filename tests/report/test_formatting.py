from dataclasses import replace

import pytest

from bloodfilm.core import issue_codes
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.report.html import formatting
from bloodfilm.report.html.content import shared_folder
from bloodfilm.report.html.summary import flat
from fixtures.made_up_results import make_view


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.0004, "< 0.1 %"),
        (0.051, "5.1 %"),
        (0.5, "50 %"),
        (0.995, "99.5 %"),
        (1, "100 %"),
    ],
)
def test_percent(share, text):
    assert formatting.percent(share).replace("\xa0", " ") == text


def test_untrained_blasts_are_told_apart():
    said = formatting.untrained_classes(["monoblast", "eosinophil"], DEFAULT_TAXONOMY.blasts)
    assert len(said) == 2
    assert "a monoblast" in said[0] and "count of blasts" in said[0]
    assert "an eosinophil" in said[1] and "count of blasts" not in said[1]
    assert formatting.untrained_classes([], DEFAULT_TAXONOMY.blasts) == []


def test_a_view_in_words():
    view = replace(make_view(640, 480, source="pooled"), um_per_px_x=0.27, um_per_px_y=0.15)
    text, doubtful = formatting.describe_view(view)
    assert "0.270 × 0.150 µm per pixel" in text and "other fields of the folder" in text
    assert "(1 red cell found)" in text and not doubtful
    assert formatting.describe_view(replace(view, confidence=0.2))[1]
    text, doubtful = formatting.describe_view(replace(view, red_cell_um=8.43))
    assert "(1 red cell found, 8.4 µm across by the granulocytes" in text and not doubtful
    text, doubtful = formatting.describe_view(replace(view, scale_source="assumed"))
    assert doubtful and "assumed" in text and "other fields of the folder" in text


def test_every_issue_of_a_cell_has_a_title():
    cell_codes = {
        issue_codes.CUT_BY_EDGE,
        issue_codes.UNFAMILIAR,
        issue_codes.LOW_STAIN_CONTRAST,
        issue_codes.LOW_NUCLEATED_PROBABILITY,
    }
    assert cell_codes <= set(formatting.ISSUE_TITLES) <= set(issue_codes.CODES)
    assert formatting.issue_title("of-a-later-version") == "of a later version"


@pytest.mark.parametrize(
    ("paths", "folder"),
    [
        (["a/b/1.png", "a/b/2.png"], "a/b/"),
        (["a/b/1.png", "a/bc/2.png"], "a/"),
        (["x.png", "y.png"], ""),
        (["/x/y.png"], ""),
        (["a/1.png", "a/1.png"], "a/"),
    ],
)
def test_shared_folder(paths, folder):
    assert shared_folder(paths) == folder


def test_flat_is_cut():
    lines = flat({"a": {"b": 1.23456, "c": [1, 2]}, **{f"k{i}": i for i in range(50)}}, most=10)
    assert lines[:2] == [("a › b", "1.235"), ("a › c", "1, 2")]
    assert len(lines) == 11 and lines[-1][1].startswith("42 more")
