"""`bloodfilm adapt`: adapt a bundle to a microscope from fields that nobody has labelled."""

from pathlib import Path
from typing import Annotated

import typer

from bloodfilm.cli import exits


def adapt(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE", help="Model bundle: a folder, or a shipped one by name (default)."
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(
            metavar="PATH", help="Images, folders or globs of the new microscope; repeatable."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the new bundle.")
    ],
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
            metavar="DATASET", help="Marked fields of the new microscope, learnt as labelled."
        ),
    ] = None,
    labelled_fields: Annotated[
        int | None, typer.Option(min=1, help="Use so many of them, drawn by lot [all].")
    ] = None,
    check: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATASET", help="A labelled set that must not become worse; repeatable."
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET",
            help="Cells of the original microscopes: `statistics` then aligns every layer.",
        ),
    ] = None,
    max_fields: Annotated[int, typer.Option(min=1, help="Use at most so many fields.")] = 400,
    max_cells: Annotated[int, typer.Option(min=1, help="Use at most so many cells.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of all chance.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Fields at work at a time; one per core if left out.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew instead of resuming the run in --out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Adapt a bundle's classifier to a new microscope, without labels.

    Writes a bundle to DIR, and adaptation.json with figures before and after on cells that were not
    learnt from. Where the adapted classifier would harm, DIR gets the original, unchanged, and the
    reasons are named. A stopped run resumes. See docs/travel.md.
    """
    import json

    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show, show_data
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
    if as_json:
        show_data(json.dumps(done.report))
    else:
        for name, before in done.report["before"].items():
            show(f"{name:16}{_shown(before):>8} -> {_shown(done.report['after'][name])}")
        for item in done.report["checks"]:
            show(f"{item['name']:16}{_shown(item['before']):>8} -> {_shown(item['after'])}")
        for reason in done.reasons:
            show(f"not adapted: {reason}")
        what = "adapted bundle" if done.accepted else "the original bundle, unchanged,"
        show(f"{what} in {done.out}")
    if done.failures:
        raise typer.Exit(exits.SOME_FAILED)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
