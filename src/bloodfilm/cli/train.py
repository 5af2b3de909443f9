"""`bloodfilm train`: learn from labelled fields as a configuration file says."""

import os
from pathlib import Path
from typing import Annotated

import typer


def _list_configs(wanted: bool) -> None:
    """Print the shipped configurations, one per line with the first line of its comment."""
    if wanted:
        from bloodfilm.training.config import shipped_configs

        known = shipped_configs()
        width = max(map(len, known)) + 2
        for name, text in known.items():
            print(f"{name:{width}}{text.partition(chr(10))[0].removeprefix('# ')}")
        raise typer.Exit


def _show_config(name: str | None) -> None:
    """Print a shipped configuration, to be redirected into a file and edited."""
    if name is not None:
        from bloodfilm.training.config import shipped_config

        print(shipped_config(name), end="")
        raise typer.Exit


def train(
    config: Annotated[
        Path,
        typer.Argument(
            help="The run's configuration: a TOML file, or the name of a shipped one (see --list)."
        ),
    ],
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
    _list: Annotated[
        bool,
        typer.Option(
            "--list", help="List the shipped configurations.", callback=_list_configs, is_eager=True
        ),
    ] = False,
    _show: Annotated[
        str | None,
        typer.Option(
            "--show-config",
            metavar="NAME",
            help="Print a shipped configuration, to save and edit it.",
            callback=_show_config,
            is_eager=True,
        ),
    ] = None,
) -> None:
    """Train a detector or a cell classifier; a stopped run resumes from its last epoch.

    Written to --out: best.pt (best weights), last.pt (to resume), run.json (configuration and
    data), log.jsonl (losses and metrics per epoch, one JSON object per line).
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
