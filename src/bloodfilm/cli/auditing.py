"""`bloodfilm data audit`, `fix`, `split` and `stats`: is a data set fit to learn from?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodfilm.cli import exits
from bloodfilm.cli.examples import epilog

if TYPE_CHECKING:
    from bloodfilm.core.findings import Finding
    from bloodfilm.workflows.audit import AuditReport

SHOWN, LEAST_SHOWN = 25, 2

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
        typer.Option(
            help="A model bundle or the name of a shipped one (`default`): finds unmarked cells."
        ),
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
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show_lines
    from bloodfilm.workflows.audit import AuditJob
    from bloodfilm.workflows.audit import audit as run

    job = AuditJob(
        roots=roots,
        format=format,
        bundle=bundle,
        pixels=not no_pixels,
        thorough=thorough,
        json=as_json,
        html=html,
    )
    with TerminalProgress() as progress:
        report = run(job, progress)
    show_lines(_lines(report))
    bad = report.counts["error"] + (report.counts["warning"] if strict else 0)
    raise typer.Exit(exits.SOME_FAILED if bad else exits.OK)


def fix(
    root: Root,
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for the repaired labels.")],
    off: Annotated[
        list[str] | None,
        typer.Option("--no", metavar="RULE", help="A rule not to apply; repeatable."),
    ] = None,
    sure: Annotated[
        float, typer.Option(min=0, max=1, help="Leave findings of less confidence than this.")
    ] = 0.85,
    no_pixels: NoPixels = False,
    no_links: Annotated[
        bool, typer.Option("--no-links", help="Do not link the image folders into the copy.")
    ] = False,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules and stop.")] = False,
) -> None:
    """Write a repaired copy of LLD's labels, JSON and text; log every change, list what was left.

    The original is never touched. OUT/changes.jsonl holds one change per line, OUT/left.jsonl what
    a person should look at.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show, show_lines
    from bloodfilm.core.text import plural
    from bloodfilm.repair import RULES
    from bloodfilm.workflows.repair import RepairJob, repair

    if rules:
        show_lines(f"{rule:<18} {what}" for rule, (_, what) in RULES.items())
        return
    job = RepairJob(
        root=root,
        out=out,
        off=off or (),
        min_confidence=sure,
        pixels=not no_pixels,
        link_images=not no_links,
    )
    with TerminalProgress() as progress:
        done = repair(job, progress)
    by_rule: dict[str, int] = {}
    for change in done.changes:
        by_rule[change.rule] = by_rule.get(change.rule, 0) + 1
    changes, left = plural(len(done.changes), "change"), plural(len(done.left), "finding")
    show(f"wrote {out}: {changes}, {left} left")
    for rule, count in sorted(by_rule.items()):
        show(f"  {rule:<18} {count}")


def split(
    roots: Roots,
    out: Annotated[Path, typer.Option("--out", "-o", help="The split file to write (JSON).")],
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
        bool, typer.Option("--content", help="Also keep fields together that show common glass.")
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
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.core.text import plural
    from bloodfilm.splits.planning import SplitPlan
    from bloodfilm.workflows.split import SplitJob
    from bloodfilm.workflows.split import split as run

    plan = SplitPlan(
        test_share, val_share, seed, leave_patient_out, leave_domain_out, keep_test=not fresh
    )
    job = SplitJob(roots=roots, out=out, plan=plan, content=content, dataset=dataset, format=format)
    with TerminalProgress() as progress:
        made = run(job, progress)
    show(f"wrote {out}: " + ", ".join(f"{n} {name}" for name, n in made.split.counts().items()))
    for line in made.split.notes:
        show(f"  {line}")
    if dataset is not None:
        show(f"wrote {dataset}: {plural(made.written, 'field')}")


def stats(
    root: Root,
    as_json: AsJson = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts.")] = None,
    format: Format = None,
) -> None:
    """Count classes, attributes, sizes in px and um, domains, patients; attribute by class."""
    from bloodfilm.cli.terminal import show_lines
    from bloodfilm.workflows.audit import StatisticsJob, count_dataset

    job = StatisticsJob(root=root, format=format, json=as_json, html=html)
    show_lines(_figure_lines(count_dataset(job)))


# ---- output ----------------------------------------------------------------------------------


def _lines(report: "AuditReport") -> list[str]:
    from bloodfilm.core.issues import SEVERITIES
    from bloodfilm.core.text import plural, shortened

    findings, counted = report.findings, report.counts
    sums = [f"{counted[s]} info" if s == "info" else plural(counted[s], s) for s in SEVERITIES]
    lines = [
        f"{plural(report.fields, 'field')}, {plural(report.cells, 'cell')}: " + ", ".join(sums)
    ]
    codes: dict[tuple[str, str], int] = {}
    for finding in findings:
        key = finding.severity, finding.code
        codes[key] = codes.get(key, 0) + 1
    lines += [f"  {severity:<8} {code:<24} {count}" for (severity, code), count in codes.items()]
    telling = [f for f in findings if f.severity != "info"]
    shown = _some_of_each_code(telling)
    lines += [""] if telling else []
    for f in shown:
        ids = shortened(f" #{', #'.join(f.annotations)}", 200) if f.annotations else ""
        name = shortened(Path(f.file).name, 120)
        lines.append(f"{f.severity}: {name}{ids}: {f.message} ({f.confidence:.0%} confidence)")
    if len(telling) > len(shown):
        lines.append(f"and {len(telling) - len(shown)} more: --json or --html lists them")
    return lines


def _some_of_each_code(findings: "Sequence[Finding]") -> "list[Finding]":
    """Return the first few findings of every code and severity, in order."""
    codes = {(f.severity, f.code) for f in findings}
    each = max(LEAST_SHOWN, SHOWN // max(len(codes), 1))
    seen: dict[tuple[str, str], int] = {}
    shown = []
    for finding in findings:
        key = finding.severity, finding.code
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
