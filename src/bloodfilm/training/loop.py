"""The training loop: steps, averaged weights, validation, checkpoints, a log to plot."""

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bloodfilm import __version__
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import regular_file, write_json, write_text
from bloodfilm.splits.disjoint import same_splits
from bloodfilm.training.callbacks import Callback, Callbacks, EpochInfo, StepInfo
from bloodfilm.training.checkpoint import load_checkpoint, save_checkpoint
from bloodfilm.training.config import Config, parse_config
from bloodfilm.training.distributed import DistributedContext
from bloodfilm.training.ema import ModelEma
from bloodfilm.training.loading import BatchLoader, worker_count
from bloodfilm.training.optimizer import (
    build_optimizer,
    learning_rate_factor,
    set_learning_rate,
)
from bloodfilm.training.precision import uses_bf16
from bloodfilm.training.records import RECORD
from bloodfilm.training.tasks.base import Task, UsesEmaTeacher

LOG = "log.jsonl"
LAST = "last.pt"
BEST = "best.pt"
RUN_FILES = (LAST, BEST, LOG, RECORD)
"""The files of a run's folder."""
OF_ONE_TASK = {"sparse", "outlines"}
"""Sections of a configuration that only the task of that name uses."""
_log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """The mutable state of a training, as a checkpoint holds it.

    Attributes:
        model: in training.
        ema: its averaged weights.
        optimizer: of the model.
        epoch, step: complete ones.
        best: the best validation score; NaN while no epoch's score was a number, `None` before the
            first validation.
    """

    model: nn.Module
    ema: ModelEma
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    best: float | None = None


def train(
    task: Task[Any],
    config: Config,
    out: Path,
    device: torch.device,
    callbacks: Iterable[Callback] = (),
    distributed: DistributedContext | None = None,
) -> dict[str, float]:
    """Train, or resume from the last checkpoint in `out`, and leave the best weights there.

    A stopped run resumes to the same result: samples depend on seed, epoch and number only, and
    the checkpoint holds weights, averages, optimiser and random state.

    Args:
        task: what to train, on what.
        config: of the run.
        out: its folder.
        device: to train on.
        callbacks: follow the run.
        distributed: this process among those of the run; one process by default.

    Returns:
        the validation metrics of the best epoch.

    Raises:
        ConfigError: if `out` holds a run of another configuration, or a loss is not finite.
    """
    trainer = _Trainer(task, config, device, Callbacks(callbacks), distributed)
    return trainer.run(out)


class _Trainer:
    """One call of `train`: what does not change during a run."""

    def __init__(
        self,
        task: Task[Any],
        config: Config,
        device: torch.device,
        callbacks: Callback,
        distributed: DistributedContext | None,
    ) -> None:
        self.task, self.config, self.device, self.callbacks = task, config, device, callbacks
        self.distributed = distributed or DistributedContext.from_environment()
        self.record = task.record()
        self.bf16 = uses_bf16(config.optim.precision, device)
        torch.manual_seed(config.seed)
        model = task.model.to(device).to(memory_format=torch.channels_last)
        ema = ModelEma(model, config.optim.ema)
        self.state = TrainingState(model, ema, build_optimizer(model, config.optim))
        self.wrapped = self.distributed.wrap(model)
        self.loader = BatchLoader(
            task.samples,
            config.optim.batch,
            workers=worker_count(config.optim.workers),
            pin_memory=device.type == "cuda",
        )

    def run(self, out: Path) -> dict[str, float]:
        """Train to the last epoch."""
        state, epochs = self.state, self.config.optim.epochs
        if (out / LAST).exists():
            _refuse_another_split(out / RECORD, self.record)
            self._resume(out / LAST)
        if isinstance(self.task, UsesEmaTeacher):
            self.task.set_teacher(state.ema.module)
        if self.distributed.is_main:
            _trim_log(out / LOG, state.epoch)
            settings = {"version": __version__, "config": self.config.model_dump(mode="json")}
            write_json(out / RECORD, {**settings, **self.record})
        if not epochs and not (out / BEST).exists() and self.distributed.is_main:
            self._close_epoch(out, {}, 0.0)
        while state.epoch < epochs:
            started = time.perf_counter()
            losses = self._epoch()
            state.epoch += 1
            if self.distributed.is_main:
                self._close_epoch(out, losses, time.perf_counter() - started)
            self.distributed.barrier()
        if self.distributed.is_main:
            self._finish(out)
            self.callbacks.on_train_end(out)
        self.distributed.barrier()
        best: dict[str, float] = load_checkpoint(out / BEST)["metrics"]
        return best

    # ---- an epoch -----------------------------------------------------------------------------

    def _epoch(self) -> dict[str, float]:
        """Train for one epoch; return the mean of every weighted loss term and of their sum."""
        optim, state = self.config.optim, self.state
        keys = self.distributed.shard(self.task.samples.keys(state.epoch))
        if not keys:
            raise ConfigError("training: an epoch draws nothing; raise data.train.repeat")
        batches = max(1, len(keys) // min(optim.batch, len(keys)))
        accumulate = min(optim.accumulate, batches)
        steps = batches // accumulate
        self.wrapped.train()
        sums: dict[str, float] = {}
        loaded = self.loader.epoch(keys[: steps * accumulate * optim.batch])
        for number in range(1, steps + 1):
            rate = learning_rate_factor(state.step, steps * optim.epochs, optim.warmup)
            set_learning_rate(state.optimizer, optim.lr * rate)
            for _ in range(accumulate):
                terms = self._backward(next(loaded), accumulate)
                sums = {k: sums.get(k, 0.0) + v / accumulate for k, v in terms.items()}
            self._step()
            means = {k: v / number for k, v in sums.items()}
            self.callbacks.on_step(StepInfo(state.epoch + 1, number, steps, means))
        for _ in loaded:  # lets loading processes finish the epoch
            pass
        return {k: v / steps for k, v in sums.items()}

    def _backward(self, batch: Any, accumulate: int) -> dict[str, float]:
        """Add a batch's gradients; return its weighted loss terms and their sum, `total`."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            terms = self.task.losses(self.wrapped, batch, self.device)
        weighted = weigh(terms, self.task.loss_weights)
        loss = torch.stack(list(weighted.values())).sum()
        # One copy from the device for all of them; a non-finite loss changes nothing.
        values = torch.stack([*weighted.values(), loss]).detach().float().tolist()
        named = dict(zip([*weighted, "total"], values, strict=True))
        if not math.isfinite(named["total"]):
            wrong = ", ".join(n for n, v in named.items() if not math.isfinite(v) and n != "total")
            raise ConfigError(
                f"training: the loss is {named['total']} at step {self.state.step + 1} "
                f"({wrong or 'the sum'}); lower optim.lr"
            )
        (loss / accumulate if accumulate > 1 else loss).backward()
        return named

    def _step(self) -> None:
        """Update weights and their average, unless a gradient is not finite."""
        state, optim = self.state, self.config.optim
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), optim.clip)
        if not math.isfinite(float(norm)):
            raise ConfigError(
                f"training: the gradient is {float(norm)} at step {state.step + 1}; lower optim.lr"
                + (", or set optim.precision to fp32" if self.bf16 else "")
            )
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.ema.update(state.model, state.step)

    def _close_epoch(self, out: Path, losses: Mapping[str, float], seconds: float) -> None:
        """Validate if due, log, keep the best weights, write the checkpoint."""
        state, optim = self.state, self.config.optim
        entry: dict[str, Any] = {"epoch": state.epoch, "step": state.step, "loss": dict(losses)}
        entry["seconds"] = round(seconds, 2)
        metrics, improved = None, False
        if state.epoch == optim.epochs or state.epoch % optim.validate_every == 0:
            model = state.ema.module.eval()
            metrics = self.task.validate(model, self.device)
            entry["validation"] = {k: _number(v) for k, v in metrics.items()}
            improved = self._is_best(metrics[self.task.score_name])
            if improved:
                save_checkpoint(out / BEST, {"model": model.state_dict(), "metrics": metrics})
        self.callbacks.on_epoch_end(EpochInfo(state.epoch, optim.epochs, losses, metrics, improved))
        with (out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry, allow_nan=False) + "\n")
        save_checkpoint(out / LAST, self._pack())

    def _is_best(self, score: float) -> bool:
        """Whether to keep these weights; the first are always kept."""
        state = self.state
        if math.isnan(score):
            _log.warning(
                "epoch %d: the validation score %s is no number; are there cells to judge by?",
                state.epoch,
                self.task.score_name,
            )
            better = state.best is None
        else:
            better = state.best is None or math.isnan(state.best) or score > state.best
        if better:
            state.best = score
        return better

    # ---- checkpoints --------------------------------------------------------------------------

    def _finish(self, out: Path) -> None:
        """Let the task complete the best weights, once."""
        kept = load_checkpoint(out / BEST)
        if kept.get("finished"):
            return
        model = self.state.ema.module
        model.load_state_dict(kept["model"])
        self.task.finish(model.eval(), self.device)
        if self.config.model.keep or self.config.correction.samples:  # it answers otherwise now
            kept["metrics"] = self.task.validate(model, self.device)
        save_checkpoint(out / BEST, {**kept, "model": model.state_dict(), "finished": True})

    def _pack(self) -> dict[str, Any]:
        state = self.state
        random = {"torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        return {
            "memory": self.task.state_dict() if isinstance(self.task, UsesEmaTeacher) else {},
            "model": state.model.state_dict(),
            "average": state.ema.module.state_dict(),
            "optimiser": state.optimizer.state_dict(),
            "epoch": state.epoch,
            "step": state.step,
            "best": state.best,
            "random": random,
            "config": json.dumps(_identity(self.config), sort_keys=True),
            "vocabulary": json.dumps(self.record.get("vocabulary"), sort_keys=True),
        }

    def _resume(self, path: Path) -> None:
        kept, state = load_checkpoint(path), self.state
        if not _same_run(kept.get("config"), self.config):
            raise ConfigError(
                f"{path.parent}: holds a run of another configuration; choose another --out, "
                "or --restart to begin anew there"
            )
        words = json.dumps(self.record.get("vocabulary"), sort_keys=True)
        if kept.get("vocabulary", words) != words:
            raise ConfigError(
                f"{path.parent}: the taxonomy or the schema has changed since this run began; "
                "choose another --out, or --restart to begin anew there"
            )
        state.model.load_state_dict(kept["model"])
        state.ema.module.load_state_dict(kept["average"])
        state.optimizer.load_state_dict(kept["optimiser"])
        state.epoch, state.step = kept["epoch"], kept["step"]
        best = kept["best"]  # minus infinity before the first validation, in older versions
        state.best = None if best is None or best == -math.inf else best
        if isinstance(self.task, UsesEmaTeacher):
            self.task.load_state_dict(kept["memory"])
        torch.set_rng_state(kept["random"]["torch"])
        if "cuda" in kept["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(kept["random"]["cuda"])


def weigh(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Return every loss term times its weight.

    Raises:
        KeyError: for a term without a weight (a programming error in the task).
    """
    return {name: term * weights[name] for name, term in terms.items()}


def _number(value: float) -> float | None:
    """Return a number as a JSON value."""
    return value if math.isfinite(value) else None


def _refuse_another_split(path: Path, record: dict[str, Any]) -> None:
    """Raise `ConfigError` if a run's split file was changed since it was stopped."""
    try:
        before = json.loads(regular_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, DataError):
        return  # the checkpoint shows whether the run is the same
    if not same_splits(before, record):
        raise ConfigError(
            f"{path.parent}: the split file has changed since this run began; choose another "
            "--out, or --restart to begin anew there"
        )


def _trim_log(path: Path, epochs: int) -> None:
    """Drop log lines after the last checkpoint of a stopped run: those steps are repeated."""
    text = regular_file(path).read_text(encoding="utf-8") if path.exists() else ""
    kept = []
    for line in text.splitlines(keepends=True):
        try:
            done = int(json.loads(line)["epoch"])
        except (ValueError, KeyError, TypeError):
            continue  # a truncated line
        if done <= epochs:
            kept.append(line)
    write_text(path, "".join(kept))


def _identity(config: Config) -> dict[str, Any]:
    """Return what two runs must share for one to resume the other."""
    data = config.model_dump(mode="json")
    data["optim"].pop("workers")
    for section in OF_ONE_TASK - {config.task}:
        data.pop(section)
    return data


def _same_run(stored: Any, config: Config) -> bool:
    """Whether a checkpoint's configuration is this one; a setting it does not know was default."""
    try:
        return _identity(parse_config(json.loads(stored), LAST)) == _identity(config)
    except (ConfigError, TypeError, ValueError):
        return False
