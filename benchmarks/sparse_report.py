"""The runs of `sparse.py` joined: as JSON, as lines, as curve and tables of the documents."""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from sparse_curve import curve
from sparse_tables import ATTRIBUTES, LLD, METRICS, fill, tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "sparse.json"
CURVE = ROOT / "docs" / "annotation-cost.svg"
DOCUMENT = ROOT / "docs" / "sparse.md"
KINDS = ("nucleated_cell", "red_cell", "platelet")
DETAIL = tuple(f"{kind}_{metric}" for kind in KINDS for metric in METRICS)
Group = dict[str, Any]
Scores = dict[str, float]


def report(work: Path, commit: str, command: list[str], start: Scores | None) -> None:
    """Write JSON, curve and the tables of the document, and print the lines."""
    every = [json.loads(p.read_text()) for p in sorted(work.glob("*/result.json"))]
    runs = [run for run in every if "test" in run["scores"]]
    groups = [*grouped(runs), *left_out(runs)]
    content = {
        "commit": commit,
        "commits_of_runs": sorted({run["commit"] for run in runs}),
        "command": " ".join(["python", "benchmarks/sparse.py", *_public(command)]),
        "start_alone": None if start is None else {k: round(v, 4) for k, v in start.items()},
        "step_cost": _read(work / "cost.json"),
        "groups": groups,
        "ours_against": (duels := paired(runs)),
        "runs": [_slim(run) for run in runs],
        "tried_on_validation": [_slim(run) for run in every if "val" in run["scores"]],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    CURVE.write_text(curve(groups, start), encoding="utf-8")
    fill(DOCUMENT, tables(groups, duels, start))
    for group in groups:
        print(line(group))
    for duel in duels:
        print(versus(duel))


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _public(command: list[str]) -> list[str]:
    """Return the command's arguments without this machine's folders."""
    return ["FOLDER" if "/" in word else word for word in command[1:]]


def _slim(run: dict[str, Any]) -> dict[str, Any]:
    keys = ("job", "sparse", "optim", "cells", "seconds", "cpu_seconds", "device", "commit")
    kept = (*METRICS, *DETAIL)
    scores = {
        part: {k: round(v, 4) for k, v in s.items() if k in kept or k.endswith("_f1")}
        for part, s in run["scores"].items()
    }
    return {k: run[k] for k in keys} | {"scores": scores}


def grouped(runs: list[dict[str, Any]]) -> list[Group]:
    """Join the seeds of each setting on TXL; and the share of full supervision's figure."""
    found = _by_setting(runs)
    groups = []
    for key, seeds in sorted(found.items()):
        method, share, planner, start, steps = key
        full = found.get(("full", 1.0, "all", start, steps), {})
        group: Group = {"data": "txl", "method": method, "share": share, "planner": planner}
        group |= {"start": "films" if start else "imagenet", "steps": steps}
        group |= {"seeds": sorted(seeds), "cells": _mean_cells(seeds.values())}
        groups.append(group | summary(_scores(seeds), _scores(full)))
    return groups


def _by_setting(runs: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[int, dict[str, Any]]]:
    """Return TXL's runs by method, share, planner, start and steps, then by seed."""
    found: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        job = run["job"]
        if job["data"] == "txl":
            key = (job["method"], job["share"], job["planner"], job["start"], job["steps"])
            found[key][job["seed"]] = run
    return found


def _scores(seeds: dict[int, dict[str, Any]]) -> dict[int, Scores]:
    return {seed: run["scores"]["test"] for seed, run in seeds.items()}


def _mean_cells(runs: Any) -> list[int]:
    return [
        round(statistics.fmean(counts)) for counts in zip(*(r["cells"] for r in runs), strict=True)
    ]


def summary(seeds: dict[int, Scores], full: dict[int, Scores]) -> Group:
    """Return mean and sd of every metric, and of the share of full supervision's mean kept."""
    group: Group = {}
    for metric in (*METRICS, *DETAIL):
        values = [s[metric] for s in seeds.values() if metric in s]
        if values:
            group[metric] = _spread(values)
    for metric in METRICS:
        base = [s[metric] for s in full.values()]
        if base:
            mean = statistics.fmean(base)
            group[f"{metric}_kept"] = _spread([s[metric] / mean for s in seeds.values()])
    return group


def paired(runs: list[dict[str, Any]]) -> list[Group]:
    """Compare the own recipe with every other method on TXL, seed by seed.

    A seed decides the places that are marked, so both learnt from the very same labels; the spread
    of the difference is free of what the places alone do.
    """
    found = _by_setting(runs)
    duels = []
    for key in sorted(found, key=lambda k: (k[1:], k[0])):
        rival, share, planner, start, steps = key
        own, others = _scores(found.get(("ours", *key[1:]), {})), _scores(found[key])
        seeds = sorted(set(own) & set(others))
        if rival == "ours" or not seeds:
            continue
        duel: Group = {"rival": rival, "share": share, "planner": planner, "steps": steps}
        duel |= {"start": "films" if start else "imagenet", "seeds": seeds}
        for metric in METRICS:
            ahead = [own[s][metric] - others[s][metric] for s in seeds]
            duel[metric] = _spread(ahead) | {"ahead_in": sum(a > 0 for a in ahead)}
        duels.append(duel)
    return duels


def left_out(runs: list[dict[str, Any]]) -> list[Group]:
    """Join LLD's patients left out, per method: each patient's mean, and the means over patients.

    The spread is that of the mean over patients from seed to seed; a seed counts if it has every
    patient. White cells are scored on the patient's fields whose every white cell is boxed,
    attributes on the patient's own labels.
    """
    found: dict[tuple[str, float, str], dict[int, dict[str, Scores]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for run in runs:
        job = run["job"]
        if job["data"].startswith("lld-"):
            key = (job["method"], job["share"], job["planner"])
            patient = job["data"].removeprefix("lld-")
            found[key][job["seed"]][patient] = run["scores"]["test"]
    groups = []
    for (method, share, planner), seeds in sorted(found.items()):
        patients = sorted({p for scores in seeds.values() for p in scores}, key=int)
        whole = {seed: scores for seed, scores in seeds.items() if len(scores) == len(patients)}
        group: Group = {"data": "lld", "method": method, "share": share, "planner": planner}
        group |= {"seeds": sorted(whole), "patients": patients}
        for metric in LLD:
            means = [statistics.fmean(s[metric] for s in by.values()) for by in whole.values()]
            if means:
                group[metric] = _spread(means)
            group[f"{metric}_by_patient"] = {
                p: _spread([by[p][metric] for by in seeds.values() if p in by]) for p in patients
            }
        groups.append(group)
    return groups


def _spread(values: list[float]) -> dict[str, float | None]:
    """Return mean and sd; one run has no spread that anybody knows."""
    sd = round(statistics.stdev(values), 4) if len(values) > 1 else None
    return {"mean": round(statistics.fmean(values), 4), "sd": sd}


def versus(duel: Group) -> str:
    """Return a comparison of the own recipe with another as a line of a table."""
    start = "" if duel["start"] == "films" else " (imagenet)"
    count = len(duel["seeds"])
    shown = []
    for metric in METRICS:
        of = duel[metric]
        sd = "" if of["sd"] is None else f"±{of['sd']:.3f}"
        shown.append(f"{metric} {of['mean']:+.3f}{sd} ahead in {of['ahead_in']} of {count}")
    name = f"bloodfilm - {duel['rival']}{start}"
    return f"txl  {name:32} {duel['share']:5.0%} {duel['planner']:11} n={count}  {'  '.join(shown)}"


def line(group: Group) -> str:
    """Return a group as a line of a table."""
    start = "" if group.get("start", "films") == "films" else " (imagenet)"
    name = f"{group['method']}{start}"
    place = f"{group['data']:4} {name:32} {group['share']:5.0%} {group['planner']:11}"
    count = len(group["seeds"])
    shown = []
    for metric in (*METRICS, "ap50_kept", "ap_kept", *DETAIL[::2], "nucleated_cell_ap", ATTRIBUTES):
        if metric in group:
            mean, sd = group[metric]["mean"], group[metric]["sd"]
            short = metric.replace("nucleated_cell", "wbc").replace("red_cell", "rbc")
            shown.append(f"{short} {mean:.3f}" + ("" if sd is None else f"±{sd:.3f}"))
    return f"{place} n={count}  " + "  ".join(shown)
