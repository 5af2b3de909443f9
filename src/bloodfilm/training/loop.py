"""The one training loop: steps, averaged weights, validation, checkpoints, a log to plot."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bloodfilm import __version__
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.files import write_json, write_text
from bloodfilm.splits.disjoint import same_splits
from bloodfilm.training.checkpoint import load_checkpoint, save_checkpoint
from bloodfilm.training.config import Config, parse_config
from bloodfilm.training.tasks.base import Key, Task, UsesEmaTeacher

Report = Callable[[str, int, int, dict[str, float]], None]
"""Called as (stage, done, total, figures) on every step and after every validation."""

LOG = "log.jsonl"
LAST = "last.pt"
BEST = "best.pt"
RECORD = "run.json"


@dataclass
class TrainingState:
    """What changes while training, and what a checkpoint holds."""

    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    best: float = -math.inf


def pick_device(name: str) -> torch.device:
    """Return the device a user asked for: `cpu`, `cuda`, `mps` or `auto`.

    Raises:
        ConfigError: if this machine has none such.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"--device {name}: not on this machine; use cpu or auto") from None
    return device


def limit_threads(count: int | None) -> None:
    """Let torch use so many CPU threads; `None` leaves it to torch."""
    if count is not None:
        torch.set_num_threads(count)


def train(
    task: Task, config: Config, out: Path, device: torch.device, report: Report
) -> dict[str, float]:
    """Train, or go on from the last checkpoint in `out`, and leave the best weights there.

    A run that stops resumes to the same result: samples depend on seed, epoch and number only,
    and the checkpoint holds weights, averages, optimiser and random state.

    Returns:
        the best epoch's validation metrics.

    Raises:
        ConfigError: if `out` holds a run of another configuration.
    """
    state = _start(task, config, device)
    record = task.record()
    if (out / LAST).exists():
        _refuse_another_split(out / RECORD, record)
        _resume(state, task, out / LAST, config)
    if isinstance(task, UsesEmaTeacher):
        task.observe(state.average)
    _trim_log(out / LOG, state.epoch)
    write_json(
        out / RECORD,
        {"version": __version__, "config": config.model_dump(mode="json"), **record},
    )
    best: dict[str, float] = _best_so_far(out)
    while state.epoch < config.optim.epochs:
        started = time.perf_counter()
        means = _epoch(state, task, config, device, report)
        state.epoch += 1
        entry: dict[str, Any] = {"epoch": state.epoch, "step": state.step, "loss": means}
        entry["seconds"] = round(time.perf_counter() - started, 2)
        last = state.epoch == config.optim.epochs
        if last or state.epoch % config.optim.validate_every == 0:
            state.average.eval()
            metrics = task.validate(state.average, device)
            entry["validation"] = metrics
            report("validation", state.epoch, config.optim.epochs, metrics)
            if metrics[task.score_name] > state.best:
                state.best, best = metrics[task.score_name], metrics
                save_checkpoint(
                    out / BEST, {"model": state.average.state_dict(), "metrics": metrics}
                )
        with (out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        save_checkpoint(out / LAST, _pack(state, task, config))
    _finish(state, task, out, device)
    return best


def _refuse_another_split(path: Path, record: dict[str, Any]) -> None:
    """Raise `ConfigError` if a run's split file was written anew since it was stopped."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # the checkpoint tells whether the run is the same
    if not same_splits(before, record):
        raise ConfigError(
            f"{path.parent}: the split file has changed since this run began; choose another "
            "--out, or --restart to begin anew there"
        )


def _trim_log(path: Path, epochs: int) -> None:
    """Drop what a stopped run logged after its last checkpoint: it will happen again."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    kept = []
    for line in text.splitlines(keepends=True):
        try:
            done = int(json.loads(line)["epoch"])
        except (ValueError, KeyError, TypeError):
            continue  # a line cut short
        if done <= epochs:
            kept.append(line)
    write_text(path, "".join(kept))


def _finish(state: TrainingState, task: Task, out: Path, device: torch.device) -> None:
    """Let the task complete the best weights, once."""
    kept = load_checkpoint(out / BEST)
    if kept.get("finished"):
        return
    state.average.load_state_dict(kept["model"])
    state.average.eval()
    task.finish(state.average, device)
    model = state.average.state_dict()
    save_checkpoint(out / BEST, {**kept, "model": model, "finished": True})


def _start(task: Task, config: Config, device: torch.device) -> TrainingState:
    torch.manual_seed(config.seed)
    model = task.model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(model).requires_grad_(False)
    return TrainingState(model, average, _optimiser(model, config))


def _optimiser(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """AdamW; no decay on biases and norms, a smaller rate for the backbone."""
    optim = config.optim
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "scale": optim.backbone_lr if backbone else 1.0,
                "weight_decay": optim.weight_decay if decay else 0.0,
            }
            for (backbone, decay), parameters in sorted(groups.items())
        ],
        lr=optim.lr,
    )


def _rate(step: int, total: int, config: Config) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak."""
    warm = max(1, round(total * config.optim.warmup))
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _batches(task: Task, keys: Sequence[Key], config: Config) -> Iterator[Any]:
    """Yield whole batches in the order of the keys, loaded ahead where there are cores."""
    workers = config.optim.workers
    if workers is None:
        cores = os.cpu_count() or 1
        workers = 0 if cores <= 2 else min(8, cores - 1)
    size = min(config.optim.batch, len(keys))
    loader = torch.utils.data.DataLoader(
        _Samples(task, keys),
        batch_size=size,
        collate_fn=task.collate,
        num_workers=workers,
        drop_last=True,
    )
    yield from loader


class _Samples(torch.utils.data.Dataset[Any]):
    """The samples of an epoch, in order."""

    def __init__(self, task: Task, keys: Sequence[Key]) -> None:
        self.task, self.keys = task, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Any:
        return self.task.sample(self.keys[index])


def _fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is worth having there: on GPUs, and on CPUs with instructions for it."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type == "cuda"


def _epoch(
    state: TrainingState, task: Task, config: Config, device: torch.device, report: Report
) -> dict[str, float]:
    optim = config.optim
    keys = task.keys(state.epoch)
    if not keys:
        raise ConfigError("training: an epoch draws nothing; raise data.train.repeat")
    steps = max(1, len(keys) // min(optim.batch, len(keys)))
    total = steps * optim.epochs
    low = optim.precision == "bf16" or (optim.precision == "auto" and _fast_bf16(device))
    state.model.train()
    sums: dict[str, float] = {}
    for number, batch in enumerate(_batches(task, keys, config), start=1):
        rate = _rate(state.step, total, config)
        for group in state.optimiser.param_groups:
            group["lr"] = optim.lr * rate * group["scale"]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
            terms = task.losses(state.model, batch, device)
        loss = torch.stack(list(terms.values())).sum()
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.model.parameters(), optim.clip)
        state.optimiser.step()
        state.step += 1
        _follow(state, optim.ema)
        values = {k: float(v.detach()) for k, v in terms.items()} | {"total": float(loss.detach())}
        if not math.isfinite(values["total"]):
            raise ConfigError(
                f"training: the loss is {values['total']} at step {state.step}; lower optim.lr"
            )
        sums = {k: sums.get(k, 0.0) + v for k, v in values.items()}
        report("epoch", number, steps, {k: v / number for k, v in sums.items()})
    return {k: v / steps for k, v in sums.items()}


@torch.no_grad()
def _follow(state: TrainingState, decay: float) -> None:
    """Move the averaged weights; early on they follow faster."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    source = state.model.state_dict()
    for name, value in state.average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(source[name], 1 - decay)
        else:
            value.copy_(source[name])


def _pack(state: TrainingState, task: Task, config: Config) -> dict[str, Any]:
    random = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    return {
        "memory": task.memory() if isinstance(task, UsesEmaTeacher) else {},
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "epoch": state.epoch,
        "step": state.step,
        "best": state.best,
        "random": random,
        "config": json.dumps(_identity(config), sort_keys=True),
    }


def _identity(config: Config) -> dict[str, Any]:
    """Return what two runs must share for one to go on from the other."""
    data = config.model_dump(mode="json")
    data["optim"].pop("workers")
    if config.task != "sparse":
        data.pop("sparse")
    return data


def _same_run(stored: Any, config: Config) -> bool:
    """Whether a checkpoint's configuration is this one; a setting it does not know was default."""
    try:
        return _identity(parse_config(json.loads(stored), LAST)) == _identity(config)
    except (ConfigError, TypeError, ValueError):
        return False


def _resume(state: TrainingState, task: Task, path: Path, config: Config) -> None:
    kept = load_checkpoint(path)
    if not _same_run(kept.get("config"), config):
        raise ConfigError(
            f"{path.parent}: holds a run of another configuration; choose another --out, "
            "or --restart to begin anew there"
        )
    state.model.load_state_dict(kept["model"])
    state.average.load_state_dict(kept["average"])
    state.optimiser.load_state_dict(kept["optimiser"])
    state.epoch, state.step, state.best = kept["epoch"], kept["step"], kept["best"]
    if isinstance(task, UsesEmaTeacher):
        task.recall(kept["memory"])
    torch.set_rng_state(kept["random"]["torch"])
    if "cuda" in kept["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(kept["random"]["cuda"])


def _best_so_far(out: Path) -> dict[str, float]:
    best: dict[str, float] = load_checkpoint(out / BEST)["metrics"] if (out / BEST).exists() else {}
    return best
