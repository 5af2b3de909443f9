"""Train a network as a configuration file says; a run that was stopped is resumed."""

from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.issue_codes import EPOCH_DONE, issue
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.workflows.outputs import check_can_hold, hold_folder, make_folder


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train, on what, and where the run goes.

    Attributes:
        config: the configuration: a TOML file, or the name of a shipped one.
        out: the folder of the run.
        data: folder from which the configuration's data paths start.
        device: `auto`, `cpu` or `cuda`.
        threads: of the CPU; `None` leaves it to torch.
        restart: begin anew instead of resuming the run in `out`.
    """

    config: Path
    out: Path
    data: Path
    device: str = "auto"
    threads: int | None = None
    restart: bool = False


@dataclass(frozen=True)
class TrainingResult:
    """The best epoch's score, by name, and where its weights are."""

    score_name: str
    score: float
    weights: Path


def train(job: TrainingJob, progress: Progress | None = None) -> TrainingResult:
    """Train, or resume the run that is there, and leave the best weights.

    Every validation is reported as an issue `epoch`, with the figures as data.
    """
    from bloodfilm.training import loop
    from bloodfilm.training.callbacks import BaseCallback, EpochInfo, StepInfo
    from bloodfilm.training.config import load_config
    from bloodfilm.training.precision import limit_threads, pick_device
    from bloodfilm.training.tasks import make_task

    follower = progress or NoProgress()
    config = load_config(job.config)
    if not job.data.is_dir():
        raise ConfigError(f"{job.data}: no such folder; name the one the data paths start from")
    limit_threads(job.threads)
    device = pick_device(job.device)
    if job.out.is_dir():
        check_can_hold(job.out)
    elif job.out.exists():
        make_folder(job.out)  # says what is in the way
    else:
        check_can_hold(job.out)
    task = make_task(config, job.data, follower)
    with hold_folder(job.out, "training"):
        if job.restart:  # not before the data are found good: the old run may be worth keeping
            for name in loop.RUN_FILES:
                (job.out / name).unlink(missing_ok=True)

        class Report(BaseCallback):
            """Passes the run on to the progress."""

            def on_step(self, info: StepInfo) -> None:
                follower.check_cancelled()
                follower.update(f"loss {info.losses['total']:.3f}", info.step, info.steps)

            def on_epoch_end(self, info: EpochInfo) -> None:
                if info.metrics is None:
                    return
                shown = "  ".join(f"{k} {v:.4f}" for k, v in info.metrics.items())
                data = {"epoch": info.epoch, "epochs": info.epochs, **info.metrics}
                message = f"epoch {info.epoch}/{info.epochs}: {shown}"
                follower.report(issue(EPOCH_DONE, message, **data))

        best = loop.train(task, config, job.out, device, [Report()])
    return TrainingResult(task.score_name, best[task.score_name], job.out / loop.BEST)
