"""How little of LLD is enough? Regions of four patients' fields are learnt, the fifth is scored.

    python benchmarks/sparse_lld.py run --data DATA --work FOLDER [--only PATTERN] [--bundle DIR]
    python benchmarks/sparse_lld.py report --work FOLDER

Regions of every field are chosen as `bloodfilm annotate plan` chooses them (`cells`: where most
cells are expected; `random`), with 10 %, 5 % and 1 % of the area. Three figures on the patient
left out:

- **class, attributes**: linear corrections of a bundle's classifier (`training.corrections`) on the
  descriptions of the marked cells, beside cells of the permissive sets; the coarse class' accuracy
  and the balanced accuracy of the attributes, cells being centred on their true boxes.
- **AP50**: the bundle's detector, trained on by task `sparse` on the marked regions; white cells of
  the patient's fully boxed fields.

The bundle has seen nothing of LLD; what it says before any label is the floor. A run is kept in
FOLDER under its name and settings; a second call does what is missing.
"""

import argparse
import fnmatch
import hashlib
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from leave_one_patient_out import GROUPS, balanced, groups_of, in_group
from numpy.typing import NDArray
from sparse import LOOK, METHODS
from sparse_data import LLD_PATIENTS, cut, load
from sparse_tables import PATIENTS, fill

from bloodfilm.active_learning.fields import blob_scores
from bloodfilm.active_learning.planning import RegionScores, plan_regions
from bloodfilm.core.files import write_bytes, write_json
from bloodfilm.core.progress import NoProgress
from bloodfilm.export.recovered import (
    config_of,
    recover_classifier,
    recover_detector,
    vocabulary_of,
)
from bloodfilm.imaging.canonical import DETECTOR_UM
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.models.backbone import unfold_batch_norm
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config, load_config, parse_config
from bloodfilm.training.corrections import (
    NOT_LEARNT,
    begin_like_relatives,
    fit_correction,
    value_balance,
)
from bloodfilm.training.data.balanced_sampling import draw_weights
from bloodfilm.training.data.cell_crops import CellCrops, load_crops, trainable_cells
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.precision import limit_threads
from bloodfilm.training.run_data import RunData
from bloodfilm.training.tasks.classifier import crop_view, predict_images
from bloodfilm.training.tasks.common import to_tensor
from bloodfilm.training.tasks.detector import LOWEST_SCORE, detect, score_detections
from bloodfilm.training.tasks.sparse import SparseTask
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY, Vocabulary

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "sparse_lld.json"
DOCUMENT = ROOT / "docs" / "sparse.md"
BUNDLE = ROOT / "src" / "bloodfilm" / "bundles" / "default"
CONFIG = "classifier_leukaemia.toml"
SET = "lld40x"
SHARES = (0.1, 0.05, 0.01)
PLANNERS = ("cells", "random")
SEEDS = (0, 1, 2)
VIEWS = 3
"""Descriptions of a cell of LLD: as it is, and varied."""
COMPONENTS = 224
"""Principal components that descriptions are reduced to."""
PERMISSIVE = 0.7
"""Share of the permissive sets in the weight of the class."""
CELL = "nucleated_cell_ap50"
CPU = torch.device("cpu")
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """One run; `share` 1 is full supervision, 0 the bundle as it is."""

    part: str
    patient: str
    share: float
    planner: str = "all"
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.part}/{self.patient}/{self.share:g}/{self.planner}/{self.seed}"


def jobs() -> Iterator[Job]:
    """All runs, the most telling first."""
    for part, patient in product(("heads", "detector"), LLD_PATIENTS):
        yield Job(part, patient, 0.0, "none")
        yield Job(part, patient, 1.0)
    for seed, part, share, planner, patient in product(
        SEEDS, ("heads", "detector"), SHARES, PLANNERS, LLD_PATIENTS
    ):
        yield Job(part, patient, share, planner, seed)


# ---- class and attributes ----------------------------------------------------------------------


@dataclass(frozen=True)
class Described:
    """Descriptions of cells, with the answers of the bundle, and their labels.

    Attributes:
        components: (views, n, components) of the description.
        classes: (views, n, leaves); attributes: (views, n, values): logits.
        allowed, codes: labels, see `CellCrops`.
        weights: (n,) of each cell in the class.
        fields: (n,) number of the field; patients: (n,) name; both of LLD's cells only.
        centres: (n, 2) x, y in pixels of the field.
    """

    components: NDArray[np.float32]
    classes: NDArray[np.float32]
    attributes: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    codes: Numbers
    weights: NDArray[np.float64]
    fields: Numbers
    patients: NDArray[np.str_]
    centres: NDArray[np.float64]


class Cells:
    """The cells of LLD and of the permissive sets as a bundle's classifier describes them.

    Args:
        data, work: folders; bundle: that describes.
    """

    def __init__(self, data: Path, work: Path, bundle: Path) -> None:
        opened = load_bundle(bundle)
        self.config: Config = load_config(Path(CONFIG))
        own = [s for s in self.config.data.train if s.path.name == SET]
        rest = [s for s in self.config.data.train if s.path.name != SET]
        self.lld = [s for s in open_sources(own, data) if s.field.cells]
        self.words: Vocabulary = vocabulary_of(opened)
        self.known = [leaf in opened.manifest.trained_leaves for leaf in self.words.leaves]
        kept = work / f"described-{opened.manifest.classifier.sha256[:12]}.npz"
        if not kept.exists():
            self._describe(opened, open_sources(rest, data), kept)
        content = dict(np.load(kept))
        parts = {
            side: Described(**{k[1:]: v for k, v in content.items() if k.startswith(side)})
            for side in "pl"
        }
        self.permissive, self.cells = parts["p"], parts["l"]
        self.images = [s.field.path for s in self.lld]
        self.scores = self._scores(work / "blobs.json")

    def _describe(self, bundle: Any, permissive: Any, kept: Path) -> None:
        view = crop_view(self.config)
        config = self.config
        rng = np.random.default_rng(config.seed)

        def crops_of(fields: Any) -> CellCrops:
            return load_crops(fields, self.words, NoProgress(), balanced=False)

        sides = {"p": (crops_of(permissive), 1), "l": (crops_of(self.lld), VIEWS)}
        probes = np.stack([view.plain(i) for i in sides["l"][0].images[:32]])
        model, _ = recover_classifier(bundle, probes)
        outputs: dict[str, list[dict[str, NDArray[np.float32]]]] = {}
        for side, (crops, views) in sides.items():
            outputs[side] = [
                predict_images(
                    model, (view.varied(i, rng) if v else view.plain(i) for i in crops.images), CPU
                )
                for v in range(views)
            ]
        every = np.concatenate([o["description"] for some in outputs.values() for o in some])
        mean, spread = every.mean(0), every.std(0) + 1e-3
        axes = np.linalg.svd(((every - mean) / spread)[::3], full_matrices=False)[2][:COMPONENTS].T
        content: dict[str, Any] = {}
        for side, (crops, _) in sides.items():
            some = outputs[side]
            rows = [(o["description"] - mean) / spread @ axes for o in some]
            content |= {
                f"{side}components": np.stack(rows).astype(np.float32),
                f"{side}classes": np.stack([o["classes"] for o in some]),
                f"{side}attributes": np.stack([o["attributes"] for o in some]),
                f"{side}allowed": crops.allowed,
                f"{side}codes": crops.codes,
                f"{side}weights": draw_weights(crops, config.sampling),
            }
        content |= _places(self.lld, self.words)
        empty = np.zeros(len(sides["p"][0]))
        content |= {"pfields": empty.astype(int), "ppatients": empty.astype(str)}
        content["pcentres"] = np.zeros((len(empty), 2))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept.with_suffix(".part.npz"), **content)
        kept.with_suffix(".part.npz").replace(kept)

    def _scores(self, kept: Path) -> list[RegionScores]:
        """Return where cells are expected on every field, without a model."""
        if kept.exists():
            rows = json.loads(kept.read_text())
        else:
            rows = []
            for score in blob_scores(self.images):
                assert isinstance(score, RegionScores)
                rows.append(
                    [score.width, score.height, score.points.tolist(), score.cells.tolist()]
                )
            write_bytes(kept, json.dumps(rows).encode())
        return [
            RegionScores(
                width,
                height,
                np.array(points, dtype=float).reshape(-1, 2),
                np.array(cells, dtype=float),
                np.zeros(len(cells)),
                np.zeros(len(cells), dtype=np.int64),
            )
            for width, height, points, cells in rows
        ]

    def marked(self, job: Job) -> Numbers:
        """Return the numbers of LLD's cells that lie in regions of the other patients."""
        others = np.flatnonzero(self.cells.patients != job.patient)
        if job.share in (0.0, 1.0):
            return others[: None if job.share else 0]
        numbers = [i for i, s in enumerate(self.lld) if s.field.patient != job.patient]
        shares = [job.share] * len(numbers)
        scores = [self.scores[i] for i in numbers]
        regions = plan_regions(scores, shares, job.planner, job.seed)  # type: ignore[arg-type]
        inside = [
            others[self.cells.fields[others] == i][
                region.contains(self.cells.centres[others[self.cells.fields[others] == i]])
            ]
            for i, region in zip(numbers, regions, strict=True)
        ]
        return np.concatenate(inside)


def _places(fields: Sequence[Any], words: Vocabulary) -> dict[str, Any]:
    """Return field, patient and centre of every cell, in the order that crops are cut in."""
    numbers, patients, centres = [], [], []
    for number, item in enumerate(fields):
        for cell in trainable_cells(item.field.cells, words, item.dataset.taxonomy):
            x, y, w, h = cell.box or (0.0, 0.0, 0.0, 0.0)
            numbers.append(number)
            patients.append(str(item.field.patient))
            centres.append((x + w / 2, y + h / 2))
    return {
        "lfields": np.array(numbers),
        "lpatients": np.array(patients),
        "lcentres": np.array(centres),
    }


def heads(job: Job, cells: Cells) -> dict[str, Any]:
    """Fit class and attributes to the marked cells and score them on the patient left out."""
    section, words = cells.config.correction, cells.words
    lld, permissive = cells.cells, cells.permissive
    test, rows = np.flatnonzero(lld.patients == job.patient), cells.marked(job)
    allowed = lld.allowed[rows]
    seen = permissive.allowed.any(0) & np.array(cells.known) | allowed.any(0)
    new = [
        leaf
        for leaf, named, known in zip(words.leaves, allowed.any(0), cells.known, strict=True)
        if named and not known
    ]
    # Of logits in place of hidden units: a new class begins with the logit of its relatives.
    weight, bias = torch.eye(len(words.leaves)), torch.zeros(len(words.leaves))
    begin_like_relatives(weight, bias, new, words.leaves, cells.known, words.taxonomy)

    def started(logits: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(logits) @ weight.T + bias

    logits = started(lld.classes[0, test]).masked_fill(torch.from_numpy(~seen), NOT_LEARNT)
    attributes = torch.from_numpy(lld.attributes[0, test].copy())
    if len(rows):
        x = np.concatenate([permissive.components[0], *lld.components[:, rows]])
        offset = started(np.concatenate([permissive.classes[0], *lld.classes[:, rows]]))
        labels = np.concatenate([permissive.allowed, *[allowed] * VIEWS])
        share = 1 - PERMISSIVE
        some = np.tile(lld.weights[rows] / lld.weights[rows].sum() / VIEWS * share, VIEWS)
        others = permissive.weights / permissive.weights.sum() * PERMISSIVE
        weights = torch.from_numpy(np.concatenate([others, some])).float()
        named = labels.any(1)
        fitted = fit_correction(
            torch.from_numpy(x[named]),
            offset[named],
            torch.from_numpy(labels[named]),
            weights[named],
            section.classes,
        )
        tested = torch.from_numpy(lld.components[0, test])
        logits = logits + tested @ fitted[0].T + fitted[1]
        groups = np.unique(lld.patients, return_inverse=True)[1]
        for column, where in enumerate(words.schema.slices.values()):
            known = rows[lld.codes[rows, column] >= 0]
            values = lld.codes[known, column]
            if len(np.unique(values)) < 2:
                if len(values):  # one value only: there is nothing to tell apart
                    attributes[:, where.start + int(values[0])] += -NOT_LEARNT
                continue
            balance = value_balance(values, groups[known])
            matrix, shift = fit_correction(
                torch.from_numpy(np.concatenate(list(lld.components[:, known]))),
                torch.from_numpy(np.concatenate(list(lld.attributes[:, known, where]))),
                torch.from_numpy(
                    np.eye(where.stop - where.start, dtype=bool)[np.tile(values, VIEWS)]
                ),
                torch.from_numpy(np.tile(balance, VIEWS)).float(),
                section.attributes,
            )
            attributes[:, where] += tested @ matrix.T + shift
            untaught = np.setdiff1d(np.arange(where.stop - where.start), values)
            attributes[:, where.start + untaught] = NOT_LEARNT
    return {"cells": len(rows)} | scored(logits, attributes, lld, test, words)


def scored(
    logits: torch.Tensor, attributes: torch.Tensor, lld: Described, test: Numbers, words: Vocabulary
) -> dict[str, Any]:
    """Return the coarse class' accuracy and the balanced accuracy of the attributes."""
    p = logits.softmax(1).numpy()
    groups = groups_of(words.leaves, GROUPS.values())
    rest = np.eye(len(words.leaves), dtype=bool)[~groups.any(0)]
    said = (p @ np.concatenate([groups, rest]).T).argmax(1)
    truth = in_group(lld.allowed[test], groups)
    of_attributes = []
    for column, where in enumerate(words.schema.slices.values()):
        codes = lld.codes[test, column]
        known = codes >= 0
        if len(np.unique(codes[known])) > 1:
            answer = attributes[known][:, where].argmax(1).numpy()
            of_attributes.append(balanced(codes[known], answer))
    return {
        "class": float((said == truth)[truth >= 0].mean()),
        "attributes": float(np.mean([v for v in of_attributes if v is not None])),
    }


# ---- detector ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What the detector is trained at: a pixel's size, an image's side, and the run's length."""

    um: float
    size: int
    steps: int
    rate: float


def detector(job: Job, given: argparse.Namespace, view: View) -> dict[str, Any]:
    """Train the bundle's detector on the marked regions and score it on the patient left out."""
    opened = load_bundle(given.bundle)
    parts = load(given.data, given.work, f"lld-{job.patient}", view.um)
    held = parts["test"]
    start, recovered = recover_detector(opened, [item.image for item in held[:2]])
    marked = 0
    model = start
    if job.share:
        fields = cut(parts["train"], job.share, job.planner, job.seed)
        marked = sum(len(f.boxes) for f in fields)
        task = SparseTask(
            sparse_config(job, recovered.config, view),
            fields,
            held[:2],
            RunData(DEFAULT_VOCABULARY),
        )
        images = (to_tensor([task.samples.whole[0, i][0]]) for i in range(8))
        unfold_batch_norm(start, images)
        task.network.load_state_dict(start.state_dict(), strict=False)
        folder = given.work / key_of(job, given, view)
        folder.mkdir(parents=True, exist_ok=True)
        loop.train(task, task.config, folder, CPU)
        model = task.network
        model.load_state_dict(load_checkpoint(folder / loop.BEST)["model"])
        model.eval()
        for name in (loop.LAST, loop.BEST):
            (folder / name).unlink()
    found = [detect(model, f.image, CPU, LOWEST_SCORE) for f in held]
    return {"cells": marked, "ap50": score_detections(held, found, DEFAULT_VOCABULARY)[CELL]}


def sparse_config(job: Job, before: Config, view: View) -> Config:
    """Return the training of a detector on regions, or on all that is labelled."""
    source = [{"path": SET}]
    method = METHODS["full" if job.share == 1 else "ours"]
    epochs, batch = 4, 4
    return parse_config(
        {
            "task": "sparse",
            "seed": job.seed,
            "model": {"backbone": before.model.backbone, "width": before.model.width},
            "data": {"train": source, "validation": source, "size": view.size},
            "optim": {
                "epochs": epochs,
                "batch": batch,
                "samples": batch * view.steps // epochs,
                "validate_every": epochs,
                "lr": view.rate,
                "ema": 0.95,
            },
            "augment": LOOK,
            "sparse": method,
        },
        job.name,
    )


# ---- runs --------------------------------------------------------------------------------------


def key_of(job: Job, given: argparse.Namespace, view: View) -> str:
    """Name a run by all that decides it."""
    opened = load_bundle(given.bundle)
    manifest = opened.manifest
    content: dict[str, Any] = {"job": asdict(job)}
    if job.part == "heads":
        section = load_config(Path(CONFIG)).correction.model_dump()
        content |= {"correction": section, "bundle": manifest.classifier.sha256}
        content |= {"views": VIEWS, "components": COMPONENTS, "permissive": PERMISSIVE}
    else:
        content |= {"view": asdict(view), "bundle": manifest.detector.sha256}
        config = sparse_config(job, config_of(opened, "detector"), view)
        content["config"] = config.model_dump(mode="json")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def run(given: argparse.Namespace) -> None:
    """Do the runs that are missing."""
    view = View(given.um, given.size, given.steps, given.rate)
    cells: Cells | None = None
    for job in jobs():
        if not fnmatch.fnmatch(job.name, given.only):
            continue
        result = given.work / key_of(job, given, view) / "result.json"
        if result.exists():
            continue
        began = time.perf_counter()
        if job.part == "heads":
            cells = cells or Cells(given.data, given.work, given.bundle)
            scores = heads(job, cells)
        else:
            scores = detector(job, given, view)
        result.parent.mkdir(parents=True, exist_ok=True)
        seconds = round(time.perf_counter() - began, 1)
        settings = asdict(view) if job.part == "detector" else {}
        write_json(result, {"job": asdict(job), **settings, **scores, "seconds": seconds})
        shown = "  ".join(f"{k} {v:.3f}" for k, v in scores.items() if k != "cells")
        print(f"{job.name}: {scores['cells']} cells  {shown}", flush=True)


# ---- report ------------------------------------------------------------------------------------


def report(work: Path) -> None:
    """Write the record and the table of the document."""
    runs = [json.loads(p.read_text()) for p in sorted(work.glob("*/result.json"))]
    runs.sort(key=lambda r: list(r["job"].values()))
    groups = grouped(runs)
    for row in runs:
        row.pop("seconds", None)
    write_json(RESULTS, {"groups": groups, "runs": runs})
    fill(DOCUMENT, {"lld-sparse": table(groups)})
    print(table(groups))


def grouped(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return means over patients and seeds, and the share of full supervision that is kept.

    Only patients are held against each other that both sides have.
    """
    found: dict[tuple[str, float, str, str], dict[int, dict[str, float]]] = {}
    cells: dict[tuple[float, str], list[int]] = {}
    for run in runs:
        job = run["job"]
        for metric in ("class", "attributes", "ap50"):
            if metric in run:
                key = metric, job["share"], job["planner"], job["part"]
                found.setdefault(key, {}).setdefault(job["seed"], {})[job["patient"]] = run[metric]
        if job["part"] == "heads":
            cells.setdefault((job["share"], job["planner"]), []).append(run["cells"])
    groups = []
    for (metric, share, planner, _), seeds in sorted(found.items()):
        full = found.get((metric, 1.0, "all", "detector" if metric == "ap50" else "heads"), {}).get(
            0
        )
        means = [statistics.mean(of.values()) for of in seeds.values()]
        kept = [
            statistics.mean(of.values()) / statistics.mean(full[p] for p in of)
            for of in seeds.values()
            if full and set(of) <= set(full)
        ]
        every = cells.get((share, planner), [])
        groups.append(
            {
                "metric": metric,
                "share": share,
                "planner": planner,
                "seeds": len(seeds),
                "patients": max(len(of) for of in seeds.values()),
                "cells": round(statistics.mean(every)) if every else None,
                "mean": round(statistics.mean(means), 4),
                "sd": round(statistics.stdev(means), 4) if len(means) > 1 else None,
                "kept": round(statistics.mean(kept), 4) if kept else None,
                "kept_sd": round(statistics.stdev(kept), 4) if len(kept) > 1 else None,
            }
        )
    return groups


def table(groups: Sequence[dict[str, Any]]) -> str:
    """Return the groups as a Markdown table, a row for each share and planner."""
    metrics = {"class": "coarse class", "attributes": "attributes", "ap50": "white-cell AP50"}
    head = ["area", "regions", "cells"]
    for name in metrics.values():
        head += [name, "of full"]
    names = {
        "all": "",
        "none": "nothing of LLD",
        "cells": "by expected cells",
        "random": "at random",
    }
    by = {(g["share"], g["planner"], g["metric"]): g for g in groups}
    places = sorted({(g["share"], g["planner"]) for g in groups}, reverse=True)
    rows = [head]
    for share, planner in places:
        some = [by.get((share, planner, metric)) for metric in metrics]
        count = next((g["cells"] for g in some if g and g["cells"] is not None), None)
        row = [f"{share:.0%}", names[planner], "–" if count is None else f"{count:,}"]
        for group in some:
            row += ["–", "–"] if group is None else [_figure(group, "mean"), _share(group)]
        rows.append(row)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def _figure(group: dict[str, Any], name: str) -> str:
    spread = group["sd"]
    figure = f"{group[name]:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
    return figure if group["patients"] == len(PATIENTS) else f"{figure} ({group['patients']})"


def _share(group: dict[str, Any]) -> str:
    return "–" if group["kept"] is None else f"{group['kept']:.1%}"


def main() -> None:
    """Run or report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--only", default="*", help="pattern of part/patient/share/planner/seed")
    parser.add_argument("--um", type=float, default=DETECTOR_UM, help="micrometres a pixel")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.what == "report":
        report(given.work)
        return
    if given.data is None:
        parser.error("run needs --data")
    limit_threads(given.threads)
    cv2.setNumThreads(given.threads)
    run(given)


if __name__ == "__main__":
    main()
