"""`bloodfilm data transfer`: carry annotations over to other photographs of the same fields."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from bloodfilm.registration.transfer import Transfer

RECORD = "transfer.json"
EXIT_SOME, EXIT_NOTHING = 1, 2


def transfer(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The annotated data set.")],
    targets: Annotated[
        list[Path], typer.Argument(metavar="TARGET...", help="Images, or folders of them.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")],
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
    """Carry boxes, classes, attributes and regions over to other photographs of the same fields.

    Every pair is registered (scale, rotation, shift, squeeze, mirror); a pair that cannot be
    aligned is refused, never guessed. DIR gets the annotated targets and `transfer.json`, one
    record a pair. Exit code 1 if some targets got nothing, 2 if none got anything.
    """
    from bloodfilm.cli.bars import bar
    from bloodfilm.core import ConfigError
    from bloodfilm.formats import WRITERS, open_dataset, save_dataset
    from bloodfilm.imaging.sources.image_file import find_images
    from bloodfilm.registration.transfer import Transfer

    if to not in WRITERS:
        raise ConfigError(f"--to {to}: choose from {', '.join(WRITERS)}")
    if match not in ("name", "content"):
        raise ConfigError(f"--match {match}: choose name or content")
    if out.is_file():
        raise ConfigError(f"--out {out}: is a file; name a folder")
    if (out / RECORD).exists() and not overwrite:
        raise ConfigError(f"{out / RECORD}: exists; choose another --out or give --overwrite")
    dataset = open_dataset(source, from_format, **({"labels": labels} if labels else {}))
    images = find_images(targets)
    job = Transfer(dataset, images, _pairs(dataset, images, pairs, match), min_confidence)
    with bar() as progress:
        _run(job, pictures, progress)
    how: Literal["copy"] | None = "copy" if copy_images else None
    losses = save_dataset(job.dataset, out, to, overwrite=overwrite, images=how)
    summary = _write_record(job, out)
    _say(job, summary, out, losses, as_json)
    if summary["aligned"] < len(images):
        raise typer.Exit(EXIT_SOME if summary["aligned"] else EXIT_NOTHING)


def _pairs(
    dataset: Any, images: list[Path], table: Path | None, match: str
) -> list[tuple[int, int]] | None:
    from bloodfilm.core import DataError
    from bloodfilm.registration.pairing import by_name, from_file

    sources = [field.path for field in dataset]
    if table is not None:
        return from_file(table, sources, images)
    if match == "content":
        return None
    found = by_name(sources, images)
    if not found:
        raise DataError(
            f"no target is named like a field of {dataset.name} (LLD: patient_field_..., else the "
            "same stem); list the pairs with --pairs, or give --match content"
        )
    return found


def _run(job: "Transfer", pictures: Path | None, progress: "Progress") -> None:
    from bloodfilm.registration.visualize import draw

    cells = {field.path: field.cells for field in job.fields}
    task = progress.add_task("measuring", total=job.steps)
    job.measure(lambda: progress.advance(task))
    task = progress.add_task("aligning", total=len(job.targets))
    for record in job:
        if pictures is not None and record.source is not None:
            draw(record, cells[record.source], pictures)
        progress.advance(task)


def _write_record(job: "Transfer", out: Path) -> dict[str, Any]:
    """Write `transfer.json`; return its head."""
    from collections import Counter
    from dataclasses import asdict

    from bloodfilm import __version__
    from bloodfilm.core.files import write_json

    cells: Counter[str] = Counter()
    for record in job.records:
        if record.counts is not None:
            cells.update(asdict(record.counts))
    summary: dict[str, Any] = {
        "program": f"bloodfilm {__version__}",
        "targets": len(job.records),
        "aligned": sum(r.alignment.aligned for r in job.records),
        "min_confidence": job.min_confidence,
        "cells": dict(cells),
    }
    content = summary | {"pairs": [record.to_json() for record in job.records]}
    write_json(out / RECORD, content)
    return content


def _say(
    job: "Transfer", content: dict[str, Any], out: Path, losses: list[str], as_json: bool
) -> None:
    if as_json:
        import json

        print(json.dumps(content, indent=1, ensure_ascii=False))
        return
    for record in job.records:
        alignment = record.alignment
        came = record.source.name if record.source else "-"
        print(
            f"{alignment.verdict:<8} {alignment.confidence:4.2f}  {came} -> {record.target.name}: "
            f"{alignment.reason}"
        )
    cells = content["cells"]
    said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in cells.items())
    print(f"{content['aligned']} of {content['targets']} targets aligned; cells: {said or 'none'}")
    print(out / RECORD)
    for line in losses:
        print(f"  {line}")
