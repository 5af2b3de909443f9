"""`bloodfilm analyze`: find and read the cells of image files."""

from pathlib import Path
from typing import Annotated

import typer


def analyze(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Images, folders, or quoted globs.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Model bundle; the shipped one if left out."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    min_score: Annotated[
        float | None, typer.Option(help="Lowest score of a nucleated cell, 0 to 1.")
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="Micrometres per pixel, along y, if you know them.")
    ] = None,
    squeeze: Annotated[
        float | None, typer.Option(help="Width / height of a round cell, if you know it.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Fields at work at a time; one per core if left out.")
    ] = None,
    all_cells: Annotated[
        bool, typer.Option("--all-cells", help="List red cells and platelets in cells.csv too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary_dict as JSON.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results in DIR.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run in DIR that was stopped.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html.")] = False,
) -> None:
    """Find white cells in images, name them and describe them.

    Writes DIR/cells.csv (a line for each nucleated cell), DIR/result.json (everything) and
    DIR/report.html. Exit code 0: all well; 1: some files failed, each named; 2: nothing was done.
    """
    import json

    from bloodfilm.cli.running import (
        CELLS,
        REPORT,
        RESULT,
        AnalysisJob,
        format_summary,
        prepare_output,
        summary_dict,
        timed_run,
    )
    from bloodfilm.core.domain import Domain
    from bloodfilm.core.files import refuse_inputs
    from bloodfilm.imaging.sources.image_file import find_images
    from bloodfilm.inference.analyzer import Analyzer
    from bloodfilm.inference.bundle import default_bundle, load_bundle

    stated = Domain(um_per_px=um_per_px, squeeze=squeeze)
    images = find_images(paths)
    analyzer = Analyzer(load_bundle(bundle) if bundle else default_bundle(), device, 1, min_score)
    refuse_inputs([out / name for name in (CELLS, RESULT, REPORT)], images)
    prepare_output(out, overwrite, resume)
    settings = {
        "paths": paths,
        "device": device,
        "min_score": min_score,
        "um_per_px": um_per_px,
        "squeeze": squeeze,
    }
    job = AnalysisJob(images, out, analyzer, stated, settings, threads, all_cells, not no_report)
    tally, seconds = timed_run(job, resume)
    print(
        json.dumps(summary_dict(job, tally, seconds))
        if as_json
        else format_summary(job, tally, seconds)
    )
    if tally.exit_code:
        raise typer.Exit(tally.exit_code)
