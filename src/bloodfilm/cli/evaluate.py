"""`bloodfilm evaluate`: hold a model, or a file of results, against a labelled data set."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A labelled data set.")],
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Model bundle; the shipped one if left out."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Evaluate cells.csv or result.json, run no model."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only the fields of this split, e.g. test.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Format of the data set, if it is not recognised.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Which of its labels, e.g. complete (LLD).")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where its images are, if not beside the labels."),
    ] = None,
    clean_splits: Annotated[
        bool, typer.Option("--clean-splits", help="Leave out images that leak (TXL).")
    ] = False,
    level: Annotated[
        str,
        typer.Option(
            help="Classes to detect: white-cell, detector, three, leaves, or names and commas."
        ),
    ] = "detector",
    classes: Annotated[
        str | None,
        typer.Option(
            help="Classes to name: true labels below are summed, other cells left out; "
            "five are WBCAtt's; names and commas; the data set's own if left out."
        ),
    ] = None,
    iou: Annotated[
        float, typer.Option(help="IoU at which cells are paired: 0.50, 0.55, ... 0.95.")
    ] = 0.5,
    cells: Annotated[
        bool, typer.Option("--cells", help="Only the reader, on the true cells; no detection.")
    ] = False,
    scale: Annotated[
        str, typer.Option(help="auto: nothing is told; truth: the data set's scale is stated.")
    ] = "auto",
    floor: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Lowest score that counts towards AP.")
    ] = 0.02,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples for intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the record here.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Fields at work at a time; one per core if left out.")
    ] = None,
) -> None:
    """Measure detection, classes and attributes against true labels, with intervals.

    Detection: AP as COCO defines it. Classes and attributes: over the true cells that were found,
    or with --cells over all of them. Intervals resample patients, or fields where none is known.
    """
    from rich.console import Console

    from bloodfilm.cli.evaluating import EvaluationOptions, run_evaluation, write_record
    from bloodfilm.evaluation.record import show

    request = EvaluationOptions(
        dataset=dataset,
        bundle=bundle,
        predictions=predictions,
        split=split,
        format=format,
        labels=labels,
        images=images,
        clean_splits=clean_splits,
        level=level,
        classes=classes,
        iou=iou,
        cells=cells,
        scale=scale,
        floor=floor,
        bootstrap=bootstrap,
        seed=seed,
        device=device,
        threads=threads,
        output=json_file,
    )
    evaluation = run_evaluation(request)
    if json_file is not None:
        write_record(json_file, evaluation)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160)
    console.print(show(evaluation))
