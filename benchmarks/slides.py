"""Draw a slide, analyse it as a user would, and report time, peak memory and what was found.

    python benchmarks/slides.py --side 40000 --out out/slides

The analysis runs in a process of its own; processor time is reported beside the wall clock, because
other jobs on the machine bear on the latter only.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bloodfilm.core.boxes import iou
from bloodfilm.core.results import AnalysisRun
from bloodfilm.synthetic.slides import AREAS, SlideFilm, SlideSpec, write_slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=40_000, help="width and height, px")
    parser.add_argument("--um", type=float, default=0.25, help="micrometres per pixel")
    parser.add_argument("--layout", default="svs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/slides"))
    parser.add_argument("more", nargs="*", help="further options of `bloodfilm analyze`")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    film = SlideFilm(SlideSpec(width=args.side, height=args.side, um_per_px=args.um, seed=1))
    path = args.out / f"drawn-{args.side}-{args.um:g}.{'svs' if args.layout == 'svs' else 'tif'}"
    drawing: dict[str, float] = {}
    if not path.exists():
        begin, used = time.perf_counter(), time.process_time()
        write_slide(film, path, args.layout)
        drawing = {
            "seconds": round(time.perf_counter() - begin, 1),
            "processor_seconds": round(time.process_time() - used, 1),
        }
    record = {
        "side": args.side,
        "um_per_px": args.um,
        "bytes": path.stat().st_size,
        "drawing": drawing,
        "analysis": _analyze(path, args),
        **_found(film, AnalysisRun.read(args.out / "results")),
    }
    print(json.dumps(record, indent=1))


def _analyze(path: Path, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "bloodfilm", "analyze", str(path), "--overwrite"]
    command += ["--out", str(args.out / "results"), "--threads", str(args.threads), *args.more]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "processor_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
        "peak_memory_gb": round(after.ru_maxrss / 1e6, 3),
    }


def _found(film: SlideFilm, run: AnalysisRun) -> dict[str, object]:
    """Compare the cells with the truth inside the zone, and the zone with the monolayer."""
    from bloodfilm.formats.qupath.regions import read_regions

    (result,) = run.fields
    assert result.slide is not None
    folder = next((Path(run.settings["paths"][0]).parent / "results/slides").iterdir())
    zone = read_regions(folder / "zone.geojson")
    truth = film.white_cells(0, 0, film.spec.width, film.spec.height)
    boxes = np.array([w.cell.box for w in truth]).reshape(-1, 4)
    inside = zone.contains(boxes[:, :2] + boxes[:, 2:] / 2)
    found = np.array([c.box for c in result.cells]).reshape(-1, 4)
    hits = 0
    for start in range(0, len(found), 2000):  # a table of all pairs would fill memory
        part = iou(boxes[inside], found[start : start + 2000])
        hits += int((part.max(axis=0, initial=0.0) > 0.5).sum())
    points = found[:, :2] + found[:, 2:] / 2
    areas = film.layout.area_of(points * film.spec.um_per_px)
    return {
        "slide": result.slide.to_json(),
        "true_cells_in_zone": int(inside.sum()),
        "cells": len(found),
        "matched": hits,
        "cells_by_area": {AREAS[n]: int((areas == n).sum()) for n in np.unique(areas)},
    }


if __name__ == "__main__":
    main()
