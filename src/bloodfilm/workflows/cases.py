"""What an analysis writes of its cases: an index, and a file for each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bloodfilm import __version__
from bloodfilm.core.csv_text import csv_line, guard
from bloodfilm.core.files import write_json, write_text
from bloodfilm.core.results import AnalysisRun, CaseResult
from bloodfilm.core.results.case import file_stems
from bloodfilm.evaluation.film_differential import FilmDifferential, film_differential
from bloodfilm.evaluation.patterns import FilmPatterns, film_patterns
from bloodfilm.workflows.outputs import make_folder

CASES, CASES_FOLDER = "cases.csv", "cases"
CASE_FORMAT = "bloodfilm-case"
CASE_VERSION = 1
COLUMNS = (
    "case", "file", "fields", "counted_fields", "set_aside", "failed", "parts", "white_cells",
    "uncounted_cells", "undecided", "blasts_percent", "blasts_low", "blasts_high", "blasts_20",
    "likely_blasts_percent", "erythroblasts_per_100", "smudge_cells_per_100", "patterns", "urgent",
    "issues",
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
        found, patterns = film_differential(case), film_patterns(case)
        write_json(folder / name, case_document(case, found, patterns))
        row = _row(case, name, found, patterns)
        lines.append(csv_line("" if v is None else guard(str(v)) for v in row))
    write_text(out / CASES, "".join(lines))


def case_document(
    case: CaseResult, found: FilmDifferential, patterns: FilmPatterns
) -> dict[str, Any]:
    """Return a case as plain data that needs no other file: paths in the place of numbers.

    Args:
        case: the case.
        found: its differential.
        patterns: what it suggests; each names the cells that it rests on.
    """
    paths = {
        placement.number: result.path
        for placement, result in zip(case.placements, case.fields, strict=True)
    }
    data = case.to_json()
    fields = [{"image": paths[item.pop("field")], **item} for item in data.pop("fields")]
    suggested = patterns.to_json()
    taxonomy = case.model.taxonomy
    for pattern, data_of in zip(patterns.patterns, suggested["patterns"], strict=True):
        data_of["cells"] = [
            [result.path, view.id]
            for result, cell, view in case.views()
            if cell.counted and pattern.rests_on(view, taxonomy)
        ]
    cells = [
        {**item, "views": [[paths[number], name] for number, name in item["views"]]}
        for item in data.pop("cells")
    ]
    return {
        "format": CASE_FORMAT,
        "version": CASE_VERSION,
        "program": f"bloodfilm {__version__}",
        **data,
        "differential": found.to_json(),
        "patterns": suggested,
        "fields": fields,
        "cells": cells,
    }


def _row(
    case: CaseResult, name: str, found: FilmDifferential, patterns: FilmPatterns
) -> Iterator[Any]:
    count = found.count
    yield case.name
    yield f"{CASES_FOLDER}/{name}"
    yield len(case.fields)
    yield len(case.fields) - len(case.set_aside)
    yield len(case.set_aside)
    yield len(case.failures)
    yield len({p.part for p in case.placements if p.part is not None})
    yield count.white
    yield sum(not cell.counted for cell in case.cells)
    yield count.undecided
    blasts = count.blasts
    shares = (None,) * 3 if blasts is None else (blasts.share, blasts.low, blasts.high)
    yield from (None if share is None else f"{100 * share:.1f}" for share in shares)
    yield found.blast.side
    likely = None if found.likely is None else found.likely.blasts
    yield None if likely is None or not count.white else f"{100 * likely / count.white:.1f}"
    for value in (count.erythroblasts_per_100, count.smudge_cells_per_100):
        yield None if value is None else f"{value:.1f}"
    yield " ".join(p.code for p in patterns.patterns)
    yield "yes" if any(p.urgent for p in patterns.patterns) else "no"
    yield " ".join(sorted({issue.code for issue in case.issues}))


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
