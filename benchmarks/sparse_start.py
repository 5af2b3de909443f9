"""The common start of all methods: a detector that has seen rendered films only, no real label."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sparse_data import halved

from bloodfilm.synthetic import PROFILES, DatasetSpec, default_scene, random_profile, write_dataset
from bloodfilm.training import loop
from bloodfilm.training.callbacks import BaseCallback, EpochInfo
from bloodfilm.training.config import Config, parse_config
from bloodfilm.training.data.canonical_fields import CanonicalField, FieldLoader
from bloodfilm.training.data.mosaics import Mosaics
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.run_data import RunData
from bloodfilm.training.tasks.sparse import SparseTask, start_from
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

NAMED = ("pbc-like", "bccd-like", "raabin-like", "phone", "lld40x-like", "lld40x-pale")
STRANGE = 14
"""Looks drawn at random, beside the named ones."""
FIELDS = 20
"""Rendered fields of each acquisition profile."""
PLATELETS = 2.5
"""Per 1000 um2; the profiles' own 0.9 shows too few of them."""
WEIGHTS = "backbone_mobilenetv2/mobilenet_v2_1.0_224_fp32_bnfolded.npz"
LOOK = {
    "stain": 0.35,
    "contrast": 0.4,
    "recolour": 0.4,
    "permute": 0.05,
    "light": 0.7,
    "blur": 1.2,
    "noise": 8.0,
    "scale": 0.3,
    "aspect": 0.08,
    "mild": 0.3,
}


@dataclass(frozen=True)
class Start:
    """What decides the start's weights.

    Attributes:
        um: of a pixel; size: of a training image, pixels; width: of the network.
        steps: of training, at `batch` images.
    """

    um: float
    size: int
    width: int
    steps: int = 1200
    batch: int = 6

    @property
    def config(self) -> Config:
        """The training of it."""
        source = [{"path": "films"}]
        epochs = 10
        return parse_config(
            {
                "task": "sparse",
                "model": {"weights": WEIGHTS, "width": self.width},
                "data": {"train": source, "validation": source, "size": self.size},
                "optim": {
                    "epochs": epochs,
                    "batch": self.batch,
                    "samples": self.batch * self.steps // epochs,
                    "lr": 2e-3,
                    "ema": 0.995,
                    "validate_every": epochs,
                },
                "augment": LOOK,
                "sparse": {
                    "teacher": "none",
                    "patches": 0.0,
                    "mix": 0.0,
                    "copy_paste": 0.0,
                    "border": 0.0,
                    "balance": 0.0,
                },
            },
            "start",
        )

    @property
    def key(self) -> str:
        """Names it by everything that decides it."""
        content: dict[str, Any] = self.config.model_dump(mode="json", exclude_unset=True)
        content |= {"um": self.um, "films": [NAMED, STRANGE, FIELDS, PLATELETS]}
        text = json.dumps(content, sort_keys=True)
        return "start-" + hashlib.sha256(text.encode()).hexdigest()[:12]

    def make(self, data: Path, work: Path, device: torch.device) -> Path:
        """Return the weights' file; rendered and trained if they are not there yet."""
        out = work / self.key
        best = out / loop.BEST
        if best.exists():
            return best
        fields = rendered(work / "films", self.um / Mosaics.oversampling)
        held = [halved(f) for f in fields[:: FIELDS // 2]]
        task = SparseTask(self.config, fields, held, RunData(DEFAULT_VOCABULARY))
        start_from(task, data)
        out.mkdir(parents=True, exist_ok=True)

        loop.train(task, self.config, out, device, [_Report()])
        (out / loop.LAST).unlink()
        return best


class _Report(BaseCallback):
    """Prints every epoch."""

    def on_epoch_end(self, info: EpochInfo) -> None:
        shown = "  ".join(
            f"{k} {v:.3f}" for k, v in {**info.losses, **(info.metrics or {})}.items()
        )
        print(f"start: epoch {info.epoch}: {shown}", flush=True)


def rendered(folder: Path, um: float) -> list[CanonicalField]:
    """Draw the films and bring them to a scale."""
    rng = np.random.default_rng(7)
    profiles = [PROFILES[name] for name in NAMED] + [random_profile(rng) for _ in range(STRANGE)]
    fields, loader = [], FieldLoader(DEFAULT_VOCABULARY, um)
    for number, profile in enumerate(profiles):
        spec = replace(default_scene(profile), platelet_density=PLATELETS)
        plan = DatasetSpec(profiles=(profile,), patients=FIELDS // 2, spec=spec, small=True)
        drawn = write_dataset(folder / str(number), FIELDS, plan, seed=100 + number)
        fields += [loader.load(SourcedField(f, drawn, 1.0)) for f in drawn]
    return fields
