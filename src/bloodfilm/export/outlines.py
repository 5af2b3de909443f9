"""The outline network of a bundle: from a training run, or taken over from another bundle."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.files import write_text
from bloodfilm.core.progress import NoProgress
from bloodfilm.export.card import CARD, card_notes, model_card
from bloodfilm.export.onnx_graphs import OutlineGraph, outlines_onnx
from bloodfilm.export.parity import crop_parity
from bloodfilm.export.quantize import quantize_outlines
from bloodfilm.export.trained import config_of, load_weights
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.manifest import MANIFEST, Manifest, OutlineSpec
from bloodfilm.training.data.drawn_outlines import draw_outline_crops
from bloodfilm.training.networks import build_outline_net
from bloodfilm.training.records import OutlineRecord, RunRecord, read_record
from bloodfilm.training.tasks.outlines import VALIDATION_SEED, OutlineSamples

OUTLINES_FILE = "outlines.onnx"
PARITY_FIGURES = ("maps", "int8_outlines")
BOX_AGREEMENT = 0.7
"""IoU of the detector's box and that around the outline, below which a cell's box is their mean.

Of cells where they agree less, the mean is nearer to the labelled box on each of three sites: the
mean IoU with it goes from 0.63 to 0.74 on KRD-WBC (18 cells), from 0.69 to 0.74 on Chula (33) and
from 0.71 to 0.78 on TXL-PBC's validation fields (3). Where they agree by 0.7 to 0.8, the detector's
box is the better one on TXL-PBC.
"""
"""Figures of the outline network among those of a bundle's parity."""
PROBES = 48
"""Drawn cells on which torch and ONNX Runtime are compared."""


@dataclass(frozen=True)
class OutlinePart:
    """What an outline network adds to a bundle.

    Attributes:
        spec: its part of the manifest; `None` adds nothing.
        onnx: the graph.
        training: record of its training.
        metrics: on validation data.
        parity: largest difference between torch and ONNX Runtime.
    """

    spec: OutlineSpec | None = None
    onnx: bytes = b""
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    parity: Mapping[str, float] = field(default_factory=dict)

    @property
    def graphs(self) -> dict[str, bytes]:
        """The graph by its file name."""
        return {} if self.spec is None else {self.spec.file: self.onnx}

    def added_to(self, manifest: Manifest) -> Manifest:
        """Return a manifest with this part in the place of its own."""
        if self.spec is None:
            return manifest
        others = manifest.metrics.get("parity", {})
        others = {k: v for k, v in others.items() if k not in PARITY_FIGURES}
        bare = manifest.model_copy(update={"metrics": {**manifest.metrics, "parity": others}})
        trained = bare.with_outlines(self.spec).with_training(outlines=dict(self.training))
        return trained.with_figures(validation={"outlines": self.metrics}, parity=self.parity)


NO_OUTLINES = OutlinePart()


def open_outlines(place: Path, *, int8: bool = False) -> OutlinePart:
    """Load an outline network from the folder of its run, or take it from a bundle.

    Args:
        place: of the run or the bundle.
        int8: store the network of a run in eight-bit integers.

    Raises:
        ConfigError: if a run is missing or of another task, or a bundle has none.
        BundleError: if a bundle is damaged, torch and ONNX Runtime differ, or the eight-bit network
            differs from the float one.
    """
    if (place / MANIFEST).is_file():
        return _of_bundle(place)
    config = config_of(read_record(place, RunRecord), place, "outlines")
    record = read_record(place, OutlineRecord)
    model = build_outline_net(config)
    kept = load_weights(model, place)
    graph = OutlineGraph(model)
    drawn = draw_outline_crops(PROBES, config.seed + VALIDATION_SEED, NoProgress())
    crops = np.stack([s.crop for s in OutlineSamples(config, drawn).plain(drawn)])
    onnx = outlines_onnx(graph, torch.from_numpy(crops[:2]))
    parity = crop_parity(graph, onnx, crops, OUTLINES_FILE)
    if int8:
        onnx, agreement = quantize_outlines(onnx, list(crops))
        parity |= agreement
    spec = OutlineSpec(
        file=OUTLINES_FILE,
        sha256=hashlib.sha256(onnx).hexdigest(),
        size=record.size,
        background=BACKGROUND,
        share=record.share,
        colours=record.colours,
        box_agreement=BOX_AGREEMENT,
    )
    training = record.model_dump(mode="json", include={"config", "sources"})
    rounded = {k: float(f"{v:.3g}") for k, v in parity.items()}
    return OutlinePart(spec, onnx, training, kept["metrics"], rounded)


def _of_bundle(place: Path) -> OutlinePart:
    manifest = load_bundle(place).manifest
    if manifest.outlines is None:
        raise ConfigError(f"{place}: this bundle has no outline network")
    figures = manifest.metrics
    return OutlinePart(
        manifest.outlines,
        (place / manifest.outlines.file).read_bytes(),
        manifest.training.get("outlines", {}),
        figures.get("validation", {}).get("outlines", {}),
        {k: v for k, v in figures.get("parity", {}).items() if k in PARITY_FIGURES},
    )


def set_outlines(bundle: Path, part: OutlinePart, notes: str | None = None) -> None:
    """Give a bundle another outline network, and write its model card anew.

    Args:
        bundle: its folder.
        part: the network; without a graph nothing is changed.
        notes: Markdown that ends the card; `None` keeps what ends it now.
    """
    if part.spec is None:
        return
    before = load_bundle(bundle).manifest
    manifest = part.added_to(before)
    if notes is None:
        notes = card_notes(bundle / CARD, model_card(before))
    manifest.write(bundle, part.graphs)
    write_text(bundle / CARD, model_card(manifest, notes))
