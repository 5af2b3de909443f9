"""`bloodfilm export`: turn two training runs into a bundle that `analyze` can use."""

import os
from pathlib import Path
from typing import Annotated

import typer


def export(
    detector: Annotated[
        Path, typer.Argument(help="Folder of a detector's training run, or of a bundle.")
    ],
    classifier: Annotated[
        Path, typer.Argument(help="Folder of a classifier's training run, or of a bundle.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The bundle's folder.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder the runs' data paths start from [BLOODFILM_DATA]."),
    ] = None,
    name: Annotated[str, typer.Option(help="What results call the bundle.")] = "bloodfilm",
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "not stated",
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Store the networks in eight-bit integers: faster on CPUs."),
    ] = False,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=FACTOR",
            help="How much rarer than in training a class is in use; repeatable.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="JSON record with a class calibration fitted on sites left out of training; in "
            "place of the one that validation cells give."
        ),
    ] = None,
    operating_point: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with the sites on which evidence for white cells is weighed and their "
            "threshold is chosen; `default` takes the shipped one. Left out, the threshold is "
            "chosen on the detector's validation fields.",
        ),
    ] = None,
    films: Annotated[
        bool,
        typer.Option(
            "--films",
            help="Also measure stain and optics of the training films, so that films far from all "
            "of them are noticed and fewer of their cells are named.",
        ),
    ] = False,
    diameters: Annotated[
        str | None,
        typer.Option(
            metavar="ATTRIBUTE",
            help="Also measure the diameters of the training cells of each value of an attribute "
            "(cell_size); the size of a cell then follows its measured diameter too.",
        ),
    ] = None,
    metrics: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="JSON file of `bloodfilm evaluate` to keep in the bundle; repeatable.",
        ),
    ] = None,
    outlines: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an outline network's training run, or of a bundle; by default that of "
            "the bundle that comes with bloodfilm."
        ),
    ] = None,
    no_outlines: Annotated[
        bool, typer.Option("--no-outlines", help="Leave outlines of cells out.")
    ] = False,
    notes: Annotated[
        Path | None,
        typer.Option(help="Markdown to end the model card with: limits, splits, who to ask."),
    ] = None,
) -> None:
    """Write a bundle: ONNX graphs, manifest, model card.

    A bundle in place of a run gives its detector or its classifier to the new one, unchanged.
    Thresholds and temperatures are chosen on the runs' validation data. The graphs are compared
    with torch on that data; a bundle whose boxes, scores or attributes differ is not written.
    """
    from bloodfilm.cli.terminal import show
    from bloodfilm.workflows.export import ExportJob
    from bloodfilm.workflows.export import export as run

    job = ExportJob(
        detector=detector,
        classifier=classifier,
        out=out,
        data=data or Path(os.environ.get("BLOODFILM_DATA", ".")),
        name=name,
        licence=licence,
        int8=int8,
        priors=dict(_factor(text) for text in prior or ()),
        calibration=calibration,
        operating_point=operating_point,
        metrics=metrics or (),
        notes=notes,
        films=films,
        outlines=outlines,
        without_outlines=no_outlines,
        diameters=diameters,
    )
    done = run(job)
    differences = ", ".join(f"{k} {v:.2g}" for k, v in done.parity.items())
    show(f"torch and ONNX Runtime agree (largest differences: {differences})")
    show(f"bundle in {out} ({done.size / 1e6:.1f} MB)")


def _factor(text: str) -> tuple[str, float]:
    from bloodfilm.core.errors import ConfigError

    name, _, factor = text.partition("=")
    try:
        return name.strip(), float(factor)
    except ValueError:
        raise ConfigError(f"--prior {text}: give CLASS=FACTOR, e.g. erythroblast=0.1") from None
