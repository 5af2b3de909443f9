"""Batches of a run, loaded ahead by worker processes that live as long as the run."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bloodfilm.training.data.keys import Key
from bloodfilm.training.tasks.base import SampleSource


def worker_count(workers: int | None) -> int:
    """Return the number of loading processes: as configured, else by the number of cores."""
    if workers is not None:
        return workers
    cores = os.cpu_count() or 1
    return 0 if cores <= 2 else min(8, cores - 1)


def init_worker(_number: int) -> None:
    """Let a worker use one thread: there are as many workers as cores."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class BatchLoader:
    """Loads the batches of successive epochs.

    Workers are started once and get keys, not samples: what they need (images, no network) is
    pickled to them once, also where processes are spawned instead of forked.

    Args:
        samples: makes samples and batches of keys.
        batch: samples per batch.
        workers: loading processes; 0 loads in this one.
        pin_memory: put batches into page-locked memory, for copies to a GPU.
        context: how workers are started (`fork`, `spawn`, `forkserver`); `None` is the default of
            the platform.
    """

    def __init__(
        self,
        samples: SampleSource,
        batch: int,
        *,
        workers: int = 0,
        pin_memory: bool = False,
        context: str | None = None,
    ) -> None:
        self._batches = _Batches()
        self._size = batch
        self._loader: DataLoader[Any] = DataLoader(
            _Samples(samples),
            batch_sampler=self._batches,
            collate_fn=samples.collate,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=init_worker if workers else None,
            multiprocessing_context=context if workers else None,
        )

    def epoch(self, keys: Sequence[Key]) -> Iterator[Any]:
        """Yield whole batches in the order of the keys; an incomplete last batch is dropped."""
        self._batches.set(keys, min(self._size, len(keys)))
        yield from self._loader


class _Batches(Sampler[list[Key]]):
    """The keys of an epoch, batch by batch."""

    def __init__(self) -> None:
        self._keys: Sequence[Key] = ()
        self._size = 1

    def set(self, keys: Sequence[Key], size: int) -> None:
        self._keys, self._size = keys, size

    def __len__(self) -> int:
        return len(self._keys) // self._size

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, len(self) * self._size, self._size):
            yield list(self._keys[start : start + self._size])


class _Samples(Dataset[Any]):
    """Samples by key."""

    def __init__(self, source: SampleSource) -> None:
        self._source = source

    def __getitem__(self, key: Any) -> Any:
        return self._source.sample(key)
