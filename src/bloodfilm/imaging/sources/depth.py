"""Bring pixels of any depth to 8 bits, the same way for files and arrays."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue


def to_8_bits(
    raw: NDArray[np.generic], issues: list[Issue], significant_bits: int | None = None
) -> NDArray[np.uint8]:
    """Scale pixels to 8 bits by their real depth.

    Floating-point pixels of which none exceeds 1 are read as 0..1. Others are scaled by
    `significant_bits`, else by the smallest of 8, 10, 12, 14, 16 bits that holds the brightest.

    Args:
        raw: integers or floating point, any shape.
        issues: gets an issue for whatever had to be decided.
        significant_bits: the depth that the file states.
    """
    if raw.dtype == np.uint8:
        return _bytes(raw)
    if raw.dtype == np.int8:
        return _bytes(raw.astype(np.int16) + 128)
    finite, top = _extent(raw)
    if not finite:
        message = "pixels that are not numbers were set to 0"
        issues.append(issue(issue_codes.NON_FINITE_PIXELS, message))
    if raw.dtype.kind == "f" and top <= 1.0:
        issues.append(issue(issue_codes.FLOAT_PIXELS, "floating-point pixels read as 0..1"))
        return _by_rows(raw, lambda v: np.rint(v * np.float32(255.0)))
    from_file = significant_bits if significant_bits and top < 2**significant_bits else None
    bits = from_file or next((b for b in (8, 10, 12, 14, 16) if top < 2**b), 32)
    if bits == 16 and raw.dtype == np.uint16:
        return _bytes(raw.astype(np.uint16, copy=False) >> np.uint16(8))
    how = "as the file states" if from_file else f"judged from the brightest pixel, {top:g}"
    message = f"pixels scaled as {bits}-bit data ({how})"
    issues.append(issue(issue_codes.BIT_DEPTH, message, bits=bits))
    return _by_rows(raw, lambda v: v * np.float32(2.0 ** (8 - bits)))


def _chunks(raw: NDArray[np.generic]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Float32 copies of some rows at a time: a whole copy of a large field would fill memory."""
    rows = max(1, (1 << 20) // max(1, raw[0].size))
    for start in range(0, len(raw), rows):
        where = slice(start, start + rows)
        yield where, np.asarray(raw[where], dtype=np.float32)


def _extent(raw: NDArray[np.generic]) -> tuple[bool, float]:
    """Whether all samples are finite, and the greatest of those that are."""
    finite, top = True, 0.0
    for _, values in _chunks(raw):
        good = np.isfinite(values)
        finite &= bool(good.all())
        top = max(top, float(values.max(where=good, initial=0.0)))
    return finite, top


def _by_rows(
    raw: NDArray[np.generic], scaled: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.uint8]:
    out = np.empty(raw.shape, np.uint8)
    for where, values in _chunks(raw):
        known = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        out[where] = np.clip(scaled(known), 0, 255)
    return out


def _bytes(pixels: object) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels, dtype=np.uint8)
