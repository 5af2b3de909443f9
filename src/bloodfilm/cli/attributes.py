"""`bloodfilm attributes`: let a bundle's attributes follow measured shape and colour."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bloodfilm.cli.options import NewBundle, SourceBundle, TrainingData


def attributes(
    bundle: SourceBundle,
    out: NewBundle,
    data: TrainingData = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Attribute to fit; repeatable. Left out, all that enough cells are measured of.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="JSON record of the benchmark that leaves patients out, with temperatures; left "
            "out, they are fitted on patients that the classifier has seen."
        ),
    ] = None,
) -> None:
    """Let attributes of a bundle follow what is measured of a cell, and its class.

    Outlines the training cells of the bundle's classifier and fits each attribute to their measured
    shape and colour and to their classes. Of cells of fewer than three patients, those of
    validation choose how much the network's own answer counts beside the measures, and whether
    these help at all. Writes a copy of the bundle to DIR; its networks stay as they are, to the
    last bit. Cells that cannot be outlined keep the network's answer. Needs the data sets that the
    classifier was trained on; who has the bundle afterwards does not.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.workflows.measured_attributes import MeasuredJob, measure_attributes

    job = MeasuredJob(
        bundle=bundle,
        data=data or Path(os.environ.get("BLOODFILM_DATA", ".")),
        out=out,
        attributes=tuple(attribute or ()),
        calibration=calibration,
    )
    with TerminalProgress(elapsed=True) as progress:
        done = measure_attributes(job, progress)
    for name, (cells, temperature) in done.attributes.items():
        show(f"{name}: fitted to {cells} cells, temperature {temperature:.3g}")
    for name in done.alone:
        show(f"{name}: left to the network, which answers better alone")
    show(f"bundle in {done.out}")
