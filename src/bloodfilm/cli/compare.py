"""`bloodfilm compare`: do two differentials agree within counting error?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodfilm.cli import exits

if TYPE_CHECKING:
    from bloodfilm.evaluation.compare import Comparison

Counted = "Folder or result.json of an analysis, a case's JSON, or a CSV with class,count."


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help=Counted)],
    second: Annotated[Path, typer.Argument(metavar="B", help=Counted)],
    case: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which case, where there are several.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the comparison as JSON.")
    ] = None,
) -> None:
    """Compare two differentials by exact binomial limits (Rümke; CLSI H20).

    Each row has both counts with their exact 95 % limits; `differs` marks what counting alone
    hardly explains (exact test, corrected for the number of classes). Exit code 0: they agree;
    1: some class differs; 2: nothing could be compared.
    """
    from bloodfilm.cli.terminal import show_lines
    from bloodfilm.workflows.compare import CompareJob
    from bloodfilm.workflows.compare import compare as run

    found = run(CompareJob(first=first, second=second, case=case, json=json_file))
    show_lines(comparison_lines(found))
    if not found.agrees:
        raise typer.Exit(exits.SOME_FAILED)


def _p_value(p: float) -> str:
    """Return a p-value as it is printed.

    >>> _p_value(0.0312), _p_value(0.00004)
    ('0.031', '< 0.001')
    """
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def comparison_lines(found: "Comparison") -> list[str]:
    """Return a comparison as a table for people."""
    lines = [
        f"{letter}: {name} ({total} white cells{f', {left} left open' if left else ''})"
        for letter, name, total, left in zip(
            "AB", found.names, found.totals, found.left_open, strict=True
        )
    ]
    lines += [
        "",
        f"{'class':<24} {'A %':>6} {'limits':>12} {'B %':>6} {'limits':>12} {'p':>7}",
    ]
    for row in found.classes:
        shown = [
            f"{100 * share:>6.1f} {f'{100 * low:.1f}-{100 * high:.1f}':>12}"
            for share, (low, high) in zip(row.shares, row.limits, strict=True)
        ]
        mark = "  differs" if row.differs else "" if row.within else "  outside the limits"
        lines.append(f"{row.name:<24} {shown[0]} {shown[1]} {_p_value(row.p_corrected):>7}{mark}")
    for letter, total, left in zip("AB", found.totals, found.left_open, strict=True):
        if left > total:
            lines += [
                "",
                f"note: {letter} left more cells open than it named; those that it named are a "
                "choice, and their shares are not the film's",
            ]
    lines += ["", "they agree within counting error" if found.agrees else "they differ"]
    return lines
