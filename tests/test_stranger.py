"""Questions that a stranger asks of the tree, each answered by the first file they would open."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "bloodfilm"
MAP = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

QUESTIONS = {
    "non-maximum suppression": ("inference/nms.py", "nms"),
    "exponential moving average of the weights": ("training/ema.py", "ModelEma"),
    "pseudo labels": ("training/pseudo_labels.py", "PrecisionCalibrator"),
    "copy-paste augmentation": ("training/data/copy_paste.py", "CopyPasteSampler"),
    "the cell classifier's network": ("models/classifier.py", "CellClassifierNet"),
    "the cell classifier's loss": ("losses/classification.py", "tree_loss"),
    "reading a result file": ("core/results/run.py", "AnalysisRun"),
    "scale from red cells": ("imaging/scale.py", "measure"),
    "pixel size from a file's metadata": ("imaging/pixel_size.py", "read_pixel_size"),
    "operating threshold": ("export/threshold.py", "set_threshold"),
    "what `analyze` does": ("workflows/analyze.py", "analyze"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_by_the_file_of_that_name(question):
    file, name = QUESTIONS[question]
    defined = {
        node.name
        for node in ast.parse((SOURCE / file).read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert name in defined, f"{file} does not define {name}"


def test_the_map_answers_the_same_questions():
    rows = dict(re.findall(r"^\| ([^|`]+(?:`analyze`)?[^|`]*) \| `([\w/]+\.py)` \|$", MAP, re.M))
    assert rows == {question: file for question, (file, _) in QUESTIONS.items()}


def test_no_two_files_of_a_package_have_nearly_the_same_name():
    """`page.py` beside `pages.py`, or `evaluate.py` beside `evaluating.py`: which is it?"""
    stems = re.compile(r"(ing|s|es|er|ed)$")
    for folder in {file.parent for file in SOURCE.rglob("*.py")}:
        seen: dict[str, str] = {}
        for file in sorted(folder.glob("*.py")):
            root = stems.sub("", file.stem).rstrip("e")
            assert root not in seen, f"{folder}: {seen[root]} and {file.name}"
            seen[root] = file.name


def test_a_module_with_an_underscore_stays_in_its_package():
    offenders = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            parts = node.module.split(".")
            private = [i for i, part in enumerate(parts) if part.startswith("_")]
            if not private or parts[0] != "bloodfilm":
                continue
            owner = SOURCE.joinpath(*parts[1 : private[0]])
            if owner not in file.parents:
                offenders.append(f"{file.relative_to(SOURCE)}: {node.module}")
    assert offenders == []
