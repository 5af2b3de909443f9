"""Partial annotation completed by a model: what is added, what is ignored, what stays."""

from pathlib import Path

import numpy as np
import pytest

from bloodfilm.active_learning.completion import complete_field, labelled_types
from bloodfilm.core import Cell, Field, Region
from bloodfilm.core.results import CellResult, FieldResult, ImageRef
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from fixtures.made_up_results import make_view

TYPES = ("nucleated cell", "red cell", "platelet")


def seen(box, kind, confidence, nucleated=None):
    return CellResult(box, confidence, kind, kind, confidence, nucleated_probability=nucleated)


def result(*cells, source="measured"):
    return FieldResult(ImageRef("a.png", 400, 300), make_view(400, 300, source=source), cells)


def field(*cells, region):
    return Field(Path("a.png"), 400, 300, cells, region)


OWN = Cell((50, 50, 40, 40), "monocyte")
SPARSE = field(OWN, region=Region.rect(50, 50, 40, 40))
NUCLEATED = frozenset({"nucleated cell"})


def test_sure_detections_are_boxed_and_doubtful_ones_ignored():
    whole = complete_field(
        SPARSE,
        result(
            seen((52, 49, 40, 41), "nucleated cell", 0.9, 0.99),  # the annotated cell
            seen((60, 60, 10, 10), "platelet", 0.9),  # inside it
            seen((200, 50, 40, 40), "nucleated cell", 0.8, 0.99),
            seen((300, 50, 40, 40), "nucleated cell", 0.8, 0.5),  # the classifier doubts
            seen((300, 150, 40, 40), "nucleated cell", 0.3, 0.99),  # the detector doubts
            seen((200, 150, 30, 30), "nucleated cell", 0.8, 0.02),  # certainly none
            seen((100, 200, 30, 30), "red cell", 0.7),
            seen((150, 200, 30, 30), "red cell", 0.2),
            seen((101, 201, 30, 30), "nucleated cell", 0.2, 0.5),  # the sure red cell
        ),
        NUCLEATED,
    )
    assert whole is not None
    assert whole.cells[0] == OWN and whole.region.is_everything
    added = {(c.box[:2], c.label, c.ignore) for c in whole.cells[1:]}
    assert added == {
        ((200, 50), "nucleated cell", False),
        ((300, 50), None, True),
        ((300, 150), None, True),
        ((100, 200), "red cell", False),
        ((150, 200), None, True),
    }
    assert whole.domain.um_per_px == pytest.approx(0.25) and whole.domain.pixel_aspect_ratio == 1


def test_nothing_is_added_of_a_type_where_all_of_it_is_annotated():
    complete = field(OWN, region=Region.everything())
    found = result(
        seen((200, 50, 40, 40), "nucleated cell", 0.9, 0.99),
        seen((100, 200, 30, 30), "red cell", 0.7),
    )
    labelled = labelled_types([complete], DEFAULT_TAXONOMY, TYPES)
    assert labelled == NUCLEATED
    whole = complete_field(complete, found, labelled)
    assert whole is not None and [c.label for c in whole.cells] == ["monocyte", "red cell"]
    everywhere = complete_field(complete, found, frozenset(TYPES))
    assert everywhere is not None and everywhere.cells == (OWN,)


def test_the_centred_cell_gets_the_box_found_there():
    single = field(Cell(None, "erythroblast"), region=Region.everything())
    centred = seen((180, 130, 40, 40), "nucleated cell", 0.4, 0.6)
    whole = complete_field(
        single, result(seen((10, 10, 40, 40), "nucleated cell", 0.9, 0.99), centred), frozenset()
    )
    assert whole is not None
    assert whole.cells[0] == Cell(centred.box, "erythroblast")
    assert [c.label for c in whole.cells] == ["erythroblast", "nucleated cell"]
    assert complete_field(single, result(), frozenset()) is None


def test_a_field_without_a_scale_is_left_out():
    assert complete_field(SPARSE, result(source="assumed"), NUCLEATED) is None
    nothing = complete_field(SPARSE, result(), NUCLEATED)
    assert nothing is not None and nothing.cells == (OWN,)
    assert np.isfinite(nothing.domain.um_per_px)
