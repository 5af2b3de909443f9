"""Slides: pictures too large to hold in memory, read by region from a pyramid of levels.

A `SlideSource` is an `ImageSource`: its coordinates are pixels of level 0, the full resolution.
Each kind of file has a subclass that reads a rectangle of one level; choosing the level, resampling
and keeping memory flat is done here once.
"""

import hashlib
import itertools
import math
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import DataError
from bloodfilm.core.files import sha256_of
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import PixelSize
from bloodfilm.imaging.headers import BrokenImageError
from bloodfilm.imaging.pixel_size import StatedSize, chosen
from bloodfilm.imaging.resample import resize
from bloodfilm.imaging.sources.base import check_region

Rect = tuple[int, int, int, int]

CACHE_BYTES = 256 << 20
"""Decoded tiles and strips that a slide keeps."""
CHUNK_BYTES = 48 << 20
"""Of a level that is read at a time where a large area is reduced."""
BLOCK = 512
"""Side, px, of what is read at a time through a library."""
UNREDUCED_PIXELS = 1 << 25
"""Of a slide that needs no reduced levels."""
MAX_SIDE = 1 << 20
LEVEL_ASPECT = 0.02
"""Levels whose sides differ in their reduction by a larger share show something else."""


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide.

    Attributes:
        width, height: px.
        downsample: pixels of level 0 per pixel, at least 1.
    """

    width: int
    height: int
    downsample: float


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of level 0 that cannot be decoded, and is shown as empty glass.

    Attributes:
        name: of the tile or strip in its file.
        area: x, y, width, height in px of level 0.
        reason: why.
    """

    name: str
    area: Rect
    reason: str


class SlideSource(ABC):
    """A slide as an `ImageSource`; may be read from several threads at a time.

    Args:
        path: the file, or the folder of files, as the user named it.
        levels: sizes (width, height) of the levels, largest first.
        pixel_size: of level 0, if the file states a plausible one; see `slide_pixel_size`.
        issues: what was decided when the slide was opened.
        downsamples: of the levels; by default they follow from the sizes. Levels that are padded,
            or have lost a fraction of a pixel, are not as large as their reduction says.
    """

    kind = "slide"
    """What the file is, for people."""
    band_rows: int | None = None
    """Rows that are decoded together across the whole width; `None` where the file has tiles."""

    def __init__(
        self,
        path: str,
        levels: Sequence[tuple[int, int]],
        pixel_size: PixelSize | None,
        issues: Sequence[Issue] = (),
        downsamples: Sequence[float] | None = None,
    ) -> None:
        width, height = levels[0]
        if max(width, height) > MAX_SIDE:
            raise DataError(
                f"{path}: {width} x {height} px are more than the {MAX_SIDE:,} that a side of a "
                "slide may have; check the file"
            )
        self._path = path
        if downsamples is None:
            self._factors = tuple((width / w, height / h) for w, h in levels)
        else:
            self._factors = tuple((v, v) for v in downsamples)
        self.levels = tuple(
            Level(w, h, math.sqrt(fx * fy))
            for (w, h), (fx, fy) in zip(levels, self._factors, strict=True)
        )
        self._pixel_size = pixel_size
        self._opening_issues = tuple(issues)
        self._damage: dict[str, Damage] = {}
        self._damage_lock = threading.Lock()

    # ---- ImageSource -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The path, as the user named it."""
        return self._path

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of level 0, px."""
        return self.levels[0].width, self.levels[0].height

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the file; of several files, of their names and SHA-256 in order."""
        from bloodfilm.imaging.sources.open_slide import content_digest

        return content_digest(self._path)

    @property
    def pixel_size(self) -> PixelSize | None:
        """The size of a pixel of level 0 according to the file, if it states a plausible one."""
        return self._pixel_size

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Decisions that were taken when the slide was opened."""
        return self._opening_issues

    def read_region(
        self, x: int, y: int, width: int, height: int, downsample: float = 1.0
    ) -> Image:
        """Return the pixels of a region of level 0: see `ImageSource`.

        The level with the next higher resolution is read, in parts that keep memory flat.
        """
        check_region(self, (x, y, width, height), downsample)
        out_w, out_h = (max(1, round(n / downsample)) for n in (width, height))
        number = self.level_for(downsample)
        level, (across, down) = self.levels[number], self._factors[number]
        left, right = _scaled(x, width, 1 / across, level.width)
        top, bottom = _scaled(y, height, 1 / down, level.height)
        if (right - left, bottom - top) == (out_w, out_h):
            return self._read_level(number, left, top, out_w, out_h)
        return self._reduced(number, (left, top, right - left, bottom - top), (out_w, out_h))

    def thumbnail(self, size: int) -> Image:
        """Return the whole slide, its longer side at most `size` pixels."""
        return self.read_region(0, 0, *self.size, downsample=max(1.0, max(self.size) / size))

    @abstractmethod
    def close(self) -> None:
        """Free what the source holds."""

    # ---- slides ------------------------------------------------------------------------------

    def level_for(self, downsample: float) -> int:
        """Return the number of the level to read for a reduction: the smallest that is enough."""
        fitting = [
            n for n, level in enumerate(self.levels) if level.downsample <= downsample * 1.01
        ]
        return fitting[-1] if fitting else 0

    def damage_in(self, x: int, y: int, width: int, height: int) -> list[Damage]:
        """Return the unreadable parts of level 0 in a region that has been read, in order."""
        with self._damage_lock:
            found = [
                d
                for d in self._damage.values()
                if d.area[0] < x + width
                and x < d.area[0] + d.area[2]
                and d.area[1] < y + height
                and y < d.area[1] + d.area[3]
            ]
        return sorted(found, key=lambda d: (d.area[1], d.area[0], d.name))

    @abstractmethod
    def _read_level(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        """Return a rectangle of a level, uint8 RGB; it lies inside the level."""

    def _note_damage(self, damage: Damage) -> None:
        with self._damage_lock:
            self._damage.setdefault(damage.name, damage)

    def _in_level_0(self, number: int, x: int, y: int, width: int, height: int) -> Rect:
        """Return the rectangle of level 0 that a rectangle of a level shows, inside the slide."""
        across, down = self._factors[number]
        left = min(round(x * across), self.size[0] - 1)
        top = min(round(y * down), self.size[1] - 1)
        right = min(self.size[0], max(left + 1, round((x + width) * across)))
        low = min(self.size[1], max(top + 1, round((y + height) * down)))
        return left, top, right - left, low - top

    def _made_anew(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        """Return a rectangle of a level that is damaged, made of level 0, which shows the same."""
        region = self._in_level_0(number, x, y, width, height)
        return self._reduced(0, region, (width, height))

    def _reduced(self, number: int, region: Rect, size: tuple[int, int]) -> Image:
        """Read a rectangle of a level part by part, and resample it to a size."""
        x, y, width, height = region
        out_w, out_h = size
        step_x, step_y = width / out_w, height / out_h
        across = max(1, min(out_w, int(CHUNK_BYTES / 3 / max(step_x * max(step_y, 1.0), 1.0))))
        if self.band_rows is not None and number == 0:
            across = out_w  # strips are decoded across the whole width anyway
        down = max(1, int(CHUNK_BYTES / 3 / max(across * step_x * step_y, 1.0)))
        if across >= out_w and down >= out_h:
            return resize(self._read_level(number, x, y, width, height), out_w, out_h)
        out = np.empty((out_h, out_w, 3), np.uint8)
        for row in range(0, out_h, down):
            rows = min(down, out_h - row)
            top, low = (
                round(row * step_y),
                max(round((row + rows) * step_y), round(row * step_y) + 1),
            )
            for column in range(0, out_w, across):
                columns = min(across, out_w - column)
                left = round(column * step_x)
                right = max(round((column + columns) * step_x), left + 1)
                part = self._read_level(number, x + left, y + top, right - left, low - top)
                out[row : row + rows, column : column + columns] = resize(part, columns, rows)
        return out


def _scaled(start: int, length: int, factor: float, limit: int) -> tuple[int, int]:
    """Return first and last pixel (exclusive) of a span in another level."""
    first = min(round(start * factor), limit - 1)
    last = min(max(round((start + length) * factor), first + 1), limit)
    return first, last


def digest_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 of a file; of several, of their names and SHA-256 in order."""
    if len(files) == 1:
        return sha256_of(files[0])
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def slide_pixel_size(stated: Sequence[StatedSize]) -> tuple[PixelSize | None, list[Issue]]:
    """Return the pixel size of level 0 that a slide states, and issues if none is plausible."""
    size, found = chosen(list(stated))
    issues = list(found)
    if size is None:
        message = "the slide states no believable micrometres per pixel; red cells give the scale"
        issues.append(issue(issue_codes.PIXEL_SIZE_MISSING, message))
    return size, issues


def missing_levels(sizes: Sequence[tuple[int, int]]) -> list[Issue]:
    """Return an issue if a large slide has full resolution only, by the sizes of its levels."""
    if len(sizes) > 1 or sizes[0][0] * sizes[0][1] <= UNREDUCED_PIXELS:
        return []
    message = "the slide has no reduced levels: overviews are made from full resolution"
    return [issue(issue_codes.LEVELS_MISSING, message)]


def colour_profile() -> Issue:
    """Return the issue of a slide with a colour profile."""
    message = "the slide has a colour profile (ICC), which is not applied: colours are measured"
    return issue(issue_codes.COLOUR_PROFILE, message)


def usable_levels(
    sizes: Sequence[tuple[int, int]],
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return which pages (width, height) are levels of the first, largest first, and the others.

    A level is smaller than the one before, and both its sides are reduced alike.

    >>> usable_levels([(8000, 4000), (2000, 1000), (640, 480), (500, 250)])
    ([0, 1, 3], [(640, 480)])
    """
    width, height = sizes[0]
    kept, rest = [0], []
    for number in sorted(range(1, len(sizes)), key=lambda n: -sizes[n][0]):
        w, h = sizes[number]
        if w < 1 or h < 1:
            continue
        before = sizes[kept[-1]]
        # A level's sides are rounded to whole pixels, so a small one may differ by one.
        slack = LEVEL_ASPECT + 1.0 / min(w, h)
        alike = abs(math.log((width / w) / (height / h))) <= slack
        if alike and w < before[0] and h < before[1]:
            kept.append(number)
        else:
            rest.append((w, h))
    return kept, rest


class BlockSource(SlideSource):
    """A slide that a library reads by rectangle: blocks of it are cached, and fail one by one."""

    def __init__(
        self,
        path: str,
        levels: Sequence[tuple[int, int]],
        pixel_size: PixelSize | None,
        issues: Sequence[Issue] = (),
        downsamples: Sequence[float] | None = None,
    ) -> None:
        super().__init__(path, levels, pixel_size, issues, downsamples)
        self._cache = SegmentCache()

    def _read_level(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        out = np.empty((height, width, 3), np.uint8)
        rows = range(y // BLOCK, (y + height - 1) // BLOCK + 1)
        columns = range(x // BLOCK, (x + width - 1) // BLOCK + 1)
        for row, column in itertools.product(rows, columns):
            paste(out, (x, y), self._block(number, column, row), (column * BLOCK, row * BLOCK))
        return out

    @abstractmethod
    def _read_block(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        """Return a block of a level, uint8 RGB; `BrokenImageError` if it cannot be decoded."""

    def _block(self, number: int, column: int, row: int) -> Image:
        key = number, column, row
        found = self._cache.get(key)
        if found is not None:
            return found
        level = self.levels[number]
        x, y = column * BLOCK, row * BLOCK
        width, height = min(BLOCK, level.width - x), min(BLOCK, level.height - y)
        try:
            found = self._read_block(number, x, y, width, height)
        except BrokenImageError as error:
            if number == 0:
                name = f"block at {x}, {y}"
                self._note_damage(Damage(name, (x, y, width, height), str(error)))
                found = np.full((height, width, 3), 255, np.uint8)
            else:
                found = self._made_anew(number, x, y, width, height)
        self._cache.put(key, found)
        return found


def paste(out: Image, corner: tuple[int, int], part: Image, at: tuple[int, int]) -> None:
    """Copy into `out`, whose corner is at (x, y), what a part with its corner `at` shows of it."""
    (x, y), (left, top) = corner, at
    x0, y0 = max(left, x), max(top, y)
    x1 = min(left + part.shape[1], x + out.shape[1])
    y1 = min(top + part.shape[0], y + out.shape[0])
    out[y0 - y : y1 - y, x0 - x : x1 - x] = part[y0 - top : y1 - top, x0 - left : x1 - left]


class SegmentCache:
    """The decoded tiles and strips that were used last, up to a number of bytes; thread-safe."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._items: OrderedDict[Hashable, Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Image | None:
        """Return what is kept under a key."""
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
            return found

    def put(self, key: Hashable, pixels: Image) -> None:
        """Keep pixels; what was not used for longest goes."""
        with self._lock:
            if key in self._items or pixels.nbytes > self._limit:
                return
            self._items[key] = pixels
            self._held += pixels.nbytes
            while self._held > self._limit:
                _, gone = self._items.popitem(last=False)
                self._held -= gone.nbytes

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._items.clear()
            self._held = 0


class ByteReader:
    """Reads ranges of a file from several threads."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed by `close`
        self._lock = threading.Lock()
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Return bytes from an offset on; fewer where the file ends."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
