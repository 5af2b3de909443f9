"""Tables of `sparse.py` as Markdown, put between markers of a document."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Group = dict[str, Any]
Scores = dict[str, float]

OURS = "ours"
"""Key of bloodfilm's own recipe in recorded runs."""
NAMES = {
    "full": "full supervision",
    OURS: "bloodfilm",
    "published": "published recipe",
    "region": "region loss only",
    "patches": "patches only",
    "naive": "naive: unmarked is background",
}
PLANNERS = {"all": "", "uncertainty": "uncertain", "random": "at random", "cells": "by cells"}
PATIENTS = {"1": "ALL", "12": "AML", "24": "APML", "27": "CML", "32": "CLL"}
"""LLD's patients in `lld40x`, and what each had."""
METRICS = ("ap50", "ap")
KINDS = ("nucleated_cell_ap", "red_cell_ap", "platelet_ap")
ATTRIBUTES = "attribute_f1"
LLD = ("nucleated_cell_ap50", "nucleated_cell_ap", ATTRIBUTES)
HEAD = (
    "labels",
    "white / red / platelets",
    "method",
    "seeds",
    "AP50",
    "AP50-95",
    "of full: AP50",
    "AP50-95",
    "AP50-95 of white cells",
    "red cells",
    "platelets",
)
ABSENT = "–"


def fill(document: Path, tables: dict[str, str]) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->` for every table.

    Raises:
        ValueError: if the document lacks a marker.
    """
    text = document.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{document}: no marker {begin.strip()}")
        head, rest = text.split(begin)
        text = head + begin + "\n" + table + "\n" + end + rest.split(end)[1]
    document.write_text(text, encoding="utf-8")


def tables(groups: Sequence[Group], duels: Sequence[Group], start: Scores | None) -> dict[str, str]:
    """Return the tables by the names of their markers."""
    txl = [g for g in groups if g["data"] == "txl"]
    return {
        "methods": methods(txl, start),
        "duels": held_against(duels, parts=False),
        "parts": held_against(duels, parts=True),
        "lld": left_out([g for g in groups if g["data"] == "lld"]),
    }


def methods(groups: Sequence[Group], start: Scores | None) -> str:
    """Return one row for each method, share, planner and start; parts switched off are left out."""
    rows = [[*HEAD]]
    if start is not None:
        alone = [f"{start[k]:.3f}" for k in KINDS]
        figures = [f"{start[k]:.3f}" for k in METRICS]
        rows.append(["none", "", "the start alone", ABSENT, *figures, "", "", *alone])
    known = [g for g in groups if g["method"] in NAMES]
    places, names = list(PLANNERS), list(NAMES)
    known.sort(key=lambda g: names.index(g["method"]))
    known.sort(key=lambda g: (g["start"] != "films", -g["share"], places.index(g["planner"])))
    for group in known:
        full = group["method"] == "full"
        kept = ["", ""]
        if not full and "ap50_kept" in group:
            kept = [f"{group[k]['mean']:.1%}" for k in (f"{m}_kept" for m in METRICS)]
        rows.append(
            [
                "all" if full else _labels(group),
                " / ".join(f"{n:,}" for n in group["cells"]),
                NAMES[group["method"]] + _from(group),
                str(len(group["seeds"])),
                *(_figure(group[k]) for k in METRICS),
                *kept,
                *(_figure(group[k]) for k in KINDS),
            ]
        )
    return _table(rows)


def held_against(duels: Sequence[Group], *, parts: bool) -> str:
    """Return the gain over other recipes, or with `parts` over the same recipe without a part."""
    first = "bloodfilm less bloodfilm with" if parts else "bloodfilm less"
    rows = [[first, "labels", "seeds", "AP50", "ahead in", "AP50-95", "ahead in"]]
    for duel in duels:
        rival = duel["rival"]
        if rival.startswith(f"{OURS}: ") is not parts:
            continue
        name = rival.removeprefix(f"{OURS}: ") if parts else NAMES[rival]
        row = [name + _from(duel), _labels(duel), str(len(duel["seeds"]))]
        for metric in METRICS:
            row += [_figure(duel[metric], signed=True), str(duel[metric]["ahead_in"])]
        rows.append(row)
    return _table(rows)


def left_out(groups: Sequence[Group]) -> str:
    """Return one row for each of LLD's patients left out, and the mean over them."""
    by_method = {g["method"]: g for g in groups}
    shown = [m for m in ("full", OURS) if m in by_method]
    head = ["patient left out"]
    for method in shown:
        name = "full" if method == "full" else f"bloodfilm at {by_method[method]['share']:.0%}"
        head += [f"{name}: AP50", "AP50-95", "attributes"]
    rows = [head]
    for patient, had in PATIENTS.items():
        row = [f"{patient} ({had})"]
        for method in shown:
            of = by_method[method]
            row += [_figure(of[f"{m}_by_patient"].get(patient)) for m in LLD]
        rows.append(row)
    rows.append(["mean", *(_figure(by_method[method].get(m)) for method in shown for m in LLD)])
    return _table(rows)


def _labels(group: Group) -> str:
    return f"{group['share']:.0%} {PLANNERS[group['planner']]}"


def _from(group: Group) -> str:
    return "" if group["start"] == "films" else " (start: ImageNet)"


def _figure(spread: dict[str, float | None] | None, *, signed: bool = False) -> str:
    """Return mean and standard deviation; one run has none."""
    if spread is None:
        return ABSENT
    mean = f"{spread['mean']:+.3f}" if signed else f"{spread['mean']:.3f}"
    return mean if spread["sd"] is None else f"{mean} ± {spread['sd']:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table, the first as its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"
