"""What tasks share: starting weights and the conversion of images."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bloodfilm.core.errors import ConfigError
from bloodfilm.models.backbone import load_folded, unfold_batch_norm
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config
from bloodfilm.training.records import RECORD, RunRecord, read_record
from bloodfilm.training.vocabulary import Vocabulary

PACKAGE = "package:"
ADDED = ("attributes.", "class_correction.", "attribute_correction.", "film_")
"""What a network may have that the one it starts from has not."""


def start_network(
    network: CellDetector | CellClassifierNet,
    config: Config,
    root: Path,
    images: Iterable[NDArray[np.uint8]],
    vocabulary: Vocabulary | None = None,
) -> None:
    """Load the starting weights the configuration names, if any.

    `start` fills the whole network from another run; `weights` fills the backbone, whose batch
    statistics are then recovered from `images`. With a `vocabulary` the other run may have had
    other classes and attributes: outputs of the same name are taken over, new ones begin anew.

    Raises:
        ConfigError: if the weights cannot be read or are of another network.
    """
    section = config.model
    if section.start is not None:
        kept = load_checkpoint(section.start)
        record = section.start.parent / RECORD
        if (
            vocabulary is not None
            and isinstance(network, CellClassifierNet)
            and record.is_file()
            and "model" in kept
        ):
            before = read_record(section.start.parent, RunRecord).read_vocabulary()
            kept["model"] = matched_outputs(kept["model"], before, network, vocabulary)
        try:
            absent, unknown = network.load_state_dict(kept["model"], strict=False)
        except (KeyError, RuntimeError):
            absent, unknown = [], ["all"]
        # A branch that reads attributes may be learnt on top of a detector that has none, and
        # corrections on top of a classifier that has none.
        if unknown or not all(name.startswith(ADDED) for name in absent):
            raise ConfigError(f"{section.start}: holds the weights of another network")
    elif section.weights is not None:
        backbone = network.backbone
        load_folded(backbone, find_weights(section.weights, root))
        unfold_batch_norm(backbone, (to_tensor([image]) for image in images))


def matched_outputs(
    weights: Mapping[str, Tensor],
    before: Vocabulary,
    network: CellClassifierNet,
    vocabulary: Vocabulary,
) -> dict[str, Tensor]:
    """Return a classifier's weights with its outputs in the order of another vocabulary.

    Args:
        weights: of the trained classifier.
        before: its vocabulary.
        network: the new classifier, whose own weights new outputs keep.
        vocabulary: of the new classifier.
    """
    if before.leaves == vocabulary.leaves and before.schema == vocabulary.schema:
        return dict(weights)
    own = network.state_dict()
    places = {name: i for i, name in enumerate(before.leaves)}
    known = [(i, places[name]) for i, name in enumerate(vocabulary.leaves) if name in places]
    new, old = (list(side) for side in zip(*known, strict=True)) if known else ([], [])
    last = f"class_head.{len(network.class_head) - 1}"
    adopted = {k: v for k, v in weights.items() if not k.startswith("attribute_heads.")}
    corrections = [f"class_correction.{part}" for part in ("weight", "bias")]
    known_corrections = [name for name in corrections if name in weights and name in own]
    for name in (f"{last}.weight", f"{last}.bias", "prototypes", *known_corrections):
        adopted[name] = own[name].clone()
        adopted[name][new] = weights[name][old]
    heads = {attribute: i for i, attribute in enumerate(before.schema.attributes)}
    for i, attribute in enumerate(vocabulary.schema.attributes):
        start = f"attribute_heads.{i}."
        for name in (key for key in own if key.startswith(start)):
            source = f"attribute_heads.{heads.get(attribute)}.{name.removeprefix(start)}"
            adopted[name] = weights.get(source, own[name])
    for part in ("weight", "bias"):
        name = f"attribute_correction.{part}"
        if name in weights and name in own:
            adopted[name] = own[name].clone()
            for key, where in vocabulary.schema.slices.items():
                old_where = before.schema.slices.get(key)
                if vocabulary.schema[key] in heads and old_where is not None:
                    adopted[name][where] = weights[name][old_where]
    return adopted


def find_weights(named: str, root: Path) -> Path:
    """Return the file a configuration names: under the data root, or in an installed package.

    Raises:
        ConfigError: the package is not installed.
    """
    if not named.startswith(PACKAGE):
        return root / named
    package, _, inside = named.removeprefix(PACKAGE).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"weights {named!r}: package {package!r} is not installed; "
            f"pip install {package.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0]) / inside


def to_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return equally large (H, W, 3) uint8 images as one float batch (B, 3, H, W)."""
    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(images)))
    return stacked.permute(0, 3, 1, 2).float()


@torch.no_grad()
def go_back(model: nn.Module, before: Mapping[str, Tensor], share: float) -> None:
    """Average the weights of a network, in place, with earlier ones.

    What was known before fades less than by training alone, and much of what was learnt stays.
    Source: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.

    Args:
        model: the trained network.
        before: its earlier weights and buffers.
        share: of the earlier ones.
    """
    for name, value in model.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(before[name].to(value.device), share)
