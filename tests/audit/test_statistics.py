"""Figures of a data set, counted by hand."""

from audit.tables import row, table
from bloodfilm.audit.statistics import statistics
from bloodfilm.core.cell_table import IGNORE
from bloodfilm.report.audit_page import write_stats
from bloodfilm.report.html import charts


def small():
    big, little = (0.0, 0.0, 100.0, 178.0), (200.0, 200.0, 40.0, 60.0)
    return table(
        (row("a.png", "1"), [(big, "monoblast", {"cell_size": "large"}), (little, IGNORE)]),
        (row("b.png", "12", "test"), [(little, "lymphocyte", {"cell_size": "small"})]),
    )


def test_counts():
    figures = statistics(small())
    assert figures["classes"] == {"monoblast": 1, "lymphocyte": 1}
    assert figures["ignored"] == 1
    assert figures["patients"] == {"1": {"fields": 1, "cells": 2}, "12": {"fields": 1, "cells": 1}}
    assert figures["splits"]["test"] == {"fields": 1, "cells": 1}
    assert figures["attributes"]["cell_size"] == {
        "small": 1,
        "medium": 0,
        "large": 1,
        "unknown": 1,
    }
    assert figures["attribute_by_class"]["cell_size"]["monoblast"] == [0, 0, 1]
    assert list(figures["attribute_by_class"]) == ["cell_size"]


def test_sizes_are_in_um_along_both_axes():
    size = statistics(small())["sizes"]["monoblast"]
    assert size["width_px"][1] == 100
    assert size["mean_um"][1] == round((100 * 0.144 / 0.5625 + 178 * 0.144) / 2, 2)


def test_an_empty_table_has_figures_too():
    figures = statistics(table((row(), [])))
    assert figures["cells"] == 0 and figures["size_px"] is None


def test_the_page_needs_nothing_else(tmp_path):
    text = write_stats(statistics(small()), tmp_path / "s.html").read_text()
    assert "<svg" in text and "monoblast" in text
    assert "http" not in text.replace("http-equiv", "")


def test_very_many_patients_are_drawn_as_the_largest_and_the_rest():
    svg = charts.bars({str(i): 1000 - i for i in range(500)}, most_bars=10)
    assert svg.count("<rect") == 10
    assert ">0</text>" in svg and ">8</text>" in svg and ">9</text>" not in svg
    assert "each of 491 others" in svg and ">746</text>" in svg  # the mean of 991 down to 501


def test_every_value_of_an_attribute_has_a_colour_of_its_own_up_to_six():
    fills = [charts.swatch(place).split("<rect")[1] for place in range(6)]
    assert len(set(fills)) == 6
    bar = charts.stack([5, 0, 3, 2])
    assert bar.count("<rect") == 3 and "fill-opacity" in bar
