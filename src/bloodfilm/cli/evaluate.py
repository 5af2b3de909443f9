"""`bloodfilm evaluate`: hold a model, or a file of results, against a labelled data set."""

from pathlib import Path
from typing import Annotated

import typer

from bloodfilm.cli import exits


def evaluate(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A labelled data set.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder the data set is in [BLOODFILM_DATA]."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="Model bundle: a folder, or a shipped one by name (default, leukaemia-research).",
        ),
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
        bool, typer.Option("--cells", help="Only the classifier, on the true cells; no detection.")
    ] = False,
    scale: Annotated[
        str, typer.Option(help="auto: measured; truth: the scale that the data set states is used.")
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
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show_table
    from bloodfilm.evaluation.record import show
    from bloodfilm.workflows.evaluate import EvaluationOptions, write_record
    from bloodfilm.workflows.evaluate import evaluate as run

    options = EvaluationOptions(
        dataset=find_data(dataset, data),
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
    with TerminalProgress() as progress:
        evaluation = run(options, progress)
    if json_file is not None:
        write_record(json_file, evaluation)
    show_table(show(evaluation))
    if evaluation.failures:
        raise typer.Exit(exits.SOME_FAILED)


def find_data(dataset: Path, data: Path | None) -> Path:
    """Return a data set that is named from here, or else from the data folder."""
    import os

    root = data or (
        Path(os.environ["BLOODFILM_DATA"]) if os.environ.get("BLOODFILM_DATA") else None
    )
    if root is None or dataset.is_absolute() or (data is None and dataset.exists()):
        return dataset
    return root / dataset
