"""Leave a class out of what a bundle knows, teach it again from few cells, see what is remembered.

    python benchmarks/new_class.py --data DATA --bundle BUNDLE --cache FOLDER --json FIGURES.json

Each case removes a class from the classifier's answers and from the exemplars, and teaches it from
K cells of one set; three draws each. It is judged on cells of the class from other sets, or, where
only one patient has them, on others of that patient, which says less; and on cells of all other
classes that were not learnt from and are no exemplars. The network itself has seen the class where
it is one of the bundle's own: "known to the network" in the table. The classes of LLD that the
bundle has never seen are truly new.

Ordinary cells, where there are some, are of known classes from the films that the class is from.
`--views 0` saves most of the time, and shows each cell as it is only; `--set` takes some sets only.
What was known is also judged on the exemplars, each held out of the fit as in the command.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.progress import NoProgress
from bloodfilm.evaluation.class_figures import class_figures, label_recalls
from bloodfilm.export.adaptation import bundle_view, is_balanced
from bloodfilm.export.class_graph import Describer
from bloodfilm.export.exemplars import Exemplars, read_exemplars
from bloodfilm.export.recovered import vocabulary_of
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.inference.classifier import leaf_probabilities
from bloodfilm.training.class_rows import (
    AddedRows,
    DescribedCells,
    FittedRows,
    Whitening,
    fit_added_rows,
    log_probabilities,
)
from bloodfilm.training.config import DatasetConfig
from bloodfilm.training.data.cell_crops import load_crops
from bloodfilm.training.data.sources import open_sources
from bloodfilm.workflows.described import VIEWS

SETS: Mapping[str, dict[str, Any]] = {
    "PBC, test": {"path": "pbc", "splits": ("val", "test"), "options": {"clean_splits": True}},
    "LMU, test": {"path": "lmu", "splits": ("val", "test")},
    "BCISC": {"path": "bcisc"},
    "KRD": {"path": "krd"},
    "Chula": {"path": "chula"},
    "LLD": {"path": "lld40x"},
}
MOST = 90
"""Cells of a class that are taken from PBC and LMU."""
SIZES = (10, 30, 100)
SEEDS = 3
MIN_JUDGED = 10
"""Cells of a class without which it is not judged."""
ORDINARY = 60
"""Ordinary cells from the same films at most."""


@dataclass(frozen=True)
class Case:
    """A class to leave out, the set it is taught from, and the sets it is judged on."""

    name: str
    source: str
    judged: tuple[str, ...]

    @property
    def same_film(self) -> bool:
        """Whether it is judged on the set it is taught from."""
        return self.source in self.judged


CASES = (
    Case("basophil", "PBC, test", ("BCISC", "KRD", "Chula")),
    Case("monocyte", "Chula", ("PBC, test", "BCISC", "KRD")),
    Case("eosinophil", "Chula", ("PBC, test", "KRD")),
    Case("lymphocyte", "KRD", ("PBC, test", "BCISC", "Chula")),
    Case("myeloblast", "LMU, test", ("LLD",)),
    Case("erythroblast", "PBC, test", ("PBC, test",)),
    Case("metamyelocyte", "PBC, test", ("PBC, test", "LLD")),
    Case("lymphoblast", "LLD", ("LLD",)),
    Case("monoblast", "LLD", ("LLD",)),
    Case("abnormal promyelocyte", "LLD", ("LLD",)),
)


@dataclass(frozen=True)
class Part:
    """The cells of one set.

    Attributes:
        label: (n,) node of each.
        plain: (n, size) descriptions.
        varied: (m, views, size) of those that may be learnt from; place: (n,) which, or -1.
        allowed: (n, leaves) what the label stands for; logits: (n, leaves).
    """

    label: NDArray[np.str_]
    plain: NDArray[np.float32]
    varied: NDArray[np.float32]
    place: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    logits: NDArray[np.float32]


def describe_sets(
    bundle: Bundle, root: Path, cache: Path, names: Sequence[str], views: int
) -> dict[str, Part]:
    """Describe the cells of sets, once; later runs take them from the cache."""
    words, view, describer = vocabulary_of(bundle), bundle_view(bundle), Describer(bundle)
    found = {}
    for name in names:
        settings = SETS[name]
        file = f"{bundle.manifest.classifier.sha256[:12]}-{name.replace(', ', '-')}-{views}.npz"
        place = cache / file
        if not place.exists():
            most = MOST if settings["path"] in ("pbc", "lmu") else None
            config = DatasetConfig.model_validate({**settings, "most": most})
            fields = [
                f for f in open_sources([config], root) if any(c.label for c in f.field.cells)
            ]
            crops = load_crops(fields, words, NoProgress(), balanced=is_balanced(bundle))
            use = [i for i, row in enumerate(crops.allowed) if _name(bundle, row)]
            plain = describer.describe(np.stack([view.plain(crops.images[i]) for i in use]))
            label = np.array([_name(bundle, crops.allowed[i]) for i in use])
            learnt = _may_be_learnt(name, label)
            varied = [
                view.varied(crops.images[use[i]], np.random.default_rng([i, v]))
                for i in learnt
                for v in range(views)
            ]
            rows = describer.describe(np.stack(varied)).description if varied else None
            size = plain.description.shape[1]
            none = np.zeros((len(learnt), views, size), np.float32)
            cache.mkdir(parents=True, exist_ok=True)
            np.savez(
                place,
                label=label,
                plain=plain.description,
                varied=none if rows is None else rows.reshape(-1, views, size),
                learnt=learnt,
                allowed=crops.allowed[use],
                logits=plain.outputs["classes"],
            )
            print(f"{name}: {len(use)} cells, {len(learnt)} varied", flush=True)
        with np.load(place) as kept:
            at = np.full(len(kept["label"]), -1)
            at[kept["learnt"]] = np.arange(len(kept["learnt"]))
            parts = (kept[k] for k in ("label", "plain", "varied"))
            found[name] = Part(*parts, at, kept["allowed"], kept["logits"])
    return found


def _may_be_learnt(name: str, label: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the cells of a set that a case may teach: of its class, and ordinary ones."""
    classes = sorted({case.name for case in CASES if case.source == name})
    rng = np.random.default_rng(3)
    most = max(SIZES) + 10
    chosen = [rng.permutation(np.flatnonzero(label == c))[:most] for c in classes]
    if classes:
        chosen.append(rng.permutation(np.flatnonzero(~np.isin(label, classes)))[:ORDINARY])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def _name(bundle: Bundle, allowed: NDArray[np.bool_]) -> str:
    """Return the node that a mask of leaves stands for; nothing for a large group."""
    leaves = [leaf for leaf, may in zip(bundle.manifest.leaves, allowed, strict=True) if may]
    if len(leaves) > 2:
        return ""
    return leaves[0] if len(leaves) == 1 else bundle.taxonomy.common(leaves)


@dataclass(frozen=True)
class Setting:
    """A bundle without one class, and all cells under its whitening."""

    bundle: Bundle
    name: str
    exemplars: Exemplars
    known: NDArray[np.float64]
    whitening: Whitening
    whitened: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        name: str,
        exemplars: Exemplars,
        describer: Describer,
        parts: Mapping[str, Part],
    ) -> "Setting":
        """Leave a class out of a bundle's answers and exemplars."""
        kept = exemplars.take(np.array(exemplars.names) != name)
        known = log_of(bundle, name, describer.classify(kept.description))
        whitening = Whitening.of(described(bundle, kept, known))
        whitened = {key: whitening(part.plain.astype(np.float64)) for key, part in parts.items()}
        return cls(bundle, name, kept, known, whitening, whitened)


def log_of(bundle: Bundle, without: str, logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return log probabilities (n, leaves) of a bundle that does not know one class."""
    m = bundle.manifest
    learnt = [leaf in m.trained_leaves and leaf != without for leaf in m.leaves]
    with np.errstate(divide="ignore"):
        p = leaf_probabilities(logits, learnt, m.classifier.temperatures.get("class", 1.0))
        return np.asarray(np.log(p))


def described(bundle: Bundle, kept: Exemplars, known: NDArray[np.float64]) -> DescribedCells:
    """Return exemplars as cells to fit on."""
    n = len(kept)
    return DescribedCells(
        kept.description.astype(np.float64),
        known,
        kept.allowed(bundle.taxonomy, bundle.manifest.leaves),
        kept.label,
        np.arange(n),
        np.arange(n),
        np.ones(n, bool),
        np.ones(n),
        np.zeros(n, np.int64),
    )


def user_cells(
    setting: Setting, part: Part, chosen: NDArray[np.int64], first_label: int, first_cell: int
) -> DescribedCells:
    """Return a user's cells, with their varied views."""
    views = part.varied.shape[1]
    n, names = len(chosen), list(dict.fromkeys(part.label[chosen].tolist()))
    label = np.array([first_label + names.index(name) for name in part.label[chosen]])
    known = log_of(setting.bundle, setting.name, part.logits[chosen])
    whole = np.concatenate([np.arange(n), np.repeat(np.arange(n), views)])
    rows = part.varied[part.place[chosen]].reshape(n * views, part.plain.shape[1])
    return DescribedCells(
        np.concatenate([part.plain[chosen], rows]).astype(np.float64),
        known[whole],
        part.allowed[chosen][whole],
        label[whole],
        first_cell + whole,
        first_cell + whole,
        np.zeros(len(whole), bool),
        np.full(len(whole), 1 / (views + 1)),
        np.concatenate([np.zeros(n, np.int64), np.ones(n * views, np.int64)]),
    )


def runs(
    case: Case, setting: Setting, parts: Mapping[str, Part], seeds: int
) -> Iterator[dict[str, Any]]:
    """Yield the figures of every size, draw and choice of ordinary cells."""
    leaf = setting.bundle.manifest.leaves.index(case.name)
    source = parts[case.source]
    own = np.flatnonzero((source.label == case.name) & (source.place >= 0))
    taught = {other.name for other in CASES if other.source == case.source}
    ordinary = np.flatnonzero(~np.isin(source.label, list(taught)) & (source.place >= 0))
    ordinary = ordinary[np.isfinite(_of_label(setting, source, ordinary))]
    base = described(setting.bundle, setting.exemplars, setting.known)
    for size in SIZES:
        # At least ten of the class must be left where it is judged on the same set.
        if size > len(own) - (10 if case.same_film else 0):
            continue
        for seed in range(seeds):
            order = np.random.default_rng([seed, size]).permutation(len(own))
            for what, more in (("none", ordinary[:0]), ("own", ordinary)):
                learnt = np.concatenate([own[order[:size]], more])
                mine = user_cells(setting, source, learnt, int(base.label.max()) + 1, len(base))
                done = fit_added_rows(base.join(mine), setting.whitening, [(leaf, True)], seed)
                yield {
                    "cells": size,
                    "seed": seed,
                    "ordinary": what,
                    **judge(case, setting, parts, done.rows, learnt),
                    "exemplars": _exemplars(setting, base, done),
                }


def _exemplars(setting: Setting, base: DescribedCells, done: FittedRows) -> list[float]:
    """Return balanced accuracy on the exemplars, before and after, each held out of the fit."""
    labels = np.array(setting.exemplars.names)
    count = len(base)
    after = np.exp(done.held_out[:count])
    recalls = label_recalls(labels, base.allowed, np.exp(base.known), after)
    return [round(float(np.mean([pair[i] for pair in recalls.values()])), 4) for i in (0, 1)]


def _of_label(setting: Setting, part: Part, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the log probability of each cell's label, which is finite where that is known."""
    known = log_of(setting.bundle, setting.name, part.logits[chosen])
    return np.asarray(np.where(part.allowed[chosen], known, -np.inf).max(1))


def judge(
    case: Case,
    setting: Setting,
    parts: Mapping[str, Part],
    rows: AddedRows,
    learnt: NDArray[np.int64],
) -> dict[str, Any]:
    """Return figures on cells that were not learnt from."""
    labels, sets, before, after, allowed = [], [], [], [], []
    for name, part in parts.items():
        use = np.ones(len(part.label), bool)
        use[part.label == case.name] = name in case.judged
        if name == case.source:
            use[learnt] = False
        chosen = np.flatnonzero(use)
        known = log_of(setting.bundle, setting.name, part.logits[chosen])
        nameable = np.isfinite(np.where(part.allowed[chosen], known, -np.inf).max(1))
        nameable |= part.label[chosen] == case.name
        chosen, known = chosen[nameable], known[nameable]
        scores = rows.scores(setting.whitened[name][chosen])
        labels.append(part.label[chosen])
        sets.append(np.full(len(chosen), name))
        before.append(np.exp(known))
        after.append(np.exp(log_probabilities(known, scores, rows)))
        allowed.append(part.allowed[chosen])
    label, of_set = np.concatenate(labels), np.concatenate(sets)
    p, q, masks = np.concatenate(before), np.concatenate(after), np.concatenate(allowed)
    leaf = setting.bundle.manifest.leaves.index(case.name)
    own = label == case.name
    figures = class_figures(
        leaf, own, label, q, setting.bundle.manifest.classifier.class_confidence
    ).to_json()
    known_sets = {}
    for name in ("all", "without LLD", "LLD"):
        chosen = ~own & {"all": True, "LLD": of_set == "LLD", "without LLD": of_set != "LLD"}[name]
        recalls = label_recalls(label[chosen], masks[chosen], p[chosen], q[chosen])
        known_sets[name] = [
            round(float(np.mean([r[i] for r in recalls.values()])), 4) for i in (0, 1)
        ]
    return {**figures, "judged": int(own.sum()), "known": known_sets}


def possible(parts: Mapping[str, Part]) -> list[Case]:
    """Return the cases of which there are cells to teach and to judge by, in some sets."""
    found = []
    for case in CASES:
        judged = tuple(s for s in case.judged if s in parts)
        cells = sum(int((parts[s].label == case.name).sum()) for s in judged)
        if case.source in parts and cells >= MIN_JUDGED:
            found.append(replace(case, judged=judged))
    return found


def table(record: Mapping[str, Any]) -> str:
    """Return the figures as a Markdown table, means over the draws."""
    lines = [
        "| class | taught from | judged on | network knew it | K | ordinary cells | recall | "
        "named | precision | others called so | known before | after | exemplars before | after |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in record["cases"]:
        for size in SIZES:
            for what in ("none", "own"):
                of = [r for r in case["runs"] if (r["cells"], r["ordinary"]) == (size, what)]
                if of:
                    mean = {
                        k: np.mean([r[k] for r in of])
                        for k in ("recall", "named", "precision", "false")
                    }
                    before, after = np.mean([r["known"]["all"] for r in of], axis=0)
                    first, then = np.mean([r["exemplars"] for r in of], axis=0)
                    lines.append(
                        f"| {case['class']} | {case['source']} | {', '.join(case['judged'])} | "
                        f"{'yes' if case['known_to_network'] else 'no'} | {size} | "
                        f"{'no' if what == 'none' else 'yes'} | {mean['recall']:.2f} | "
                        f"{mean['named']:.2f} | {mean['precision']:.2f} | {mean['false']:.4f} | "
                        f"{before:.4f} | {after:.4f} | {first:.4f} | {then:.4f} |"
                    )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--cache", type=Path, required=True, help="folder for descriptions")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--set", action="append", choices=SETS, help="repeatable [all]")
    parser.add_argument("--views", type=int, default=VIEWS, help="varied views of each cell")
    parser.add_argument("--only", action="append", help="a class; repeatable")
    options = parser.parse_args(arguments)
    bundle = load_bundle(options.bundle)
    names = options.set or list(SETS)
    parts = describe_sets(bundle, options.data, options.cache, names, options.views)
    exemplars, describer = read_exemplars(bundle), Describer(bundle)
    record: dict[str, Any] = {
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "sizes": list(SIZES),
        "seeds": options.seeds,
        "sets": {name: len(part.label) for name, part in parts.items()},
        "views": options.views,
        "cases": [],
    }
    for case in possible(parts):
        if options.only and case.name not in options.only:
            continue
        setting = Setting.of(bundle, case.name, exemplars, describer, parts)
        known = case.name in bundle.manifest.trained_leaves
        found = list(runs(case, setting, parts, options.seeds))
        record["cases"].append(
            {
                "class": case.name,
                "source": case.source,
                "judged": list(case.judged),
                "known_to_network": known,
                "runs": found,
            }
        )
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(table({"cases": record["cases"][-1:]}), flush=True)
    if options.table:
        options.table.write_text(table(record), encoding="utf-8")


if __name__ == "__main__":
    main()
