"""Training of the outline network: cell and nucleus of one centred cell, from drawn films."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bloodfilm.core.arrays import Pixels
from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import Progress
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.imaging.colour_normalisation import ColourStandard, normalise
from bloodfilm.inference.manifest import ObjectRoles
from bloodfilm.losses.masks import dice, mask_losses
from bloodfilm.models.outlines import CHANNELS, OutlineNet
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config
from bloodfilm.training.data.appearance import vary_crop
from bloodfilm.training.data.drawn_outlines import (
    OutlineCrops,
    draw_outline_crops,
    plain_crop,
    varied_crop,
)
from bloodfilm.training.data.keys import Key
from bloodfilm.training.data.outline_variation import add_neighbour, strip
from bloodfilm.training.networks import build_outline_net
from bloodfilm.training.run_data import RunData
from bloodfilm.training.tasks.common import to_tensor
from bloodfilm.training.vocabulary import (
    DEFAULT_CLASSIFIED,
    DEFAULT_OBJECT_TYPES,
    DEFAULT_RULER,
    Vocabulary,
)

VALIDATION_SEED = 7919
"""Added to the run's seed: no validation cell is drawn like a training cell."""
EVALUATION_BATCH = 64
OUTLINE_STANDARD = ColourStandard(nucleus=None)


@dataclass(frozen=True)
class OutlineSample:
    """One training crop.

    Attributes:
        crop: (S, S, 3) the network's input.
        masks: (2, S/2, S/2) share of each place that is inside cell and nucleus.
        known: which of the two can be told: the nucleus of a cell that shows no cytoplasm cannot.
    """

    crop: Pixels
    masks: NDArray[np.float32]
    known: tuple[bool, bool] = (True, True)


@dataclass(frozen=True)
class OutlineBatch:
    """Several samples as tensors: see `OutlineSample`."""

    crops: Tensor
    masks: Tensor
    known: Tensor

    def to(self, device: torch.device) -> "OutlineBatch":
        """Move every tensor."""
        return OutlineBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


class OutlineSamples:
    """Training crops of drawn cells, varied anew in every epoch."""

    def __init__(self, config: Config, drawn: OutlineCrops) -> None:
        self.config, self.drawn = config, drawn
        self.section, self.appearance = config.outlines, config.appearance

    def keys(self, epoch: int) -> Sequence[Key]:
        """Return the cells of an epoch, shuffled; every cell once, or `optim.samples` of them."""
        rng = np.random.default_rng([self.config.seed, epoch])
        count = self.config.optim.samples or len(self.drawn)
        order = np.concatenate(
            [rng.permutation(len(self.drawn)) for _ in range(-(-count // len(self.drawn)))]
        )
        return [(epoch * count + place, int(i)) for place, i in enumerate(order[:count])]

    def sample(self, key: Key) -> OutlineSample:
        """Vary one crop and its masks."""
        draw, i = key
        rng = np.random.default_rng([self.config.seed, draw, i])
        s = self.section
        stored = self.drawn.images[i], self.drawn.masks[i]
        bare = strip(*stored) if rng.random() < s.bare else None
        image, inside = bare or stored
        if rng.random() < s.neighbour:
            image = add_neighbour(image, inside, rng)
        crop, mask = varied_crop(image, inside, rng, size=s.size, share=s.share, section=s)
        shown = vary_crop(crop, rng, self.appearance, OUTLINE_STANDARD)
        return OutlineSample(shown, _at_output(mask), (True, bare is None))

    def plain(self, drawn: OutlineCrops) -> Iterator[OutlineSample]:
        """Yield crops as analysis shows them to the network."""
        s = self.section
        for image, mask in zip(drawn.images, drawn.masks, strict=True):
            crop, inside = plain_crop(image, mask, size=s.size, share=s.share)
            yield OutlineSample(normalise(crop, OUTLINE_STANDARD), _at_output(inside))

    def collate(self, samples: Sequence[OutlineSample]) -> OutlineBatch:
        """Stack crops and masks."""
        return OutlineBatch(
            to_tensor([s.crop for s in samples]),
            torch.from_numpy(np.stack([s.masks for s in samples])),
            torch.tensor([s.known for s in samples]),
        )


def _at_output(mask: Pixels) -> NDArray[np.float32]:
    """Return masks (S, S, 2) at the resolution of the network's output, (2, S/2, S/2) in [0, 1]."""
    side = mask.shape[0] // OutlineNet.stride
    small = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


class OutlineTask:
    """Learns which pixels belong to the cell in the middle of a crop, and which to its nucleus.

    Args:
        config: of the run.
        samples: training crops.
        validation: cells to judge by, drawn by other chance.
    """

    score_name = "score"

    def __init__(self, config: Config, samples: OutlineSamples, validation: OutlineCrops) -> None:
        if not config.appearance.normalise:
            raise ConfigError("appearance.normalise: task outlines needs it to be true")
        self.config, self.samples = config, samples
        self.validation = list(samples.plain(validation))
        torch.manual_seed(config.seed)
        self.network = build_outline_net(config)

    @classmethod
    def from_config(cls, config: Config, progress: Progress) -> "OutlineTask":
        """Draw the cells of a configuration, and load the weights it starts from."""
        section = config.outlines
        train = draw_outline_crops(section.cells, config.seed, progress)
        held = draw_outline_crops(
            section.validation_cells,
            config.seed + VALIDATION_SEED,
            progress,
            "drawing cells to validate by",
        )
        task = cls(config, OutlineSamples(config, train), held)
        start = config.model.start
        if start is not None:
            try:
                task.network.load_state_dict(load_checkpoint(start)["model"])
            except RuntimeError:
                raise ConfigError(f"{start}: holds the weights of another network") from None
        return task

    @property
    def model(self) -> OutlineNet:
        """The outline network."""
        return self.network

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weights of the configuration."""
        return {"pixels": 1.0, "dice": self.config.outlines.dice}

    def losses(
        self, model: OutlineNet, batch: OutlineBatch, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the terms of `mask_losses`."""
        batch = batch.to(device)
        logits = model(batch.crops.to(memory_format=torch.channels_last))
        return mask_losses(logits, batch.masks, batch.known)

    def validate(self, model: OutlineNet, device: torch.device) -> dict[str, float]:
        """Return the mean Dice of cells and nuclei, the error of the nucleus's share of the cell.

        `score` is the mean of both Dice figures.
        """
        inside, truth = [], []
        for start in range(0, len(self.validation), EVALUATION_BATCH):
            batch = self.samples.collate(self.validation[start : start + EVALUATION_BATCH])
            with torch.no_grad():
                inside.append((model(batch.crops.to(device)) > 0).cpu())
            truth.append(batch.masks > 0.5)
        found, drawn = torch.cat(inside), torch.cat(truth)
        both = dice(found, drawn).mean(0)
        metrics = {f"dice_{name}": float(both[i]) for i, name in enumerate(CHANNELS)}
        error = (_share(found) - _share(drawn)).abs().mean()
        metrics["nucleus_share_error"] = float(error)
        metrics["score"] = float(both.mean())
        return metrics

    def finish(self, model: OutlineNet, device: torch.device) -> None:
        """Nothing is set after training."""

    def record(self) -> dict[str, Any]:
        """Return sizes, colours and what was drawn."""
        section = self.config.outlines
        drawn = {"name": "drawn films", "licence": "Apache-2.0", "split": "none"}
        vocabulary = Vocabulary(
            DEFAULT_TAXONOMY,
            LLD_SCHEMA,
            DEFAULT_OBJECT_TYPES,
            ObjectRoles(classified=DEFAULT_CLASSIFIED, ruler=DEFAULT_RULER),
        )
        sources = {
            "train": [{**drawn, "fields": section.cells}],
            "validation": [{**drawn, "fields": section.validation_cells}],
        }
        return {
            "size": section.size,
            "share": section.share,
            "colours": OUTLINE_STANDARD.to_json(),
            **RunData(vocabulary, sources=sources).record(),
        }


def _share(masks: Tensor) -> Tensor:
    """Return the nucleus's share of the cell's area, (N,); what lies outside the cell is none."""
    cell, nucleus = masks.unbind(1)
    inside = (cell & nucleus).sum((1, 2)).float()
    return inside / cell.sum((1, 2)).clamp(min=1)
