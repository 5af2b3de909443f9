"""Does what the classifier knows travel? Train without a site, test on it: the only fair judge.

    python benchmarks/leave_one_site_out.py --data DATA --out RUNS [--sites krd chula] [--plain]
        [--samples 24000] [--blasts lld40x] [--prior myelocyte=0.02 ...] [--json FILE]
        [--predictions DIR] [--doubtful SITE ...] [--look-again 0.8]

For every site of a configuration in turn: a classifier is trained on all others, as the
configuration says but for the length of the run, and names the cells of the site left out, centred
on their true boxes. Of five mature classes it is asked which one, all other classes it knows being
possible and wrong; the figure is the mean recall. `--blasts` names sets, in no run's training, on
which the probability of a blast is held against the labels (area under the ROC curve, an APML
patient's abnormal promyelocytes being blasts). `--plain` trains each as a run without
normalisation, transfer, stain and optics augmentation would be: source only. The record of
`--json` also holds what `bloodfilm export --calibration` takes: temperature and confidence of the
class, conformal class sets, and the confusion of classes, on all sites left out together. Sites
whose labels are `--doubtful` have no say in the coverage of the class sets. With `--look-again`,
cells whose class is open are classified again, turned by half, as a bundle with `look_again` does.

What a model has named (`bloodfilm annotate names`) must be named anew for every site, by a model
that has not seen it either: `SITE` in the path of a data set stands for the site left out.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conformal import least_coverage, left_out_record
from numpy.typing import NDArray

from bloodfilm.core import DEFAULT_TAXONOMY
from bloodfilm.core.progress import NoProgress
from bloodfilm.core.taxonomy import NUCLEATED
from bloodfilm.evaluation.class_figures import rank_auroc
from bloodfilm.evaluation.class_granularity import PRESETS
from bloodfilm.evaluation.conformal import LabelledProbabilities
from bloodfilm.export.trained import class_prior
from bloodfilm.inference.classifier import (
    averaged_logits,
    kindred_masks,
    leaf_probabilities,
    open_cells,
)
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training import loop
from bloodfilm.training.calibration import calibrate_class
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config, DatasetConfig, load_config
from bloodfilm.training.data.cell_crops import CellCrops, load_crops
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.precision import limit_threads
from bloodfilm.training.tasks.classifier import ClassifierTask, predict_crops, predict_images
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY, Vocabulary

CONFIG = Path("classifier.toml")
FIVE = PRESETS["five"]
CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {
    "appearance": {"normalise": False, "transfer": 0.0, "transfer_lone": 0.0},
    "augment": {"stain": 0.0, "permute": 0.0, "light": 0.5, "blur": 0.0, "noise": 0.0},
}
EPOCHS = 2
SITE = "SITE"
"""What stands for the site left out in the path of a data set."""
RESAMPLES = 1000
HALF = 2
"""A half turn, in right angles."""
ONE_SITE = 0.95
"""Coverage of class sets fitted on one site alone."""
NAMED_RIGHTLY = 0.95
"""How many of the nodes given on sites left out shall be right."""


@dataclass(frozen=True)
class SiteResult:
    """What a classifier that never saw a site says of it.

    Attributes:
        site: the set left out; plain: whether trained as source only.
        balanced: mean recall of the mature classes that it holds; interval: in which 95 % of 1,000
            resamples of each class's cells have it; recall: of each class, with counts.
        blasts: by set, the area under the ROC curve of the blast's probability.
        seconds: of training.
    """

    site: str
    plain: bool
    balanced: float
    interval: tuple[float, float]
    recall: dict[str, tuple[float, int]]
    blasts: dict[str, float]
    seconds: float


def without(config: Config, site: str, samples: int, plain: bool) -> Config:
    """Return a configuration that never opens a site, for a run of so many crops."""
    data = config.model_dump(mode="json")
    for side in ("train", "validation"):
        kept = [s for s in data["data"][side] if Path(s["path"]).name != site]
        data["data"][side] = [s | {"path": s["path"].replace(SITE, site)} for s in kept]
    data["hard_negatives"] |= {"train": [], "validation": []}  # classes are asked for, no more
    data["optim"] |= {"epochs": EPOCHS, "samples": samples // EPOCHS, "validate_every": EPOCHS}
    if plain:
        for name, change in PLAIN.items():
            data[name] |= change
    return Config.model_validate(data)


def trained(config: Config, root: Path, out: Path) -> tuple[ClassifierTask, CellClassifierNet]:
    """Train, or take up the run that is there; return the task and its best network."""
    task = ClassifierTask.from_config(config, root, NoProgress())
    out.mkdir(parents=True, exist_ok=True)
    loop.train(task, config, out, CPU)
    task.model.load_state_dict(load_checkpoint(out / loop.BEST)["model"])
    return task, task.model.eval()


def crops_of(task: ClassifierTask, root: Path, source: DatasetConfig) -> CellCrops:
    """Return all cells of a set as a classifier's task would load them."""
    balanced = task.view.standard is None
    fields = open_sources([source], root)
    return load_crops(fields, task.run.vocabulary, NoProgress(), balanced=balanced)


def learnt_leaves(task: ClassifierTask) -> list[bool]:
    """Return, per leaf, whether training named it."""
    untrained = task.record()["untrained"]["classes"]
    return [leaf not in untrained for leaf in task.leaves]


def answers(
    task: ClassifierTask,
    model: CellClassifierNet,
    crops: CellCrops,
    odds: NDArray[np.float64],
    learnt: list[bool],
    below: float | None,
) -> NDArray[np.float32]:
    """Return logits (n, leaves) without odds; of cells left open, those of both looks."""
    logits = predict_crops(model, crops, CPU, task.view)["classes"]
    if below is None:
        return logits
    prior = np.log(odds)
    groups = kindred_masks(DEFAULT_TAXONOMY, task.leaves, NUCLEATED)
    again = open_cells(leaf_probabilities(logits + prior, learnt), groups, below)
    images = np.asarray(crops.images)[again]
    turned = (task.view.plain(np.rot90(image, HALF)) for image in images)
    looks = [logits[again], predict_images(model, turned, CPU)["classes"]]
    logits[again] = averaged_logits(np.stack(looks) + prior, learnt) - prior
    return logits


def recalls(
    task: ClassifierTask, p: NDArray[np.float64], allowed: NDArray[np.bool_]
) -> dict[str, tuple[float, int]]:
    """Return the recall and count of each mature class that occurs; others stand for themselves."""
    groups = np.array([DEFAULT_TAXONOMY.leaf_mask(name, task.leaves) for name in FIVE])
    rest = np.eye(len(task.leaves), dtype=bool)[~groups.any(0)]
    said = (p @ np.concatenate([groups, rest]).T).argmax(1)
    found = {}
    for i, name in enumerate(FIVE):
        of_class = allowed.any(1) & ~(allowed & ~groups[i]).any(1)
        if of_class.any():
            found[name] = (round(float((said[of_class] == i).mean()), 4), int(of_class.sum()))
    return found


def balanced_interval(recall: dict[str, tuple[float, int]], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean recall, each class's cells resampled."""
    rng = np.random.default_rng(seed)
    means = np.mean([rng.binomial(n, r, RESAMPLES) / n for r, n in recall.values()], axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


@dataclass(frozen=True)
class Tested:
    """A site's result, and what the class is calibrated with."""

    result: SiteResult
    logits: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    learnt: list[bool]
    odds: NDArray[np.float64]
    words: Vocabulary


def tested_without(
    site: str, config: Config, given: argparse.Namespace, priors: dict[str, float]
) -> Tested:
    """Train without a site and name its cells."""
    source = next(s for s in config.data.train if s.path.name == site)
    began = time.perf_counter()
    changed = without(config, site, given.samples, given.plain)
    folder = given.out / f"{site}{'_plain' if given.plain else ''}"
    task, model = trained(changed, given.data, folder)
    seconds = time.perf_counter() - began
    odds, learnt = class_prior(task.leaves, priors), learnt_leaves(task)
    whole = DatasetConfig(path=source.path, format=source.format, options=source.options)
    crops = crops_of(task, given.data, whole)
    logits = answers(task, model, crops, odds, learnt, given.look_again)
    found = recalls(task, leaf_probabilities(logits + np.log(odds), learnt), crops.allowed)
    blast = np.array([leaf in DEFAULT_TAXONOMY.blasts for leaf in task.leaves])
    areas = {}
    for name in given.blasts:
        others = crops_of(task, given.data, DatasetConfig(path=Path(name)))
        even = np.ones(len(odds))
        p = leaf_probabilities(answers(task, model, others, even, learnt, given.look_again), learnt)
        positive = others.allowed.any(1) & ~(others.allowed & ~blast).any(1)
        of_blast = p[:, blast].sum(1)
        areas[name] = round(rank_auroc(of_blast[positive], of_blast[~positive]), 4)
    balanced = round(float(np.mean([r for r, _ in found.values()])), 4)
    interval = balanced_interval(found)
    result = SiteResult(site, given.plain, balanced, interval, found, areas, round(seconds))
    return Tested(result, logits, crops.allowed, learnt, odds, task.run.vocabulary)


def save_predictions(path: Path, tested: Tested) -> None:
    """Write what `benchmarks/conformal.py` reads: logits, leaves, labels."""
    leaves = tested.words.leaves
    logits = np.where(tested.learnt, tested.logits, -1e9)
    labels = _labels(tested.allowed, tested.words)
    known = labels != ""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, logits=logits[known], leaves=np.array(leaves), labels=labels[known])


def _sets(
    sites: list[str],
    logits: list[NDArray[np.float32]],
    allowed: list[NDArray[np.bool_]],
    tested: Tested,
    temperature: float,
    doubtful: list[str],
) -> dict[str, Any]:
    """Return conformal class sets and the confusion of all sites left out so far."""
    # Objects that are no white cells have no set.
    kept = [tested.words.leaves.index(leaf) for leaf in DEFAULT_VOCABULARY.leaves]
    learnt = np.asarray(tested.learnt)[kept]
    every = np.concatenate(allowed)
    labels = _labels(every, tested.words)
    whose = np.repeat(sites, [len(rows) for rows in allowed])
    shifted = np.concatenate(logits) + np.log(tested.odds) * temperature
    every, shifted = every[:, kept], shifted[:, kept]
    cells = LabelledProbabilities(
        leaf_probabilities(shifted, learnt.tolist(), temperature), every, whose
    )
    known = (every & learnt).any(axis=1)
    cells, labels = cells.of(known), labels[known]
    one = len(set(sites) - set(doubtful)) < 2  # nothing to choose by
    coverage = ONE_SITE if one else least_coverage(cells, labels, NAMED_RIGHTLY, doubtful)
    return left_out_record(cells, labels, coverage)


def _labels(allowed: NDArray[np.bool_], words: Vocabulary) -> NDArray[np.str_]:
    """Return the name of the node that each row of leaves stands for; empty for none."""
    leaves = np.array(words.leaves)
    rows = [leaves[row].tolist() for row in allowed]
    return np.array([DEFAULT_TAXONOMY.common(row) if row else "" for row in rows])


def main() -> None:
    """Train without each site, test on it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--sites", nargs="+", default=["bcisc", "krd", "chula", "bccd"])
    parser.add_argument("--samples", type=int, default=24_000)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--blasts", nargs="*", default=[])
    parser.add_argument("--prior", nargs="*", default=[])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--predictions", type=Path, metavar="DIR")
    parser.add_argument("--look-again", type=float, metavar="BELOW")
    parser.add_argument("--doubtful", nargs="*", default=[], metavar="SITE")
    given = parser.parse_args()
    limit_threads(given.threads)
    config = load_config(given.config)
    priors = {name: float(factor) for name, _, factor in (p.partition("=") for p in given.prior)}
    rows, logits, allowed = [], [], []
    for site in given.sites:
        tested = tested_without(site, config, given, priors)
        rows.append(tested.result)
        logits.append(tested.logits)
        allowed.append(tested.allowed)
        print(json.dumps(asdict(rows[-1])), flush=True)
        if given.predictions:
            save_predictions(given.predictions / f"{site}.npz", tested)
        calibration = calibrate_class(
            np.concatenate(logits),
            np.concatenate(allowed),
            tested.learnt,
            tested.odds,
            tested.words,
            NAMED_RIGHTLY,
        )
        if given.json:
            record = {
                "samples": given.samples,
                "prior": priors,
                "look_again": None
                if given.look_again is None
                else {"below": given.look_again, "turns": [HALF]},
                "sites": [asdict(r) for r in rows],
                "calibration": asdict(calibration),
                **_sets(
                    given.sites[: len(rows)],
                    logits,
                    allowed,
                    tested,
                    calibration.temperature,
                    given.doubtful,
                ),
            }
            given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
