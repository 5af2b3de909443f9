"""How surely the fields of a case that show the same glass are joined, and what that costs.

    python benchmarks/case_overlaps.py [--windows 48] [--json FILE]

For every acquisition profile two photographs are rendered, and fields are cut out of them anywhere,
turned by any angle, each with noise, exposure and JPEG of its own. Where each lies is known, and so
is what every two of them share. The results of the fields are those of a faultless network.
Printed, over all profiles: pairs that became candidates and pairs that were verified, by the width
of the strip that they share; pairs without common glass that were; and processor milliseconds per
field of finding candidates and of verifying them.
"""

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bloodfilm.cases.candidates import find_candidates
from bloodfilm.cases.edges import edge_candidates, field_edges
from bloodfilm.cases.landmarks import (
    ALL_KEYPOINTS,
    MAX_KEYPOINTS,
    common_scale,
    field_detail,
    find_landmarks,
)
from bloodfilm.cases.layout import overlap_um2
from bloodfilm.cases.pairs import EDGE_DEVIATIONS, KEYPOINT_DEVIATIONS, verify_pair
from bloodfilm.core.arrays import Floats, Image
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import FieldResult, ImageRef
from bloodfilm.synthetic import render_field
from bloodfilm.synthetic.profiles import get_profile

PROFILES = ("lld40x-like", "lld40x-magenta", "lld40x-pale", "pbc-like")
SIDE, WIDE, PHOTOGRAPHS = 640, 1500, 2
STRIPS_UM = (2.0, 6.0, 8.0, 11.0, 15.0, 25.0, 50.0, 200.0)
"""Pairs are counted by the width of a strip along a whole side that has the area they share."""
FALSE_UM = 5.0
"""A map that is off by more is not that of the pair."""


@dataclass(frozen=True)
class Window:
    """A field: of which photograph, and the map (2x3) from its pixels to those of that."""

    photograph: int
    matrix: Floats


def windows_of(count: int, rng: np.random.Generator) -> list[Window]:
    """Place fields anywhere; half of them upright, as a stage moves them, half turned."""
    placed = []
    reach = SIDE / np.sqrt(2) + 2
    for number in range(count):
        turn = 0.0 if number % 4 < 2 else float(rng.uniform(0, 2 * np.pi))
        margin = reach if turn else SIDE / 2
        x, y = rng.uniform(margin, WIDE - margin, 2)
        cos, sin = np.cos(turn), np.sin(turn)
        linear = np.array([[cos, -sin], [sin, cos]])
        shift = np.array([x, y]) - linear @ np.full(2, SIDE / 2)
        placed.append(Window(number % PHOTOGRAPHS, np.column_stack([linear, shift])))
    return placed


def cut(window: Window, photograph: Image, rng: np.random.Generator) -> Image:
    """Return the field as another exposure of the same glass."""
    part = cv2.warpAffine(
        photograph, window.matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    ).astype(np.float64)
    part = part * rng.uniform(0.93, 1.04) + rng.normal(0, 2.5, part.shape)
    coded = cv2.imencode(".jpg", np.clip(part, 0, 255).astype(np.uint8), [1, 88])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)


def result_of(image: Image, name: str, um: float) -> FieldResult:
    """Return what an analysis says of the field's scale and light; its cells play no part here."""
    white = tuple(float(v) for v in np.percentile(image.reshape(-1, 3), 90, axis=0))
    view = ViewRecord(um, um, "user", "user", 0.9, white, 50, SIDE, SIDE)  # type: ignore[arg-type]
    return FieldResult(ImageRef(name, SIDE, SIDE, ""), view, ())


def between(one: Window, two: Window, um: float) -> Floats:
    """Return the map (2x3) from one field's plane to the other's, um."""
    whole = [np.vstack([w.matrix, [0, 0, 1]]) for w in (one, two)]
    matrix = np.asarray(np.linalg.inv(whole[1]) @ whole[0])[:2]
    return np.column_stack([matrix[:, :2], matrix[:, 2] * um])


def one_profile(profile: str, count: int) -> dict[str, Any]:
    """Draw the fields of a profile and judge which of them are joined."""
    rng = np.random.default_rng([PROFILES.index(profile), 17])
    um = get_profile(profile).um_per_px
    wide = range(71, 71 + PHOTOGRAPHS)
    photographs = [render_field(profile, seed=seed, size=(WIDE, WIDE))[0] for seed in wide]
    windows = windows_of(count, rng)
    images = [cut(window, photographs[window.photograph], rng) for window in windows]
    results = [result_of(image, str(k), um) for k, image in enumerate(images)]
    scale = common_scale(results)
    most = min(MAX_KEYPOINTS, ALL_KEYPOINTS // count)
    details = [
        field_detail(image, result, scale) for image, result in zip(images, results, strict=True)
    ]
    marks = [
        find_landmarks(detail, scale, most, str(number)) for number, detail in enumerate(details)
    ]
    begin = time.process_time()
    candidates = find_candidates(marks)
    found_in = time.process_time() - begin
    edges = [field_edges(detail, scale) for detail in details]
    narrow = edge_candidates(edges, range(count))
    begin = time.process_time()
    joined = [
        (c.first, c.second, pair.matrix)
        for some, least in ((candidates, KEYPOINT_DEVIATIONS), (narrow, EDGE_DEVIATIONS))
        for c in some
        if (pair := verify_pair(c, details[c.first], details[c.second], scale, least)) is not None
    ]
    candidates += narrow
    verified_in = time.process_time() - begin
    true = {}
    for one, two in combinations(range(count), 2):
        if windows[one].photograph == windows[two].photograph:
            matrix = between(windows[one], windows[two], um)
            size = (SIDE * um, SIDE * um)
            strip = overlap_um2(matrix, size, size) / (SIDE * um)
            if strip > 0:
                true[one, two] = strip, matrix
    middle = np.array([SIDE * um / 2, SIDE * um / 2, 1.0])

    def right(one: int, two: int, matrix: Floats) -> bool:
        known = true.get((one, two))
        return known is not None and float(np.hypot(*((matrix - known[1]) @ middle))) < FALSE_UM

    proposed = {(c.first, c.second) for c in candidates if right(c.first, c.second, c.matrix)}
    kept = {(one, two) for one, two, matrix in joined if right(one, two, matrix)}
    rows: Counter[str] = Counter()
    for pair, (strip, _) in true.items():
        name = next((f"< {most:g} um" for most in STRIPS_UM if strip < most), "wider")
        rows[f"{name} pairs"] += 1
        rows[f"{name} candidates"] += pair in proposed
        rows[f"{name} joined"] += pair in kept
    rows["false"] += sum(not right(*pair) for pair in joined)
    rows["candidates"] += len(candidates)
    rows["fields"] += count
    return {"rows": rows, "found_s": found_in, "verified_s": verified_in}


def main() -> None:
    """Judge all profiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=48, help="fields of each profile")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    parts = [one_profile(profile, given.windows) for profile in PROFILES]
    total: Counter[str] = sum((part["rows"] for part in parts), Counter())
    record = {
        "command": f"python benchmarks/case_overlaps.py --windows {given.windows}",
        "by_strip": {
            f"< {most:g} um": [
                total[f"< {most:g} um {what}"] for what in ("pairs", "candidates", "joined")
            ]
            for most in STRIPS_UM
        },
        "false": total["false"],
        "candidates": total["candidates"],
        "finding_ms_per_field": 1000 * sum(p["found_s"] for p in parts) / total["fields"],
        "verifying_ms_per_field": 1000 * sum(p["verified_s"] for p in parts) / total["fields"],
    }
    print(json.dumps(record, indent=1))
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
