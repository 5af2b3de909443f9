"""`bloodfilm demo`: analyse fields that are rendered on the spot, and show what comes out."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bloodfilm.cli.options import ModelBundle


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for everything.")],
    bundle: ModelBundle = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results in DIR.")
    ] = False,
) -> None:
    """Draw example fields into DIR/fields, analyse them into DIR.

    The fields are drawn, not photographed: they show how the program works, not how well.
    """
    from bloodfilm.cli.analyze import show_summary
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import note
    from bloodfilm.workflows.demo import run_demo

    with TerminalProgress() as progress:
        summary = run_demo(out, bundle, overwrite=overwrite, progress=progress)
    note(f"analyse your own: {program()} analyze FOLDER --out results")
    show_summary(summary)


def program() -> str:
    """Return how to call this program from here: its path, if it is not on the search path."""
    from shutil import which

    called = Path(sys.argv[0])
    if called.name.startswith("bloodfilm") and called.exists() and not which("bloodfilm"):
        return os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called)
    return "bloodfilm"
