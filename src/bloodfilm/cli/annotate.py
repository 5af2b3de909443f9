"""`bloodfilm annotate`: which regions of fields to mark, and what marking regions saves."""

from pathlib import Path
from typing import Annotated

import typer

from bloodfilm.cli.examples import epilog

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Plan which regions of fields a person should mark; count what it saves.",
)


@app.command(epilog=epilog("annotate plan"))
def plan(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Unlabelled fields.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the plan.")],
    budget: Annotated[str, typer.Option(help="10% of the area, or 30min, or 2h.")] = "10%",
    by: Annotated[
        str, typer.Option(help="uncertainty; random; cells (where most are expected).")
    ] = "uncertainty",
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Model that is asked; the shipped one if left out, for cells dark spots.",
        ),
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="Micrometres per pixel, along y, if you know them.")
    ] = None,
    squeeze: Annotated[
        float | None, typer.Option(help="Width / height of a round cell, if you know it.")
    ] = None,
    box_seconds: Annotated[float, typer.Option(min=0.1, help="A person's time a box.")] = 7.0,
    field_seconds: Annotated[float, typer.Option(min=0, help="A person's time a field.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Decides what is left to chance.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a plan in DIR.")] = False,
) -> None:
    """Propose a region of each field to mark: where a model is unsure, at random, or by cells.

    Writes DIR/bloodfilm.json, DIR/coco.json and DIR/label-studio.json (the regions in three
    formats), DIR/plan.jpg and DIR/pictures (the regions to look at). Exit code 0: all well; 1: some
    files could not be opened, each named, and the plan is of the others; 2: nothing was done.
    """
    from bloodfilm.active_learning.budget import Budget, expected, plan_within
    from bloodfilm.active_learning.costs import Rates
    from bloodfilm.active_learning.fields import blob_evidence, bundle_evidence, plan_dataset
    from bloodfilm.active_learning.plan_files import NATIVE, write_plan
    from bloodfilm.active_learning.planning import PLANNERS, RegionScores
    from bloodfilm.cli.bars import counted
    from bloodfilm.cli.running import EXIT_SOME_FAILED
    from bloodfilm.core.domain import Domain
    from bloodfilm.core.errors import ConfigError, DataError
    from bloodfilm.imaging.sources.image_file import find_images
    from bloodfilm.inference.bundle import default_bundle, load_bundle

    planner = next((p for p in PLANNERS if p == by), None)
    if planner is None:
        raise ConfigError(f"--by {by}: choose from {', '.join(PLANNERS)}")
    if (out / NATIVE).exists() and not overwrite:
        raise DataError(f"{out}: holds a plan; choose another --out or give --overwrite")
    wanted, rates = Budget.parse(budget), Rates(box_seconds, field_seconds)
    paths = find_images([folder])
    if bundle is None and planner != "uncertainty":
        gathered = blob_evidence(paths)
    else:
        asked = default_bundle() if bundle is None else load_bundle(bundle)
        gathered = bundle_evidence(paths, asked, Domain(um_per_px=um_per_px, squeeze=squeeze))
    outcomes = list(counted(gathered, len(paths)))
    opened = [(p, o) for p, o in zip(paths, outcomes, strict=True) if isinstance(o, RegionScores)]
    if not opened:
        raise DataError(f"{folder}: none of its {len(paths)} files could be opened; see above")
    fields, evidence = [p for p, _ in opened], [o for _, o in opened]
    shares, regions = plan_within(evidence, wanted, rates, planner, seed)
    write_plan(plan_dataset(fields, evidence, regions, folder.name), out, overwrite)
    cells, marked = expected(evidence, regions), sum(s > 0 for s in shares)
    total = float(sum(e.cells.sum() for e in evidence))
    print(f"{out}: regions of {marked} of {len(fields)} fields, chosen by {planner}")
    print(f"  area      {sum(shares) / max(len(shares), 1):.1%} of all fields")
    print(f"  expected  {cells:.0f} of about {total:.0f} cells")
    print(f"  time      about {rates.minutes(cells, marked):.0f} minutes at {_stated(rates)}")
    if len(fields) < len(paths):
        print(f"  not read  {len(paths) - len(fields)} files, named above")
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command(epilog=epilog("annotate cost"))
def cost(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="An annotated data set.")],
    full: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="The same fields, annotated in full.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="Of the labels, if not recognised.")] = None,
    box_seconds: Annotated[float, typer.Option(min=0.1, help="A person's time a box.")] = 7.0,
    field_seconds: Annotated[float, typer.Option(min=0, help="A person's time a field.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Count what marking only regions took, and what it saved."""
    import json

    from bloodfilm.active_learning.costs import Rates, cost_of
    from bloodfilm.formats import open_dataset

    rates = Rates(box_seconds, field_seconds)
    whole = None if full is None else open_dataset(full, format)
    found = cost_of(open_dataset(dataset, format), rates, whole)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    share = "not known" if found.area_share is None else f"{found.area_share:.1%}"
    about = "about " if found.estimated else ""
    part = found.boxes / found.full_boxes if found.full_boxes else 1.0
    saved = found.full_minutes - found.minutes
    print(f"{dataset}: {found.fields} fields marked, {found.unmarked} untouched")
    print(f"  area     {share} of all fields")
    print(f"  boxes    {found.boxes} of {about}{found.full_boxes:.0f} ({part:.1%})")
    print(f"  clicks   {found.clicks} of {about}{found.full_clicks:.0f}")
    print(f"  minutes  {found.minutes:.0f} of {about}{found.full_minutes:.0f} at {_stated(rates)}")
    print(f"  saved    {about}{saved:.0f} minutes")


def _stated(rates: object) -> str:
    from bloodfilm.active_learning.costs import Rates

    assert isinstance(rates, Rates)
    return f"{rates.box_seconds:g} s a box and {rates.field_seconds:g} s a field"
