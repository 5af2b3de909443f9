"""Whatever a label file holds, audit and fix end with findings or with one line."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bloodfilm.audit import Options, audit, open_source
from bloodfilm.core.errors import BloodfilmError
from fixtures.repairing import repair
from formats.test_fuzz import changed, places, scalars, words
from formats.test_lld import IMAGE, coco


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "set" / "H_40X_C2"
    (place / "Images" / "train").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(place / "Images" / "train" / IMAGE)
    return tmp_path / "set"


def end(root):
    """Audit and repair; a second fault of the same file must not hide behind the first."""
    try:
        source = open_source(root)
        findings = audit(source, Options(pixels=False))
        assert all("\n" not in f.message for f in findings)
        out = root.parent / "out"
        shutil.rmtree(out, ignore_errors=True)
        repair(source, findings, out, min_confidence=0.0)
        open_source(out)
    except BloodfilmError as error:
        assert "\n" not in str(error)


def test_any_value_anywhere_in_json_labels(root):
    file = root / "H_40X_C2" / "json_labels" / "train.json"
    file.parent.mkdir()
    codes = {"cell_size": 1, "nuclear_shape": 9, "category_name": "monoblast"}
    box = {"bbox": [10, 10, 20, 20]}
    annotations = [box | codes, box | codes, {"bbox": [50, 10, 30, 4]}, {"image_id": 9}]
    content = coco(annotations, images=(IMAGE, IMAGE))
    spots = sorted(places(content), key=str)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(spots), scalars)
    def check(spot, value):
        file.write_text(json.dumps(changed(content, spot, value)))
        end(root)

    check()


def test_any_words_in_text_labels(root):
    file = root / "H_40X_C2" / "txt_labels" / "Sparse" / "train" / f"{IMAGE[:-4]}.txt"
    file.parent.mkdir(parents=True)
    line = st.sampled_from([5, 7, 11, 12, 15, 16]).flatmap(
        lambda n: st.lists(words, min_size=n, max_size=n)
    )

    @settings(max_examples=100, deadline=None)
    @given(st.lists(line, max_size=3))
    def check(lines):
        file.write_text("".join(" ".join(line) + "\n" for line in lines))
        end(root)

    check()
