"""How little annotation is enough? Trains detectors on regions of fields and scores them in full.

    python benchmarks/sparse.py run --data DATA --work FOLDER [--only PATTERN] [--shard 0/2]
    python benchmarks/sparse.py report --work FOLDER

Runs are kept in FOLDER, each under the hash of its settings: a second call does what is missing.
The default sizes (width 48, images of 256 px, 160 steps of 6) take 1.5 to 3 minutes a run on one
CPU core. `report` writes benchmarks/results/sparse.json and docs/annotation-cost.svg.
"""

import argparse
import fnmatch
import hashlib
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from bloodfilm.annotate.evidence import dark_blobs
from bloodfilm.annotate.planning import Evidence, plan_regions
from bloodfilm.core import Region
from bloodfilm.core.boxes import centres
from bloodfilm.formats import open_dataset
from bloodfilm.imaging.canonical import DETECTOR_UM
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint, write_json
from bloodfilm.training.config import Config, parse_config
from bloodfilm.training.mosaics import Mosaics
from bloodfilm.training.sources import CanonicalField, SourcedField, load_field
from bloodfilm.training.tasks.detector import LOWEST_SCORE, detect, score_detections
from bloodfilm.training.tasks.sparse import SparseTask

ROOT = Path(__file__).parents[1]
BATCH = 6
LLD_PATIENTS = ("1", "12", "24", "27", "32")
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
    "squeeze": 0.05,
    "mild": 0.3,
}
ALONE = {"teacher": "none", "patches": 0.0, "mix": 0.0, "border": 0.0, "balance": 0.0}
OURS: dict[str, Any] = {}
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
        "calibrated": False,
        "confidence": 0.5,
        "nms": 0.2,
        "background": 1.0,
        "similarity": 0.1,
    },
    "ours": OURS,
    "ours: no teacher": OURS | {"teacher": "none"},
    "ours: student teaches": OURS | {"teacher": "student"},
    "ours: no confirmed background": OURS | {"background": 0.0},
    "ours: all background": OURS | {"background": 1.0},
    "ours: uncalibrated": OURS | {"calibrated": False},
    "ours: no views": OURS | {"views": False, "turn": False},
    "ours: no patches": OURS | {"patches": 0.0, "mix": 0.0},
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

    @property
    def name(self) -> str:
        return f"{self.data}/{self.method}/{self.share:g}/{self.planner}/{self.seed}"

    def config(self) -> Config:
        epochs = 20
        source = [{"path": self.data}]
        data = {"train": source, "validation": source, "size": self.size}
        weights = "backbone_mobilenetv2/mobilenet_v2_1.0_224_fp32_bnfolded.npz"
        optim = {
            "epochs": epochs,
            "batch": BATCH,
            "samples": BATCH * self.steps // epochs,
            "lr": 2e-3,
            "ema": 0.99,
            "validate_every": epochs,
        }
        return parse_config(
            {
                "task": "sparse",
                "seed": self.seed,
                "model": {"weights": weights, "width": self.width},
                "data": data,
                "optim": optim,
                "augment": LOOK,
                "sparse": METHODS[self.method],
            },
            self.name,
        )

    def key(self, part: str) -> str:
        content = self.config().model_dump(mode="json")
        content["data"]["scored"] = part
        text = json.dumps([asdict(self), content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, the most telling first."""

    def job(data: str, method: str, share: float, seed: int, planner: str = "random") -> Job:
        steps = options.steps if data == "txl" else options.steps // 2
        share, planner = (1.0, "all") if method == "full" else (share, planner)
        return Job(data, method, share, planner, seed, steps, options.size, options.width)

    main, plain = ("full", "region", "ours", "published"), ("patches", "naive")
    yield from (job("txl", m, 0.1, seed) for seed, m in product(range(3), main))
    for seed in range(3):
        yield from (job("txl", m, 0.1, seed) for m in plain)
        yield from (job("txl", m, s, seed) for s, m in product((0.05, 0.2), main[1:]))
    for seed, patient in product(range(options.lld_seeds), LLD_PATIENTS):
        yield from (job(f"lld-{patient}", m, 0.1, seed) for m in ("full", "ours", "region"))
    yield from (job("txl", "ours", 0.1, 0, planner) for planner in ("cells", "uncertainty"))
    yield from (job("txl", m, 0.1, 0) for m in METHODS if m.startswith("ours:"))


# ---- data --------------------------------------------------------------------------------------


def load(data: Path, work: Path, name: str) -> dict[str, list[CanonicalField]]:
    """Return the fields of train, val and test; kept in the work folder once loaded."""
    parts = _kept(data, work, name.partition("-")[0])
    if name == "txl":
        return {part: [item for item, _ in pairs] for part, pairs in parts.items()}
    out = name.removeprefix("lld-")
    return {
        "train": [item for item, patient in parts["train"] if patient != out],
        "test": [item for item, patient in parts["test"] if patient == out],
    }


def _kept(data: Path, work: Path, name: str) -> dict[str, list[tuple[CanonicalField, str | None]]]:
    kept = work / f"fields-{name}.pickle"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    parts = {}
    for part, (dataset, fields) in _parts(data, name).items():
        scale = DETECTOR_UM / (Mosaics.oversampling if part == "train" else 1)
        parts[part] = [
            (load_field(SourcedField(f, dataset, 1.0), scale), f.patient) for f in fields
        ]
        print(f"{name} {part}: {len(fields)} fields", flush=True)
    work.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{time.time_ns()}.part")
    partial.write_bytes(pickle.dumps(parts))
    partial.replace(kept)
    return parts


def _parts(data: Path, name: str) -> dict[str, Any]:
    if name == "txl":
        whole = open_dataset(data / "txl_pbc", format="txl", clean_splits=True)
        return {s: (whole, [f for f in whole if f.split == s]) for s in ("train", "val", "test")}
    marked = open_dataset(data / "lld40x", format="lld")
    complete = open_dataset(data / "lld40x", format="lld", labels="complete")
    return {
        "train": (marked, [f for f in marked if f.cells]),
        "test": (complete, list(complete)),
    }


def cut(
    loaded: list[CanonicalField], job: Job, doubts: list[Evidence] | None
) -> list[CanonicalField]:
    """Leave the labels of one region a field; a cell belongs to it by its centre."""
    if job.share >= 1:
        return loaded
    evidence = doubts or [
        dark_blobs(f.image) if job.planner == "cells" else Evidence(*f.image.shape[1::-1])
        for f in loaded
    ]
    shares = [job.share] * len(evidence)
    regions = plan_regions(evidence, shares, job.planner, job.seed)  # type: ignore[arg-type]
    return [mark(f, r) for f, r in zip(loaded, regions, strict=True)]


def mark(item: CanonicalField, region: Region) -> CanonicalField:
    """Return the field with the labels of a region, given in its own canonical pixels."""
    keep = region.contains(centres(item.boxes))
    return replace(item, boxes=item.boxes[keep], kinds=item.kinds[keep], region=region)


# ---- runs --------------------------------------------------------------------------------------


def perform(job: Job, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Train one run, or go on with it, and score it on the data nobody trained on."""
    folder = options.work / job.key(options.on)
    if (folder / "result.json").exists():
        return json.loads((folder / "result.json").read_text())
    started, cpu = time.perf_counter(), time.process_time()
    parts = load(options.data, options.work, job.data)
    config = job.config()
    doubts = None
    if job.planner == "uncertainty":
        doubts = _doubts(parts["train"], options, device)
    fields = cut(parts["train"], job, doubts)
    task = SparseTask.on(config, options.data, fields, parts[options.on][:2])
    folder.mkdir(parents=True, exist_ok=True)
    loop.train(task, config, folder, device, lambda *_: None)
    model = task.network
    model.load_state_dict(load_checkpoint(folder / loop.BEST)["model"])
    model.eval()
    scores = {}
    held = parts[options.on]
    found = [detect(model, f.image, device, LOWEST_SCORE) for f in held]
    scores[options.on] = score_detections(held, found)
    kinds = np.concatenate([f.kinds for f in fields])
    result = {
        "job": asdict(job),
        "sparse": METHODS[job.method],
        "cells": np.bincount(kinds, minlength=3).tolist(),
        "scores": scores,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "device": str(device),
        "commit": commit(),
    }
    write_json(folder / "result.json", result)
    for name in (loop.LAST, loop.BEST) if job.method != "region" else (loop.LAST,):
        (folder / name).unlink()
    return result


def _doubts(
    loaded: list[CanonicalField], options: argparse.Namespace, device: torch.device
) -> list[Evidence]:
    """Ask a detector learnt from 5 % (region loss, marked at random) what it is unsure of."""
    from bloodfilm.annotate.evidence import from_detections
    from bloodfilm.training.tasks.detector import build_detector

    first = Job("txl", "region", 0.05, "random", 0, options.steps, options.size, options.width)
    perform(first, options, device)
    model = build_detector(first.config())
    model.load_state_dict(
        load_checkpoint(options.work / first.key(options.on) / loop.BEST)["model"]
    )
    model.eval()
    found = []
    for item in loaded:
        height, width = item.image.shape[:2]
        small = cv2.resize(item.image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        seen = detect(model, small, device, 0.05)
        seen = seen.with_boxes(seen.boxes * [width / (width // 2), height / (height // 2)] * 2)
        found.append(from_detections(width, height, seen.boxes, seen.scores, seen.kinds))
    return found


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
    parser.add_argument("what", choices=("run", "list", "report"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="*", help="pattern of data/method/share/planner/seed")
    parser.add_argument("--shard", default="0/1", help="which part of the runs, of how many")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--lld-seeds", type=int, default=1)
    parser.add_argument("--on", default="test", choices=("val", "test"), help="val to tune")
    parser.add_argument("--sparse", default="{}", help="JSON: settings to try, for `ours`")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.what == "report":
        from sparse_report import report

        report(options.work, commit(), sys.argv)
        return
    OURS.update(json.loads(options.sparse))
    loop.use_threads(options.threads)
    cv2.setNumThreads(options.threads)
    device = loop.pick_device(options.device)
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
