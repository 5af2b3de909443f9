"""`bloodfilm export`: turn two training runs into a bundle that `analyze` can use."""

import os
from pathlib import Path
from typing import Annotated

import typer


def export(
    detector: Annotated[Path, typer.Argument(help="Folder of a detector's training run.")],
    reader: Annotated[Path, typer.Argument(help="Folder of a reader's training run.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder.")],
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
            help="CLASS=FACTOR: how much rarer than in training a class is in use; repeatable."
        ),
    ] = None,
    metrics: Annotated[
        list[Path] | None,
        typer.Option(help="JSON files of `bloodfilm evaluate` to keep in the bundle; repeatable."),
    ] = None,
    notes: Annotated[
        Path | None,
        typer.Option(help="Markdown to end the model card with: limits, splits, who to ask."),
    ] = None,
) -> None:
    """Write a bundle: ONNX graphs, manifest, model card.

    Thresholds and temperatures are chosen on the runs' validation data. The graphs are compared
    with torch on that data; a bundle whose boxes, scores or attributes differ is not written.
    """
    from bloodfilm.core.errors import ConfigError
    from bloodfilm.export.publish import publish

    root = data or Path(os.environ.get("BLOODFILM_DATA", "."))
    if not root.is_dir():
        raise ConfigError(f"--data {root}: no such folder")
    priors = dict(_factor(text) for text in prior or ())
    words = "" if notes is None else _words(notes)
    parity = publish(
        (detector, reader), root, out, (name, licence, words), tuple(metrics or ()), int8, priors
    )
    size = sum(f.stat().st_size for f in out.iterdir()) / 1e6
    differences = ", ".join(f"{k} {v:.2g}" for k, v in parity.items())
    typer.echo(f"torch and ONNX Runtime agree (largest differences: {differences})")
    typer.echo(f"bundle in {out} ({size:.1f} MB)")


def _factor(text: str) -> tuple[str, float]:
    from bloodfilm.core.errors import ConfigError

    name, _, factor = text.partition("=")
    try:
        return name.strip(), float(factor)
    except ValueError:
        raise ConfigError(f"--prior {text}: give CLASS=FACTOR, e.g. erythroblast=0.1") from None


def _words(path: Path) -> str:
    from bloodfilm.core.errors import ConfigError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--notes {path}: cannot be read as text ({error})") from None
