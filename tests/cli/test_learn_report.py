"""What `learn` and `adapt` print of their report: lines for people, or one JSON document."""

import json

import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.workflows import adapt as adapting
from bloodfilm.workflows import learn as learning

FOUND = {"cells": 12, "recall": 0.75, "named": 0.7, "precision": 1.0, "false": 0.0}
LEARNT = {
    "by_group": True,
    "cells": {"left_out": {"no class": 2}},
    "classes": {"hairy cell": FOUND},
    "known": {"before": 0.9, "after": 0.89},
    "checks": {"other lab": {"before": None, "after": None}},
    "warnings": ["few cells"],
}
MARKED = {"cells": 11, "right": [7, 8], "gained": 2, "lost": 1, "accuracy": [0.5, 0.625]}
ADAPTED = {
    "original": {"cells": 40, "consistency": 0.5, "kept": None},
    "candidates": [
        {
            "name": "correction",
            "returned": False,
            "reasons": ["2 more are needed"],
            "marked": MARKED,
            "unlabelled": None,
            "checks": [],
            "unjudged": ["myeloblast"],
        },
        {
            "name": "self-training",
            "returned": True,
            "reasons": [],
            "marked": MARKED | {"right": [7, 9], "lost": 0},
            "unlabelled": {
                "before": {"cells": 20, "consistency": 0.5, "kept": 1.0},
                "after": {"cells": 20, "consistency": 0.75, "kept": None},
            },
            "checks": [{"name": "other lab", "before": 0.2, "after": 0.25}],
            "unjudged": ["band neutrophil", "myeloblast"],
        },
    ],
    "method": "self-training",
}


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    """Run a command whose work is done already, with this outcome."""

    def invoke(command, accepted, *options):
        reasons = () if accepted else ("it would harm",)
        learnt = learning.LearnResult(tmp_path / "new", accepted, reasons, LEARNT)
        adapted = adapting.AdaptResult(tmp_path / "new", accepted, reasons, ADAPTED)
        monkeypatch.setattr(learning, "learn", lambda job, progress: learnt)
        monkeypatch.setattr(adapting, "adapt", lambda job, progress: adapted)
        cells = ["--target", "cells"] if command == "adapt" else ["cells"]
        return CliRunner().invoke(app, [command, "default", *cells, "--out", "new", *options])

    return invoke


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize(("command", "report"), [("learn", LEARNT), ("adapt", ADAPTED)])
def test_the_json_of_a_report_is_all_that_stdout_gets(invoke, command, report, accepted):
    done = invoke(command, accepted, "--json")
    assert json.loads(done.stdout) == report


def test_the_lines_of_learn_name_figures_and_the_new_bundle(invoke, tmp_path):
    done = invoke("learn", True)
    assert done.exit_code == 0 and done.stdout.splitlines() == [
        "2 cells left out: no class",
        "hairy cell, 12 cells: on held-out patients recall 0.750, named 0.700, precision 1.000; "
        "0.0000 of other cells",
        "what was known: balanced accuracy 0.9000 -> 0.8900",
        "other lab: no cell of a known class",
        "note: few cells",
        f"bundle with hairy cell in {tmp_path / 'new'}",
    ]
    refused = invoke("learn", False)
    assert refused.exit_code == 2 and str(tmp_path / "new") not in refused.stdout
    assert "not learnt, default stays as it is: it would harm" in refused.stderr


def test_the_lines_of_adapt_say_how_each_candidate_was_judged(invoke, tmp_path):
    figures = [
        "the original on 40 cells without labels: consistency 0.500, kept –",
        "correction: not returned",
        "  11 marked cells: 7 -> 8 named rightly (2 put right, 1 made wrong)",
        "  their balanced accuracy: 0.500 -> 0.625",
        "  not returned: 2 more are needed",
        "self-training: returned",
        "  11 marked cells: 7 -> 9 named rightly (2 put right, 0 made wrong)",
        "  their balanced accuracy: 0.500 -> 0.625",
        "  20 cells without labels: consistency 0.500 -> 0.750, kept 1.000 -> –",
        "  other lab: balanced accuracy 0.200 -> 0.250",
        "  judged by no labelled cell: band neutrophil, myeloblast",
    ]
    done = invoke("adapt", True)
    assert done.exit_code == 0
    place = tmp_path / "new"
    assert done.stdout.splitlines() == [*figures, f"bundle adapted by self-training in {place}"]
    refused = invoke("adapt", False).stdout.splitlines()
    assert refused == [*figures, f"the original, unchanged, in {place}"]
