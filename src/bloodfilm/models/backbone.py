"""A timm backbone as a list of feature maps, and its start from ImageNet weights kept as a file."""

import pickle
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.files import regular_file
from bloodfilm.models._timm import import_timm

ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError)


class Backbone(nn.Module):
    """Feature maps of a timm network, from uint8 RGB images.

    Args:
        name: a timm model name, e.g. `mobilenetv2_100`.
        levels: which of timm's feature levels to return (0 is stride 2, 1 is stride 4, ...).

    Attributes:
        channels, strides: of each returned level.

    Raises:
        ConfigError: if timm knows no such model or level, or the name is an address: timm would
            fetch what `hf-hub:` names.
    """

    def __init__(self, name: str, levels: Sequence[int]) -> None:
        super().__init__()
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(
                f"backbone {name!r}: is not the plain name of a timm model; networks are not "
                "loaded from a hub or a folder (weights come from a file, [model] weights)"
            )
        timm = import_timm()
        # The published MobileNetV2 weights expect TensorFlow's asymmetric "SAME" padding, as timm
        # gives its `tf_` models anyway.
        extra = {"pad_type": "same"} if name.startswith("mobilenetv2") else {}
        try:
            self.body = timm.create_model(
                name, pretrained=False, features_only=True, out_indices=tuple(levels), **extra
            )
        except (RuntimeError, IndexError, AssertionError, ValueError) as error:
            raise ConfigError(f"backbone {name!r} with levels {list(levels)}: {error}") from None
        _fix_padding(self.body)
        self.name = name
        self.channels: list[int] = self.body.feature_info.channels()
        self.strides: list[int] = self.body.feature_info.reduction()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return feature maps for pixels (B, 3, H, W) in [0, 255]."""
        features: list[Tensor] = self.body(image / 127.5 - 1)
        return features


class _EvenConv2d(nn.Conv2d):
    """TensorFlow's "SAME" convolution for sizes its stride divides: its padding is then constant.

    A padding that depends on the size would stay a separate, slow step in the exported graph.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pad right and bottom by what the left and top do not take, then convolve."""
        total = self.kernel_size[0] - self.stride[0]
        low, high = total // 2, total - total // 2
        x = functional.pad(x, (low, high, low, high))
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _fix_padding(model: nn.Module) -> None:
    """Replace timm's size-dependent convolutions; weights and names stay."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ != "Conv2dSame" or not isinstance(child, nn.Conv2d):
                continue
            fixed = _EvenConv2d(
                child.in_channels,
                child.out_channels,
                child.kernel_size[0],
                child.stride[0],
                groups=child.groups,
                bias=child.bias is not None,
            )
            fixed.load_state_dict(child.state_dict())
            setattr(parent, name, fixed)


def pair_batch_norms(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return every convolution with the batch norm right after it, in the order of the modules."""
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    last: nn.Conv2d | None = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            last = module
        elif isinstance(module, nn.BatchNorm2d) and last is not None:
            pairs.append((last, module))
            last = None
    return pairs


@dataclass(frozen=True)
class _Folded:
    """One convolution with its batch norm folded in: kernel (out, in, kh, kw), bias (out,)."""

    name: str
    kernel: Tensor
    bias: Tensor


@torch.no_grad()
def load_folded(backbone: Backbone, path: Path) -> int:
    """Start a backbone from published weights, every batch norm folded into its convolution.

    The file is one of these, its convolutions in forward order; a truncated backbone takes the
    first ones:

    - an npz whose batch norms are folded already: `NN_conv_w` (out, kh, kw, in) or `NN_dw_w`
      (1, kh, kw, channels), and a bias `NN_*_b`;
    - a PyTorch state (`.pth`, `.pt`) of a network in which every convolution is followed by its
      batch norm, under whatever names.

    The backbone's batch norms become "add the bias"; call `unfold_batch_norm` before training.

    Returns:
        the number of convolutions loaded.

    Raises:
        ConfigError: if the file cannot be read or does not fit the backbone.
        DataError: if it is no regular file.
    """
    pairs = pair_batch_norms(backbone.body)
    eps = pairs[0][1].eps
    read = _read_state if path.suffix in (".pth", ".pt") else _read_arrays
    if path.exists():
        regular_file(path)
    try:
        folded = read(path, eps)
    except (OSError, ValueError, EOFError, RuntimeError, *ARCHIVE_ERRORS) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{path}: cannot read backbone weights ({first})") from None
    if len(pairs) > len(folded):
        raise ConfigError(f"{path}: {len(folded)} convolutions, the backbone needs {len(pairs)}")
    for (conv, norm), one in zip(pairs, folded, strict=False):
        if one.kernel.shape != conv.weight.shape or one.bias.shape != norm.bias.shape:
            raise ConfigError(
                f"{path}: {one.name} has shape {tuple(one.kernel.shape)} and a bias of "
                f"{tuple(one.bias.shape)}, {backbone.name} needs {tuple(conv.weight.shape)} "
                f"and {tuple(norm.bias.shape)}"
            )
        conv.weight.copy_(one.kernel)
        norm.bias.copy_(one.bias)
        norm.weight.fill_(1.0)
        norm.running_mean.zero_()  # type: ignore[union-attr]
        norm.running_var.fill_(1.0 - norm.eps)  # type: ignore[union-attr]
    return len(pairs)


def _read_arrays(path: Path, _eps: float) -> list[_Folded]:
    archive = np.load(path)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("not an npz archive")
    with archive:
        arrays = {name: archive[name] for name in archive.files}
    folded: list[_Folded] = []
    for name in sorted(name for name in arrays if name.endswith("_w")):
        order = (3, 0, 1, 2) if "_dw_" in name else (0, 3, 1, 2)
        kernel, bias = arrays[name], arrays.get(name[:-2] + "_b", np.zeros(0))
        if kernel.ndim != len(order):
            raise ValueError(f"{name} has shape {kernel.shape}")
        kernel = kernel.transpose(order).astype(np.float32)
        folded.append(_Folded(name, torch.from_numpy(kernel), torch.from_numpy(bias).float()))
    return folded


def _read_state(path: Path, eps: float) -> list[_Folded]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError("not the state of a network")
    tensors = [(n, t.float()) for n, t in state.items() if not n.endswith("num_batches_tracked")]
    folded: list[_Folded] = []
    for place, (name, kernel) in enumerate(tensors):
        if kernel.ndim != 4:
            continue
        norm = [tensor for _, tensor in tensors[place + 1 : place + 5]]
        if [tuple(t.shape) for t in norm] != [(len(kernel),)] * 4:
            raise ValueError(f"no batch norm follows {name}")
        weight, bias, mean, variance = norm
        scale = weight / torch.sqrt(variance + eps)
        folded.append(_Folded(name, kernel * scale[:, None, None, None], bias - mean * scale))
    return folded


@torch.no_grad()
def unfold_batch_norm(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Give folded batch norms back their statistics, so that they can train.

    A folded network computes `W x + b`. In training a batch norm would rescale `W x` to unit
    variance and so undo the folding. The mean m and variance v of every `W x` are measured over
    `images` (each (B, 3, H, W), pixels), then `weight = sqrt(v)` and `bias = b + m`: in evaluation
    the network computes what it did before, in training nearly so. A batch norm whose convolution
    the network does not use is left alone.
    """
    pairs = pair_batch_norms(network)
    sums = [torch.zeros(3, conv.out_channels, dtype=torch.float64) for conv, _ in pairs]

    def watch(index: int) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            flat = output.transpose(0, 1).flatten(1).double()
            sums[index] += torch.stack(
                [flat.sum(1), flat.square().sum(1), torch.full((len(flat),), flat.shape[1])]
            )

        return pairs[index][0].register_forward_hook(hook)

    handles = [watch(i) for i in range(len(pairs))]
    was_training = network.training
    network.eval()
    for batch in images:
        network(batch)
    network.train(was_training)
    for handle in handles:
        handle.remove()
    for (_, norm), (total, squares, count) in zip(pairs, sums, strict=True):
        if not count.any():
            continue
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(1e-5)
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)
