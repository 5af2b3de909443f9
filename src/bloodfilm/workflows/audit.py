"""Audit data sets: what is wrong with them, and their statistics, as records and pages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodfilm import __version__
from bloodfilm.audit import Finding, Options, open_source
from bloodfilm.audit import audit as run_checks
from bloodfilm.audit.statistics import statistics
from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import count_by_severity
from bloodfilm.core.issues import Severity
from bloodfilm.core.progress import Progress
from bloodfilm.workflows.outputs import refuse_inputs, write_json_output

FORMAT, VERSION = "bloodfilm-audit", 2


@dataclass(frozen=True, kw_only=True)
class AuditJob:
    """What to audit, how thoroughly, and what to write.

    Attributes:
        roots: data sets; leaks are looked for across all of them.
        format: of their labels, if it is not recognised.
        bundle: a model to find unmarked cells with; `default` for the shipped one.
        pixels: whether images are opened, too.
        thorough: whether all fields are compared at all shifts, however many there are.
        json, html: files to write; checked before any work.
    """

    roots: Sequence[Path]
    format: str | None = None
    bundle: Path | None = None
    pixels: bool = True
    thorough: bool = False
    json: Path | None = None
    html: Path | None = None


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        roots: the data sets.
        tables: their cells.
        findings: the worst first.
    """

    roots: Sequence[Path]
    tables: Sequence[CellTable]
    findings: Sequence[Finding]

    @property
    def fields(self) -> int:
        """How many fields there are."""
        return sum(len(t.rows) for t in self.tables)

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return sum(len(t) for t in self.tables)

    @property
    def counts(self) -> Mapping[Severity, int]:
        """Return the number of findings by severity."""
        return count_by_severity(self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "program": f"bloodfilm {__version__}",
            "roots": [str(r) for r in self.roots],
            "fields": self.fields,
            "cells": self.cells,
            "counts": self.counts,
            "findings": [f.to_json() for f in self.findings],
        }


def audit(job: AuditJob, progress: Progress | None = None) -> AuditReport:
    """Check data sets, write what the job names, and return what was found."""
    refuse_inputs((job.json, job.html), job.roots)
    sources = [open_source(root, job.format) for root in job.roots]
    tables = [s.table for s in sources]
    refuse_inputs((job.json, job.html), images_of(tables))
    options = Options(pixels=job.pixels, thorough=job.thorough, bundle=job.bundle)
    report = AuditReport(job.roots, tables, run_checks(sources, options, progress))
    if job.json is not None:
        write_json_output(job.json, report.to_json())
    if job.html is not None:
        _write_page(job.html, report)
    return report


def _write_page(path: Path, report: AuditReport) -> None:
    from bloodfilm.report.audit_page import write_audit

    rows = [row for table in report.tables for row in table.rows]
    aspect_ratios = {
        row.path: row.domain.pixel_aspect_ratio for row in rows if row.domain.pixel_aspect_ratio
    }
    facts = {
        "Data": ", ".join(str(r) for r in report.roots),
        "Fields": f"{report.fields:,}",
        "Cells": f"{report.cells:,}",
    }
    name = " and ".join(r.absolute().name for r in report.roots)
    write_audit(report.findings, path, name=name, facts=facts, aspect_ratios=aspect_ratios)


@dataclass(frozen=True, kw_only=True)
class StatisticsJob:
    """A data set to count, and what to write; see `AuditJob`."""

    root: Path
    format: str | None = None
    json: Path | None = None
    html: Path | None = None


def count_dataset(job: StatisticsJob) -> dict[str, Any]:
    """Count classes, attributes, sizes, domains and patients; write what the job names."""
    refuse_inputs((job.json, job.html), [job.root])
    table = open_source(job.root, job.format).table
    refuse_inputs((job.json, job.html), images_of([table]))
    figures = statistics(table)
    if job.json is not None:
        write_json_output(job.json, figures)
    if job.html is not None:
        from bloodfilm.report.audit_page import write_stats

        write_stats(figures, job.html)
    return figures


def images_of(tables: Iterable[CellTable]) -> Iterator[Path]:
    """Yield the images of tables."""
    return (Path(row.path) for table in tables for row in table.rows)
