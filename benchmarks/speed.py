"""Fields per second of the whole pipeline, where the time goes, and whether memory stays flat.

    python benchmarks/speed.py [--bundle FOLDER] [--fields 200] [--long 1000] [--json FILE]

One run measures everything on the same machine with the same number of threads: 640 x 640 fields
from file to result (LLD's own if BLOODFILM_DATA is set, else drawn ones), resident memory over a
long run, and, where torch is installed, the bare forward pass of a network of YOLOv5x's size
(86.7 M parameters, 205.7 GFLOPs at 640 x 640), the base of the published method.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bloodfilm.core.results import FieldFailure
from bloodfilm.imaging.discovery import find_images
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import analyze_many

YOLOV5X_PARAMETERS = 86.7e6
YOLOV5X_FLOPS = 205.7e9
TARGET = 20.0


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


def repeated(paths: list[Path], count: int) -> list[Path]:
    return [paths[i % len(paths)] for i in range(count)]


def resident() -> float:
    """Resident memory of this process, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def pipeline(paths: list[Path], model: Model, threads: int) -> dict[str, Any]:
    """Wall-clock throughput, and core-milliseconds of each stage per field."""
    list(analyze_many(paths[: 2 * threads], model, workers=threads))
    stages: Counter[str] = Counter()
    failed = cells = 0
    begin, busy = time.perf_counter(), time.process_time()
    for outcome in analyze_many(paths, model, workers=threads):
        if isinstance(outcome, FieldFailure):
            failed += 1
            continue
        cells += len(outcome.cells)
        for stage, seconds in outcome.timings.items():
            stages[stage] += seconds  # type: ignore[assignment]
    wall, busy = time.perf_counter() - begin, time.process_time() - busy
    return {
        "fields": len(paths),
        "failed": failed,
        "cells_per_field": cells / len(paths),
        "seconds": wall,
        "fields_per_second": len(paths) / wall,
        "ms_per_field": 1000 * wall / len(paths),
        "core_ms_per_field": 1000 * busy / len(paths),
        "stage_ms": {k: 1000 * v / len(paths) for k, v in stages.items()},
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
    """Seconds a forward pass of the large network takes; None without torch."""
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
    with torch.inference_mode():
        network(image)
        for hook in hooks:
            hook.remove()
        taken, busy = [], time.process_time()
        for _ in range(rounds):
            begin = time.perf_counter()
            network(image)
            taken.append(time.perf_counter() - begin)
        busy = time.process_time() - busy
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": flops,
        "torch": torch.__version__,
        "seconds": statistics.median(taken),
        "core_seconds": busy / rounds,
        "rounds": rounds,
    }


def show(result: dict[str, Any]) -> None:
    run, flat, large = result["pipeline"], result["memory"], result["reference"]
    print(f"{result['images']}, {result['threads']} threads, {result['cpu']}")
    print(f"bundle {result['bundle']['name']} {result['bundle']['sha256'][:12]}\n")
    print(f"{'stage':<12}{'ms per field':>18}")
    for stage, ms in run["stage_ms"].items():
        print(f"{stage:<12}{ms:>18.1f}")
    print(f"{'together':<12}{sum(run['stage_ms'].values()):>18.1f}\n")
    print(
        f"{run['fields_per_second']:.1f} fields/s ({run['ms_per_field']:.1f} ms a field; "
        f"{run['core_ms_per_field']:.1f} ms of one core, measuring the folder's scale included)"
    )
    print(f"{run['cells_per_field']:.0f} cells a field, {run['failed']} of {run['fields']} failed")
    trace = " ".join(f"{v:.0f}" for v in flat["rss_mib"])
    print(f"resident MiB, every {flat['every']} of {flat['fields']} fields: {trace}")
    if large:
        print(
            f"\nnetwork of YOLOv5x's size: {large['parameters'] / 1e6:.1f} M parameters, "
            f"{large['flops'] / 1e9:.1f} GFLOPs, forward pass {large['seconds']:.2f} s"
        )
        print(
            f"ratio {result['ratio']:.1f} by the clock, {result['core_ratio']:.1f} by core time "
            f"(target {TARGET:g})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--fields", type=int, default=200)
    parser.add_argument("--long", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle) if options.bundle else default_bundle()
    model = Model(bundle, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        paths, what = fields(Path(folder))
        run = pipeline(repeated(paths, options.fields), model, options.threads)
        flat = memory(repeated(paths, options.long), model, options.threads)
    large = reference(options.threads, options.rounds)
    result = {
        "images": what,
        "threads": options.threads,
        "cpu": f"{platform.machine()}, {os.cpu_count()} cores",
        "bundle": bundle.identity(),
        "pipeline": run,
        "memory": flat,
        "reference": large,
        "ratio": large["seconds"] * run["fields_per_second"] if large else None,
        # Core time hardly depends on what else the machine does.
        "core_ratio": 1000 * large["core_seconds"] / run["core_ms_per_field"] if large else None,
    }
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
