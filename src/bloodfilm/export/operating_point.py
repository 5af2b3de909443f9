"""The operating point of a bundle: how evidence for white cells is weighed, and their threshold.

Chosen over several sites, because a threshold that suits one camera misses cells on another. Every
site counts alike, whatever its number of cells. The same analysis shows how unlike anything learnt
the red cells of real films look at most: what looks less like it is no film (`film_score`).
"""

import logging
import tomllib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Checked
from pydantic import ValidationError, model_validator

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.core.boxes import iou
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import read_regular_file
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import FieldFailure, FieldResult
from bloodfilm.evaluation.detection import excused
from bloodfilm.evaluation.matching import MATCH_IOU
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.sources import read_whole
from bloodfilm.imaging.sources.field import open_field
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.detector import LOWEST_SCORE
from bloodfilm.inference.fusion import EvidenceLimits, LogisticFusion, ProductFusion
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import analyze_many, by_folder
from bloodfilm.synthetic import write_hard_fields
from bloodfilm.training.config import MAX_CONFIG_BYTES, DatasetConfig, Section
from bloodfilm.training.data.canonical_fields import field_targets
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.vocabulary import Vocabulary

DRAWN, DRAWN_EMPTY = "drawn films", "drawn films without white cells"
VERIFICATION = (0.0, 0.05, 0.1)
CONTRAST = (0.0, 0.75, 1.25, 1.75, 2.5, 3.5)
"""Weights that are tried, relative to the detector's. That of verification stays small: the
classifier has mostly been trained on the sites, and is less sure on others: at 0.2 a bundle lost
one white cell in fifty more of LLD, which it had never seen, and would have been chosen for it."""
HIGHEST_CONTRASTS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
"""Stain contrasts beyond which one says no more that are tried, lowest first. Weights and threshold
are chosen with the first. Cells of a camera that the detector has not seen, which it takes for red
cells, then stay below every threshold, though their contrast is 0.5 to 0.9; with a higher one only
these gain. Chosen with a higher one at once, the threshold rises, as fewer cells hold it down: the
point for 0.4 found 264 of LLD's 274 cells, that for 0.2 finds 267."""
WIDEST = EvidenceLimits(contrast=(0.02, HIGHEST_CONTRASTS[-1]))
MORE_LISTED = 0.1
"""By what share a higher contrast may raise what is listed beside true cells."""
CALIBRATION_STEPS = 50
LEAST_SLOPE = 0.05
FILMS = 0.95
"""Share of the fields of each site whose red cells stay below the limit of novelty."""
MIN_FIELDS = 10
"""A site of fewer fields with red cells has no say in it."""
PRIOR, LARGEST_STEP = 0.1, 0.5
ROUNDING = 1e-6
_log = logging.getLogger(__name__)

Share = Annotated[float, Checked(ge=0, le=1)]


class SiteConfig(DatasetConfig):
    """A data set of one site: see `DatasetConfig`.

    Attributes:
        name: of the site; that of the data set if left out.
    """

    name: str | None = None


class OperatingPointConfig(Section):
    """On what, and by which rule, an operating point is chosen.

    Attributes:
        sites: data sets with boxed cells of the classified type. Where only some cells are boxed,
            only these count: what is found elsewhere is neither right nor wrong.
        found: share of the cells which the detector finds at any score that are to stay above the
            threshold, in the mean over sites.
        found_everywhere: the same for each site.
        drawn: number of rendered fields, in any stain and optics, that count as one more site.
        drawn_empty: number of those without white cells, a site of false cells alone.
        seed: of the rendering.
    """

    sites: Annotated[tuple[SiteConfig, ...], Checked(min_length=1)]
    found: Share = 0.99
    found_everywhere: Share = 0.98
    drawn: Annotated[int, Checked(ge=0)] = 60
    drawn_empty: Annotated[int, Checked(ge=0)] = 100
    seed: int = 9101

    @model_validator(mode="after")
    def _named_apart(self) -> "OperatingPointConfig":
        names = [site.name or str(site.path) for site in self.sites]
        twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
        if twice is not None:
            raise ValueError(f"sites: {twice!r} is there twice; give each a name")
        return self


@dataclass(frozen=True)
class SiteEvidence:
    """What is known of each detection of one site.

    Attributes:
        name: of the site.
        cells: number of its true cells.
        complete: number of fields in which every cell is boxed; 0: false cells are not known.
        evidence: (n, 3) logit of the detector's score, logit of the classifier's probability,
            logarithm of the stain contrast.
        cell: (n,) index of the true cell that a detection lies on, -1 if on none.
        excused: (n,) whether it does not count if it lies on none, or on one that is taken.
        named_otherwise: (n,) whether the classifier names it as something else than a cell of the
            classified type; such a one is excused.
        red_cell_novelty: (fields,) of the fields with red cells; empty for drawn films.
    """

    name: str
    cells: int
    complete: int
    evidence: Floats
    cell: NDArray[np.intp]
    excused: Bools
    named_otherwise: Bools
    red_cell_novelty: Floats = field(default_factory=lambda: np.zeros(0))

    def up_to(self, contrast: float) -> "SiteEvidence":
        """Return the evidence where no contrast above this one counts for more."""
        evidence = self.evidence.copy()
        evidence[:, 2] = np.minimum(evidence[:, 2], np.log(contrast))
        return replace(self, evidence=evidence)

    def outcome(self, scores: Floats) -> tuple[Floats, Floats]:
        """Return the best score of each cell found (at most `cells`), and those of false cells."""
        order = np.argsort(-scores, kind="stable")
        order = order[self.cell[order] >= 0]
        _, first = np.unique(self.cell[order], return_index=True)
        right = np.zeros(len(scores), dtype=bool)
        right[order[first]] = True
        return scores[right], scores[~right & ~self.excused]


@dataclass(frozen=True)
class OperatingPoint:
    """Weights and threshold.

    Attributes:
        fusion: of the evidence.
        threshold: of its score.
        false_per_field: mean over the sites where false cells are known.
        red_cell_novelty: the most that the red cells of films have; `None` if too few were seen.
    """

    fusion: LogisticFusion
    threshold: float
    false_per_field: float
    red_cell_novelty: float | None = None


def load_operating_point(path: Path) -> OperatingPointConfig:
    """Read a configuration; `default` is the shipped one.

    Raises:
        ConfigError: one line with the file, the key and the remedy.
    """
    try:
        if str(path) == "default" and not path.exists():
            text = (files("bloodfilm") / "configs/export/operating_point.toml").read_text("utf-8")
        else:
            text = read_regular_file(path, MAX_CONFIG_BYTES).decode("utf-8")
        return OperatingPointConfig.model_validate(tomllib.loads(text))
    except DataError as error:
        raise ConfigError(str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"{path}: {at + ': ' if at else ''}{message}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def set_operating_point(
    bundle: Path, config: OperatingPointConfig, root: Path, progress: Progress | None = None
) -> OperatingPoint:
    """Choose the operating point of a bundle on several sites and write it to its manifest.

    Args:
        bundle: its folder.
        config: the sites and the rule.
        root: where data paths start.
        progress: follows the work.

    Raises:
        ConfigError: if a site has no boxed cell, or none of them is found.
    """
    sites = gather_evidence(bundle, config, root, progress or NoProgress())
    point = choose(sites, config)
    figures = {s.name: _figures(s, point) for s in sites}
    judged = [s for s in sites if s.cells]
    if len(judged) > 1:
        for site in judged:
            others = choose([s for s in sites if s is not site], config)
            figures[site.name]["chosen_without_it"] = _figures(site, others)
    record = {
        "found": config.found,
        "found_everywhere": config.found_everywhere,
        "sites": figures,
    }
    manifest = load_bundle(bundle).manifest
    chosen = manifest.with_operating_point(point.fusion, point.threshold, point.red_cell_novelty)
    chosen.with_figures(operating_point=record).write(bundle)
    return point


def gather_evidence(
    bundle: Path, config: OperatingPointConfig, root: Path, progress: Progress
) -> list[SiteEvidence]:
    """Analyse the fields of all sites as a user would, and match what is found with the labels."""
    loaded = load_bundle(bundle)
    manifest = loaded.manifest
    words = Vocabulary(
        manifest.taxonomy, manifest.attributes, manifest.object_types, manifest.roles
    )
    alone = ProductFusion(contrast=0, verification=0)
    found = []
    with Model(loaded, device="cpu", min_score=LOWEST_SCORE, fusion=alone) as model:
        for site in config.sites:
            items = [s for s in open_sources([site], root) if not s.field.region.is_nothing]
            name = site.name or items[0].dataset.name if items else str(site.path)
            evidence = _of_site(model, name, items, words, progress, pooled=True)
            if not evidence.cells:
                raise ConfigError(
                    f"{root / site.path}: no boxed {manifest.roles.classified}; an operating point "
                    "needs cells to find"
                )
            found.append(evidence)
        for name, number, empty in (
            (DRAWN, config.drawn, False),
            (DRAWN_EMPTY, config.drawn_empty, True),
        ):
            if number:
                with TemporaryDirectory() as folder:
                    seed = config.seed + empty
                    drawn = write_hard_fields(
                        Path(folder), number, empty=empty, small=False, seed=seed
                    )
                    items = [SourcedField(f, drawn, 1.0) for f in drawn.fields]
                    found.append(_of_site(model, name, items, words, progress, pooled=False))
    return found


def _of_site(
    model: Model,
    name: str,
    items: Sequence[SourcedField],
    words: Vocabulary,
    progress: Progress,
    pooled: bool,
) -> SiteEvidence:
    evidence: list[tuple[float, float, float]] = []
    matched: list[int] = []
    free: list[bool] = []
    otherwise: list[bool] = []
    novelty: list[float] = []
    cells = complete = 0
    kind, tree = model.classified_type, model.taxonomy
    wanted = words.object_types.index(kind)
    paths = [item.field.path for item in items]
    outcomes = analyze_many(paths, model, scale_group=by_folder if pooled else None)
    with closing(outcomes):
        for item in track(items, progress, name, len(items)):
            result = next(outcomes)
            if isinstance(result, FieldFailure):
                _log.warning("left out: %s: %s", result.path, result.reason)
                continue
            complete += item.field.region.is_everything
            seen = _red_cell_novelty(model, item, result) if pooled else None
            novelty += [] if seen is None else [seen]
            targets = field_targets(item, words)
            truth = targets.boxes[targets.type_ids == wanted]
            own = [c for c in result.cells if c.object_type == kind]
            boxes = np.array([c.box for c in own], dtype=np.float64).reshape(-1, 4)
            overlap = np.concatenate([np.zeros((len(own), 1)), iou(boxes, truth)], axis=1)
            best = overlap.argmax(axis=1)
            hit = overlap.max(axis=1) >= MATCH_IOU
            matched += np.where(hit, best - 1 + cells, -1).tolist()
            # What is named as something else than a cell of this type is in no count of them.
            other = np.array(
                [c.label in tree and not tree.is_under(c.label, kind) for c in own], dtype=bool
            )
            otherwise += other.tolist()
            free += (excused(boxes, targets.ignore, item.field) | other).tolist()
            evidence += [
                (
                    c.confidence,
                    1.0 if c.nucleated_probability is None else c.nucleated_probability,
                    np.nan if c.stain_contrast is None else c.stain_contrast,
                )
                for c in own
            ]
            cells += len(truth)
    columns = np.array(evidence, dtype=np.float64).reshape(-1, 3)
    return SiteEvidence(
        name,
        cells,
        complete,
        WIDEST.evidence(columns[:, 0], columns[:, 1], columns[:, 2]),
        np.array(matched, dtype=np.intp),
        np.array(free, dtype=bool),
        np.array(otherwise, dtype=bool),
        np.array(novelty, dtype=np.float64),
    )


def _red_cell_novelty(model: Model, item: SourcedField, result: FieldResult) -> float | None:
    manifest = model.bundle.manifest
    if manifest.roles.ruler is None:
        return None
    least = manifest.detector.thresholds[manifest.roles.ruler]
    red = [
        c for c in result.cells if c.object_type == manifest.roles.ruler and c.confidence >= least
    ]
    image = read_whole(open_field(item.field))
    view = CanonicalView.from_record(result.view)
    boxes = np.array([c.box for c in red], dtype=np.float64).reshape(-1, 4)
    scores = np.array([c.confidence for c in red], dtype=np.float64)
    return model.analyzer.red_cell_novelty(image, view, boxes, scores)


def choose(sites: Sequence[SiteEvidence], config: OperatingPointConfig) -> OperatingPoint:
    """Return the weights that list the fewest false cells where enough cells are found.

    For each pair of weights the threshold is the highest at which `found` and `found_everywhere`
    hold. Of the pairs, the one with the fewest false cells per field is taken, in the mean over the
    sites where every cell is boxed. Slope and bias are then fitted so that the score is a
    probability, each site counting alike. Last, the highest contrast that still counts is raised as
    far as hardly more is listed beside true cells: that only adds cells, dark ones.

    Raises:
        ConfigError: if no cell is found on some site.
    """
    usual = [site.up_to(HIGHEST_CONTRASTS[0]) for site in sites]
    best: tuple[float, Floats, float] | None = None
    for verification, contrast in product(VERIFICATION, CONTRAST):
        weights = np.array([1.0, verification, contrast])
        threshold, false = _highest_threshold(usual, weights, config)
        if best is None or false < best[0]:
            best = false, weights, threshold
    assert best is not None
    _, weights, threshold = best
    slope, offset = _calibrated(usual, weights, threshold)
    detector, verification, contrast = (slope * weights).tolist()
    highest = _highest_contrast(sites, weights, threshold)
    limits = EvidenceLimits(contrast=(WIDEST.contrast[0], highest))
    fusion = LogisticFusion(detector, verification, contrast, offset - slope * threshold, limits)
    false = _per_field([site.up_to(highest) for site in sites], weights, threshold)[0]
    score = 1 / (1 + np.exp(-offset))
    # Rounded down: rounded up, it would shut out the very cell it was chosen for.
    score = np.floor((score - ROUNDING) * 1e4) / 1e4
    return OperatingPoint(fusion, max(float(score), 0.0), false, red_cell_limit(sites))


def red_cell_limit(sites: Sequence[SiteEvidence]) -> float | None:
    """Return the novelty below which the red cells of nearly all fields stay, on each site."""
    seen = [site.red_cell_novelty for site in sites if len(site.red_cell_novelty) >= MIN_FIELDS]
    return round(max(float(np.quantile(v, FILMS)) for v in seen), 4) if seen else None


def _highest_threshold(
    sites: Sequence[SiteEvidence], weights: Floats, config: OperatingPointConfig
) -> tuple[float, float]:
    """Return the highest threshold at which enough is found, and false cells per field there."""
    outcomes = [site.outcome(site.evidence @ weights) for site in sites]
    places = np.unique(np.concatenate([right for right, _ in outcomes]))
    shares = []
    for site, (right, _) in zip(sites, outcomes, strict=True):
        if site.cells and not len(right):
            raise ConfigError(f"{site.name}: none of its {site.cells} cells is found at any score")
        if site.cells:
            shares.append((len(right) - np.searchsorted(np.sort(right), places)) / len(right))
    table = np.array(shares)
    enough = (table.mean(axis=0) >= config.found) & (table.min(axis=0) >= config.found_everywhere)
    threshold = float(places[np.flatnonzero(enough)[-1]])
    return threshold, _per_field(sites, weights, threshold)[0]


def _per_field(
    sites: Sequence[SiteEvidence], weights: Floats, threshold: float
) -> tuple[float, float]:
    """Return what is listed beside true cells per field: false cells, and other objects.

    Other objects are what the classifier names as something else than a cell. In the mean over the
    sites where false cells are known; 0 without any.
    """
    listed = []
    for site in sites:
        if site.complete:
            scores = site.evidence @ weights
            wrong = (site.outcome(scores)[1] >= threshold).sum()
            other = (site.named_otherwise & (scores >= threshold)).sum()
            listed.append((wrong / site.complete, other / site.complete))
    false, others = np.mean(listed, axis=0).tolist() if listed else (0.0, 0.0)
    return false, others


def _highest_contrast(sites: Sequence[SiteEvidence], weights: Floats, threshold: float) -> float:
    """Return the highest contrast that may count: `MORE_LISTED` holds up to it."""
    chosen = HIGHEST_CONTRASTS[0]
    if not any(site.complete for site in sites):
        return chosen  # nothing says what it would list
    at_first: float | None = None
    for contrast in HIGHEST_CONTRASTS:
        listed = sum(_per_field([s.up_to(contrast) for s in sites], weights, threshold))
        at_first = listed if at_first is None else at_first
        if listed > at_first * (1 + MORE_LISTED):
            break
        chosen = contrast
    return chosen


def _calibrated(
    sites: Sequence[SiteEvidence], weights: Floats, threshold: float
) -> tuple[float, float]:
    """Fit the logit of the probability of a cell as a line over the weighed evidence.

    Few detections can be told apart without an error, so that no line fits best: a weak prior holds
    the slope near 1 and the score at the threshold near one half.

    Returns:
        the slope, and the logit at the threshold.
    """
    values, truths, counts = [], [], []
    for site in sites:
        if not site.complete:
            continue
        right, wrong = site.outcome(site.evidence @ weights)
        values.append(np.concatenate([right, wrong]))
        truths.append(np.concatenate([np.ones(len(right)), np.zeros(len(wrong))]))
        counts.append(np.full(len(values[-1]), 1 / site.complete))
    prior = np.array([1.0, 0.0])
    if not values:
        return 1.0, 0.0
    x, y, w = np.concatenate(values), np.concatenate(truths), np.concatenate(counts)
    design = np.stack([x - threshold, np.ones(len(x))], axis=1)
    line = prior
    for _ in range(CALIBRATION_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ line, -50, 50)))
        gradient = design.T @ (w * (p - y)) + PRIOR * (line - prior)
        curvature = (design * (w * p * (1 - p))[:, None]).T @ design + PRIOR * np.eye(2)
        # A full step of Newton's method overshoots where nearly all probabilities are 0 or 1.
        line = line - np.clip(np.linalg.solve(curvature, gradient), -LARGEST_STEP, LARGEST_STEP)
    return max(float(line[0]), LEAST_SLOPE), float(line[1])


def _figures(site: SiteEvidence, point: OperatingPoint) -> dict[str, Any]:
    """Return what an operating point finds on a site."""
    f = point.fusion
    weights = np.array([f.detector, f.verification, f.contrast])
    evidence = site.up_to(f.limits.contrast[1]).evidence
    scores = 1 / (1 + np.exp(-(evidence @ weights + f.bias)))
    right, wrong = site.outcome(scores)
    figures: dict[str, Any] = {}
    if site.cells:
        found = (right >= point.threshold).sum() / site.cells
        figures |= {"cells": site.cells, "found": round(float(found), 4)}
        figures["found_at_any_score"] = round(len(right) / site.cells, 4)
    if site.complete:
        false = (wrong >= point.threshold).sum() / site.complete
        figures |= {"fields": site.complete, "false_per_field": round(float(false), 4)}
    return figures
