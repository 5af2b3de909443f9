"""`bloodfilm adapt`: adapt a bundle to a microscope from its fields, marked or not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodfilm.cli import exits
from bloodfilm.cli.options import CheckSets, NewBundle, RandomSeed, ReportAsJson, SourceBundle

if TYPE_CHECKING:
    from bloodfilm.workflows.adapt import AdaptResult


def adapt(
    bundle: SourceBundle,
    target: Annotated[
        list[str],
        typer.Option(
            metavar="PATH", help="Images, folders or globs of the new microscope; repeatable."
        ),
    ],
    out: NewBundle,
    method: Annotated[
        str,
        typer.Option(
            help="self-training, or statistics: batch-norm statistics of the new microscope."
        ),
    ] = "self-training",
    steps: Annotated[int, typer.Option(min=1, help="Steps of self-training.")] = 400,
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Marked fields of the new microscope, by which the names are corrected.",
        ),
    ] = None,
    labelled_fields: Annotated[
        int | None, typer.Option(min=1, help="Use so many of them, drawn by lot [all].")
    ] = None,
    check: CheckSets = None,
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Cells of the original microscopes: `statistics` then aligns every layer.",
        ),
    ] = None,
    max_fields: Annotated[int, typer.Option(min=1, help="Use at most so many fields.")] = 400,
    max_cells: Annotated[int, typer.Option(min=1, help="Use at most so many cells.")] = 4000,
    seed: RandomSeed = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Fields at work at a time; one per core if left out.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew instead of resuming the run in --out.")
    ] = False,
    as_json: ReportAsJson = False,
) -> None:
    """Adapt a bundle's classifier to a new microscope, without labels or with marked fields.

    With --labelled the names are corrected where held-out marked fields are then named better.
    Writes a bundle to DIR, and adaptation.json with figures before and after on cells that were not
    learnt from. Where the adapted classifier would harm, DIR gets the original, unchanged, and the
    reasons are named. A stopped run resumes. See docs/travel.md.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show_report
    from bloodfilm.workflows.adapt import AdaptJob
    from bloodfilm.workflows.adapt import adapt as run

    job = AdaptJob(
        bundle=bundle,
        target=target,
        out=out,
        method=method,
        steps=steps,
        labelled=labelled,
        labelled_fields=labelled_fields,
        source=source,
        checks=check or (),
        max_fields=max_fields,
        max_cells=max_cells,
        seed=seed,
        threads=threads,
        restart=restart,
    )
    with TerminalProgress(elapsed=True) as progress:
        done = run(job, progress)
    show_report(done.report, _lines(done), as_json)
    if done.failures:
        raise typer.Exit(exits.SOME_FAILED)


def _lines(done: "AdaptResult") -> list[str]:
    """Return the figures of an adaptation as lines, and where the bundle is."""
    after = done.report["after"]
    figures = [(name, value, after[name]) for name, value in done.report["before"].items()]
    if (marked := done.report["labelled"]) is not None:
        figures.append(("marked cells", marked["before"], marked["after"]))
    figures += [(c["name"], c["before"], c["after"]) for c in done.report["checks"]]
    how = "corrected" if done.report["method"] == "correction" else "adapted"
    kept = [] if marked is None else marked["not_corrected"]
    what = f"{how} bundle" if done.accepted else "the original bundle, unchanged,"
    return [
        *(f"{name:16}{_shown(old):>8} -> {_shown(new)}" for name, old, new in figures),
        *(f"not corrected by marked fields: {why}" for why in kept),
        *(f"not adapted: {reason}" for reason in done.reasons),
        f"{what} in {done.out}",
    ]


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
