"""A bundle that can be taught classes: the fake detector, a real classifier that nobody trained.

An untrained network describes cells of different colours differently, which is all that teaching
needs; how it names them is arbitrary, but fixed.
"""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import torch

from bloodfilm.export.onnx_graphs import ClassifierGraph, classifier_onnx
from bloodfilm.training.config import parse_config
from bloodfilm.training.networks import build_classifier
from fake_bundle import Disc, draw, save, write_bundle
from tiny import VOCABULARY, config

SIDE_UM = 24.0
UM = 0.25


def write_learnable(folder: Path) -> Path:
    """Write the bundle; it says that it was trained on the data set `discs` (see `tiny`)."""
    settings = config("classifier", appearance={"normalise": False})
    torch.manual_seed(0)
    net = build_classifier(parse_config(settings, "test"), VOCABULARY).eval()
    graph = classifier_onnx(ClassifierGraph(net), torch.zeros(2, 128, 128, 3, dtype=torch.uint8))

    def change(data):
        data["reader"]["sha256"] = hashlib.sha256(graph).hexdigest()
        data["reader"]["class_confidence"] = 0.5
        data["reader"]["novelty_threshold"] = 1e9
        data["training"] = {"reader": {"config": settings}}

    write_bundle(folder, change)
    (folder / "reader.onnx").write_bytes(graph)
    return folder


def draw_cell(path: Path, colour: tuple[int, int, int], seed: int) -> Path:
    """Draw a picture of one cell, alone, 96 x 96 px at 0.25 um; every seed is another picture."""
    rng = np.random.default_rng([seed, *colour])
    middle = SIDE_UM / 2
    disc = Disc(middle, middle, float(rng.uniform(11, 13)), colour)
    side = round(SIDE_UM / UM)
    image = draw([disc], (side, side)) + rng.normal(0, 4, (side, side, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, cv2.GaussianBlur(np.clip(image, 0, 255).astype(np.uint8), (0, 0), 0.8))
    return path
