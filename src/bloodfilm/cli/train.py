"""`bloodfilm train`: learn from labelled fields as a configuration file says."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def train(
    config: Annotated[Path, typer.Argument(help="The run's configuration, a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log.")],
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
    from bloodfilm.cli.bars import bar
    from bloodfilm.core.errors import ConfigError
    from bloodfilm.training import loop
    from bloodfilm.training.config import load_config
    from bloodfilm.training.tasks import make_task

    settings = load_config(config)
    root = data or Path(os.environ.get("BLOODFILM_DATA", "."))
    if not root.is_dir():
        raise ConfigError(f"--data {root}: no such folder")
    loop.use_threads(threads)
    chosen = loop.pick_device(device)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; name a folder")
    with bar(elapsed=True, transient=False) as progress:
        task = make_task(settings, root, lambda items, n, what: _counted(progress, items, n, what))
        out.mkdir(parents=True, exist_ok=True)
        if restart:  # not before the data are found good: the old run may be worth keeping
            for name in (loop.LAST, loop.BEST, loop.LOG, loop.RECORD):
                (out / name).unlink(missing_ok=True)
        main = progress.add_task("starting", total=None)

        def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
            if stage == "validation":
                shown = "  ".join(f"{k} {v:.4f}" for k, v in figures.items())
                progress.console.print(f"epoch {done}/{total}: {shown}")
            else:
                text = f"loss {figures['total']:.3f}"
                progress.update(main, completed=done, total=total, description=text)

        best = loop.train(task, settings, out, chosen, report)
    typer.echo(f"best {task.score_name}: {best[task.score_name]:.4f}; weights in {out / loop.BEST}")


def _counted(progress: "Progress", items: Iterable[int], total: int, what: str) -> Iterator[int]:
    line = progress.add_task(what, total=total)
    for item in items:
        yield item
        progress.advance(line)
    progress.remove_task(line)
