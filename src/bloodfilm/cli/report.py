"""`bloodfilm report`: write the report of results that are there, again or with more in it."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="A result.json, or the folder that holds it.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Its folder; that of RESULTS if left out."),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Put the pictures into report.html itself.")
    ] = False,
    explain: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Show where the model looked for the N least certain cells."
        ),
    ] = 0,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="For --explain: the bundle that made the results, if not the default.",
        ),
    ] = None,
) -> None:
    """Write DIR/report.html from the results of an analysis, without analysing again.

    Images are opened again where their pictures are not in DIR/report_files.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.workflows.report import ReportJob
    from bloodfilm.workflows.report import report as run

    job = ReportJob(
        results=results, out=out, single_file=single_file, explain=explain, bundle=bundle
    )
    with TerminalProgress() as progress:
        path = run(job, progress)
    show(str(path))
