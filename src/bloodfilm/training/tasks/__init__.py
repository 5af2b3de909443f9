"""What can be trained. A task owns model, data and losses; the loop owns time."""

from pathlib import Path
from typing import Any

from bloodfilm.core.progress import Progress
from bloodfilm.training.config import Config
from bloodfilm.training.tasks.base import Task


def make_task(config: Config, root: Path, progress: Progress) -> Task[Any]:
    """Build the task a configuration names, with its data loaded from below `root`."""
    if config.task == "detector":
        from bloodfilm.training.tasks.detector import DetectorTask

        return DetectorTask.from_config(config, root, progress)
    if config.task == "sparse":
        from bloodfilm.training.tasks.sparse import SparseTask

        return SparseTask.from_config(config, root, progress)
    if config.task == "outlines":
        from bloodfilm.training.tasks.outlines import OutlineTask

        return OutlineTask.from_config(config, progress)
    from bloodfilm.training.tasks.classifier import ClassifierTask

    return ClassifierTask.from_config(config, root, progress)


__all__ = ["Task", "make_task"]
