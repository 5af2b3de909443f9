"""Write a synthetic slide as a pyramidal TIFF, tile by tile."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import NoProgress, Progress, counter
from bloodfilm.synthetic.slides.film import SlideFilm

LAYOUTS = ("tiff", "svs", "ome")
"""How levels are stored: SubIFDs, Aperio's pages, OME-TIFF."""
TILE = 512
STEP = 4
"""Reduction from level to level."""
SMALLEST = 1024
QUALITY = 90


def write_slide(
    film: SlideFilm,
    path: Path,
    layout: str = "tiff",
    progress: Progress | None = None,
) -> list[tuple[int, int]]:
    """Draw a slide into a pyramidal BigTIFF with JPEG tiles; return the sizes of its levels.

    Memory stays flat: full resolution is drawn tile by tile, reduced levels are kept in a temporary
    file of a sixteenth of its pixels.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"slide: no layout {layout!r}; known: {', '.join(LAYOUTS)}")
    spec = film.spec
    sizes = level_sizes(spec.width, spec.height)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".slide-") as folder:
        reduced = _Reduced(Path(folder), sizes)
        made = Path(folder) / path.name
        _write(made, film, layout, reduced, progress or NoProgress())
        reduced.close()
        made.replace(path)
    return sizes


def level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Return the sizes of the levels of a slide.

    >>> level_sizes(20000, 10000)
    [(20000, 10000), (5000, 2500), (1250, 625), (313, 157)]
    """
    sizes = [(width, height)]
    while max(sizes[-1]) > SMALLEST and min(sizes[-1]) >= 4 * STEP:
        w, h = sizes[-1]
        sizes.append((-(-w // STEP), -(-h // STEP)))
    return sizes


class _Reduced:
    """The reduced levels, filled while full resolution is drawn."""

    def __init__(self, folder: Path, sizes: Sequence[tuple[int, int]]) -> None:
        self.levels: list[NDArray[np.uint8]] = []
        for number, (w, h) in enumerate(sizes[1:]):
            shape = h, w, 3
            if number == 0:
                place = folder / "level"
                self.levels.append(np.memmap(place, np.uint8, "w+", shape=shape))
            else:
                self.levels.append(np.empty(shape, np.uint8))

    def add(self, pixels: Image, x: int, y: int) -> None:
        """Take a tile of full resolution whose corner is a multiple of `STEP`."""
        if not self.levels:
            return
        height, width = pixels.shape[:2]
        size = -(-width // STEP), -(-height // STEP)
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        self.levels[0][y // STEP : y // STEP + size[1], x // STEP : x // STEP + size[0]] = small

    def finish(self) -> None:
        """Make the further levels, each of the one before."""
        for above, level in zip(self.levels, self.levels[1:], strict=False):
            rows = 256
            for top in range(0, level.shape[0], rows):
                count = min(rows, level.shape[0] - top)
                part = above[top * STEP : (top + count) * STEP]
                size = level.shape[1], count
                level[top : top + count] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)

    def close(self) -> None:
        """Let go of the temporary file."""
        self.levels.clear()


def _write(path: Path, film: SlideFilm, layout: str, reduced: _Reduced, progress: Progress) -> None:
    spec = film.spec
    common: dict[str, Any] = {
        "tile": (TILE, TILE),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": QUALITY},
        "dtype": np.uint8,
    }
    dots = 1e4 / spec.um_per_px
    resolution: dict[str, Any] = {"resolution": (dots, dots), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True, ome=layout == "ome") as writer:
        levels = reduced.levels
        first = {**common, **resolution, "shape": (spec.height, spec.width, 3)}
        if layout == "svs":
            first |= {"description": _aperio(film), "metadata": None}
        elif layout == "ome":
            first |= {"metadata": _ome(film), "subifds": len(levels)}
        else:
            first |= {"metadata": None, "subifds": len(levels)}
        writer.write(_drawn(film, reduced, progress), **first)
        reduced.finish()
        for number, level in enumerate(levels, 1):
            more = {**common, "shape": level.shape, "metadata": None}
            if layout == "svs":
                more["description"] = f"Aperio Image Library level {number}"
            else:
                more["subfiletype"] = 1
            writer.write(_tiles(level), **more)


def _drawn(film: SlideFilm, reduced: _Reduced, progress: Progress) -> Iterator[Image]:
    width, height = film.spec.width, film.spec.height
    down, across = -(-height // TILE), -(-width // TILE)
    count = counter(progress, "drawing the slide", down * across)
    count(0)
    for row in range(down):
        for column in range(across):
            x, y = column * TILE, row * TILE
            pixels = film.draw(x, y, min(TILE, width - x), min(TILE, height - y))
            reduced.add(pixels, x, y)
            count(row * across + column + 1)
            yield _padded(pixels)


def _tiles(level: NDArray[np.uint8]) -> Iterator[Image]:
    for y in range(0, level.shape[0], TILE):
        for x in range(0, level.shape[1], TILE):
            yield _padded(np.ascontiguousarray(level[y : y + TILE, x : x + TILE]))


def _padded(pixels: Image) -> Image:
    height, width = pixels.shape[:2]
    edges = (0, TILE - height), (0, TILE - width), (0, 0)
    return pixels if pixels.shape[:2] == (TILE, TILE) else np.pad(pixels, edges, mode="edge")


def _aperio(film: SlideFilm) -> str:
    spec = film.spec
    return (
        f"Aperio Image Library v12.0.0\r\n{spec.width}x{spec.height} "
        f"[0,0 {spec.width}x{spec.height}] "
        f"({TILE}x{TILE}) JPEG/RGB Q={QUALITY}|AppMag = 40|MPP = {spec.um_per_px:.4f}"
    )


def _ome(film: SlideFilm) -> dict[str, Any]:
    um = film.spec.um_per_px
    return {
        "axes": "YXS",
        "PhysicalSizeX": um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": um,
        "PhysicalSizeYUnit": "µm",
    }
