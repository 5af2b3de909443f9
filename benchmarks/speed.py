"""Speed of `bloodfilm analyze`, report, outlines and pictures included, against YOLOv5x's size.

    python benchmarks/speed.py [--bundle FOLDER] [--fields 291] [--long 600] [--json FILE]

One run measures everything on the same machine with the same number of threads: the whole command
on 640 x 640 fields (LLD's own if BLOODFILM_DATA is set, else drawn ones) in a process of its own,
from the start of Python to the last file, with its resident memory; the share of each stage, in a
second run; resident memory of a longer run; and, before and after the command, the bare forward
pass of a network of YOLOv5x's size (86.7 M parameters, 205.7 GFLOPs at 640 x 640), the base of the
published method. Two ratios are given: by the clock, and by processor time, which other jobs on the
machine hardly change. Processor time of the network is measured with one thread, for threads that
wait for each other use it, too.
"""

import argparse
import compileall
import itertools
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import bloodfilm
from bloodfilm.imaging.discovery import find_images
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import analyze_many

YOLOV5X_PARAMETERS = 86.7e6
YOLOV5X_FLOPS = 205.7e9
TARGET = 25.0
SAMPLED_EVERY = 0.25
"""Seconds between two looks at the command's memory."""


def fields(folder: Path) -> tuple[list[Path], str]:
    """Fields of 640 x 640 and what they are."""
    data = os.environ.get("BLOODFILM_DATA")
    if data:
        return find_images([Path(data) / "lld40x"]), "LLD 40x fields"
    import cv2

    from bloodfilm.synthetic import render_field

    for seed in range(12):
        image, _ = render_field("lld40x-like", seed=seed, size=(640, 640))
        cv2.imwrite(str(folder / f"{seed}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return find_images([folder]), "drawn fields, PNG"


def resident(process: int | str = "self") -> float:
    """Resident memory of a process, MiB; NaN where it is not known."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return float("nan")
    for line in status.splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def tenths(trace: list[float]) -> list[float]:
    """At most eleven values of a trace, evenly spread."""
    step = max(1, (len(trace) - 1) // 10)
    return [round(v, 1) for v in trace[::step]]


def whole_command(
    paths: list[Path], bundle: Path | None, threads: int, out: Path
) -> dict[str, Any]:
    """Run the command as a user does; its wall-clock and processor time and memory.

    The package is compiled before, as an installation is.
    """
    compileall.compile_dir(Path(bloodfilm.__file__).parent, quiet=2)
    listed = [*map(str, paths)]
    command = [sys.executable, "-m", "bloodfilm", "analyze", *listed, "--out", str(out)]
    command += ["--threads", str(threads), *(["--bundle", str(bundle)] if bundle else [])]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    trace: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLED_EVERY):
            trace.append(resident(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    wall = time.perf_counter() - begin
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"bloodfilm analyze failed: {said.decode(errors='replace')[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seen = [v for v in trace if not math.isnan(v)]
    return {
        "fields": len(paths),
        "seconds": wall,
        "processor_seconds": busy,
        "fields_per_second": len(paths) / wall,
        "ms_per_field": 1000 * wall / len(paths),
        "core_ms_per_field": 1000 * busy / len(paths),
        "rss_mib": tenths(seen),
        "peak_mib": max(seen, default=float("nan")),
        "report_bytes": (out / "report.html").stat().st_size,
    }


def stages(paths: list[Path], model: Model, threads: int, out: Path) -> dict[str, Any]:
    """Processor milliseconds per field of each stage of the command, once it has started."""
    import bloodfilm.cases.assembly
    import bloodfilm.imaging.scale
    import bloodfilm.workflows.analyze as workflow
    from bloodfilm.inference import stage_timer
    from bloodfilm.report.html import report

    spent: Counter[str] = Counter()
    lock = threading.Lock()

    def timed(
        place: Any, name: str, stage: str, clock: Callable[[], float] = time.thread_time
    ) -> tuple[Any, str, Callable[..., Any]]:
        original = getattr(place, name)

        @wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = clock()
            try:
                return original(*args, **kwargs)
            finally:
                with lock:
                    spent[stage] += clock() - begin  # type: ignore[assignment]

        setattr(place, name, call)
        return place, name, original

    changed = [
        timed(bloodfilm.imaging.scale, "measure", "shared scale"),
        timed(workflow.ResultsLog, "append", "results log"),
        timed(bloodfilm.cases.assembly, "field_detail", "landmarks"),
        timed(bloodfilm.cases.assembly, "find_landmarks", "landmarks"),
        timed(bloodfilm.cases.assembly, "verify_pair", "verifying"),
        # Alone at work then, with threads of its own.
        timed(workflow, "assemble_cases", "cases", time.process_time),
        timed(workflow.AnalysisRun, "write_json", "result.json"),
        timed(workflow, "write_cases", "case files"),
        timed(report, "write_report", "report"),
        (stage_timer, "time", stage_timer.time),
    ]
    clock = types.SimpleNamespace(perf_counter=time.thread_time)
    stage_timer.time = clock  # type: ignore[assignment]
    try:
        job = workflow.AnalysisJob(paths=paths, out=out, workers=threads)
        busy = time.process_time()
        summary = workflow.analyze(job, model=model)
        busy = time.process_time() - busy
    finally:
        for place, name, original in changed:
            setattr(place, name, original)
    spent["cases"] -= spent["landmarks"] + spent["verifying"]
    spent.update(summary.stages)
    spent["rest"] = busy - sum(spent.values())  # type: ignore[assignment]
    return {
        "cells_per_field": sum(summary.kinds.values()) / max(summary.fields, 1),
        "white_cells_per_field": sum(summary.classes.values()) / max(summary.fields, 1),
        "failed": len(summary.failures),
        "core_ms": {k: 1000 * v / len(paths) for k, v in spent.items()},
    }


def memory(paths: list[Path], model: Model, threads: int) -> dict[str, Any]:
    """Resident memory along a long run; nothing is kept of the results."""
    step = max(len(paths) // 10, 1)
    trace = []
    for done, _ in enumerate(analyze_many(paths, model, workers=threads), 1):
        if done % step == 0:
            trace.append(round(resident(), 1))
    return {"fields": len(paths), "every": step, "rss_mib": trace, "peak_mib": max(trace)}


def large_network() -> Any:
    """A plain cross-stage-partial network with three scales, as large as YOLOv5x."""
    import torch
    from torch import nn

    class Conv(nn.Module):
        def __init__(self, i: int, o: int, k: int, s: int = 1) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(i, o, k, s, (k - 1) // 2), nn.SiLU(inplace=True)

        def forward(self, x: Any) -> Any:
            return self.act(self.conv(x))

    class Partial(nn.Module):
        """Half of the channels pass through `n` residual pairs of convolutions."""

        def __init__(self, i: int, o: int, n: int) -> None:
            super().__init__()
            h = o // 2
            self.left, self.right, self.join = Conv(i, h, 1), Conv(i, h, 1), Conv(o, o, 1)
            self.pairs = nn.ModuleList(
                nn.Sequential(Conv(h, h, 1), Conv(h, h, 3)) for _ in range(n)
            )

        def forward(self, x: Any) -> Any:
            left = self.left(x)
            for pair in self.pairs:
                left = left + pair(left)
            return self.join(torch.cat([left, self.right(x)], 1))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = Conv(3, 80, 6, 2)
            widths, depths = (80, 160, 320, 640, 1280), (4, 8, 12, 4)
            self.down = nn.ModuleList(Conv(a, b, 3, 2) for a, b in itertools.pairwise(widths))
            self.stages = nn.ModuleList(
                Partial(w, w, n) for w, n in zip(widths[1:], depths, strict=True)
            )
            self.wide = nn.Sequential(Conv(1280, 640, 1), Conv(640, 2560, 1), Conv(2560, 1280, 1))
            self.narrow = nn.ModuleList([Conv(1280, 640, 1), Conv(640, 320, 1)])
            self.up = nn.ModuleList([Partial(1280, 640, 4), Partial(640, 320, 4)])
            self.again = nn.ModuleList([Conv(320, 320, 3, 2), Conv(640, 640, 3, 2)])
            self.out = nn.ModuleList([Partial(640, 640, 4), Partial(1280, 1280, 4)])
            self.heads = nn.ModuleList(nn.Conv2d(w, 57, 1) for w in (320, 640, 1280))

        def forward(self, x: Any) -> Any:
            x, seen = self.stem(x), []
            for down, stage in zip(self.down, self.stages, strict=True):
                x = stage(down(x))
                seen.append(x)
            deep = self.narrow[0](self.wide(seen[3]))
            double = nn.Upsample(scale_factor=2)
            middle = self.narrow[1](self.up[0](torch.cat([double(deep), seen[2]], 1)))
            fine = self.up[1](torch.cat([double(middle), seen[1]], 1))
            mid = self.out[0](torch.cat([self.again[0](fine), middle], 1))
            low = self.out[1](torch.cat([self.again[1](mid), deep], 1))
            levels = zip(self.heads, (fine, mid, low), strict=True)
            return [head(level) for head, level in levels]

    return Network().eval()


def reference(threads: int, rounds: int) -> dict[str, Any] | None:
    """Seconds a forward pass of the large network takes; None without torch or rounds."""
    if not rounds:
        return None
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    network = large_network()
    flops = 0

    def count(module: Any, _: Any, output: Any) -> None:
        nonlocal flops
        kernel = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        flops += 2 * kernel * output.numel()

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, torch.nn.Conv2d)
    ]
    image = torch.rand(1, 3, 640, 640)

    def times(clock: Callable[[], float]) -> list[float]:
        taken = []
        for _ in range(rounds):
            begin = clock()
            network(image)
            taken.append(clock() - begin)
        return taken

    with torch.inference_mode():
        network(image)
        for hook in hooks:
            hook.remove()
        wall = times(time.perf_counter)
        torch.set_num_threads(1)
        busy = times(time.process_time)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": flops,
        "torch": torch.__version__,
        "seconds": wall,
        "core_seconds": busy,
    }


def joined(one: dict[str, Any] | None, two: dict[str, Any] | None) -> dict[str, Any] | None:
    """Both measurements of the large network, medians over all rounds."""
    if one is None or two is None:
        return None
    names = ("seconds", "core_seconds")
    return one | {name: statistics.median(one[name] + two[name]) for name in names}


def show(result: dict[str, Any]) -> None:
    run, parts, flat, large = (result[k] for k in ("command", "stages", "memory", "reference"))
    print(f"{result['images']}, {result['threads']} threads, {result['cpu']}")
    print(f"bundle {result['bundle']['name']} {result['bundle']['sha256'][:12]}\n")
    total = sum(parts["core_ms"].values())
    print(f"{'stage':<14}{'core ms per field':>18}{'share':>8}")
    for stage, ms in sorted(parts["core_ms"].items(), key=lambda item: -item[1]):
        print(f"{stage:<14}{ms:>18.1f}{ms / total:>8.0%}")
    print(f"{'together':<14}{total:>18.1f}   (without the start of the program)\n")
    print(
        f"whole command: {run['fields']} fields in {run['seconds']:.1f} s, "
        f"{run['fields_per_second']:.1f} fields/s ({run['ms_per_field']:.1f} ms per field), "
        f"{run['processor_seconds']:.1f} s of processor time ({run['core_ms_per_field']:.1f} ms a "
        "field)"
    )
    print(
        f"{parts['cells_per_field']:.0f} cells per field, {parts['white_cells_per_field']:.1f} of "
        f"them classified; {parts['failed']} failed; report {run['report_bytes'] / 1e6:.2f} MB"
    )
    trace = " ".join(f"{v:.0f}" for v in run["rss_mib"])
    print(f"resident MiB along the command: {trace}, peak {run['peak_mib']:.0f}")
    if flat:
        trace = " ".join(f"{v:.0f}" for v in flat["rss_mib"])
        print(f"resident MiB, every {flat['every']} of {flat['fields']} fields: {trace}")
    if large:
        print(
            f"\nnetwork of YOLOv5x's size: {large['parameters'] / 1e6:.1f} M parameters, "
            f"{large['flops'] / 1e9:.1f} GFLOPs, forward pass {large['seconds']:.2f} s, "
            f"{large['core_seconds']:.2f} s of one core"
        )
        print(
            f"ratio {result['ratio']:.1f} by the clock, {result['core_ratio']:.1f} by processor "
            f"time (target {TARGET:g})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--fields", type=int, default=291, help="at most, as many as there are")
    parser.add_argument("--long", type=int, default=600, help="fields of the longer run; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=3, help="of the network, before and after; 0: none"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle) if options.bundle else default_bundle()
    threads = options.threads
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        every, what = fields(folder)
        paths = every[: options.fields]
        first = reference(threads, options.rounds)
        run = whole_command(paths, options.bundle, threads, folder / "command")
        large = joined(first, reference(threads, options.rounds))
        model = Model(bundle, device="cpu")
        parts = stages(paths, model, threads, folder / "stages")
        again = list(itertools.islice(itertools.cycle(every), options.long))
        flat = memory(again, model, threads) if again else None
    result = {
        "images": what,
        "threads": threads,
        "cpu": f"{platform.machine()}, {os.cpu_count()} cores",
        "bundle": bundle.identity(),
        "command": run,
        "stages": parts,
        "memory": flat,
        "reference": large,
        "ratio": large["seconds"] * run["fields_per_second"] if large else None,
        "core_ratio": 1000 * large["core_seconds"] / run["core_ms_per_field"] if large else None,
    }
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
