"""`bloodfilm adapt`: adapt a bundle to a microscope from its fields, marked or not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodfilm.cli import exits
from bloodfilm.cli.options import CheckSets, NewBundle, RandomSeed, ReportAsJson, SourceBundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
            help="correction: of the classes, by marked fields alone. Also try self-training, or "
            "statistics (batch-norm statistics of the new microscope)."
        ),
    ] = "correction",
    steps: Annotated[int, typer.Option(min=1, help="Steps of self-training.")] = 400,
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Marked fields of the new microscope, which correct the names and judge.",
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
    """Adapt a bundle's classifier to a new microscope, by marked fields or without labels.

    With --labelled the names are corrected where held-out marked fields are then named better, and
    marked fields judge any other --method. Without labels nothing shows whether names became
    better: DIR gets the original, unchanged, unless a --method is asked for and no figure speaks
    against it. adaptation.json says how each was judged, by which cells. A stopped run resumes. See
    docs/travel.md.
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
    """Return how each candidate was judged, as lines, and where the bundle is."""
    report = done.report
    lines = []
    if (original := report["original"]) is not None:
        figures = ", ".join(f"{k} {_shown(v)}" for k, v in original.items() if k != "cells")
        lines.append(f"the original on {original['cells']} cells without labels: {figures}")
    for candidate in report["candidates"]:
        lines += _candidate_lines(candidate)
    what = f"bundle adapted by {report['method']}" if done.accepted else "the original, unchanged,"
    return [*lines, f"{what} in {done.out}"]


def _candidate_lines(candidate: "Mapping[str, Any]") -> "Iterator[str]":
    """Yield what a candidate was judged by, and why it was not returned."""
    yield f"{candidate['name']}: {'returned' if candidate['returned'] else 'not returned'}"
    if (marked := candidate["marked"]) is not None:
        was, now = marked["right"]
        changed = f"{marked['gained']} put right, {marked['lost']} made wrong"
        yield f"  {marked['cells']} marked cells: {was} -> {now} named rightly ({changed})"
        yield f"  their balanced accuracy: {_change(marked['accuracy'])}"
    if (figures := candidate["unlabelled"]) is not None:
        before, after = figures["before"], figures["after"]
        changes = (f"{k} {_change((before[k], after[k]))}" for k in after if k != "cells")
        yield f"  {after['cells']} cells without labels: {', '.join(changes)}"
    for check in candidate["checks"]:
        pair = check["before"], check["after"]
        yield f"  {check['name']}: balanced accuracy {_change(pair)}"
    if candidate["returned"] and candidate["unjudged"]:
        yield f"  judged by no labelled cell: {', '.join(candidate['unjudged'])}"
    for reason in candidate["reasons"]:
        yield f"  not returned: {reason}"


def _change(pair: "Sequence[float | None]") -> str:
    return " -> ".join(map(_shown, pair))


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
