"""`bloodfilm train`: learn from labelled fields as a configuration file says."""

import os
from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="The run's configuration, a TOML file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for checkpoints and log.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder the configuration's data paths start from [BLOODFILM_DATA]."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads [all].")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew instead of resuming the run in --out.")
    ] = False,
) -> None:
    """Train a detector or a reader; a run that was stopped goes on where it was.

    Leaves in --out: best.pt (the best weights), last.pt (to resume), run.json (configuration and
    data), log.jsonl (losses and metrics by epoch, one JSON object a line).
    """
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.workflows.train import TrainingJob
    from bloodfilm.workflows.train import train as run

    job = TrainingJob(
        config=config,
        out=out,
        data=data or Path(os.environ.get("BLOODFILM_DATA", ".")),
        device=device,
        threads=threads,
        restart=restart,
    )
    with TerminalProgress(elapsed=True) as progress:
        best = run(job, progress)
    show(f"best {best.score_name}: {best.score:.4f}; weights in {best.weights}")
