"""An analysis made up from nothing: ellipses for cells, seeded answers, a bundle's manifest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.result import AttributeResult, CellResult, FieldResult
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.inference.manifest import Manifest
from bloodfilm.inference.run import AnalysisRun, FieldFailure

UNLEARNT = ("promonocyte", "abnormal promyelocyte")
LEAVES = DEFAULT_TAXONOMY.leaves_under("nucleated cell")


def make_manifest(**changes: Any) -> Manifest:
    graph = {"sha256": "0" * 64, "background": 245}
    data = {
        "format": "bloodfilm-bundle",
        "version": 1,
        "name": "made-up",
        "created": "2025-01-02T03:04:05+00:00",
        "licence": "Apache-2.0",
        "taxonomy": DEFAULT_TAXONOMY.to_json(),
        "schema": LLD_SCHEMA.to_json(),
        "kinds": ["nucleated cell", "red cell", "platelet"],
        "leaves": list(LEAVES),
        "unlearnt": {"classes": list(UNLEARNT), "attributes": ["cytoplasmic_vacuoles"]},
        "detector": {
            **graph,
            "file": "detector.onnx",
            "um_per_px": 0.25,
            "stride": 8,
            "multiple": 32,
            "thresholds": {"nucleated cell": 0.4, "red cell": 0.4, "platelet": 0.4},
            "nms_iou": 0.5,
            "tile": 1024,
            "overlap": 160,
        },
        "reader": {
            **graph,
            "file": "reader.onnx",
            "size": 128,
            "um_per_px": 0.175,
            "temperatures": {},
            "class_confidence": 0.6,
            "attribute_confidence": 0.7,
            "novelty_threshold": 3.0,
        },
        "training": {},
        "metrics": {"detection": {"AP50": 0.91}, "classes": {"macro F1": 0.8}},
    }
    return Manifest.model_validate({**data, **changes})


def make_cell(
    rng: np.random.Generator, box: Sequence[float], um: float, truth: str | None = None
) -> CellResult:
    """One nucleated cell with answers drawn at random, as a reader would give them."""
    known = [leaf for leaf in LEAVES if leaf not in UNLEARNT]
    truth = truth if truth in known else str(rng.choice(known))
    logits = rng.normal(0, 1, len(known))
    logits[known.index(truth)] += rng.uniform(1.5, 9)
    p = np.exp(logits) / np.exp(logits).sum()
    probabilities = dict(zip(known, p.tolist(), strict=True))
    label, score = "nucleated cell", 1.0
    while children := DEFAULT_TAXONOMY.children(label):
        sums = {
            c: sum(probabilities.get(leaf, 0) for leaf in DEFAULT_TAXONOMY.leaves_under(c))
            for c in children
        }
        best = max(sums, key=lambda c: sums[c])
        if sums[best] < 0.6:
            break
        label, score = best, sums[best]
    attributes = {}
    for attribute in LLD_SCHEMA.attributes[:-1]:
        q = rng.dirichlet(np.full(len(attribute.values), 0.4))
        top = int(np.argmax(q))
        attributes[attribute.name] = AttributeResult(
            attribute.values[top] if q[top] >= 0.7 else None,
            float(q[top]),
            dict(zip(attribute.values, q.tolist(), strict=True)),
        )
    flags = ("cut by the edge",) if box[0] < 5 else ()
    flags += ("unlike anything learnt",) if rng.random() < 0.05 else ()
    x, y, w, h = box
    return CellResult(
        (x, y, w, h), float(rng.uniform(0.5, 1)), "nucleated cell", label, score,
        probabilities, attributes, flags, um,
    )  # fmt: skip


def make_view(
    width: int, height: int, squeeze: float = 1.0, source: str = "measured"
) -> dict[str, Any]:
    return {
        "um_per_px_x": 0.25,
        "um_per_px_y": 0.25 * squeeze,
        "white_point": [245.0, 240.0, 235.0],
        "red_cells": 21 if source == "measured" else 1,
        "confidence": 0.9 if source != "assumed" else 0.0,
        "scale_source": source,
        "squeeze_source": source,
        "width": width,
        "height": height,
        "note": "",
    }


def make_field(path: Path, rng: np.random.Generator, **view: Any) -> FieldResult:
    """Paint a field of ellipses and return what an analysis might have said of it."""
    width, height = 320, 240
    squeeze = view.get("squeeze", 1.0)
    image = np.full((height, width, 3), (245, 240, 235), dtype=np.uint8)
    cells = []
    for _ in range(8):
        x, y = rng.uniform(15, width - 15), rng.uniform(15, height - 15)
        rx = 15 * squeeze
        cv2.ellipse(image, ((x, y), (2 * rx, 30), 0), (225, 170, 165), -1, cv2.LINE_AA)
        box = (x - rx, y - 15, 2 * rx, 30)
        cells.append(CellResult(box, 0.8, "red cell", "red cell", 0.8, diameter_um=7.5))
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.uniform(25, width - 25), rng.uniform(25, height - 25)
        rx = 24 * squeeze
        cv2.ellipse(image, ((x, y), (2 * rx, 48), 0), (190, 170, 215), -1, cv2.LINE_AA)
        cv2.ellipse(image, ((x, y), (1.4 * rx, 34), 20), (90, 50, 130), -1, cv2.LINE_AA)
        cells.append(make_cell(rng, (x - rx, y - 24, 2 * rx, 48), 12.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[:, :, ::-1])
    problems = ("scale assumed, sizes are guesses",) if view.get("source") == "assumed" else ()
    cells.sort(key=lambda c: (c.box[1], c.box[0]))
    return FieldResult(
        str(path), width, height, make_view(width, height, **view), tuple(cells), problems
    )


def make_run(
    fields: Sequence[FieldResult], failures: Sequence[FieldFailure] = (), **manifest: Any
) -> AnalysisRun:
    return AnalysisRun(
        "9.9",
        {"sha256": "ab" * 32},
        make_manifest(**manifest),
        {"um_per_px": None},
        fields,
        failures,
    )


@pytest.fixture
def field(tmp_path: Path) -> Callable[..., FieldResult]:
    """Paint a field under this name in a folder of the test's own."""
    return lambda name="a.png", seed=0, **view: make_field(
        tmp_path / "images" / name, np.random.default_rng(seed), **view
    )


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    return make_manifest


@pytest.fixture
def cell() -> Callable[..., CellResult]:
    """A nucleated cell of this name."""

    def build(label: str = "lymphocyte", **changes: Any) -> CellResult:
        data = {"box": (1.0, 2.0, 3.0, 4.0), "score": 0.9, "kind": "nucleated cell"}
        return CellResult(**{**data, "label": label, "label_score": 0.8, **changes})

    return build


@pytest.fixture
def run() -> Callable[..., AnalysisRun]:
    return make_run


@pytest.fixture
def failure() -> type[FieldFailure]:
    return FieldFailure
