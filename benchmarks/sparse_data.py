"""The fields of the annotation-cost benchmark, in canonical pixels, whole or marked in part."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from bloodfilm.active_learning.planning import Planner, RegionScores, plan_regions
from bloodfilm.active_learning.region_scores import dark_blobs, from_detections
from bloodfilm.core import Region
from bloodfilm.core.boxes import centres
from bloodfilm.core.files import write_bytes
from bloodfilm.formats import open_dataset
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.data.canonical_fields import CanonicalField, FieldLoader
from bloodfilm.training.data.mosaics import Mosaics
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.tasks.detector import detect
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

LLD_PATIENTS = ("1", "12", "24", "27", "32")
Parts = dict[str, list[CanonicalField]]


def load(data: Path, work: Path, name: str, um: float) -> Parts:
    """Return the fields of `train`, `val` and `test`; kept in the work folder once loaded.

    Training fields are `Mosaics.oversampling` times finer than `um`. `lld-P` leaves patient P out
    and has no `val`: nothing is tuned on it. Its `test` are the fields whose every white cell is
    boxed; its `read` are the fields whose cells have attributes, for those alone.
    """
    kept = _kept(data, work, name.partition("-")[0], um)
    if name == "txl":
        return {part: [item for item, _ in pairs] for part, pairs in kept.items()}
    out = name.removeprefix("lld-")
    return {
        "train": [item for item, patient in kept["train"] if patient != out],
        "test": [item for item, patient in kept["test"] if patient == out],
        "read": [halved(item) for item, patient in kept["train"] if patient == out],
    }


def _kept(
    data: Path, work: Path, name: str, um: float
) -> dict[str, list[tuple[CanonicalField, str | None]]]:
    kept = work / f"fields-{name}-{um:g}.pickle"
    if kept.exists():
        loaded: dict[str, list[tuple[CanonicalField, str | None]]] = pickle.loads(kept.read_bytes())
        return loaded
    parts = {}
    for part, (dataset, fields) in _parts(data, name).items():
        scale = um / (Mosaics.oversampling if part == "train" else 1)
        sourced = [SourcedField(f, dataset, 1.0) for f in fields]
        parts[part] = [
            (FieldLoader(DEFAULT_VOCABULARY, scale, attributes=True).load(s), s.field.patient)
            for s in sourced
        ]
        print(f"{name} {part}: {len(fields)} fields", flush=True)
    write_bytes(kept, pickle.dumps(parts))
    return parts


def _parts(data: Path, name: str) -> dict[str, Any]:
    if name == "txl":
        whole = open_dataset(data / "txl_pbc", format="txl", clean_splits=True)
        return {s: (whole, [f for f in whole if f.split == s]) for s in ("train", "val", "test")}
    marked = open_dataset(data / "lld40x", format="lld")
    complete = open_dataset(data / "lld40x", format="lld", labels="complete")
    return {
        "train": (marked, [f for f in marked if f.cells]),
        "test": (complete, list(complete)),
    }


def cut(
    loaded: Sequence[CanonicalField],
    share: float,
    planner: Planner | str,
    seed: int,
    uncertainty: Sequence[RegionScores] | None = None,
) -> list[CanonicalField]:
    """Leave the labels of one region a field; a cell belongs to it by its centre."""
    if share >= 1:
        return list(loaded)
    evidence = uncertainty or [
        dark_blobs(f.image) if planner == "cells" else RegionScores(*f.image.shape[1::-1])
        for f in loaded
    ]
    regions = plan_regions(evidence, [share] * len(evidence), planner, seed)  # type: ignore[arg-type]
    return [mark(f, r) for f, r in zip(loaded, regions, strict=True)]


def mark(item: CanonicalField, region: Region) -> CanonicalField:
    """Return the field with the labels of a region, given in its own canonical pixels."""
    keep = region.contains(centres(item.boxes))
    values = None if item.values is None else item.values[keep]
    kinds = item.type_ids[keep]
    return replace(item, boxes=item.boxes[keep], type_ids=kinds, region=region, values=values)


def halved(item: CanonicalField) -> CanonicalField:
    """Return a training field as it is looked at: at the scale of `um`, not finer."""
    height, width = (round(v / Mosaics.oversampling) for v in item.image.shape[:2])
    image = cv2.resize(item.image, (width, height), interpolation=cv2.INTER_AREA)
    shrink = np.array([width, height] * 2) / np.array(item.image.shape[1::-1] * 2)
    return replace(
        item,
        image=np.asarray(image, dtype=np.uint8),
        boxes=item.boxes * shrink,
        ignore=item.ignore * shrink,
    )


def uncertainty_of(
    model: CellDetector, loaded: Sequence[CanonicalField], device: torch.device
) -> list[RegionScores]:
    """Return what a detector is unsure of on training fields."""
    found = []
    for item in loaded:
        height, width = item.image.shape[:2]
        small = halved(item).image
        seen = detect(model, small, device, 0.05)
        boxes = seen.boxes * ([width / small.shape[1], height / small.shape[0]] * 2)
        found.append(from_detections(width, height, boxes, seen.scores, seen.type_ids))
    return found
