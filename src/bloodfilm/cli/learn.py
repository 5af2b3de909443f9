"""`bloodfilm learn`: add classes to a bundle from a lab's own cells."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bloodfilm.cli import exits
from bloodfilm.cli.options import (
    CheckSets,
    NewBundle,
    PixelAspectRatio,
    RandomSeed,
    ReportAsJson,
    SourceBundle,
    UmPerPx,
)


def learn(
    bundle: SourceBundle,
    cells: Annotated[
        Path,
        typer.Argument(
            metavar="CELLS",
            help="A folder with a folder of pictures for each class, or a set of marked fields.",
        ),
    ],
    out: NewBundle,
    new: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=GROUP",
            help="A class that the bundle does not have, and the group of classes it belongs to; "
            "repeatable.",
        ),
    ] = None,
    blast: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="A new class that counts as a blast; repeatable."),
    ] = None,
    um_per_px: UmPerPx = None,
    pixel_aspect_ratio: PixelAspectRatio = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="MAP.toml", help="A file that says which classes the folders' own names are."
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="Format of CELLS, instead of recognising it.")
    ] = None,
    check: CheckSets = None,
    check_um_per_px: Annotated[
        float | None, typer.Option(help="Micrometres per pixel of the sets given with --check.")
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=FACTOR",
            help="How much rarer than another class a new one is in use; repeatable.",
        ),
    ] = None,
    max_loss: Annotated[
        float, typer.Option(help="The most that what was known may lose in balanced accuracy.")
    ] = 0.01,
    name: Annotated[str | None, typer.Option(help="What results call the new bundle.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the new bundle [that of BUNDLE].")
    ] = None,
    seed: RandomSeed = 0,
    as_json: ReportAsJson = False,
) -> None:
    """Add classes to a bundle from your own cells, without forgetting the others.

    Needs 5 cells of a class, better 30 or more, and some of known classes from the same films.
    Writes a bundle to DIR, with learning.json: figures before and after on cells held out. Where
    the new class is not found or the others would suffer, nothing is written and the reasons are
    named. See docs/new-class.md.
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show_report, warn
    from bloodfilm.workflows.learn import LearnJob
    from bloodfilm.workflows.learn import learn as run
    from bloodfilm.workflows.learn_cells import CellSource

    job = LearnJob(
        bundle=bundle,
        cells=CellSource(
            path=cells,
            format=format,
            classes=classes,
            um_per_px=um_per_px,
            pixel_aspect_ratio=pixel_aspect_ratio,
        ),
        out=out,
        new=dict(_pair(text, "--new", "CLASS=GROUP") for text in new or ()),
        blasts=tuple(blast or ()),
        checks=check or (),
        check_um_per_px=check_um_per_px,
        priors={
            n: _factor(v, n) for n, v in (_pair(t, "--prior", "CLASS=FACTOR") for t in prior or ())
        },
        max_loss=max_loss,
        name=name,
        licence=licence,
        seed=seed,
    )
    with TerminalProgress(elapsed=True) as progress:
        done = run(job, progress)
    lines = _lines(done.report)
    if done.accepted:
        lines.append(f"bundle with {', '.join(done.report['classes'])} in {done.out}")
    show_report(done.report, lines, as_json)
    if not done.accepted:
        warn(f"error: not learnt, {bundle} stays as it is: {'; '.join(done.reasons)}")
        raise typer.Exit(exits.NOTHING_DONE)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    from bloodfilm.core.errors import ConfigError

    name, sign, value = text.partition("=")
    if not (sign and name.strip() and value.strip()):
        raise ConfigError(f"{option} {text!r}: give {form}")
    return name.strip(), value.strip()


def _factor(text: str, name: str) -> float:
    from bloodfilm.core.errors import ConfigError

    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--prior {name}={text}: give a number above 0, e.g. 0.1") from None


def _lines(report: Mapping[str, Any]) -> list[str]:
    """Return the figures of a report as lines."""
    held = "patients" if report["by_group"] else "cells"
    lines = [f"{count} cells left out: {why}" for why, count in report["cells"]["left_out"].items()]
    for name, c in report["classes"].items():
        lines.append(
            f"{name}, {c['cells']} cells: on held-out {held} recall {c['recall']:.3f}, named "
            f"{c['named']:.3f}, precision {c['precision']:.3f}; {c['false']:.4f} of other cells"
        )
    lines.append(_line("what was known", report["known"]))
    lines += [_line(name, found) for name, found in report["checks"].items()]
    return [*lines, *(f"note: {warning}" for warning in report["warnings"])]


def _line(name: str, found: Mapping[str, Any]) -> str:
    if found["before"] is None:
        return f"{name}: no cell of a known class"
    return f"{name}: balanced accuracy {found['before']:.4f} -> {found['after']:.4f}"
