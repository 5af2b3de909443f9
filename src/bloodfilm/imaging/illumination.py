"""Estimate uneven illumination as a smooth map that is divided out.

The light of a microscope falls off to the corners, sensors and cheap lenses colour it, and a
reflex adds a bright spot. One smooth gain per channel describes it. With several fields of one
camera the map is estimated over all of them (retrospective shading correction, as in
BaSiC, Peng et al., Nature Communications 2017): the pattern common to the fields is the
illumination. For a single field a polynomial is fitted to its bright parts, by a robust fit that is
hardly biased by cells, which only absorb.

A map that explains too little variance, or rests on too little empty glass, is not applied: a white
cell that fills a close-up is not shading.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.core.errors import DataError
from bloodfilm.core.figures import number, whole
from bloodfilm.imaging.field_of_view import Mask

Gain = NDArray[np.float32]
Method = Literal["none", "field", "folder"]
Region = tuple[float, float, float, float]

GRID = 24
"""Blocks along the longer side."""
BLOCK = 12
"""Pixels per side of a block of the reduced image."""
QUANTILE = 75.0
"""Percentile of a block's pixels taken as its glass."""
BRIGHTEST = 95.0
PLATEAU = 0.12
"""A block counts half where its `BRIGHTEST` pixels are this much brighter than its glass, natural
logarithm: then the percentile may lie in cells."""
DEEPEST = 0.75
"""A block this much darker than the brightest, natural logarithm, is a cell, not light."""
MIN_STRENGTH = 0.06
"""Below this range of light, natural logarithm, nothing is corrected."""
MIN_EXPLAINED = 0.5
"""Share of the variance of glass that a map must explain to be applied."""
MIN_GLASS = 0.4
"""Share of the blocks that must lie on the map."""
ZONES = 4
MIN_ZONES = 0.75
"""Share of `ZONES` x `ZONES` zones in which glass must be seen."""
MIN_FIELDS = 6
"""Minimum number of fields for a common map."""
RIDGE = 0.3
MIN_SPREAD = 0.01
TILE = 2048
"""Pixels per side that are divided at a time, to bound memory."""
STEP = 0.01
"""Step in which the logarithm of the map is kept; the map ends at 127 steps either way."""


@dataclass(frozen=True, eq=False)
class Survey:
    """Light of one field by blocks.

    Attributes:
        light: (rows, columns, 3) natural logarithm of a high percentile of each block.
        weight: (rows, columns) 0..1, confidence that it is glass; 0 outside the field.
        width, height: of the image, px.
    """

    light: Floats = field(repr=False)
    weight: Floats = field(repr=False)
    width: int
    height: int

    @property
    def valid(self) -> Mask:
        """Blocks (rows, columns) inside the field of view."""
        return np.asarray(self.weight > 0)


@dataclass(frozen=True)
class Illumination:
    """A map of relative light, 1 in the middle of its range.

    Attributes:
        method: how it was estimated; `none` is an even field.
        fields: number of fields behind it.
        strength: range of the light over the field, natural logarithm, of the worst channel.
        columns, rows: of the grid.
        steps: logarithm of the map in `STEP`, rows x columns x 3 signed bytes.
    """

    method: Method = "none"
    fields: int = 0
    strength: float = 0.0
    columns: int = 0
    rows: int = 0
    steps: bytes = field(default=b"", repr=False)

    @cached_property
    def grid(self) -> Gain:
        """The map (rows, columns, 3)."""
        values = np.frombuffer(self.steps, dtype=np.int8).astype(np.float32)
        return np.exp(STEP * values.reshape(self.rows, self.columns, 3))

    def divide(self, pixels: Pixels, region: Region, size: tuple[int, int]) -> Pixels:
        """Pixels (h, w, 3) of a region of the image in even light.

        `region` is x, y, w, h in pixels of the image, whose width and height `size` gives.
        """
        if self.method == "none":
            return pixels
        height, width = pixels.shape[:2]
        out = np.empty_like(pixels)
        inverse = 1.0 / self.grid
        across, down = self.columns / size[0], self.rows / size[1]
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                part = pixels[top : top + TILE, left : left + TILE]
                # Where the tile's first pixel and its step lie on the grid.
                step_x, step_y = region[2] / width * across, region[3] / height * down
                start_x = region[0] * across + (left + 0.5) * step_x - 0.5
                start_y = region[1] * down + (top + 0.5) * step_y - 0.5
                gain = cv2.warpAffine(
                    inverse,
                    np.array([[step_x, 0.0, start_x], [0.0, step_y, start_y]]),
                    (part.shape[1], part.shape[0]),
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                out[top : top + TILE, left : left + TILE] = cv2.multiply(
                    part, gain, dtype=cv2.CV_8U
                )
        return out

    def even(self, image: Pixels) -> Pixels:
        """The whole image (H, W, 3) in even light."""
        height, width = image.shape[:2]
        return self.divide(image, (0.0, 0.0, float(width), float(height)), (width, height))

    def to_json(self) -> dict[str, Any]:
        """Return the map as plain data."""
        record: dict[str, Any] = {"method": self.method, "strength": self.strength}
        if self.method != "none":
            record |= {"fields": self.fields, "columns": self.columns, "rows": self.rows}
            record["map"] = base64.b64encode(self.steps).decode("ascii")
        return record

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Illumination":
        """Build from `to_json` data."""
        try:
            if data["method"] == "none":
                return cls(strength=number(data.get("strength", 0.0), "strength"))
            steps = base64.b64decode(data["map"], validate=True)
            columns, rows = (whole(data[key], key, 1, 4096) for key in ("columns", "rows"))
            if data["method"] not in ("field", "folder") or len(steps) != 3 * columns * rows:
                raise ValueError("the map")
            strength, fields = number(data["strength"], "strength"), whole(data["fields"], "fields")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"illumination: {error} is missing or wrong") from None
        return cls(data["method"], fields, strength, columns, rows, steps)


EVEN = Illumination()


def survey(image: Pixels, mask: Mask | None = None) -> Survey:
    """Light of a field (H, W, 3) by blocks; `mask` (H, W) is its field of view."""
    height, width = image.shape[:2]
    share = GRID / max(width, height)
    rows, columns = max(3, round(height * share)), max(3, round(width * share))
    size = columns * BLOCK, rows * BLOCK
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    # Sixteen bits are sorted ten times as fast as `np.percentile` parts eight.
    wide = np.asarray(small, dtype=np.uint16).reshape(rows, BLOCK, columns, BLOCK, 3)
    blocks = wide.transpose(0, 2, 4, 1, 3).reshape(rows, columns, 3, BLOCK * BLOCK)
    blocks.sort(axis=-1)
    light, top = (np.log(np.maximum(_quantile(blocks, q), 1.0)) for q in (QUANTILE, BRIGHTEST))
    weight = 1 / (1 + ((top - light).max(axis=2) / PLATEAU) ** 2)
    if mask is not None:
        inside = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        weight[inside < 0.9] = 0.0
    return Survey(light, weight, width, height)


def _quantile(ordered: NDArray[np.uint16], percent: float) -> Floats:
    """Return a percentile of sorted values along the last axis, as `np.percentile` does."""
    place = percent / 100 * (ordered.shape[-1] - 1)
    below = int(place)
    low = ordered[..., below].astype(np.float64)
    high = ordered[..., min(below + 1, ordered.shape[-1] - 1)].astype(np.float64)
    share = place - below
    # Of two equivalent sums the one that NumPy takes, down to the last bit.
    if share >= 0.5:
        return np.asarray(high - (high - low) * (1 - share))
    return np.asarray(low + (high - low) * share)


def of_field(seen: Survey) -> Illumination:
    """The illumination of one field, from this field alone."""
    fitted = _fit(seen.light, seen.weight)
    return EVEN if fitted is None else _pack(fitted[0], seen.valid, "field", 1)


def of_folder(seen: Sequence[Survey]) -> Illumination:
    """The illumination shared by fields of one camera; even if there is none.

    Fields of another size than most are left out. The map does not depend on the order of the
    fields.
    """
    sizes = sorted({(s.width, s.height) for s in seen})
    groups = [[s for s in seen if (s.width, s.height) == size] for size in sizes]
    fields = max(groups, key=len, default=[])
    if len(fields) < MIN_FIELDS:
        return EVEN
    relative = np.full((len(fields), *fields[0].light.shape), np.nan)
    for one, out in zip(fields, relative, strict=True):
        out[one.valid] = one.light[one.valid] - np.median(one.light[one.valid], axis=0)
    valid = np.isfinite(relative[..., 0]).mean(axis=0) > 0.5
    common = np.zeros(fields[0].light.shape)
    common[valid] = np.nanmedian(relative[:, valid], axis=0)
    fitted = _fit(common, valid.astype(np.float64))
    if fitted is None:
        return EVEN
    surface, spread = fitted
    # A reflex is brighter than the surface, at the same place in every field.
    spot = np.where((common - surface > 3 * spread) & valid[..., None], common - surface, 0.0)
    surface = surface + cv2.GaussianBlur(spot, (0, 0), 0.7, borderType=cv2.BORDER_REPLICATE)
    return _pack(surface, valid, "folder", len(fields))


def better(own: Survey, folder: Illumination) -> Illumination:
    """The folder's illumination where it corrects a field as well as the field's own, else that."""
    if folder.method == "none":
        return of_field(own)
    rows, columns = own.light.shape[:2]
    if (rows, columns) != (folder.rows, folder.columns):
        return of_field(own)
    left = Survey(own.light - np.log(folder.grid), own.weight, own.width, own.height)
    rest, alone = of_field(left), of_field(own)
    return folder if rest.strength <= max(alone.strength / 2, MIN_STRENGTH) else alone


def _fit(light: Floats, sure: Floats) -> tuple[Floats, float] | None:
    """A smooth surface (rows, columns, 3) through the glass, and the spread of glass about it.

    `None` if the field is even or the result is not illumination. The weights of the fit
    fall off fast below the surface (cells absorb) and slowly above it; Huber (1964) calls that
    iteratively reweighted least squares.
    """
    height = light.mean(axis=2)
    valid = sure > 0
    if valid.sum() < 12:
        return None
    deep = (light.max(axis=(0, 1), where=valid[..., None], initial=-np.inf) - light).max(axis=2)
    usable = valid & (deep < DEEPEST)
    if usable.sum() < MIN_GLASS * valid.sum():
        return None
    for degree in (4, 2):
        basis, penalty = _basis(height.shape[0], height.shape[1], degree)
        weights = _weights(basis, penalty, height.ravel(), np.where(usable, sure, 0).ravel())
        glass = (weights > 0.4).reshape(height.shape)
        if glass.sum() < MIN_GLASS * valid.sum() or not _everywhere(glass, valid):
            continue
        surface = np.stack(
            [_solve(basis, penalty, weights, light[..., c].ravel()) for c in range(3)], axis=1
        ).reshape(light.shape)
        rest = (light - surface)[glass]
        before = light[glass] - light[glass].mean(axis=0)
        if (rest**2).sum() <= (1 - MIN_EXPLAINED) * (before**2).sum():
            return surface, float(1.4826 * np.median(np.abs(rest)))
    return None


@lru_cache(maxsize=64)
def _basis(rows: int, columns: int, degree: int) -> tuple[Floats, Floats]:
    """Legendre polynomials of two variables on the grid, and what each costs."""
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) / rows * 2 - 1,
        (np.arange(columns) + 0.5) / columns * 2 - 1,
        indexing="ij",
    )
    pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    ones = np.eye(degree + 1)
    legendre = np.polynomial.legendre.legval
    functions = [(legendre(x, ones[i]) * legendre(y, ones[j])).ravel() for i, j in pairs]
    return np.stack(functions, axis=1), RIDGE * np.array([float(i + j) ** 2 for i, j in pairs])


def _solve(basis: Floats, penalty: Floats, weights: Floats, values: Floats) -> Floats:
    weighted = basis * weights[:, None]
    return np.asarray(
        basis @ np.linalg.solve(weighted.T @ basis + np.diag(penalty), weighted.T @ values)
    )


def _weights(basis: Floats, penalty: Floats, values: Floats, base: Floats) -> Floats:
    """Weights of the blocks in the robust fit: 1 on the surface, near 0 in cells."""
    usable = base > 0
    weights = base * (values >= np.percentile(values[usable], 30))
    for _ in range(30):
        rest = values - _solve(basis, penalty, weights, values)
        glass = rest[usable]
        spread = max(1.4826 * _median(np.abs(glass - _median(glass))), MIN_SPREAD)
        ratio = rest / spread
        below, above = 1 / (1 + ratio**2), 1 / (1 + (ratio / 3) ** 2)
        updated = base * np.where(ratio < 0, below, above)
        done = np.abs(updated - weights).max() < 1e-4
        weights = updated
        if done:
            break
    return weights


def _median(values: Floats) -> float:
    """Return the median of values (n,), as `np.median` does in several times the time."""
    middle = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, middle)[middle])
    low, high = np.partition(values, (middle - 1, middle))[middle - 1 : middle + 1]
    return float((low + high) / 2)


def _everywhere(glass: Mask, valid: Mask) -> bool:
    """Whether glass is seen in most zones of the field: a surface must not be extrapolated."""
    rows = np.arange(glass.shape[0]) * ZONES // glass.shape[0]
    columns = np.arange(glass.shape[1]) * ZONES // glass.shape[1]
    zone = rows[:, None] * ZONES + columns[None, :]
    wanted = np.bincount(zone[valid], minlength=ZONES * ZONES) > 0
    seen = np.bincount(zone[glass], minlength=ZONES * ZONES) > 0
    return bool((seen & wanted).sum() >= MIN_ZONES * wanted.sum())


def _pack(surface: Floats, valid: Mask, method: Method, fields: int) -> Illumination:
    """The map of a surface; even where it hardly varies."""
    inside = surface[valid]
    low, high = np.percentile(inside, [3, 97], axis=0)
    strength = round(float((high - low).max()), 3)
    if strength < MIN_STRENGTH:
        return Illumination(strength=strength)
    steps = np.rint((surface - (low + high) / 2) / STEP)
    packed = np.clip(steps, -127, 127).astype(np.int8)
    rows, columns = surface.shape[:2]
    return Illumination(method, fields, strength, columns, rows, packed.tobytes())
