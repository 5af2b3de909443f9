"""How little annotation is enough? Trains detectors on regions of fields and scores them in full.

    python benchmarks/sparse.py run --data DATA --work FOLDER [--only PATTERN] [--shard 0/2]
    python benchmarks/sparse.py cost --data DATA --work FOLDER
    python benchmarks/sparse.py report --data DATA --work FOLDER

Runs are kept in FOLDER, each under the hash of its settings: a second call does what is missing.
All methods start from one detector that has seen rendered films only (`sparse_start.py`), made in
FOLDER by the first call. `report` writes benchmarks/results/sparse.json, docs/annotation-cost.svg
and the tables of docs/sparse.md.
"""

import argparse
import fnmatch
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sparse_cost import step_costs
from sparse_data import LLD_PATIENTS, cut, load, uncertainty_of
from sparse_start import WEIGHTS, Start

from bloodfilm.active_learning.planning import RegionScores
from bloodfilm.core.files import write_json
from bloodfilm.models.detector import CellDetector
from bloodfilm.training import loop
from bloodfilm.training.attribute_metrics import score_attributes
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config, parse_config
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.networks import build_detector
from bloodfilm.training.precision import limit_threads, pick_device
from bloodfilm.training.run_data import RunData
from bloodfilm.training.tasks.detector import (
    LOWEST_SCORE,
    detect,
    score_detections,
)
from bloodfilm.training.tasks.sparse import SparseTask, start_from
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

ROOT = Path(__file__).parents[1]
BATCH = 4
# Milder than for films nobody has seen: training and test come from the same cameras here.
LOOK = {
    "stain": 0.2,
    "contrast": 0.0,
    "recolour": 0.0,
    "permute": 0.0,
    "light": 0.4,
    "blur": 0.8,
    "noise": 4.0,
    "scale": 0.15,
    "aspect": 0.05,
    "mild": 0.3,
}
ATTRIBUTES = 0.5
ALONE = {"teacher": "none", "patches": 0.0, "mix": 0.0, "copy_paste": 0.0, "border": 0.0}
# In pixels of the benchmark's view.
OURS: dict[str, Any] = {
    "border": 4.0,
    "context": 2.0,
    "patches": 0.33,
    "begin": 0.33,
    "mix": 0.6,
    "copy_paste": 3.0,
    "boxes": 0.0,
    "weight": 0.15,
    "background": 1.0,
}
OPTIM: dict[str, Any] = {"lr": 2e-3, "ema": 0.98, "warmup": 0.05}
METHODS: dict[str, dict[str, Any]] = {
    "full": ALONE,
    "naive": ALONE | {"unmarked": "background"},
    "patches": ALONE | {"patches": 1.0, "context": 0.0},
    "region": ALONE,
    "published": ALONE
    | {
        "patches": 0.33,
        "context": 0.0,
        "teacher": "student",
        "begin": 0.33,
        "weight": 0.1,
        "boxes": 1.0,
        "calibrated": False,
        "confidence": 0.5,
        "nms": 0.2,
        "background": 1.0,
        "similarity": 0.1,
        "asymmetric": True,
        "taught_attributes": False,
    },
    "ours": OURS,
    "ours: no teacher": OURS | {"teacher": "none"},
    "ours: student teaches": OURS | {"teacher": "student"},
    "ours: no confirmed background": OURS | {"background": 0.0},
    "ours: confirmed background": OURS | {"background": 0.05, "weight": 0.5},
    "ours: uncalibrated": OURS | {"calibrated": False},
    "ours: no views": OURS | {"views": False, "turn": False},
    "ours: no patches": OURS | {"patches": 0.0, "mix": 0.0},
    "ours: no copies": OURS | {"copy_paste": 0.0},
    "ours: teacher's boxes too": OURS | {"boxes": 1.0},
    "ours: no border": OURS | {"border": 0.0},
    "ours: unbalanced": OURS | {"balance": 0.0},
    "ours: similarity": OURS | {"similarity": 0.1},
}


@dataclass(frozen=True)
class Job:
    """One run: what is learnt, by which method, from how much, marked by whom."""

    data: str
    method: str
    share: float
    planner: str
    seed: int
    steps: int
    size: int
    width: int
    um: float
    start: bool = True

    @property
    def name(self) -> str:
        end = "" if self.start else "/imagenet"
        return f"{self.data}/{self.method}/{self.share:g}/{self.planner}/{self.seed}{end}"

    @property
    def settings(self) -> dict[str, Any]:
        """The method's; on LLD, whose cells have attributes, these are learnt too."""
        reads = {"attributes": ATTRIBUTES} if self.data.startswith("lld") else {}
        return METHODS[self.method] | reads

    def config(self) -> Config:
        epochs = 20
        source = [{"path": self.data}]
        data = {"train": source, "validation": source, "size": self.size}
        start = self.first.key if self.start else None
        optim = {
            "epochs": epochs,
            "batch": BATCH,
            "samples": BATCH * self.steps // epochs,
            "validate_every": epochs,
            **OPTIM,
        }
        return parse_config(
            {
                "task": "sparse",
                "seed": self.seed,
                "model": {"weights": WEIGHTS, "start": start, "width": self.width},
                "data": data,
                "optim": optim,
                "augment": LOOK,
                "sparse": self.settings,
            },
            self.name,
        )

    @property
    def first(self) -> Start:
        """The weights it goes on from."""
        return Start(self.um, self.size, self.width)

    def key(self, part: str) -> str:
        config = self.config()
        content = config.model_dump(mode="json", exclude_unset=True)
        content |= {"sparse": config.sparse.model_dump(mode="json"), "scored": part}
        text = json.dumps([asdict(self), content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, the most telling first."""

    def job(
        data: str, method: str, share: float, seed: int, planner: str = "random", start: bool = True
    ) -> Job:
        steps = options.steps if data == "txl" else options.steps // 2
        share, planner = (1.0, "all") if method == "full" else (share, planner)
        view = options.size, options.width, options.um
        return Job(data, method, share, planner, seed, steps, *view, start)

    rivals = ("ours", "published", "region")
    planners = ("uncertainty", "random")
    for seed in range(5):
        yield job("txl", "full", 1.0, seed)
        yield from (job("txl", m, 0.1, seed, p) for p, m in product(planners, rivals))
    for seed, p, m in product(range(3), planners, rivals):
        yield job("txl", m, 0.05, seed, p)
    for seed in range(3):
        yield from (job("txl", m, 0.1, seed) for m in ("naive", "patches", "ours: no teacher"))
    for seed in range(options.lld_seeds):
        for patient, m in product(LLD_PATIENTS, ("full", "ours")):
            yield job(f"lld-{patient}", m, 0.1, seed)
    yield from (job("txl", m, 0.1, 0) for m in METHODS if m.startswith("ours:"))
    yield job("txl", "ours", 0.1, 0, "cells")
    yield from (job("txl", m, 0.2, 0) for m in rivals)
    yield from (job("txl", m, 0.1, 0, start=False) for m in ("full", *rivals))


# ---- runs --------------------------------------------------------------------------------------


def begun(job: Job, options: argparse.Namespace, device: torch.device) -> Config:
    """Return the run's configuration with the file it starts from, made if it is not there."""
    weights = job.first.make(options.data, options.work, device) if job.start else None
    config = job.config()
    return config.model_copy(update={"model": config.model.model_copy(update={"start": weights})})


def perform(job: Job, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Train one run, or go on with it, and score it on the data nobody trained on."""
    folder = options.work / job.key(options.on)
    if (folder / "result.json").exists():
        return json.loads((folder / "result.json").read_text())
    config = begun(job, options, device)
    parts = load(options.data, options.work, job.data, job.um)
    uncertainty = None
    if job.planner == "uncertainty":
        uncertainty = _uncertainty(job, parts["train"], options, device)
    fields = cut(parts["train"], job.share, job.planner, job.seed, uncertainty)
    held = parts[options.on]
    started, cpu = time.perf_counter(), time.process_time()
    task = SparseTask(config, fields, held[:2], RunData(DEFAULT_VOCABULARY))
    start_from(task, options.data)
    folder.mkdir(parents=True, exist_ok=True)
    loop.train(task, config, folder, device)
    spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    model = task.network
    model.load_state_dict(load_checkpoint(folder / loop.BEST)["model"])
    model.eval()
    found = [detect(model, f.image, device, LOWEST_SCORE) for f in held]
    scores = score_detections(held, found, DEFAULT_VOCABULARY)
    if "read" in parts:
        seen = [detect(model, f.image, device, LOWEST_SCORE) for f in parts["read"]]
        scores |= score_attributes(model, parts["read"], seen, DEFAULT_VOCABULARY)
    kinds = np.concatenate([f.type_ids for f in fields])
    result = {
        "job": asdict(job),
        "sparse": job.settings,
        "optim": OPTIM,
        "cells": np.bincount(kinds, minlength=3).tolist(),
        "scores": {options.on: scores},
        **{k: round(v, 1) for k, v in spent.items()},
        "device": str(device),
        "commit": commit(),
    }
    write_json(folder / "result.json", result)
    for name in (loop.LAST, loop.BEST):
        (folder / name).unlink()
    return result


def _uncertainty(
    job: Job, loaded: list[CanonicalField], options: argparse.Namespace, device: torch.device
) -> list[RegionScores]:
    """Ask the start, which has seen no real label, what it is unsure of."""
    return uncertainty_of(_untaught(job.first, options, device), loaded, device)


def _untaught(first: Start, options: argparse.Namespace, device: torch.device) -> CellDetector:
    """Return the start itself, which has seen rendered films only."""
    model = build_detector(first.config, DEFAULT_VOCABULARY)
    weights = first.make(options.data, options.work, device)
    model.load_state_dict(load_checkpoint(weights)["model"])
    return model.eval()


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a step of each method from 10 % of the area; the first is a supervised one."""
    view = options.size, options.width, options.um
    methods = ("region", "published", "ours")
    cpu = torch.device("cpu")
    configs = {
        m: begun(Job("txl", m, 0.1, "random", 0, options.steps, *view), options, cpu)
        for m in methods
    }
    fields = load(options.data, options.work, "txl", options.um)["train"]
    return step_costs(configs, fields, 0.1)


def alone(options: argparse.Namespace) -> dict[str, float] | None:
    """Score the start on TXL's test fields, before any real label; kept in the work folder."""
    first = Start(options.um, options.size, options.width)
    kept = options.work / first.key / "alone.json"
    if kept.exists() or options.data is None:
        return json.loads(kept.read_text()) if kept.exists() else None
    device = pick_device(options.device)
    model = _untaught(first, options, device)
    held = load(options.data, options.work, "txl", options.um)["test"]
    found = [detect(model, f.image, device, LOWEST_SCORE) for f in held]
    scores = score_detections(held, found, DEFAULT_VOCABULARY)
    write_json(kept, scores)
    return scores


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "list", "cost", "report"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="*", help="pattern of data/method/share/planner/seed")
    parser.add_argument("--shard", default="0/1", help="which part of the runs, of how many")
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--um", type=float, default=0.3, help="micrometres a pixel")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--lld-seeds", type=int, default=3)
    parser.add_argument("--on", default="test", choices=("val", "test"), help="val to tune")
    parser.add_argument("--sparse", default="{}", help="JSON: settings to try, for the own recipe")
    parser.add_argument("--optim", default="{}", help="JSON: settings to try, for all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.what == "report":
        from sparse_report import report

        report(options.work, commit(), sys.argv, alone(options))
        return
    if options.what == "cost":
        limit_threads(1)
        write_json(options.work / "cost.json", cost(options))
        print((options.work / "cost.json").read_text())
        return
    for method, settings in METHODS.items():
        if method.startswith("ours"):
            METHODS[method] = settings | json.loads(options.sparse)
    OPTIM.update(json.loads(options.optim))
    limit_threads(options.threads)
    cv2.setNumThreads(options.threads)
    device = pick_device(options.device)
    part, parts = (int(v) for v in options.shard.split("/"))
    wanted = [j for j in dict.fromkeys(jobs(options)) if fnmatch.fnmatch(j.name, options.only)]
    for job in wanted[part::parts]:
        if options.what == "list":
            print(job.name, job.key(options.on))
            continue
        result = perform(job, options, device)
        shown = "  ".join(
            f"{part} ap {s['ap']:.3f} ap50 {s['ap50']:.3f}" for part, s in result["scores"].items()
        )
        print(f"{job.name}: {shown}  {result['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
