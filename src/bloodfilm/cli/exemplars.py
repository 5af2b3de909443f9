"""`bloodfilm exemplars`: add descriptions of training cells to a bundle."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bloodfilm.cli.options import NewBundle, SourceBundle, TrainingData


def exemplars(
    bundle: SourceBundle,
    out: NewBundle,
    data: TrainingData = None,
    per_class: Annotated[
        int, typer.Option(min=1, help="Describe at most so many cells of a class.")
    ] = 120,
) -> None:
    """Add descriptions of training cells to a bundle, so that `learn` can add classes to it.

    Writes a copy of the bundle to DIR with one more file, exemplars.npz: numbers, no pictures. Its
    networks stay as they are, to the last bit. Needs the data sets that the classifier was trained
    on; who has the bundle afterwards does not.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.workflows.exemplars import ExemplarJob, add_exemplars

    job = ExemplarJob(
        bundle=bundle,
        data=data or Path(os.environ.get("BLOODFILM_DATA", ".")),
        out=out,
        per_label=per_class,
    )
    with TerminalProgress(elapsed=True) as progress:
        done = add_exemplars(job, progress)
    for label, count in done.labels.items():
        show(f"{count:6} {label}")
    cells, size = sum(done.labels.values()), done.size / 1e6
    show(f"{cells} cells described in {size:.1f} MB; bundle in {done.out}")
