"""Configurations of older versions: keys that have another name today.

Applied to configuration files of users and to the configurations that checkpoints and `run.json`
hold, so that both go on working.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from bloodfilm.core.errors import ConfigError

RENAMED: Mapping[tuple[str, ...], str] = {
    ("lookalikes",): "hard_negatives",
    ("model", "reads"): "input",
    ("augment", "squeeze"): "aspect",
    ("hard_negatives", "augment", "squeeze"): "aspect",
    ("loss", "kind"): "object_type",
    ("sparse", "copies"): "copy_paste",
    ("sparse", "taught_attributes"): "teacher_attributes",
}
"""Old key, by its path from the root after the renames before it, to its name today."""
RENAMED_TASKS: Mapping[str, str] = {"reader": "classifier"}


def upgrade_config(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return configuration data with the keys of today, and a note for each old one.

    >>> upgrade_config({"task": "reader", "model": {"reads": "roi"}})[0]
    {'task': 'classifier', 'model': {'input': 'roi'}}

    Raises:
        ConfigError: if a key is given under its old and its new name.
    """
    out: dict[str, Any] = deepcopy(dict(data))
    notes: list[str] = []
    task = out.get("task")
    if isinstance(task, str) and task in RENAMED_TASKS:
        out["task"] = RENAMED_TASKS[task]
        notes.append(f'task = "{task}" is now called "{out["task"]}"')
    for path, new in RENAMED.items():
        table: Any = out
        for part in path[:-1]:
            table = table.get(part) if isinstance(table, dict) else None
        if not isinstance(table, dict) or path[-1] not in table:
            continue
        old = ".".join(path)
        if new in table:
            raise ConfigError(f"{old} is the old name of {new}, which is also given; keep {new}")
        table[new] = table.pop(path[-1])
        notes.append(f"{old} is now called {new}")
    return out, notes
