"""`bloodfilm data transfer`: transfer annotations to other images of the same fields."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodfilm.cli import exits

if TYPE_CHECKING:
    from bloodfilm.workflows.transfer import TransferResult


def transfer(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The annotated data set.")],
    targets: Annotated[
        list[Path], typer.Argument(metavar="TARGET...", help="Images, or folders of them.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")
    ],
    to: Annotated[str, typer.Option(help="Format to write, as of `data convert`.")] = "bloodfilm",
    match: Annotated[
        str, typer.Option(help="How fields are paired: `name`, or `content` (slow).")
    ] = "name",
    pairs: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Pairs in columns source,target.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Refuse pairs that are less sure.")
    ] = 0.5,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw a picture of every pair into DIR.")
    ] = None,
    from_format: Annotated[
        str | None, typer.Option("--from", help="SRC's format, if it is not recognised.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Which of LLD's labels to read; see `data info`.")
    ] = None,
    copy_images: Annotated[
        bool, typer.Option("--copy-images", help="Copy the target images into DIR.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of the same name in DIR.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Transfer boxes, classes, attributes and regions to other images of the same fields.

    Every pair is registered (scale, rotation, shift, aspect ratio, mirror); a pair that cannot be
    aligned is refused, never guessed. DIR gets the annotated targets and `transfer.json`, one
    record a pair. Exit code 1 if some targets got nothing, 2 if none got anything.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.workflows.transfer import TransferJob
    from bloodfilm.workflows.transfer import transfer as run

    job = TransferJob(
        source=source,
        targets=targets,
        out=out,
        to=to,
        match=match,
        pairs=pairs,
        min_confidence=min_confidence,
        pictures=pictures,
        source_format=from_format,
        labels=labels,
        copy_images=copy_images,
        overwrite=overwrite,
    )
    with TerminalProgress() as progress:
        result = run(job, progress)
    _show(result, as_json)
    if result.aligned < len(result.records):
        raise typer.Exit(exits.SOME_FAILED if result.aligned else exits.NOTHING_DONE)


def _show(result: "TransferResult", as_json: bool) -> None:
    from bloodfilm.cli.terminal import show_report

    content = result.to_json()
    show_report(content, _lines(result, content), as_json, indent=1)


def _lines(result: "TransferResult", content: Mapping[str, Any]) -> list[str]:
    lines = []
    for record in result.records:
        alignment = record.alignment
        came = record.source.name if record.source else "-"
        lines.append(
            f"{alignment.verdict:<8} {alignment.confidence:4.2f}  {came} -> {record.target.name}: "
            f"{alignment.reason}"
        )
    cells = content["cells"]
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in cells.items())
    return [
        *lines,
        f"{result.aligned} of {len(result.records)} targets aligned; cells: {counts or 'none'}",
        str(result.path),
        *(f"  {loss}" for loss in result.losses),
    ]
