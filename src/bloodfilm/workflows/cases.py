"""What an analysis writes of its cases: an index, and a file for each."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bloodfilm import __version__
from bloodfilm.core.csv_text import csv_line, guard
from bloodfilm.core.files import write_json, write_text
from bloodfilm.core.results import AnalysisRun, CaseResult
from bloodfilm.core.results.case import file_stems
from bloodfilm.evaluation.differential import differential
from bloodfilm.workflows.outputs import make_folder

CASES, CASES_FOLDER = "cases.csv", "cases"
CASE_FORMAT = "bloodfilm-case"
CASE_VERSION = 1
COLUMNS = (
    "case", "file", "fields", "counted_fields", "set_aside", "failed", "parts", "white_cells",
    "uncounted_cells", "issues",
)  # fmt: skip


def write_cases(run: AnalysisRun, out: Path) -> None:
    """Write `cases.csv`, and in the folder `cases` a JSON file for each case, whole or not at all.

    Args:
        run: whose cases are written.
        out: the folder of its results.
    """
    folder = out / CASES_FOLDER
    make_folder(folder)
    names = [f"{stem}.json" for stem in file_stems(case.name for case in run.cases)]
    lines = [csv_line(COLUMNS)]
    for case, name in zip(run.cases, names, strict=True):
        data = case_document(case)
        write_json(folder / name, data)
        lines.append(csv_line(guard(str(value)) for value in _row(case, name, data)))
    write_text(out / CASES, "".join(lines))


def case_document(case: CaseResult) -> dict[str, Any]:
    """Return a case as plain data that needs no other file: paths in the place of numbers."""
    paths = {
        placement.number: result.path
        for placement, result in zip(case.placements, case.fields, strict=True)
    }
    data = case.to_json()
    fields = [{"image": paths[item.pop("field")], **item} for item in data.pop("fields")]
    cells = [
        {**item, "views": [[paths[number], name] for number, name in item["views"]]}
        for item in data.pop("cells")
    ]
    return {
        "format": CASE_FORMAT,
        "version": CASE_VERSION,
        "program": f"bloodfilm {__version__}",
        **data,
        "differential": differential(case).to_json(),
        "fields": fields,
        "cells": cells,
    }


def _row(case: CaseResult, name: str, data: dict[str, Any]) -> Iterator[Any]:
    yield case.name
    yield f"{CASES_FOLDER}/{name}"
    yield len(case.fields)
    yield len(case.fields) - len(case.set_aside)
    yield len(case.set_aside)
    yield len(case.failures)
    yield len({p.part for p in case.placements if p.part is not None})
    yield data["differential"]["white"]
    yield sum(not cell.counted for cell in case.cells)
    yield " ".join(sorted(Counter(issue.code for issue in case.issues)))


def remove_case_files(out: Path) -> None:
    """Remove the files of cases that an earlier run wrote, by its index; leave all others."""
    folder = out / CASES_FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.glob("*.json"):
        if path.is_file() and not path.is_symlink() and _is_case(path):
            path.unlink()
            path.with_suffix(".html").unlink(missing_ok=True)


def _is_case(path: Path) -> bool:
    with path.open("rb") as file:
        return CASE_FORMAT.encode() in file.read(200)
