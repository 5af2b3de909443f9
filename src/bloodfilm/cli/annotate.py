"""`bloodfilm annotate`: what to mark and what it saves; what a model adds to annotated sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodfilm.cli import exits
from bloodfilm.cli.examples import epilog
from bloodfilm.cli.options import CleanSplits, ModelBundle, PixelAspectRatio, RandomSeed, UmPerPx

if TYPE_CHECKING:
    from bloodfilm.active_learning.costs import Rates

BoxSeconds = Annotated[float, typer.Option(min=0.1, help="Annotation time per box, seconds.")]
FieldSeconds = Annotated[float, typer.Option(min=0, help="Annotation time per field, seconds.")]
SetFolder = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the set.")]
LabelFormat = Annotated[str | None, typer.Option(help="Of the labels, if not recognised.")]
Splits = Annotated[
    list[str] | None,
    typer.Option(metavar="SPLIT", help="Only fields of this split; repeatable."),
]
Microscopes = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Only fields of this microscope; repeatable."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Fields at a time [cores].")]
ReplaceSet = Annotated[bool, typer.Option("--overwrite", help="Replace a set in DIR.")]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Plan which regions of fields a person should mark; count what it saves.",
)


@app.command(epilog=epilog("annotate plan"))
def plan(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Unlabelled fields.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the plan.")],
    budget: Annotated[str, typer.Option(help="10% of the area, or 30min, or 2h.")] = "10%",
    by: Annotated[
        str, typer.Option(help="uncertainty; random; cells (where most are expected).")
    ] = "uncertainty",
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="Model that is asked: a folder, or a shipped one by name; left out: the default "
            "one, for cells dark spots.",
        ),
    ] = None,
    um_per_px: UmPerPx = None,
    pixel_aspect_ratio: PixelAspectRatio = None,
    box_seconds: BoxSeconds = 7.0,
    field_seconds: FieldSeconds = 5.0,
    seed: RandomSeed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a plan in DIR.")] = False,
) -> None:
    """Propose a region of each field to mark: where a model is unsure, at random, or by cells.

    Writes DIR/bloodfilm.json, DIR/coco.json and DIR/label-studio.json (the regions in three
    formats), DIR/plan.jpg and DIR/pictures (the regions to look at). Exit code 0: all well; 1: some
    files could not be opened, each named, and the plan is of the others; 2: nothing was done.
    """
    from bloodfilm.active_learning.costs import Rates
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.plan import PlanJob
    from bloodfilm.workflows.plan import plan as run

    rates = Rates(box_seconds, field_seconds)
    job = PlanJob(
        folder=folder,
        out=out,
        budget=budget,
        by=by,
        bundle=bundle,
        um_per_px=um_per_px,
        pixel_aspect_ratio=pixel_aspect_ratio,
        rates=rates,
        seed=seed,
        overwrite=overwrite,
    )
    with TerminalProgress() as progress:
        made = run(job, progress)
    show(f"{out}: regions of {made.regions} of {made.fields} fields, chosen by {by}")
    show(f"  area      {made.area_share:.1%} of all fields")
    count = f"{made.expected_cells:.0f} of about {made.total_cells:.0f}"
    show(f"  expected  {count} {made.counted}")
    show(f"  time      about {made.minutes:.0f} minutes at {_rates(rates)}")
    if made.failures:
        show(f"  not read  {plural(len(made.failures), 'file')}, named above")
        raise typer.Exit(exits.SOME_FAILED)


@app.command(epilog=epilog("annotate complete"))
def complete(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Annotated in part.")],
    out: SetFolder,
    format: LabelFormat = None,
    split: Splits = None,
    bundle: ModelBundle = None,
    every: Annotated[int, typer.Option(min=1, help="Only every n-th field.")] = 1,
    sure: Annotated[
        float, typer.Option(min=0.01, max=1, help="Lowest confidence of a cell that gets a box.")
    ] = 0.6,
    workers: Workers = None,
    overwrite: ReplaceSet = False,
) -> None:
    """Complete partial annotation with a model, so that a detector can learn the background too.

    What the model is sure of gets a box, what it doubts an ignore box; the rest is background. Your
    boxes stay as they are, and a type that the set labels gets no more boxes in its annotated
    regions. The centred cell of a single-cell image gets the box that is found there. Writes
    DIR/bloodfilm.json, which `train` reads; look at it before you measure anything by it. Exit code
    0: all well; 1: some files could not be opened, each named; 2: nothing was done.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.complete import CompletionJob
    from bloodfilm.workflows.complete import complete as run

    job = CompletionJob(
        dataset=dataset,
        out=out,
        format=format,
        splits=tuple(split or ()),
        bundle=bundle,
        every=every,
        sure=sure,
        workers=workers,
        overwrite=overwrite,
    )
    with TerminalProgress() as progress:
        made = run(job, progress)
    show(f"{out}: {plural(made.fields, 'field')} completed")
    show(f"  annotated  {plural(made.annotated, 'box', 'boxes')}")
    for name, count in made.added.items():
        show(f"  added      {count} {name}")
    show(f"  ignored    {plural(made.ignored, 'doubtful detection')}")
    if made.left_out:
        show(f"  left out   {plural(made.left_out, 'field')} without a scale or its centred cell")
    if made.failures:
        show(f"  not read   {plural(len(made.failures), 'file')}, named above")
        raise typer.Exit(exits.SOME_FAILED)


@app.command(epilog=epilog("annotate names"))
def names(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="With boxes of cells.")],
    out: SetFolder,
    format: LabelFormat = None,
    split: Splits = None,
    microscope: Microscopes = None,
    clean_splits: CleanSplits = False,
    bundle: ModelBundle = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Names and commas; the five mature classes if left out."),
    ] = None,
    least: Annotated[
        float, typer.Option(max=1, help="Lowest probability of a name; above 0.5.")
    ] = 0.9,
    overwrite: ReplaceSet = False,
) -> None:
    """Name boxed cells whose class is not annotated, where a model is sure of it.

    Sets that box white cells without naming them show stains and cameras that no named set does. A
    cell gets a class where its probability, the mean of four turns, is high enough; what else could
    have been named is ignored, and fields without a named cell are left out. Classes that are
    annotated stay as they are. Writes DIR/bloodfilm.json, which `train` reads; look at it before
    you train. Exit code 0: all well; 1: some files could not be opened, each named; 2: nothing was
    done.
    """
    from bloodfilm.active_learning.naming import MATURE
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.name_cells import NamingJob, name_cells

    job = NamingJob(
        dataset=dataset,
        out=out,
        format=format,
        splits=tuple(split or ()),
        microscopes=tuple(microscope or ()),
        clean_splits=clean_splits,
        bundle=bundle,
        classes=MATURE if classes is None else tuple(c.strip() for c in classes.split(",")),
        least=least,
        overwrite=overwrite,
    )
    with TerminalProgress() as progress:
        made = name_cells(job, progress)
    named = sum(made.named.values())
    show(f"{out}: {plural(made.fields, 'field')}, {named} of {plural(made.cells, 'cell')} named")
    for name, count in made.named.items():
        show(f"  {name:12} {count}")
    if made.failures:
        show(f"  not read     {plural(len(made.failures), 'file')}, named above")
        raise typer.Exit(exits.SOME_FAILED)


@app.command(epilog=epilog("annotate scale"))
def scale(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Annotated fields.")],
    out: SetFolder,
    format: LabelFormat = None,
    split: Splits = None,
    microscope: Microscopes = None,
    clean_splits: CleanSplits = False,
    bundle: ModelBundle = None,
    keep_stated: Annotated[
        bool,
        typer.Option(
            "--keep-stated",
            help="Leave fields alone whose scale DATASET states; otherwise it is replaced.",
        ),
    ] = False,
    workers: Workers = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the scales of all fields as JSON.")
    ] = False,
    overwrite: ReplaceSet = False,
) -> None:
    """Give each field the scale at which `analyze` shows its cells, so that training does too.

    The fields are analysed as a user's folders would be: the red cells of a folder give its scale,
    a close-up gets its own. What DATASET states of its scale, often one figure for all its images,
    has no part in that, and is replaced. Fields whose scale could only be assumed are left out,
    named. Cells stay as they are. Where five red cells or more are boxed, training goes by these
    boxes all the same. Writes DIR/bloodfilm.json, which `train` reads; images stay in place. Exit
    code 0: all well; 1: some files could not be opened, each named; 2: nothing was done.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show_report
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.scale_dataset import ScalingJob, scale_dataset

    job = ScalingJob(
        dataset=dataset,
        out=out,
        format=format,
        splits=tuple(split or ()),
        microscopes=tuple(microscope or ()),
        clean_splits=clean_splits,
        bundle=bundle,
        keep_stated=keep_stated,
        workers=workers,
        overwrite=overwrite,
    )
    with TerminalProgress() as progress:
        made = scale_dataset(job, progress)
    lines = [f"{out}: {plural(len(made.fields), 'field')} with a scale"]
    lines += [f"  {origin:10} {count}" for origin, count in made.origins.items()]
    if made.contradicted:
        lines.append(f"  of these   {len(made.contradicted)} contradicted by their own red cells")
    if made.left_out:
        lines.append(f"  left out   {plural(len(made.left_out), 'field')}, scale only assumed")
    if made.failures:
        lines.append(f"  not read   {plural(len(made.failures), 'file')}, named above")
    lines.append(f"  {'median':>8} {'least':>8} {'largest':>8} {'fields':>7}  um per px of")
    lines += [
        f"  {g.median:8.4f} {g.least:8.4f} {g.largest:8.4f} {g.fields:7}  {g.group}"
        for g in made.groups
    ]
    show_report({"out": str(out), **made.to_json()}, lines, as_json)
    if made.failures:
        raise typer.Exit(exits.SOME_FAILED)


@app.command(epilog=epilog("annotate cost"))
def cost(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="An annotated data set.")],
    full: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="The same fields, annotated in full.")
    ] = None,
    format: LabelFormat = None,
    box_seconds: BoxSeconds = 7.0,
    field_seconds: FieldSeconds = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Count what marking only regions took, and what it saved."""
    from bloodfilm.active_learning.costs import Rates
    from bloodfilm.cli.terminal import show_report
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.plan import annotation_cost

    rates = Rates(box_seconds, field_seconds)
    found = annotation_cost(dataset, rates, full, format)
    share = "not known" if found.area_share is None else f"{found.area_share:.1%}"
    about = "about " if found.estimated else ""
    part = found.boxes / found.full_boxes if found.full_boxes else 1.0
    saved = found.full_minutes - found.minutes
    lines = [
        f"{dataset}: {plural(found.fields, 'field')} marked, {found.unmarked} untouched",
        f"  area     {share} of all fields",
        f"  boxes    {found.boxes} of {about}{found.full_boxes:.0f} ({part:.1%})",
        f"  clicks   {found.clicks} of {about}{found.full_clicks:.0f}",
        f"  minutes  {found.minutes:.0f} of {about}{found.full_minutes:.0f} at {_rates(rates)}",
        f"  saved    {about}{saved:.0f} minutes",
    ]
    if found.planned:
        planned = f"{dataset}: {plural(found.fields, 'field')} planned, none annotated yet"
        lines = [planned, lines[1]]
    show_report(found.to_json(), lines, as_json)


def _rates(rates: "Rates") -> str:
    return f"{rates.box_seconds:g} s per box and {rates.field_seconds:g} s per field"
