"""Run an analysis into a folder: what `analyze` and `demo` share.

While it runs, `results.part.jsonl` and `cells.part.csv` grow file by file; at the end they become
`result.json` and `cells.csv`, and `report.html` is written from the first.
"""

import csv
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from bloodfilm import __version__
from bloodfilm.cli.bars import counted
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import atomic_write, open_new
from bloodfilm.core.results import FieldResult
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.records import AnalysisRun, FieldFailure, FieldOutcome
from bloodfilm.inference.results_log import ResultsLog
from bloodfilm.inference.runner import analyze_paths
from bloodfilm.report.tables import cell_columns, cell_row

RESULT, CELLS, REPORT = "result.json", "cells.csv", "report.html"
JOURNAL, CELLS_PART = "results.part.jsonl", "cells.part.csv"

EXIT_OK, EXIT_SOME_FAILED, EXIT_NOTHING = 0, 1, 2


@dataclass(frozen=True)
class AnalysisJob:
    """What to analyse, how, and where the results go.

    Attributes:
        paths: image files, in order.
        out: the folder for results.
        analyzer: with its bundle.
        stated: what the user says of scale and squeeze.
        settings: what the user chose that bears on the results; a resumed run must have the same.
        workers: fields at work at a time; `None` for one per core.
        all_cells: whether `cells.csv` also lists red cells and platelets.
        report: whether to write `report.html`.
    """

    paths: Sequence[Path]
    out: Path
    analyzer: Analyzer
    stated: Domain
    settings: Mapping[str, Any]
    workers: int | None = None
    all_cells: bool = False
    report: bool = True


@dataclass
class Tally:
    """What a run counted, for the summary."""

    classified: str
    fields: int = 0
    failures: int = 0
    doubtful: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: FieldOutcome) -> None:
        """Count one file."""
        if isinstance(outcome, FieldFailure):
            self.failures += 1
            return
        self.fields += 1
        self.doubtful += bool(outcome.problems)
        for cell in outcome.cells:
            self.kinds[cell.kind] += 1
            if cell.kind == self.classified:
                self.classes[cell.label] += 1
        for stage, seconds in outcome.seconds.items():
            self.seconds[stage] += seconds  # type: ignore[assignment]

    @property
    def exit_code(self) -> int:
        """0 all well, 1 some files failed, 2 all did."""
        if not self.failures:
            return EXIT_OK
        return EXIT_SOME_FAILED if self.fields else EXIT_NOTHING


def prepare_output(out: Path, overwrite: bool, resume: bool) -> None:
    """Make the folder for results and see that none are there that the user did not mean to touch.

    Raises `ConfigError`; file trouble (no permission, disk full) comes as `OSError`.
    """
    if overwrite and resume:
        raise ConfigError("--overwrite and --resume: choose one")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; --out wants a folder")
    out.mkdir(parents=True, exist_ok=True)
    there = [n for n in (RESULT, CELLS, REPORT, JOURNAL, CELLS_PART) if os.path.lexists(out / n)]
    if not there:
        return
    links = [n for n in there if (out / n).is_symlink()]
    if links and not overwrite:
        raise ConfigError(
            f"{out / links[0]}: is a link; results are not written through links, remove it or "
            "choose another --out"
        )
    if overwrite:
        for name in there:
            (out / name).unlink()
    elif not resume and JOURNAL in there:
        raise ConfigError(
            f"{out}: holds a run that was stopped; go on with --resume or start with --overwrite"
        )
    elif not resume or JOURNAL not in there:
        what = "is complete, there is nothing to resume" if resume else f"holds {there[0]} already"
        raise ConfigError(f"{out}: {what}; choose another --out or give --overwrite")


def run_analysis(job: AnalysisJob, resume: bool = False) -> tuple[AnalysisRun, Tally]:
    """Analyse every file, keep results as they come, write the final files at the end."""
    bundle = job.analyzer.bundle
    schema = bundle.schema
    names = "\n".join(str(p) for p in job.paths).encode("utf-8", "surrogateescape")
    head = {
        "program": __version__,
        "bundle": bundle.identity(),
        "settings": dict(job.settings),
        "files": len(job.paths),
        "names": sha256(names).hexdigest(),
    }
    tally = Tally(bundle.manifest.roles.classified)
    with ResultsLog(job.out / JOURNAL, head, resume) as journal:
        with _writing(job.out / CELLS_PART) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(cell_columns(schema))

            def tell(outcome: FieldOutcome) -> None:
                tally.add(outcome)
                if isinstance(outcome, FieldResult):
                    shown = (
                        c for c in outcome.cells if job.all_cells or c.kind == tally.classified
                    )
                    table.writerows(cell_row(outcome.path, c, schema) for c in shown)
                    file.flush()

            for failure in journal.failures:
                tell(failure)
            for result in journal.fields:
                tell(result)
            outcomes = analyze_paths(
                job.paths, job.analyzer, job.stated, job.workers, start=journal.done
            )
            with closing(outcomes), _interrupted(journal, len(job.paths)):
                for outcome in counted(outcomes, len(job.paths), journal.done):
                    journal.append(outcome)
                    tell(outcome)
        run = AnalysisRun(
            __version__,
            bundle.identity(),
            bundle.manifest,
            job.settings,
            journal.fields,
            tuple(journal.failures),
        )
        _finish(job, run)
    (job.out / JOURNAL).unlink()
    return run, tally


def _finish(job: AnalysisJob, run: AnalysisRun) -> None:
    """Write the final files; the journal goes only when all of them are there."""
    with _naming(job.out / RESULT), atomic_write(job.out / RESULT) as file:
        run.write_json(file)
    (job.out / CELLS_PART).replace(job.out / CELLS)
    if job.report:
        from bloodfilm.report.html.report import write_report

        with _naming(job.out / REPORT):
            write_report(run, job.out)


@contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    with _naming(path):
        path.unlink(missing_ok=True)  # of the run that is gone on with
        raw = io.BufferedWriter(open_new(path))
        with io.TextIOWrapper(raw, "utf-8", "surrogateescape", newline="") as file:
            yield file


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Writing that fails (disk full) says where, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, BrokenPipeError):
            raise
        raise DataError(
            f"{path}: {error.strerror}; mend that and go on with --resume, what is done is kept"
        ) from None


@contextmanager
def _interrupted(journal: ResultsLog, total: int) -> Iterator[None]:
    """On Ctrl-C, say how far it went and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"{journal.done} of {total} files are done and kept; go on with --resume",
            file=sys.stderr,
        )
        raise


def summary_dict(job: AnalysisJob, tally: Tally, seconds: float) -> dict[str, Any]:
    """The run in a few figures, for `--json`."""
    files = [RESULT, CELLS, *([REPORT] if job.report else [])]
    return {
        "program": f"bloodfilm {__version__}",
        "bundle": job.analyzer.bundle.identity(),
        "out": str(job.out),
        "files": {name.partition(".")[0]: str(job.out / name) for name in files},
        "images": len(job.paths),
        "fields": tally.fields,
        "failures": tally.failures,
        "fields_with_problems": tally.doubtful,
        "cells": dict(sorted(tally.kinds.items())),
        "classes": dict(sorted(tally.classes.items())),
        "seconds": round(seconds, 3),
        "seconds_by_stage": {k: round(v, 3) for k, v in tally.seconds.items()},
    }


def format_summary(job: AnalysisJob, tally: Tally, seconds: float) -> str:
    """The run in one line, for people."""
    cells = tally.kinds[tally.classified]
    text = f"{tally.fields} fields, {cells} {tally.classified}s in {seconds:.1f} s"
    if tally.failures:
        text += f"; {tally.failures} files failed"
    if tally.doubtful:
        text += f"; {tally.doubtful} fields with problems"
    shown = job.out / (REPORT if job.report else RESULT)
    return f"{text}\n{shown}"


def timed_run(job: AnalysisJob, resume: bool = False) -> tuple[Tally, float]:
    """`run_analysis` with its wall-clock seconds."""
    begin = time.perf_counter()
    _, tally = run_analysis(job, resume)
    return tally, time.perf_counter() - begin
