"""Compare two differentials: of analyses, of their cases, or counted by hand."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bloodfilm.core.csv_text import parse_table
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.figures import whole
from bloodfilm.core.json_text import parse_json
from bloodfilm.core.results import RESULT_FILE, AnalysisRun
from bloodfilm.core.taxonomy import BLAST, DEFAULT_TAXONOMY, Taxonomy
from bloodfilm.evaluation.compare import Comparison, compare_counts
from bloodfilm.evaluation.differential import Differential, differential
from bloodfilm.formats.shared.parsing import read_text
from bloodfilm.workflows.cases import CASE_FORMAT
from bloodfilm.workflows.outputs import refuse_inputs, write_json_output

MAX_COUNT_BYTES = 256 << 20
MAX_DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class CompareJob:
    """Which differentials to compare.

    Attributes:
        first, second: a folder or `result.json` of an analysis, a case's JSON file, or a CSV file
            with columns class and count.
        case: of analyses with several cases, the one to take; `None`: there is only one.
        json: where to write the comparison.
    """

    first: Path
    second: Path
    case: str | None = None
    json: Path | None = None


@dataclass(frozen=True)
class NamedCounts:
    """White cells by class, and what they were counted in."""

    name: str
    counts: dict[str, int]


def compare(job: CompareJob) -> Comparison:
    """Compare two differentials; write the comparison where the job names a file.

    Cells that one count names more closely than the other are compared under the name that both
    have: neutrophils, immature granulocytes, blasts. Cells that were left open ("white cell") are
    no part of the comparison; their number is reported.

    Raises:
        DataError: if a file cannot be used, or holds no white cell.
        ConfigError: if an analysis has several cases and the job does not say which.
    """
    refuse_inputs((job.json,), [job.first, job.second])
    first, second = (read_counts(path, job.case) for path in (job.first, job.second))
    names = common_names(set(first.counts) | set(second.counts))
    (one, first_open), (two, second_open) = (_renamed(c.counts, names) for c in (first, second))
    compared = compare_counts(one, two, (first.name, second.name))
    found = replace(compared, left_open=(first_open, second_open))
    if job.json is not None:
        write_json_output(job.json, found.to_json())
    return found


GROUPS = ("neutrophil", "immature granulocyte", BLAST)
"""Nodes that practice counts without naming what lies below."""


def common_names(names: set[str], taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> dict[str, str | None]:
    """Return for each name the one to compare it under; `None` for cells that were left open.

    >>> found = common_names({"neutrophil", "band neutrophil", "monocyte", "white cell"})
    >>> found["band neutrophil"], found["monocyte"], found["white cell"]
    ('neutrophil', 'monocyte', None)
    """
    groups = [g for g in GROUPS if g in names]
    found: dict[str, str | None] = {}
    for name in names:
        above = [g for g in groups if name in taxonomy and taxonomy.is_under(name, g)]
        is_leaf = name not in taxonomy or not taxonomy.children(name)
        found[name] = above[0] if above else name if is_leaf or name in GROUPS else None
    return found


def _renamed(counts: dict[str, int], names: dict[str, str | None]) -> tuple[dict[str, int], int]:
    """Return counts under common names, and how many cells were left open."""
    found: dict[str, int] = {}
    left_open = 0
    for name, count in counts.items():
        common = names[name]
        if common is None:
            left_open += count
        else:
            found[common] = found.get(common, 0) + count
    return found, left_open


def read_counts(path: Path, case: str | None = None) -> NamedCounts:
    """Read a differential from what `CompareJob` takes."""
    if path.is_dir() or path.name == RESULT_FILE:
        return _of_run(path, case)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _of_table(path)
    data = parse_json(read_text(path, MAX_COUNT_BYTES), path)
    if isinstance(data, dict) and data.get("format") == CASE_FORMAT:
        return _of_case_file(path, data)
    return _of_run(path, case)


def _of_run(path: Path, case: str | None) -> NamedCounts:
    run = AnalysisRun.read(path)
    if not run.cases:
        return NamedCounts(str(path), counts_of(differential(run)))
    names = [c.name for c in run.cases]
    if case is None and len(names) > 1:
        listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ConfigError(f"{path}: has {len(names)} cases ({listed}); name one with --case")
    found = [c for c in run.cases if case is None or c.name == case]
    if not found:
        raise ConfigError(f"{path}: has no case {case!r}; it has {', '.join(names[:10])}")
    return NamedCounts(f"{path}: {found[0].name}", counts_of(differential(found[0])))


def counts_of(count: Differential) -> dict[str, int]:
    """Return the white cells of a differential by the name they were given.

    Each cell is in one row: cells that were named by an inner node count under it.
    """
    return {row.name: row.undecided for row in count.rows if row.undecided}


def _of_case_file(path: Path, data: dict[str, Any]) -> NamedCounts:
    try:
        count = data["differential"]
        rows = count.get("count", count)["rows"]
        most = 10**MAX_DIGITS
        found = {str(r["name"]): whole(r["undecided"], "undecided", 0, most) for r in rows}
        counts = {name: count for name, count in found.items() if count}
        return NamedCounts(f"{path}: {data['case']}", counts)
    except DataError as error:
        raise DataError(f"{path}: no differential of a case ({error})") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: no differential of a case ({error!r})") from None


def _of_table(path: Path) -> NamedCounts:
    """Read a count made by hand: columns class and count; spellings as in the taxonomy."""
    table = parse_table(read_text(path, MAX_COUNT_BYTES), path)
    columns = {own.lower(): own for own in table.columns}
    if not {"class", "count"} <= set(columns):
        raise DataError(f"{path}: needs a header with the columns class,count")
    counts: dict[str, int] = {}
    lines: dict[str, int] = {}
    for row in table.rows:
        name, value = row[columns["class"]].strip(), row[columns["count"]].strip()
        where = f"{path}: line {row.line}"
        if not (value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS):
            raise DataError(f"{where}: the count {value!r} is no number of cells")
        if name in lines:
            raise DataError(f"{where}: class {name!r} is listed in line {lines[name]}, too")
        lines[name] = row.line
        known = DEFAULT_TAXONOMY.find(name)
        if known is None:
            raise DataError(f"{where}: no class {name!r} is known")
        counts[known] = counts.get(known, 0) + int(value)
    return NamedCounts(str(path), counts)
