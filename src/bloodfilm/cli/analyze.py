"""`bloodfilm analyze`: find and classify the cells of image files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodfilm.cli import exits
from bloodfilm.cli.options import ModelBundle, PixelAspectRatio, UmPerPx

if TYPE_CHECKING:
    from bloodfilm.workflows.analyze import AnalysisSummary, Existing


def analyze(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Images, folders, or quoted globs.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")
    ],
    bundle: ModelBundle = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    min_score: Annotated[
        float | None, typer.Option(help="Lowest score of a nucleated cell, 0 to 1.")
    ] = None,
    um_per_px: UmPerPx = None,
    pixel_aspect_ratio: PixelAspectRatio = None,
    cases: Annotated[
        str,
        typer.Option(
            metavar="folders|one|TABLE",
            help="What is one case: each sub-folder, everything, or the rows of one patient in a "
            "CSV or TSV file with columns image and patient.",
        ),
    ] = "folders",
    edges: Annotated[
        str,
        typer.Option(
            metavar="two-sides|whole|all",
            help="Which cells count that an edge cuts in every field: of the top and left edges, "
            "none, or all.",
        ),
    ] = "two-sides",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Fields at work at a time; one per core if left out.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="all|X,Y,W,H|FILE",
            help="Of slides: the whole slide, a rectangle in pixels, or the annotations of a "
            "GeoJSON file, instead of the zone of morphology.",
        ),
    ] = None,
    fields: Annotated[
        int | None,
        typer.Option(min=1, help="Of slides: analyse that many random fields of the zone."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the fields.")] = 0,
    all_cells: Annotated[
        bool, typer.Option("--all-cells", help="List red cells and platelets in cells.csv too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results in DIR.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with a stopped run in DIR; try failed files again."),
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html.")] = False,
    single_file: Annotated[
        bool,
        typer.Option("--single-file", help="Put the report's pictures into report.html itself."),
    ] = False,
    explain: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Show where the model looked for the N least certain cells."
        ),
    ] = 0,
    save_crops: Annotated[
        bool, typer.Option("--save-crops", help="Write each named cell to DIR/crops/CLASS.")
    ] = False,
    save_images: Annotated[
        bool, typer.Option("--save-images", help="Write fields with cells drawn to DIR/images.")
    ] = False,
) -> None:
    """Find white cells in images, name them and describe them.

    Fields of one case may overlap in any way: they are compared by content, and each cell counts
    once. A folder is one case; one with sub-folders has a case in each, and images beside the
    sub-folders are a case of their own; files given by name are a case per folder. Of a slide its
    zone of morphology is analysed, or what --region names.

    Writes DIR/cells.csv (a line for each nucleated cell of each field), DIR/result.json
    (everything), DIR/cases.csv and DIR/cases/ (what each case comes to), and DIR/report.html
    with its pictures in DIR/report_files; of slides also DIR/slides, maps of the zone, and the
    cells for QuPath. Exit code 0: all well, also where fields have problems to look at; 1: some
    files, or parts of a slide, failed or are missing, each named; 2: nothing was done.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.core.errors import ConfigError
    from bloodfilm.workflows.analyze import AnalysisJob, edge_rule
    from bloodfilm.workflows.analyze import analyze as run

    if overwrite and resume:
        raise ConfigError("--overwrite and --resume: choose one")
    existing: Existing = "overwrite" if overwrite else "resume" if resume else "refuse"
    job = AnalysisJob(
        paths=paths,
        out=out,
        bundle=bundle,
        device=device,
        min_score=min_score,
        um_per_px=um_per_px,
        pixel_aspect_ratio=pixel_aspect_ratio,
        workers=threads,
        all_cells=all_cells,
        report=not no_report,
        single_file=single_file,
        explain=explain,
        save_crops=save_crops,
        save_images=save_images,
        existing=existing,
        cases=cases,
        edges=edge_rule(edges),
        region=region,
        fields=fields,
        seed=seed,
    )
    with TerminalProgress() as progress:
        summary = run(job, progress)
    show_summary(summary, as_json)


def show_summary(summary: "AnalysisSummary", as_json: bool = False) -> None:
    """Print what a run did, and end with its exit code."""
    from bloodfilm.cli.terminal import show_report

    show_report(summary.to_json(), summary_lines(summary), as_json)
    if summary.incomplete:
        raise typer.Exit(exits.SOME_FAILED if summary.fields else exits.NOTHING_DONE)


def summary_lines(summary: "AnalysisSummary") -> list[str]:
    """Return a run in a line for people, and where to look."""
    from bloodfilm.core.text import plural

    cells = plural(summary.kinds[summary.classified], summary.classified)
    several = f"{plural(summary.cases, 'case')}, " if summary.cases > 1 else ""
    text = f"{several}{plural(summary.fields, 'field')}, {cells} in {summary.seconds:.1f} s"
    if summary.nothing_to_do:
        text = f"{summary.out}: the run is complete, nothing to resume; {text}"
    if summary.failures:
        text += f"; {plural(len(summary.failures), 'file')} failed"
    if summary.failed_tiles:
        text += f"; {plural(summary.failed_tiles, 'tile')} of slides failed"
    if summary.with_problems:
        text += f"; {plural(summary.with_problems, 'field')} with problems"
    return [text, str(summary.files.get("report", summary.files["result"]))]
