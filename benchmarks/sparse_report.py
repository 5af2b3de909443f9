"""Tables and the annotation-cost curve from the runs of `sparse.py`."""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "sparse.json"
CURVE = ROOT / "docs" / "annotation-cost.svg"
METRICS = ("ap50", "ap", "nucleated_cell_ap50", "red_cell_ap50", "platelet_ap50")
COLOURS = {
    "ours": "#b3261e",
    "published": "#1f5fa8",
    "region": "#3c8d40",
    "patches": "#8a6d1d",
    "naive": "#777777",
}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 420, 70, 50, 170, 60
Group = dict[str, Any]


def report(work: Path, commit: str, command: list[str]) -> None:
    """Write JSON and SVG and print the tables."""
    runs = [json.loads(p.read_text()) for p in sorted(work.glob("*/result.json"))]
    runs = [run for run in runs if "test" in run["scores"]]
    groups = [*grouped(runs), *left_out(runs)]
    content = {
        "commit": commit,
        "command": " ".join(["python", "benchmarks/sparse.py", *_public(command)]),
        "groups": groups,
        "runs": [_slim(run) for run in runs],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    CURVE.parent.mkdir(exist_ok=True)
    CURVE.write_text(curve([g for g in groups if g["data"] == "txl"]), encoding="utf-8")
    for group in groups:
        print(line(group))


def _public(command: list[str]) -> list[str]:
    """Return the command's arguments without this machine's folders."""
    words = command[1:]
    return ["FOLDER" if "/" in word else word for word in words]


def _slim(run: dict[str, Any]) -> dict[str, Any]:
    keys = ("job", "cells", "seconds", "cpu_seconds", "device", "commit")
    scores = {
        part: {k: round(v, 4) for k, v in s.items() if k in METRICS}
        for part, s in run["scores"].items()
    }
    return {k: run[k] for k in keys} | {"scores": scores}


def grouped(runs: list[dict[str, Any]]) -> list[Group]:
    """Join the seeds of each setting; shares of full supervision are seed by seed."""
    found: dict[tuple[str, str, float, str, int], dict[int, dict[str, float]]] = defaultdict(dict)
    for run in runs:
        job = run["job"]
        key = (job["data"], job["method"], job["share"], job["planner"], job["steps"])
        found[key][job["seed"]] = run["scores"]["test"]
    groups = []
    for key, seeds in sorted(found.items()):
        data, method, share, planner, steps = key
        full = found.get((data, "full", 1.0, "all", steps), {})
        groups.append(
            {"data": data, "method": method, "share": share, "planner": planner, "steps": steps}
            | summary(seeds, full)
        )
    return groups


def summary(seeds: dict[int, dict[str, float]], full: dict[int, dict[str, float]]) -> Group:
    """Return mean and sd of every metric, and of the share of full supervision kept."""
    group: Group = {"seeds": sorted(seeds)}
    for metric in METRICS:
        values = [s[metric] for s in seeds.values() if metric in s]
        if values:
            group[metric] = _spread(values)
    for metric in ("ap50", "ap"):
        base = [s[metric] for s in full.values()]
        if base:
            mean = statistics.fmean(base)
            group[f"{metric}_kept"] = _spread([s[metric] / mean for s in seeds.values()])
    return group


def left_out(runs: list[dict[str, Any]]) -> list[Group]:
    """Average LLD over the patients left out, per method and seed."""
    found: dict[tuple[str, float, str], dict[int, list[dict[str, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        job = run["job"]
        if job["data"].startswith("lld-"):
            key = (job["method"], job["share"], job["planner"])
            found[key][job["seed"]].append(run["scores"]["test"])
    groups = []
    for (method, share, planner), seeds in sorted(found.items()):
        group: Group = {"data": "lld", "method": method, "share": share, "planner": planner}
        group |= {"seeds": sorted(seeds), "patients": min(len(v) for v in seeds.values())}
        for metric in ("nucleated_cell_ap50", "nucleated_cell_ap"):
            means = [statistics.fmean(s[metric] for s in v) for v in seeds.values()]
            group[metric] = _spread(means)
            every = [s[metric] for v in seeds.values() for s in v]
            group[f"{metric}_patients"] = _spread(every)
        groups.append(group)
    return groups


def _spread(values: list[float]) -> dict[str, float | None]:
    """Return mean and sd; one run has no spread that anybody knows."""
    sd = round(statistics.stdev(values), 4) if len(values) > 1 else None
    return {"mean": round(statistics.fmean(values), 4), "sd": sd}


def line(group: Group) -> str:
    """Return a group as a line of a table."""
    name = f"{group['data']:7} {group['method']:30} {group['share']:5.0%} {group['planner']:11}"
    shown = [
        f"{metric} {group[metric]['mean']:.3f} (sd {group[metric]['sd']})"
        for metric in ("ap50", "ap", "ap50_kept", "ap_kept", "nucleated_cell_ap50")
        if metric in group
    ]
    return f"{name} n={len(group['seeds'])}  " + "  ".join(shown)


def curve(groups: list[Group]) -> str:
    """Draw AP50 against the marked share of the area, one line a method."""
    steps = max((g["steps"] for g in groups), default=0)
    groups = [g for g in groups if g["steps"] == steps and g["planner"] in ("random", "all")]
    points = {
        m: sorted((g["share"], g["ap50"]) for g in groups if g["method"] == m) for m in COLOURS
    }
    full = [g["ap50"]["mean"] for g in groups if g["method"] == "full"]
    values = [v["mean"] for found in points.values() for _, v in found] + full
    low = min([0.5, *values]) // 0.1 * 0.1
    shares = [0.05, 0.1, 0.2]
    place = {share: LEFT + i * (WIDTH - LEFT - RIGHT) / 2 for i, share in enumerate(shares)}

    def height(value: float) -> float:
        return TOP + (1 - (value - low) / (1 - low)) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="16">AP50 on TXL-PBC test fields by marked area</text>',
    ]
    ticks = [low + 0.1 * i for i in range(round((1 - low) / 0.1) + 1)]
    for tick in ticks:
        y = height(tick)
        parts.append(_stroke(LEFT, y, WIDTH - RIGHT, y, "#dddddd"))
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    for share, x in place.items():
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{share:.0%}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">share of every field\'s area '
        "that was annotated (at random); bars: sd over seeds</text>"
    )
    end = WIDTH - RIGHT + 12
    labels: list[tuple[float, str, str]] = []
    if full:
        y = height(sum(full) / len(full))
        parts.append(_stroke(LEFT, y, WIDTH - RIGHT, y, "black", "6 4"))
        labels.append((y, "full supervision", "black"))
    for method, every in points.items():
        found = [(s, v) for s, v in every if s in place]
        if not found:
            continue
        parts += _series([(place[s], height(v["mean"])) for s, v in found], COLOURS[method])
        for share, v in found:
            if v["sd"] is None:
                continue
            top, base = height(v["mean"] + v["sd"]), height(v["mean"] - v["sd"])
            parts.append(_stroke(place[share], top, place[share], base, COLOURS[method]))
        labels.append((height(found[-1][1]["mean"]), method, COLOURS[method]))
    floor = 0.0
    for y, text, colour in sorted(labels):
        floor = max(y, floor + 16)
        parts.append(f'<text x="{end}" y="{floor + 4:.1f}" fill="{colour}">{text}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "") -> str:
    extra = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{extra}/>'
    )


def _series(points: list[tuple[float, float]], colour: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]
