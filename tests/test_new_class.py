"""The benchmark that leaves a class out and teaches it again."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from new_class import CASES, ORDINARY, SETS, SIZES, Part, _may_be_learnt, possible, table


def part(*labels):
    n = len(labels)
    rows = np.zeros((n, 4), np.float32)
    nothing = np.zeros((0, 0, 4), np.float32)
    return Part(np.array(labels), rows, nothing, np.full(n, -1), np.zeros((n, 2), bool), rows)


def test_cases_are_those_whose_sets_are_there():
    parts = {"LLD": part(*["monoblast"] * 10, *["lymphoblast"] * 9), "Chula": part("monocyte")}
    (found,) = possible(parts)  # there are too few of the others
    assert found.name == "monoblast" and found.judged == ("LLD",)
    every = part(*[case.name for case in CASES for _ in range(10)])
    assert possible(dict.fromkeys(SETS, every)) == list(CASES)


def test_cells_that_may_be_learnt_are_of_the_class_or_a_few_ordinary_ones():
    label = np.array(["lymphoblast"] * 200 + ["neutrophil"] * 100)
    chosen = _may_be_learnt("LLD", label)
    assert (np.diff(chosen) > 0).all()
    assert (label[chosen] == "lymphoblast").sum() == max(SIZES) + 10
    assert (label[chosen] == "neutrophil").sum() == ORDINARY
    assert not len(_may_be_learnt("BCISC", label))


def test_the_table_has_the_mean_of_the_draws():
    run = {
        "cells": 10,
        "ordinary": "own",
        "recall": 0.5,
        "named": 0.25,
        "precision": 1.0,
        "false": 0.0,
        "known": {"all": [0.9, 0.8]},
        "exemplars": [0.99, 0.98],
    }
    case = {
        "class": "monoblast",
        "source": "LLD",
        "judged": ["LLD"],
        "known_to_network": False,
        "runs": [run, {**run, "recall": 0.7}],
    }
    text = table({"cases": [case]})
    (row,) = text.splitlines()[2:]
    assert [cell.strip() for cell in row.strip("|").split("|")][:9] == [
        "monoblast",
        "LLD",
        "LLD",
        "no",
        "10",
        "yes",
        "0.60",
        "0.25",
        "1.00",
    ]
    assert row.count("|") == text.splitlines()[0].count("|")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_judged_on_other_sets_where_there_are_any(case):
    assert case.source in SETS and set(case.judged) <= set(SETS) and case.judged
