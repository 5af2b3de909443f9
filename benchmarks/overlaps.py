"""How surely fields that show the same glass are found, and how often others are taken for such.

    python benchmarks/overlaps.py [--windows 16] [--json FILE]

For every acquisition profile two photographs are rendered; fields are cut out of them anywhere,
half of them turned by 180 degrees, each with noise, brightness and JPEG of its own. Where each lies
is known, so for all pairs of fields of a profile it is known what they share. Printed: the share of
pairs found, by how much of the glass is common; how far the found shift is off; how many pairs
without common glass were taken for overlapping; and how many cells seen whole in two fields that
overlap got one identity, and how many different cells did.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bloodfilm.core import Cell, Dataset, Domain, Field
from bloodfilm.duplicates.identity import CellIdentities, identify
from bloodfilm.formats.parquet.columns import table_of
from bloodfilm.synthetic import render_field

PROFILES = ("lld40x-like", "lld40x-magenta", "lld40x-pale", "lld100x-like")
SIDE, WIDE = 640, 1500
BINS = ((0.03, 0.06), (0.06, 0.1), (0.1, 0.2), (0.2, 0.5), (0.5, 1.0))
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Window:
    photograph: int
    x: int
    y: int
    turned: bool

    def share(self, other: "Window") -> float:
        if self.photograph != other.photograph:
            return 0.0
        across, down = SIDE - abs(self.x - other.x), SIDE - abs(self.y - other.y)
        return max(across, 0) * max(down, 0) / SIDE**2

    def shift(self, other: "Window") -> tuple[int, int]:
        """Where the other's pixels lie in this one's, both as they are seen."""
        sign = -1 if self.turned else 1
        return sign * (other.x - self.x), sign * (other.y - self.y)


def cut(window: Window, image: Array, rng: np.random.Generator) -> Array:
    part = image[window.y : window.y + SIDE, window.x : window.x + SIDE].astype(np.float64)
    part = part[::-1, ::-1] if window.turned else part
    part = part * rng.uniform(0.93, 1.04) + rng.normal(0, 2.5, part.shape)
    coded = cv2.imencode(".jpg", np.clip(part, 0, 255).astype(np.uint8), [1, 88])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def cells_in(window: Window, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    found = []
    for cell in cells:
        if cell.ignore or cell.box is None:
            continue
        x, y, w, h = cell.box[0] - window.x, cell.box[1] - window.y, *cell.box[2:]
        if min(x, y) < 0 or max(x + w, y + h) > SIDE:
            continue
        if window.turned:
            x, y = SIDE - x - w, SIDE - y - h
        found.append(Cell((x, y, w, h), cell.label, id=f"{window.photograph} {cell.id}"))
    return tuple(found)


def draw(profile: str, count: int, folder: Path) -> tuple[list[Window], Dataset]:
    rng = np.random.default_rng([PROFILES.index(profile), 31])
    photographs = [render_field(profile, seed=s, size=(WIDE, WIDE)) for s in (71, 72)]
    windows, fields = [], []
    for number in range(count):
        x, y = (int(v) for v in rng.integers(0, WIDE - SIDE, 2))
        window = Window(number % 2, x, y, bool(rng.random() < 0.5))
        image, truth = photographs[window.photograph]
        path = folder / f"{profile}-{number}.png"
        cv2.imwrite(str(path), cut(window, image, rng)[..., ::-1])
        listed = cells_in(window, truth.cells)
        fields.append(Field(path, SIDE, SIDE, listed, domain=Domain(camera=profile)))
        windows.append(window)
    return windows, Dataset(profile, tuple(fields))


def judge(windows: list[Window], found: CellIdentities) -> dict[str, Any]:
    pairs = {(o.first, o.second): o for o in found.overlaps}
    bins = [{"from": low, "to": high, "pairs": 0, "found": 0} for low, high in BINS]
    off, apart, false = [], 0, 0
    for one, two in combinations(range(len(windows)), 2):
        share, got = windows[one].share(windows[two]), pairs.get((one, two))
        if share == 0:
            apart, false = apart + 1, false + (got is not None)
        for row in bins:
            if row["from"] <= share < row["to"] or share == row["to"] == 1:
                right = got is not None and got.turned == (
                    windows[one].turned != windows[two].turned
                )
                row["pairs"] += 1
                row["found"] += right
                if got is not None and right:
                    gap = np.subtract(got.shift, windows[one].shift(windows[two]))
                    off.append(float(np.hypot(*gap)))
    return {"by_share": bins, "shift_off_px": off, "apart": apart, "false": false}


def identities(found: CellIdentities) -> dict[str, int]:
    """Pairs of boxes of one cell, those with one identity, and different cells with one."""
    names: dict[str, list[int]] = {}
    for cell, name in enumerate(found.table.ids.tolist()):
        names.setdefault(name, []).append(cell)
    same = [p for cells in names.values() for p in combinations(cells, 2)]
    joined = sum(found.cells[a] == found.cells[b] for a, b in same)
    wrong = sum(
        found.table.ids[a] != found.table.ids[b]
        for group in found.groups()
        for a, b in combinations(group, 2)
    )
    return {"pairs_of_one_cell": len(same), "joined": int(joined), "wrongly_joined": int(wrong)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=16, help="fields of each profile")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for profile in PROFILES:
        with tempfile.TemporaryDirectory() as folder:
            windows, dataset = draw(profile, given.windows, Path(folder))
            found = identify(table_of(dataset), reacquired=False)
            rows.append({"profile": profile} | judge(windows, found) | identities(found))
            print(profile, {k: v for k, v in rows[-1].items() if k != "shift_off_px"}, flush=True)
    report = {"command": f"python benchmarks/overlaps.py --windows {given.windows}"}
    report |= {"profiles": rows, "summary": summary(rows)}
    print(json.dumps(report["summary"], indent=1))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for place, (low, high) in enumerate(BINS):
        pairs, found = (sum(r["by_share"][place][k] for r in rows) for k in ("pairs", "found"))
        total[f"found, {low:.0%} to {high:.0%} in common"] = f"{found} of {pairs}"
    off = [v for r in rows for v in r["shift_off_px"]]
    total["largest error of the shift, px"] = round(max(off, default=float("nan")), 2)
    false, apart = (sum(r[k] for r in rows) for k in ("false", "apart"))
    total["pairs without common glass taken for overlapping"] = f"{false} of {apart}"
    joined, same = (sum(r[k] for r in rows) for k in ("joined", "pairs_of_one_cell"))
    total["pairs of boxes of one cell given one identity"] = f"{joined} of {same}"
    total["pairs of boxes of different cells given one"] = sum(r["wrongly_joined"] for r in rows)
    return total


if __name__ == "__main__":
    main()
