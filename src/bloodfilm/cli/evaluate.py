"""`bloodfilm evaluate`: hold a model, or a file of results, against a labelled data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodfilm.cli import exits
from bloodfilm.cli.options import CleanSplits

if TYPE_CHECKING:
    from bloodfilm.workflows.cross_evaluate import MethodSpec, TestSet


def evaluate(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET",
            help="A labelled data set; with --cross several, each also as NAME=DATASET or "
            "DATASET@SPLIT.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder the data set is in [BLOODFILM_DATA]."),
    ] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="Model bundle: a folder, or a shipped one by name (default, leukaemia-research). "
            "With --cross repeatable, also as LABEL=FOLDER.",
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Evaluate cells.csv or result.json, run no model. With --cross repeatable, also "
            "as NAME=FILE.",
        ),
    ] = None,
    cross: Annotated[
        bool,
        typer.Option("--cross", help="Compare every model on every domain of the data sets."),
    ] = False,
    by: Annotated[
        str,
        typer.Option(
            help="With --cross: what divides a set into domains: set, microscope, magnification, "
            "camera, stain, patient, split, or meta:KEY."
        ),
    ] = "set",
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --cross: the model that gains are relative to."),
    ] = None,
    fixed_input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PIXELS",
            help="With --cross: this bundle sees images scaled to PIXELS, without a canonical "
            "view; repeatable.",
        ),
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SET,SET",
            help="With --cross: what a model was trained on, in place of its own record; "
            "repeatable.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="With --cross: at most so many fields of a domain, drawn by lot."),
    ] = None,
    heat_map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --cross: also draw the matrix as SVG."),
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
    clean_splits: CleanSplits = False,
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
    seed: Annotated[int, typer.Option(help="Random seed of the resamples.")] = 0,
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

    With --cross: a matrix of models and domains with means in and out of domain and gains over a
    baseline. See docs/travel.md.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show_table
    from bloodfilm.evaluation.record import show
    from bloodfilm.workflows.evaluate import EvaluationOptions, write_record
    from bloodfilm.workflows.evaluate import evaluate as run

    crossing = {
        "--by": by != "set",
        "--baseline": baseline,
        "--fixed-input": fixed_input,
        "--trained-on": trained_on,
        "--limit": limit,
        "--heat-map": heat_map,
    }
    if cross:
        single = {
            "--level": level != "detector",
            "--cells": cells,
            "--scale": scale != "auto",
            "--split": split,
            "--format": format,
            "--labels": labels,
            "--images": images,
            "--clean-splits": clean_splits,
        }
        _refuse(single, "no part of --cross; give DATASET@SPLIT, or convert the set first")
        comparison = CrossArguments(datasets, bundle, predictions, fixed_input, trained_on)
        settings: dict[str, Any] = {
            "by": by,
            "baseline": baseline,
            "classes": classes or "five",
            "iou": iou,
            "limit": limit,
            "floor": floor,
            "bootstrap": bootstrap,
            "seed": seed,
            "device": device,
            "threads": threads,
        }
        evaluate_cross(comparison, data, settings, json_file, heat_map)
        return
    _refuse(crossing, "only with --cross")
    options = EvaluationOptions(
        dataset=find_data(Path(_only(datasets, "DATASET")), data),
        bundle=None if not bundle else Path(_only(bundle, "--bundle")),
        predictions=None if not predictions else Path(_only(predictions, "--predictions")),
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


@dataclass(frozen=True)
class CrossArguments:
    """What --cross compares, as it was typed."""

    datasets: list[str]
    bundles: list[str] | None
    predictions: list[str] | None
    fixed_input: list[str] | None
    trained_on: list[str] | None


def evaluate_cross(
    given: CrossArguments,
    data: Path | None,
    settings: dict[str, Any],
    json_file: Path | None,
    heat_map: Path | None,
) -> None:
    """Compare models on domains, print the matrix, write what was asked for."""
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show_table
    from bloodfilm.evaluation.cross_record import show_cross
    from bloodfilm.workflows.cross_evaluate import (
        CrossOptions,
        cross_evaluate,
        write_cross_record,
        write_heat_map,
    )

    options = CrossOptions(
        sets=[_test_set(text, data) for text in given.datasets],
        methods=_methods(given),
        outputs=[path for path in (json_file, heat_map) if path is not None],
        **settings,
    )
    with TerminalProgress() as progress:
        evaluation = cross_evaluate(options, progress)
    if json_file is not None:
        write_cross_record(json_file, evaluation)
    if heat_map is not None:
        write_heat_map(heat_map, evaluation)
    show_table(show_cross(evaluation))
    if evaluation.failures:
        raise typer.Exit(exits.SOME_FAILED)


def _test_set(text: str, data: Path | None) -> "TestSet":
    """Read [NAME=]DATASET[@SPLIT]; a path that is there is taken as it is."""
    from bloodfilm.workflows.cross_evaluate import TestSet

    name, path = _named(text, data)
    split = None
    if not find_data(Path(path), data).exists() and "@" in path:
        path, _, split = path.rpartition("@")
    return TestSet(find_data(Path(path), data), name, split)


def _named(text: str, data: Path | None = None) -> tuple[str | None, str]:
    """Divide NAME=PLACE; a place that is there may hold an equals sign."""
    name, equals, place = text.partition("=")
    if not equals or find_data(Path(text), data).exists():
        return None, text
    return name.strip(), place


def _methods(given: CrossArguments) -> list["MethodSpec"]:
    from bloodfilm.core.errors import ConfigError
    from bloodfilm.workflows.cross_evaluate import MethodSpec

    fixed = {name: _pixels(text) for name, text in _pairs("--fixed-input", given.fixed_input)}
    trained = {
        name: tuple(part.strip() for part in text.split(",") if part.strip())
        for name, text in _pairs("--trained-on", given.trained_on)
    }
    methods = []
    for text in given.bundles or (["default"] if not given.predictions else []):
        name, place = _named(text)
        key = name or place
        size, sets = fixed.pop(key, None), trained.pop(key, None)
        methods.append(MethodSpec(name, Path(place), fixed_input=size, trained_on=sets))
    for text in given.predictions or []:
        name, place = _named(text)
        sets = trained.pop(name or place, None)
        methods.append(MethodSpec(name, predictions=Path(place), trained_on=sets))
    for option, left in (("--fixed-input", fixed), ("--trained-on", trained)):
        if left:
            raise ConfigError(
                f"{option} {next(iter(left))}: no such model; give the "
                f"LABEL of --bundle LABEL=FOLDER"
            )
    return methods


def _pairs(option: str, texts: list[str] | None) -> Iterator[tuple[str, str]]:
    from bloodfilm.core.errors import ConfigError

    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{option} {text}: give NAME=VALUE")
        yield name.strip(), value


def _pixels(text: str) -> int:
    from bloodfilm.core.errors import ConfigError

    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--fixed-input {text}: give a number of pixels") from None


def _refuse(given: dict[str, Any], why: str) -> None:
    from bloodfilm.core.errors import ConfigError

    if named := [option for option, value in given.items() if value]:
        raise ConfigError(f"{', '.join(named)}: {why}")


def _only(values: list[str], what: str) -> str:
    from bloodfilm.core.errors import ConfigError

    if len(values) > 1:
        raise ConfigError(f"{what}: {len(values)} are named; compare several with --cross")
    return values[0]


def find_data(dataset: Path, data: Path | None) -> Path:
    """Return a data set that is named from here, or else from the data folder."""
    import os

    root = data or (
        Path(os.environ["BLOODFILM_DATA"]) if os.environ.get("BLOODFILM_DATA") else None
    )
    if root is None or dataset.is_absolute() or (data is None and dataset.exists()):
        return dataset
    return root / dataset
