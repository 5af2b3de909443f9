"""Fit circles to parts of outlines: the scale of close-ups with few whole red cells.

A cell cut by the edge or overlapped by a neighbour still shows much of its rim. Outlines are split
at concave or sharp turns and at the image's edge; the arcs between are parts of one
cell each. An arc that a circle fits well over at least 150 degrees gives the cell's diameter.
With non-square pixels cells are not circular and give no arcs: the result is then empty.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats

MIN_COVERAGE = np.radians(150.0)
MAX_RESIDUAL = 0.04
WINDOW = 0.25
INWARD = -0.15
SHARP = 2.5


def find_arcs(
    outlines: Sequence[cv2.typing.MatLike], shape: tuple[int, int], radius: float
) -> Floats:
    """Circles (n, 4) x, y, diameter, coverage in radians, of good arcs of the outlines.

    `shape` is (height, width) of the image, `radius` a rough radius of a cell; all in px.
    """
    window = max(2, int(WINDOW * radius))
    circles = []
    for outline in outlines:
        if len(outline) < max(2 * radius, 8 * window):
            continue
        points = outline.reshape(-1, 2).astype(np.float64)
        for run in _runs(_breaks(points, shape, window, radius)):
            if len(run) < 1.8 * radius:
                continue
            x, y, r, coverage, residual = fit_circle(points[run])
            if coverage >= MIN_COVERAGE and residual <= MAX_RESIDUAL:
                # The outline runs half a pixel inside the edge on either side.
                circles.append((x, y, 2 * r + 1, coverage))
    return np.array(circles, dtype=np.float64).reshape(-1, 4)


def fit_circle(points: Floats) -> tuple[float, float, float, float, float]:
    """Centre x, y, radius, angle covered (radians) and residual (share of the radius).

    Algebraic least squares (Kasa, IEEE Trans. Instrum. Meas. 1976), sufficient for long arcs.
    """
    middle = points.mean(axis=0)
    x, y = (points - middle).T
    design = np.stack([x, y, np.ones_like(x)], axis=1)
    a, b, c = np.linalg.lstsq(design, x * x + y * y, rcond=None)[0]
    centre_x, centre_y = a / 2, b / 2
    radius = float(np.sqrt(max(c + centre_x**2 + centre_y**2, 1e-9)))
    turned = np.unwrap(np.arctan2(y - centre_y, x - centre_x))
    distance = np.hypot(x - centre_x, y - centre_y)
    coverage = float(abs(turned[-1] - turned[0]))
    at = float(centre_x + middle[0]), float(centre_y + middle[1])
    return *at, radius, coverage, float(np.std(distance)) / radius


def _breaks(
    points: Floats, shape: tuple[int, int], window: int, radius: float
) -> NDArray[np.bool_]:
    """Where a closed outline (n, 2) is not the rim of one cell: edge, inward and sharp turns."""
    reach = 3 * window
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (0.6 * window)) ** 2)
    wrapped = np.concatenate([points[-reach:], points, points[:reach]])
    smooth = np.stack(
        [np.convolve(wrapped[:, i], kernel / kernel.sum(), mode="valid") for i in (0, 1)], axis=1
    )
    before = smooth - np.roll(smooth, window, axis=0)
    after = np.roll(smooth, -window, axis=0) - smooth
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    turn = np.arctan2(cross, (before * after).sum(axis=1))
    turn *= np.sign(turn.sum()) or 1.0
    expected = window / radius
    bad = (turn < INWARD * expected) | (turn > SHARP * expected)
    bad |= (points <= 2).any(axis=1)
    bad |= (points[:, 0] >= shape[1] - 3) | (points[:, 1] >= shape[0] - 3)
    near = np.convolve(np.concatenate([bad[-window:], bad, bad[:window]]), np.ones(window), "same")
    widened: NDArray[np.bool_] = near[window : window + len(bad)] > 0.5
    return widened


def _runs(bad: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Indices of each unbroken stretch of a closed outline, in order."""
    if not bad.any():
        return [np.arange(len(bad))]
    order = np.roll(np.arange(len(bad)), -int(np.argmax(bad)))
    # The order starts on a break, so good stretches begin and end where the flag changes.
    change = np.flatnonzero(np.diff(np.append(bad[order], True).astype(np.int8)))
    return [order[a + 1 : b + 1] for a, b in zip(change[::2], change[1::2], strict=True)]
