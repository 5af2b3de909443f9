"""Trained readers whose joint answers another one learns: an ensemble in one network.

Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, arXiv 1503.02531;
that student and teachers look at the very same crop is advised by Beyer et al., arXiv 2106.05237.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.models.reader import CellReader
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import parse_config
from bloodfilm.training.loop import BEST, RECORD
from bloodfilm.training.networks import build_reader


class Teachers:
    """Readers with one vocabulary, asked together.

    Args:
        runs: folders of their training.
        leaves, schema: what the student says; the teachers must say the same.

    Attributes:
        sources: the data they learnt from: the student learns from it too, licences and all.

    Raises:
        ConfigError: where a run is missing, of another task, or speaks of other things.
    """

    def __init__(self, runs: Sequence[Path], leaves: Sequence[str], schema: Schema) -> None:
        self.schema = schema
        self.readers: list[CellReader] = []
        self.sources: list[dict[str, Any]] = []
        for run in runs:
            record = _record(run)
            same = record.get("leaves") == list(leaves)
            if not same or record.get("schema") != schema.to_json():
                raise ConfigError(f"{run}: this teacher knows other classes or attributes")
            self.readers.append(_reader(run, record, schema))
            learnt = [*record["sources"]["train"], *record["sources"].get("teachers", [])]
            self.sources += [source for source in learnt if source not in self.sources]

    def refuse_peeking(self, held: Sequence[dict[str, Any]]) -> None:
        """Raise ConfigError if a teacher learnt from a split that is held back.

        Args:
            held: the data validated on, as `describe_sources` tells it.
        """
        for source in held:
            for learnt in self.sources:
                if (source["name"], source["split"]) == (learnt["name"], learnt["split"]):
                    raise ConfigError(
                        f"teachers: one learnt from {source['name']}, split {source['split']}, "
                        "which this run is validated on"
                    )

    @torch.no_grad()
    def ask(self, crops: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the mean probabilities of classes (N, leaves) and of each attribute (N, values).

        Args:
            crops: (N, 3, S, S), pixels in [0, 255].
        """
        told = [reader.to(crops.device)(crops) for reader in self.readers]

        def mean(name: str, where: slice = slice(None)) -> Tensor:
            parts = [t[name][:, where].float().softmax(1) for t in told]
            return torch.stack(parts).mean(0)

        return mean("classes"), [mean("attributes", s) for s in self.schema.slices.values()]

    def losses(
        self, crops: Tensor, outputs: dict[str, Tensor], learnt: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the cross entropies of a student's answers against the teachers' probabilities.

        Args:
            crops: (N, 3, S, S) both look at.
            outputs: the student's logits `classes` and `attributes` on them.
            learnt: the attributes that are taught.

        Returns:
            a term `class` and one per attribute learnt.
        """
        classes, attributes = self.ask(crops)
        terms = {"class": functional.cross_entropy(outputs["classes"].float(), classes)}
        taught = zip(self.schema.slices.items(), attributes, strict=True)
        for (name, where), wanted in taught:
            if name in learnt:
                said = outputs["attributes"][:, where].float()
                terms[name] = functional.cross_entropy(said, wanted)
        return terms


def _record(run: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((run / RECORD).read_text(encoding="utf-8"))
        task = record["config"]["task"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{run}: is no training run (teachers.runs); train it first") from None
    if task != "reader" or record["config"]["model"]["reads"] != "crop":
        raise ConfigError(f"{run}: a teacher must be a reader of crops")
    return record


def _reader(run: Path, record: dict[str, Any], schema: Schema) -> CellReader:
    config = parse_config(record["config"], str(run / RECORD))
    reader = build_reader(config, schema)
    try:
        reader.load_state_dict(load_checkpoint(run / BEST)["model"])
    except (KeyError, RuntimeError):
        raise ConfigError(f"{run / BEST}: holds other weights than {RECORD} describes") from None
    return reader.eval().requires_grad_(False)
