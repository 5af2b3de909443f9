"""A bundle that can be taught classes: the fake detector, a real classifier that nobody trained.

An untrained network describes cells of different colours differently, which is all that teaching
needs; how it names them is arbitrary, but fixed.
"""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from bloodfilm.export.film_graph import add_film_offset
from bloodfilm.export.onnx_graphs import ClassifierGraph, classifier_onnx
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.manifest import Manifest
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.config import parse_config
from bloodfilm.training.networks import build_classifier
from fake_bundle import Disc, draw, save, write_bundle
from tiny import VOCABULARY, config

SIDE_UM = 24.0
FILM_SECTIONS: dict[str, Any] = {
    "correction": {"samples": 24},
    "film_offset": {"sets": ["discs"], "groups": [["lymphocyte"]]},
}
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


def film_network() -> CellClassifierNet:
    """Return the classifier of `write_learnable`, which also names cells by their film."""
    settings = config("classifier", appearance={"normalise": False})
    torch.manual_seed(0)
    net = build_classifier(parse_config(settings, "test"), VOCABULARY).eval()
    net.add_corrections()
    net.add_film_offset()
    rng, leaves = torch.Generator().manual_seed(5), len(VOCABULARY.leaves)
    every = torch.ones(leaves, dtype=torch.bool)
    means = torch.randn(leaves, net.size, generator=rng) / 10
    net.set_film_means(means, every, every, torch.arange(leaves) % 4)
    for setter in (net.set_film_correction, net.set_class_correction):
        weight = torch.randn(leaves, net.size, generator=rng) / 10
        setter(weight, torch.zeros(leaves))
    return net


def write_film_bundle(folder: Path, net: CellClassifierNet) -> Path:
    """Write a bundle whose classifier is `film_network`."""
    write_learnable(folder)
    example = torch.zeros(2, 128, 128, 3, dtype=torch.uint8)
    graph = classifier_onnx(ClassifierGraph(net), example)
    data = load_bundle(folder).manifest.to_json()
    settings = config("classifier", appearance={"normalise": False}, **FILM_SECTIONS)
    data["training"] = {"classifier": {"config": settings}}
    manifest = Manifest.model_validate(data)
    manifest.write(folder, {manifest.classifier.file: graph})
    probes = np.random.default_rng(1).integers(0, 256, (6, 128, 128, 3)).astype(np.uint8)
    add_film_offset(folder, net, probes)
    return folder
