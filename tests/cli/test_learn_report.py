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
ADAPTED = {
    "before": {"cells": 40, "certainty": 0.5},
    "after": {"cells": 41, "certainty": 0.75},
    "checks": [{"name": "other lab", "before": None, "after": 0.25}],
    "method": "self-training",
    "labelled": {"before": 0.5, "after": 0.625, "not_corrected": ["too few fields"]},
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


def test_the_lines_of_adapt_name_figures_and_what_the_bundle_is(invoke, tmp_path):
    figures = [
        "cells                 40 -> 41",
        "certainty          0.500 -> 0.750",
        "marked cells       0.500 -> 0.625",
        "other lab              – -> 0.250",
        "not corrected by marked fields: too few fields",
    ]
    done = invoke("adapt", True)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [*figures, f"adapted bundle in {tmp_path / 'new'}"]
    assert invoke("adapt", False).stdout.splitlines() == [
        *figures,
        "not adapted: it would harm",
        f"the original bundle, unchanged, in {tmp_path / 'new'}",
    ]
