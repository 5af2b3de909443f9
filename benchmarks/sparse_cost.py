"""What a training step of each method costs: CPU time, drawing the images included."""

import statistics
import time
from copy import deepcopy
from typing import Any

import torch
from sparse_data import cut

from bloodfilm.training import loop
from bloodfilm.training.config import Config
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.run_data import RunData
from bloodfilm.training.tasks.sparse import SparseTask
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

FIELDS, STEPS, WARM = 80, 12, 2


def step_costs(
    configs: dict[str, Config], fields: list[CanonicalField], share: float
) -> dict[str, Any]:
    """Return each method's median CPU seconds per step, and that against the first's.

    Steps are of the run's last epoch, when the teacher works; methods take turns, so that what
    else the machine does falls on all of them.
    """
    marked = cut(fields[:FIELDS], share, "random", 0)
    tasks = {
        name: SparseTask(config, marked, [], RunData(DEFAULT_VOCABULARY))
        for name, config in configs.items()
    }
    optimisers = {}
    for name, task in tasks.items():
        task.network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        task.set_teacher(deepcopy(task.network).requires_grad_(False))
        optimisers[name] = torch.optim.AdamW(task.network.parameters(), lr=1e-4)
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(WARM + STEPS):
        for name, task in tasks.items():
            spent[name].append(_step(task, configs[name], optimisers[name], number))
    medians = {name: statistics.median(times[WARM:]) for name, times in spent.items()}
    first = next(iter(medians.values()))
    return {
        "cpu_seconds_a_step": {name: round(value, 4) for name, value in medians.items()},
        "times_the_first": {name: round(value / first, 2) for name, value in medians.items()},
    }


def _step(task: SparseTask, config: Config, optimiser: torch.optim.Optimizer, number: int) -> float:
    batch, epoch = config.optim.batch, config.optim.epochs - 1
    started = time.process_time()
    drawn = task.samples.collate(
        [task.samples.sample((epoch, number * batch + i)) for i in range(batch)]
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = task.losses(task.network, drawn, torch.device("cpu"))
    optimiser.zero_grad(set_to_none=True)
    torch.stack(list(loop.weigh(terms, task.loss_weights).values())).sum().backward()
    optimiser.step()
    return time.process_time() - started
