"""Draw a slide, analyse it as a user would, and report time, peak memory and what was found.

    python benchmarks/slides.py --side 40000 --out out/slides [--repeat]

Drawing 1.6 billion pixels takes longer than analysing them. With `--repeat` a square of each area
of the slide is drawn and laid side by side, mirrored or not, where that area is: the amount of
glass, cells and pixels is that of a slide, its variety is not.

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
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from bloodfilm.core.arrays import Image
from bloodfilm.core.boxes import iou
from bloodfilm.core.results import AnalysisRun, CellResult
from bloodfilm.imaging.sources.open_slide import open_slide
from bloodfilm.inference.model import load_model
from bloodfilm.inference.slides import (
    SlidePlan,
    SlideSelection,
    analyze_tiles,
    combined,
    plan_slide,
    plan_slide_tiles,
)
from bloodfilm.inference.slides.plan import with_tiles
from bloodfilm.synthetic.slides import AREAS, SlideFilm, SlideSpec, WhiteCell, write_slide

SQUARE = 2048
"""Side of a repeated square, px: a multiple of the tiles in which a slide is drawn."""


@dataclass(frozen=True)
class RepeatedFilm(SlideFilm):
    """A slide of few squares: one of each area, mirrored at every other place."""

    def draw(self, x: int, y: int, width: int, height: int) -> Image:
        """Return a rectangle that lies within one square."""
        square, mirrored = self._square(x // SQUARE, y // SQUARE)
        left, top = x % SQUARE, y % SQUARE
        part = square[:, ::-1] if mirrored else square
        return np.ascontiguousarray(part[top : top + height, left : left + width])

    def white_cells(self, x: int, y: int, width: int, height: int) -> list[WhiteCell]:
        """Return the white cells with their centre in a rectangle of whole squares."""
        found = []
        for row in range(y // SQUARE, -(-(y + height) // SQUARE)):
            for column in range(x // SQUARE, -(-(x + width) // SQUARE)):
                corner = self._corner(self._area(column, row))
                mirrored = self._square(column, row)[1]
                for white in self._cells_of(corner):
                    left, top, w, h = white.cell.box or (0, 0, 0, 0)
                    left, top = left - corner[0], top - corner[1]
                    left = SQUARE - left - w if mirrored else left
                    box = (column * SQUARE + left, row * SQUARE + top, w, h)
                    found.append(replace(white, cell=replace(white.cell, box=box)))
        return found

    def _area(self, column: int, row: int) -> int:
        um = self.spec.um_per_px
        middle = (column + 0.5) * SQUARE * um, (row + 0.5) * SQUARE * um
        return int(self.layout.area_of([middle])[0])

    def _square(self, column: int, row: int) -> tuple[Image, bool]:
        return self._drawn(self._corner(self._area(column, row))), bool((column + row) % 2)

    def _corner(self, area: int) -> tuple[int, int]:
        """Return the corner, px, of the square that is drawn of an area."""
        if AREAS[area] == "glass":
            return 0, 0
        if AREAS[area] == "pen":
            x, y, *_ = (round(v / self.spec.um_per_px) for v in self.layout.pen_marks[0])
            return x, y
        rect = [v / self.spec.um_per_px for v in self.layout.rect_of(area)]
        return round(rect[0] + rect[2] / 2), round(rect[1] + rect[3] / 2)

    @cache  # noqa: B019 - a film lives as long as the program
    def _drawn(self, corner: tuple[int, int]) -> Image:
        return super().draw(*corner, SQUARE, SQUARE)

    @cache  # noqa: B019
    def _cells_of(self, corner: tuple[int, int]) -> list[WhiteCell]:
        return super().white_cells(*corner, SQUARE, SQUARE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=40_000, help="width and height, px")
    parser.add_argument("--um", type=float, default=0.25, help="micrometres per pixel")
    parser.add_argument("--layout", default="svs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/slides"))
    parser.add_argument("--repeat", action="store_true", help="draw a square of each area only")
    parser.add_argument("--other-tiles", action="store_true", help="also compare other tilings")
    parser.add_argument("more", nargs="*", help="further options of `bloodfilm analyze`")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kind = RepeatedFilm if args.repeat else SlideFilm
    film = kind(SlideSpec(width=args.side, height=args.side, um_per_px=args.um, seed=1))
    name = "repeated" if args.repeat else "drawn"
    path = args.out / f"{name}-{args.side}-{args.um:g}.{'svs' if args.layout == 'svs' else 'tif'}"
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
    if args.other_tiles:
        record["other_tiles"] = _other_tiles(path)
    print(json.dumps(record, indent=1))


TILINGS = ((160.0, (0, 0)), (204.8, (170, 333)), (320.0, (77, 9)))
"""Sides of tiles, um, and shifts of their grid, px, that are tried."""


def _other_tiles(path: Path) -> dict[str, object]:
    """Analyse a slide with other tiles, and compare the cells with those of the usual ones."""
    with load_model() as model:
        source = open_slide(path)
        plan = plan_slide(source, model.analyzer, SlideSelection())

        def cells(some: SlidePlan) -> list[CellResult]:
            outcomes = list(analyze_tiles(source, model.analyzer, some, some.tiles))
            return list(combined(source, some, outcomes, model.analyzer.classified).cells)

        usual = cells(plan)
        rows = []
        for tile_um, offset in TILINGS:
            tiles = plan_slide_tiles(source.size, plan.view.um_per_px, tile_um, offset)
            found = cells(with_tiles(plan, tiles))
            boxes = [np.array([c.box for c in some]).reshape(-1, 4) for some in (usual, found)]
            likeness = iou(boxes[0], boxes[1])
            same = likeness.max(axis=1, initial=0.0) > 0.5
            best = likeness.argmax(axis=1)
            named = [usual[i].label == found[best[i]].label for i in np.flatnonzero(same)]
            rows.append(
                {
                    "tile_um": tile_um,
                    "offset": offset,
                    "cells": len(found),
                    "same": int(same.sum()),
                    "same_of_all": round(2 * int(same.sum()) / (len(usual) + len(found)), 5),
                    "of_the_same_name": sum(named),
                }
            )
    return {"cells": len(usual), "tilings": rows}


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
