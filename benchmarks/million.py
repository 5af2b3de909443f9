"""What a set of a million cells costs: its Parquet index, statistics, audit, split and training.

    python benchmarks/million.py [--fields 240000] [--cells 1000000] [--json FILE] [--keep FOLDER]
                                 [--without-training]

Makes an LLD-like set without pixels (seeded, written field by field), then runs each of a user's
commands on it in a fresh process, on at most two cores, and reads time and peak memory (maximum
resident set) from the kernel. For training, which needs pictures, it makes the same index again
over a few drawn ones: what is measured is the start, the reading of shards and the memory, not
what is learnt. Limits stand beside the figures; what is over its limit is marked, and the exit
code is 1. The load of the machine is recorded. Where it is more than the cores that are used, the
wall clock measures other people's work: processor seconds are then held against the limit.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, Cell, Domain, Field
from bloodfilm.formats.parquet import index
from bloodfilm.synthetic import render_field

CORES = 2
MEMORY_MB = 1024
SIDE = 640
BLOCK = 4096
UM_PER_PX = {100: 0.068, 40: 0.145, 10: 0.58}
SUBSETS = tuple((m, x, c) for m in "HL" for x in (100, 40, 10) for c in ("C1", "C2"))
SCENES_A_PATIENT = 40
CLASSES = {
    "ALL": ("lymphoblast", "lymphocyte", "neutrophil", None),
    "AML": ("myeloblast", "monoblast", "promonocyte", "monocyte", "neutrophil", None),
    "APML": ("abnormal promyelocyte", "myelocyte", "neutrophil", None),
    "CLL": ("atypical lymphocyte", "lymphocyte", "neutrophil", None),
    "CML": ("myelocyte", "metamyelocyte", "neutrophil", "eosinophil", "basophil", None),
}
PICTURES = 24
SAMPLES = 32
STREAMED = 20_000
CONFIG = """\
task = "{task}"
[model]
backbone = "lcnet_035"
width = 16
[data]
train = [{{ path = "train.parquet" }}]
validation = [{{ path = "held.parquet" }}]
[optim]
epochs = 1
batch = 2
samples = {samples}
workers = 0
"""
FAULTS = {"repeat": 0.001, "conflict": 0.0005, "sliver": 0.0005}
"""Shares of cells that are planted faults, so that the audit has something to find."""


# ---- the set -----------------------------------------------------------------------------------


def many_fields(fields: int, cells: int, seed: int = 0) -> Iterator[Field]:
    """Yield fields of all subsets, patient by patient; `cells` cells in all."""
    rng = np.random.default_rng([seed, 240])
    each = 1 + rng.multinomial(cells - fields, np.full(fields, 1 / fields))
    made, scenes = 0, -(-fields // len(SUBSETS))
    for start in range(0, fields, BLOCK):
        stop = min(start + BLOCK, fields)
        drawn = iter(many_cells(int(each[start:stop].sum()), rng))
        for number in range(start, stop):
            yield one_field(number, scenes, list(islice(drawn, int(each[number]))), made)
            made += int(each[number])


def many_cells(count: int, rng: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Yield (box, class draw, attribute draws, fault draw)."""
    size = rng.lognormal(np.log(70), 0.25, (count, 2)).clip(20, 200)
    corner = rng.random((count, 2)) * (SIDE - size)
    boxes = np.round(np.concatenate([corner, size], axis=1), 2).tolist()
    rest = rng.random((count, 2)).tolist()
    codes = rng.integers(0, 6, (count, len(LLD_SCHEMA.attributes))).tolist()
    return zip(boxes, rest, codes, strict=True)


def one_field(number: int, scenes: int, drawn: list[tuple[Any, ...]], first: int) -> Field:
    subset, scene = divmod(number, scenes)
    microscope, magnification, camera = SUBSETS[subset]
    patient = scene // max(1, min(SCENES_A_PATIENT, scenes // 25)) + 1
    diagnosis = list(CLASSES)[patient % len(CLASSES)]
    leak = patient == 6 and subset % 2 == 1
    split = "test" if patient // len(CLASSES) % 5 == 0 or leak else "train"
    folder = f"{microscope}_{magnification}X_{camera}/Images/{split}"
    name = f"{patient}_{scene}_{magnification}0_{diagnosis}.png"
    domain = Domain(microscope, magnification, camera, 0.5625, UM_PER_PX[magnification])
    cells: list[Cell] = []
    for place, (box, (named, chance), codes) in enumerate(drawn):
        cells.append(one_cell(box, named, chance, codes, cells, (diagnosis, first + place)))
    return Field(
        Path("/nowhere") / folder / name,
        SIDE,
        SIDE,
        tuple(cells),
        domain=domain,
        patient=str(patient),
        split=split,
        diagnosis=diagnosis,
        meta={"field": str(scene)},
    )


def one_cell(
    box: list[float],
    named: float,
    chance: float,
    codes: list[int],
    before: list[Cell],
    who: tuple[str, int],
) -> Cell:
    classes = CLASSES[who[0]]
    label = classes[int(named * len(classes))]
    known = {
        a.name: a.values[code % len(a.values)]
        for a, code in zip(LLD_SCHEMA.attributes, codes, strict=True)
        if code and label is not None
    }
    x, y, w, h = box
    repeat, conflict, sliver = np.cumsum(list(FAULTS.values()))
    if chance < conflict and before and before[-1].box is not None:
        x, y, w, h = before[-1].box
        label = before[-1].label if chance < repeat else label
    elif chance < sliver:
        w = 5.0
    return Cell((x, y, w, h), label, known, label is None, str(who[1]))


def write_set(file: Path, fields: Iterable[Field]) -> None:
    header = index.Header("a million", DEFAULT_TAXONOMY, LLD_SCHEMA)
    index.write_fields(fields, file, header)


def write_run(folder: Path, fields: int, cells: int) -> None:
    """Write what `bloodfilm train` needs: pictures, the index over them, two configurations."""
    pictures = []
    for seed in range(PICTURES + 1):
        image, _ = render_field("lld40x-like", seed=seed, size=(SIDE, SIDE))
        pictures.append(folder / f"{seed}.png")
        cv2.imwrite(str(pictures[-1]), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    train = (
        replace(f, path=pictures[i % PICTURES], split="train")
        for i, f in enumerate(many_fields(fields, cells))
    )
    write_set(folder / "train.parquet", train)
    held = next(many_fields(1, 20, seed=1))
    held = replace(held, path=pictures[-1], patient="held", split="val")
    write_set(folder / "held.parquet", [held])
    for task in ("detector", "classifier"):
        (folder / f"{task}.toml").write_text(CONFIG.format(task=task, samples=SAMPLES))


# ---- measuring ---------------------------------------------------------------------------------


def measured(command: list[str], allowed: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run a command; return its seconds, peak memory and what it printed."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read().decode(errors="replace")
    if process.returncode not in allowed:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{said}")
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "said": said,
    }


def steps(folder: Path, file: Path, bare: bool) -> Iterator[tuple[str, list[str], float | None]]:
    """Yield what is measured: its name, the command, the most seconds it may take."""
    film = [sys.executable, "-m", "bloodfilm", "data"]
    me = [sys.executable, str(Path(__file__).resolve()), "--step"]
    yield "open and read one field", [*me, "open", str(file)], 1
    yield "data info", [*film, "info", str(file)], None
    yield "data stats", [*film, "stats", str(file), "--json", str(folder / "stats.json")], 10
    audit = ["--no-pixels", "--json", str(folder / "audit.json")]
    yield "data audit --no-pixels", [*film, "audit", str(file), *audit], 60
    yield "data split", [*film, "split", str(file), "--out", str(folder / "split.json")], None
    yield "a turn of fields, read in shards", [*me, "stream", str(file)], None
    for task in () if bare else ("detector", "classifier"):
        run = [str(folder / f"{task}.toml"), "--out", str(folder / task), "--restart"]
        command = [sys.executable, "-m", "bloodfilm", "train", *run, "--data", str(folder)]
        yield f"train a {task}, {SAMPLES} samples", [*command, "--device", "cpu"], None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fields", type=int, default=240_000)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--without-training", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the set; made anew if it is there")
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(STEPS[given.step[0]](Path(given.step[1]))))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        raise SystemExit(run(folder, given))


def open_one(file: Path) -> dict[str, Any]:
    begin, busy = time.perf_counter(), time.process_time()
    from bloodfilm.formats import open_dataset

    dataset = open_dataset(file)
    opened, opened_cpu = time.perf_counter() - begin, time.process_time() - busy
    field = dataset[len(dataset) // 2]
    took = time.perf_counter() - begin
    return {
        "opened_s": round(opened, 3),
        "opened_cpu_s": round(opened_cpu, 3),
        "first_field_s": round(took, 3),
        "cells": len(field.cells),
    }


def stream_all(file: Path) -> dict[str, Any]:
    """Read `STREAMED` fields in the order of a turn, far less than all row groups at a time."""
    from bloodfilm.formats import open_dataset
    from bloodfilm.formats.parquet.subset import choose
    from bloodfilm.training.data.sharded import DatasetShard, FieldStream

    begin = time.perf_counter()
    dataset = open_dataset(file)
    fields = choose(dataset.fields, lambda head: head)
    stream = FieldStream([DatasetShard(fields, dataset, 1.0)])
    order = stream.order(0, 0)
    ready = time.perf_counter() - begin
    before = resident_mb()
    cells = sum(len(stream[int(i)].field.cells) for i in order[:STREAMED])
    took = time.perf_counter() - begin - ready
    return {
        "first_field_after": round(ready, 2),
        "fields_per_second": round(min(STREAMED, len(order)) / took),
        "its_cells": cells,
        "grown_mb": round(resident_mb() - before),
    }


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


STEPS = {"open": open_one, "stream": stream_all}


def run(folder: Path, given: argparse.Namespace) -> int:
    fields, cells, out = given.fields, given.cells, given.json
    file = folder / "million.parquet"
    if not file.exists():
        begin = time.perf_counter()
        write_set(file, many_fields(fields, cells))
        print(f"wrote {file.name} in {time.perf_counter() - begin:.0f} s", flush=True)
    if not given.without_training and not (folder / "classifier.toml").exists():
        write_run(folder, fields, cells)
    loads, rows = [os.getloadavg()], []
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    print(f"{'':36}{'seconds':>9}{'CPU s':>8}{'limit':>7}{'peak MB':>9}{'limit':>7}")
    for name, command, limit in steps(folder, file, given.without_training):
        got = measured(command, (0, 1) if "audit" in name else (0,))
        said = got.pop("said")
        if "--step" in command:
            got |= json.loads(said)
        rows.append({"what": name} | got | verdict(got, limit, loads[-1][0] > CORES))
        shown = f"{name:36}{got['seconds']:9.1f}{got['cpu_seconds']:8.1f}{limit or '-':>7}"
        mark = "" if rows[-1]["within"] else "  OVER"
        print(shown + f"{got['peak_mb']:9}{MEMORY_MB:7}{mark}", flush=True)
        loads.append(os.getloadavg())
        report = {
            "command": " ".join(["python", "benchmarks/million.py", *sys.argv[1:]]),
            "commit": commit(),
            "begun": begun,
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores used",
            "load_average": [round(load[0], 2) for load in loads],
            "fields": fields,
            "cells": cells,
            "limit_mb": MEMORY_MB,
            "index_mb": round(file.stat().st_size / 2**20, 1),
            "steps": rows,
        }
        if out is not None:  # after every step: a run that is stopped leaves what it measured
            out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(row["within"] for row in rows) else 1


def verdict(got: dict[str, Any], limit: float | None, busy: bool) -> dict[str, Any]:
    """Hold time and memory against their limits; on a busy machine, processor time."""
    taken = got["cpu_seconds"] if busy else got["seconds"]
    taken = got.get("opened_cpu_s" if busy else "opened_s", taken)
    return {
        "limit_s": limit,
        "held_against": "processor" if busy else "wall clock",
        "within": (limit is None or taken <= limit) and got["peak_mb"] <= MEMORY_MB,
    }


def commit() -> str:
    """The commit that was measured, and whether the code differs from it."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../src")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


if __name__ == "__main__":
    main()
