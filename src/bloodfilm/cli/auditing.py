"""`bloodfilm data audit`, `fix`, `split` and `stats`: is a data set fit to learn from?"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodfilm.cli.examples import epilog
from bloodfilm.cli.outputs import refuse_inputs

if TYPE_CHECKING:
    from bloodfilm.audit import Finding
    from bloodfilm.audit.cell_table import Table

SHOWN, LEAST_SHOWN = 25, 2
EXIT_CLEAN, EXIT_FINDINGS = 0, 1

Roots = Annotated[list[Path], typer.Argument(metavar="ROOT...", help="Data sets to look at.")]
Root = Annotated[Path, typer.Argument(help="A data set: a file or a folder.")]
Format = Annotated[str | None, typer.Option(help="Its format, if it is not recognised.")]
AsJson = Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")]
AsHtml = Annotated[Path | None, typer.Option("--html", help="Write a page with pictures.")]
NoPixels = Annotated[
    bool, typer.Option("--no-pixels", help="Check labels only: seconds, even for a million cells.")
]
Thorough = Annotated[
    bool, typer.Option("--thorough", help="Compare all fields at all shifts, however many.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (audit, fix, split, stats):
        app.command(epilog=epilog(f"data {command.__name__}"))(command)


def audit(
    roots: Roots,
    bundle: Annotated[
        Path | None,
        typer.Option(help="A model bundle, or `default`, to find unmarked cells with."),
    ] = None,
    as_json: AsJson = None,
    html: AsHtml = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    no_pixels: NoPixels = False,
    thorough: Thorough = False,
    format: Format = None,
) -> None:
    """Find leaks, repeats, conflicts, misplaced boxes, code errors, blur; change nothing.

    Exits with 0 if there is no error, 1 if there is one, 2 if a set could not be read.
    """
    from bloodfilm import __version__
    from bloodfilm.audit import Options, open_source
    from bloodfilm.audit import audit as run_audit
    from bloodfilm.audit.finding import counts

    refuse_inputs((as_json, html), roots)
    sources = [open_source(root, format) for root in roots]
    refuse_inputs((as_json, html), _images(s.table for s in sources))
    options = Options(pixels=not no_pixels, thorough=thorough, bundle=bundle)
    with progress() as tell:
        findings = run_audit(sources, options, tell)
    counted = counts(findings)
    tables = [s.table for s in sources]
    if as_json is not None:
        content = {
            "format": "bloodfilm-audit",
            "version": 1,
            "program": f"bloodfilm {__version__}",
            "roots": [str(r) for r in roots],
            "fields": sum(len(t.rows) for t in tables),
            "cells": sum(len(t) for t in tables),
            "counts": counted,
            "findings": [f.to_json() for f in findings],
        }
        write_json(as_json, content)
    if html is not None:
        _write_page(html, roots, tables, findings)
    print("\n".join(_lines(findings, tables)))
    bad = counted["error"] + (counted["warning"] if strict else 0)
    raise typer.Exit(EXIT_FINDINGS if bad else EXIT_CLEAN)


def fix(
    root: Root,
    out: Annotated[Path, typer.Option(help="A new folder for the mended labels.")],
    off: Annotated[
        list[str] | None, typer.Option("--no", help="A rule not to apply; may be repeated.")
    ] = None,
    sure: Annotated[
        float, typer.Option(min=0, max=1, help="Leave findings less sure than this.")
    ] = 0.85,
    no_pixels: NoPixels = False,
    no_links: Annotated[
        bool, typer.Option("--no-links", help="Do not link the image folders into the copy.")
    ] = False,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules and stop.")] = False,
) -> None:
    """Write a mended copy of LLD's labels, JSON and text; log every change, list what was left.

    The original is never touched. OUT/changes.jsonl holds one change a line, OUT/left.jsonl what
    a person should look at.
    """
    from bloodfilm.audit import Options, open_source
    from bloodfilm.audit import audit as run_audit
    from bloodfilm.repair.apply import RULES, fix_labels, refuse

    if rules:
        print("\n".join(f"{rule:<18} {what}" for rule, (_, what) in RULES.items()))
        return
    source = open_source(root)
    refuse(source, root, out, off or ())
    with progress() as tell:
        findings = run_audit(source, Options(pixels=not no_pixels), tell)
    mended = fix_labels(source, findings, root, out, off or (), sure, not no_links)
    by_rule: dict[str, int] = {}
    for change in mended.changes:
        by_rule[change.rule] = by_rule.get(change.rule, 0) + 1
    print(f"wrote {out}: {len(mended.changes)} changes, {len(mended.left)} findings left")
    for rule, count in sorted(by_rule.items()):
        print(f"  {rule:<18} {count}")


def split(
    roots: Roots,
    out: Annotated[Path, typer.Option(help="The split file to write (JSON).")],
    test_share: Annotated[float, typer.Option(help="Share of test.")] = 0.2,
    val_share: Annotated[float, typer.Option(help="Share of val.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    leave_patient_out: Annotated[str | None, typer.Option(help="Test on this patient.")] = None,
    leave_domain_out: Annotated[
        str | None, typer.Option(help="Test on this domain, e.g. H/100X/C1.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do not keep what is in test anywhere in test.")
    ] = False,
    content: Annotated[
        bool, typer.Option("--content", help="Also tie fields together that show common glass.")
    ] = False,
    dataset: Annotated[
        Path | None,
        typer.Option(
            help="Also write the fields with their new splits, for `train`: JSON, or an index if "
            "it ends in .parquet."
        ),
    ] = None,
    format: Format = None,
) -> None:
    """Split by patient over all subsets, spread classes evenly, refuse to leak."""
    from bloodfilm.audit import open_source
    from bloodfilm.audit.run_checks import same_glass
    from bloodfilm.splits.split import SplitPlan, plan_split

    plan = SplitPlan(
        test_share, val_share, seed, leave_patient_out, leave_domain_out, keep_test=not fresh
    )
    refuse_inputs((out, dataset), roots)
    tables = [open_source(root, format).table for root in roots]
    refuse_inputs((out, dataset), _images(tables))
    with progress() as tell:
        pairs = [same_glass(t, tell) for t in tables] if content else []
    made = plan_split(tables, plan, pairs)
    write_json(out, made.to_json(out.parent))
    print(f"wrote {out}: " + ", ".join(f"{n} {name}" for name, n in made.counts().items()))
    for note in made.notes:
        print(f"  {note}")
    if dataset is not None:
        _write_dataset(dataset, roots, made, format)


def stats(
    root: Root,
    as_json: AsJson = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts.")] = None,
    format: Format = None,
) -> None:
    """Count classes, attributes, sizes in px and um, domains, patients; attribute by class."""
    from bloodfilm.audit import open_source
    from bloodfilm.audit.statistics import statistics

    refuse_inputs((as_json, html), [root])
    table = open_source(root, format).table
    refuse_inputs((as_json, html), _images([table]))
    figures = statistics(table)
    if as_json is not None:
        write_json(as_json, figures)
    if html is not None:
        from bloodfilm.report.audit_page import write_stats

        write_stats(figures, html)
    print("\n".join(_figure_lines(figures)))


# ---- output ----------------------------------------------------------------------------------


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr, if a person is looking."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield tell


def _images(tables: "Iterable[Table]") -> Iterator[Path]:
    return (Path(row.path) for table in tables for row in table.rows)


def write_json(path: Path, content: Any) -> None:
    """Write plain data to a file or stream that the user named."""
    from bloodfilm.core.files import open_output

    with open_output(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")


def _write_page(
    path: Path, roots: list[Path], tables: "list[Table]", findings: "list[Finding]"
) -> None:
    from bloodfilm.report.audit_page import write_audit

    squeezes = {
        row.path: row.domain.squeeze for t in tables for row in t.rows if row.domain.squeeze
    }
    facts = {
        "Data": ", ".join(str(r) for r in roots),
        "Fields": f"{sum(len(t.rows) for t in tables):,}",
        "Cells": f"{sum(len(t) for t in tables):,}",
    }
    name = " and ".join(r.absolute().name for r in roots)
    write_audit(findings, path, name=name, facts=facts, squeezes=squeezes)


def _write_dataset(path: Path, roots: list[Path], made: Any, format: str | None) -> None:
    from dataclasses import replace
    from itertools import chain

    from bloodfilm.formats import open_dataset, save_dataset
    from bloodfilm.formats.parquet import index
    from bloodfilm.splits.split import apply_split

    parts = [apply_split(open_dataset(root, format), made) for root in roots]
    if path.suffix == ".parquet":  # field by field: it may be larger than memory
        header = index.Header.of(parts[0])
        index.write_fields(chain.from_iterable(parts), path, header, overwrite=True)
    else:
        fields = tuple(f for part in parts for f in part)
        save_dataset(replace(parts[0], fields=fields), path, "bloodfilm", overwrite=True)
    print(f"wrote {path}: {sum(map(len, parts))} fields")


def _lines(findings: "list[Finding]", tables: "list[Table]") -> list[str]:
    from bloodfilm.audit.finding import SEVERITIES, counts

    counted = counts(findings)
    cells, fields = sum(len(t) for t in tables), sum(len(t.rows) for t in tables)
    lines = [
        f"{fields} fields, {cells} cells: "
        + ", ".join(f"{counted[s]} {s}{'' if s == 'info' else 's'}" for s in SEVERITIES)
    ]
    kinds: dict[tuple[str, str], int] = {}
    for finding in findings:
        key = finding.severity, finding.kind
        kinds[key] = kinds.get(key, 0) + 1
    lines += [f"  {severity:<8} {kind:<24} {count}" for (severity, kind), count in kinds.items()]
    telling = [f for f in findings if f.severity != "info"]
    shown = _some_of_each_kind(telling)
    lines += [""] if telling else []
    for f in shown:
        ids = f" #{', #'.join(f.annotations)}" if f.annotations else ""
        lines.append(f"{f.severity}: {Path(f.file).name}{ids}: {f.what} ({f.sure:.0%} sure)")
    if len(telling) > len(shown):
        lines.append(f"and {len(telling) - len(shown)} more: --json or --html lists them")
    return lines


def _some_of_each_kind(findings: "list[Finding]") -> "list[Finding]":
    """Return the first few findings of every kind and severity, in order."""
    kinds = {(f.severity, f.kind) for f in findings}
    each = max(LEAST_SHOWN, SHOWN // max(len(kinds), 1))
    seen: dict[tuple[str, str], int] = {}
    shown = []
    for finding in findings:
        key = finding.severity, finding.kind
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= each:
            shown.append(finding)
    return shown


def _figure_lines(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"{figures['name']}: {figures['fields']} fields, {figures['cells']} cells, "
        f"{figures['ignored']} to ignore",
        f"  domains   {', '.join(figures['domains'])}",
        f"  patients  {len([p for p in figures['patients'] if p != 'not stated'])}",
        "",
        f"  {'class':<24}{'cells':>8}  {'w x h px':>12}  diameter um",
    ]
    for name, count in figures["classes"].items():
        size = figures["sizes"][name]
        px = f"{size['width_px'][1]:.0f} x {size['height_px'][1]:.0f}" if size["width_px"] else "–"
        um = f"{size['mean_um'][1]:.1f}" if size["mean_um"] else "–"
        lines.append(f"  {name:<24}{count:>8}  {px:>12}  {um:>6}")
    lines.append("")
    for name, counts in figures["attributes"].items():
        known = {v: n for v, n in counts.items() if v != "unknown"}
        if any(known.values()):
            lines.append(f"  {name:<24}" + ", ".join(f"{v} {n}" for v, n in known.items()))
    return lines
