"""The audit's page shows where, on both fields where there are two, and calls things by name."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from bloodfilm.core.findings import Finding
from bloodfilm.report.audit_page import write_audit

BOX = (40.0, 30.0, 60.0, 50.0)


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))
    return [str(p) for p in paths]


def page(tmp_path, *findings) -> str:
    facts = {"Fields": "2"}
    return write_audit(findings, tmp_path / "a.html", name="x", facts=facts).read_text()


def width_of_picture(text: str) -> int:
    (found,) = re.findall(r'<img [^>]*width="(\d+)"', text)
    return int(found)


@pytest.mark.parametrize("code", ["overlapping-fields", "same-cell-in-two-fields"])
def test_both_fields_are_shown_with_what_they_share(tmp_path, files, code):
    one = Finding(code, "warning", "seen", file=files[0], advice="do", boxes=(BOX,))
    both = replace(one, others=(files[1],), other_boxes=(BOX,))
    alone, pair = (width_of_picture(page(tmp_path, f)) for f in (one, both))
    assert pair == 2 * alone + 6
    assert both.to_json()["other_boxes"] == [[40.0, 30.0, 60.0, 50.0]]


def test_a_box_without_numbers_or_a_lost_file_has_no_picture(tmp_path, files):
    nan = (float("nan"),) * 4
    gone = str(tmp_path / "gone.png")
    text = page(
        tmp_path,
        Finding("zero-size", "error", "nothing", file=files[0], advice="delete", boxes=(nan,)),
        Finding("sliver", "error", "thin", file=gone, advice="delete", boxes=(BOX,)),
    )
    assert "<img" not in text and "gone.png" in text


@pytest.mark.parametrize(
    "wild",
    [(40.0, 30.0, 3e9, 50.0), (1e10, 30.0, 60.0, 50.0), (-1e10, 30.0, 60.0, 50.0),
     (40.0, 30.0, 60.0, -1e10), (40.0, 30.0, 1e308, 1e308)],
)  # fmt: skip
@pytest.mark.parametrize("code", ["overlapping-fields", "sliver"])
def test_a_box_far_beyond_the_image_is_shown_as_far_as_it_goes(tmp_path, files, code, wild):
    found = Finding(code, "error", "wild", file=files[0], advice="mend", boxes=(BOX, wild))
    assert width_of_picture(page(tmp_path, found)) > 0


def test_what_is_no_file_keeps_its_whole_name(tmp_path):
    finding = Finding("confounded", "warning", "told", file="H/40X/C2", advice="mind")
    text = page(tmp_path, finding)
    assert "H/40X/C2" in text and ">H/40X<" not in text


def test_long_lists_are_cut(tmp_path):
    many = tuple(f"{i}.png" for i in range(1000))
    text = page(
        tmp_path,
        Finding("missing-image", "error", "gone", file="/images", advice="fetch", others=many),
    )
    assert "and 3.png" in text and "and 996 more" in text and "999.png" not in text
    assert Path(tmp_path / "a.html").stat().st_size < 100_000
