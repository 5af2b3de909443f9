"""Backbones: their start from folded weights, and what they refuse."""

import importlib
import sys

import numpy as np
import pytest
import torch

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.models._timm import import_timm
from bloodfilm.models.backbone import Backbone, load_folded, pair_batch_norms, unfold_batch_norm

torch.set_num_threads(1)
NAME, LEVELS = "mobilenetv2_035", (1, 2, 3)


def spread_norms(backbone, seed=0):
    """Give every batch norm statistics and weights as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, norm in pair_batch_norms(backbone.body):
            n = norm.num_features
            norm.running_mean.copy_(torch.randn(n, generator=generator) * 0.3)
            norm.running_var.copy_(torch.rand(n, generator=generator) * 2 + 0.2)
            norm.weight.copy_(torch.rand(n, generator=generator) + 0.5)
            norm.bias.copy_(torch.randn(n, generator=generator) * 0.3)


def fold(backbone):
    """Fold every batch norm by hand, in the layout `load_folded` documents."""
    arrays = {}
    for i, (conv, norm) in enumerate(pair_batch_norms(backbone.body)):
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        kernel = (conv.weight * scale[:, None, None, None]).detach().numpy()
        bias = (norm.bias - norm.running_mean * scale).detach().numpy()
        depthwise = conv.groups > 1
        kind = "dw" if depthwise else "conv"
        # (out, in, kh, kw) -> (1, kh, kw, channels) or (out, kh, kw, in)
        arrays[f"{i:02d}_{kind}_w"] = kernel.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        arrays[f"{i:02d}_{kind}_b"] = bias
    return arrays


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    backbone = Backbone(NAME, (1, 2, 3, 4)).eval()
    spread_norms(backbone)
    return backbone


@pytest.fixture(scope="module")
def folded(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "folded.npz"
    np.savez(path, **fold(original))
    return path


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(2, 3, 64, 64, generator=generator) * 255 for _ in range(3)]


def same(a, b, tolerance):
    for x, y in zip(a, b, strict=True):
        assert (x - y).abs().max() <= tolerance * y.abs().max()


@torch.no_grad()
def test_folded_weights_reproduce_the_network_also_a_shorter_one(original, folded, images):
    torch.manual_seed(1)
    ours = Backbone(NAME, LEVELS).eval()
    before = ours(images[0])
    assert load_folded(ours, folded) == len(pair_batch_norms(ours.body)) > 10
    wanted = original(images[0])[:3]
    same(ours(images[0]), wanted, 1e-4)
    assert (before[0] - wanted[0]).abs().max() > 0.1 * wanted[0].abs().max()


@torch.no_grad()
def test_unfolding_keeps_what_is_computed_and_lets_training_do_nearly_the_same(
    original, folded, images
):
    ours = Backbone(NAME, LEVELS).eval()
    load_folded(ours, folded)
    naive = Backbone(NAME, LEVELS).eval()
    load_folded(naive, folded)
    unfold_batch_norm(ours, images)
    assert not ours.training
    wanted = original(images[0])[:3]
    same(ours(images[0]), wanted, 1e-3)
    every = torch.cat(images)
    wanted = original(every)[:3]
    trained, rescaled = ours.train()(every), naive.train()(every)
    same(trained, wanted, 1e-2)
    # Without it, batch norm undoes the folding: that is what unfolding is for.
    assert (rescaled[1] - wanted[1]).abs().max() > 0.1 * wanted[1].abs().max()


def bad_files(arrays):
    first, bias = sorted(arrays)[1], sorted(arrays)[0]
    yield "is no archive", None, "cannot read"
    yield "too few", {k: v for k, v in arrays.items() if k < "05"}, "the backbone needs"
    yield "wrong kernel", {**arrays, first: arrays[first][:, :1]}, "has shape"
    yield "wrong dimensions", {**arrays, first: arrays[first].ravel()}, "has shape"
    yield "wrong bias", {**arrays, bias: arrays[bias][:2]}, "has shape"
    yield "no bias", {k: v for k, v in arrays.items() if k != bias}, "has shape"


def test_files_that_do_not_fit_are_refused_in_one_line(original, tmp_path):
    backbone = Backbone(NAME, LEVELS)
    for what, arrays, message in bad_files(fold(original)):
        path = tmp_path / f"{what}.npz"
        if arrays is None:
            path.write_bytes(b"PK\x03\x04 rubbish")
        else:
            np.savez(path, **arrays)
        with pytest.raises(ConfigError, match=message) as caught:
            load_folded(backbone, path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    np.save(tmp_path / "one.npy", np.zeros(3))
    for path in (tmp_path / "one.npy", tmp_path / "none.npz"):
        with pytest.raises(ConfigError, match="cannot read"):
            load_folded(backbone, path)
    with pytest.raises(DataError, match="is a folder, not a file"):
        load_folded(backbone, tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_network_saved_by_torch_is_folded_the_same_whatever_its_names(
    original, folded, images, tmp_path, suffix
):
    saved = {f"_{i}.{k.rsplit('.')[-1]}": v for i, (k, v) in enumerate(_state(original).items())}
    torch.save(saved, tmp_path / f"net{suffix}")
    ours, same_again = Backbone(NAME, LEVELS).eval(), Backbone(NAME, LEVELS).eval()
    assert load_folded(ours, tmp_path / f"net{suffix}") == load_folded(same_again, folded)
    same(ours(images[0]), same_again(images[0]), 1e-4)


def _state(backbone):
    return {k: v.clone() for k, v in backbone.body.state_dict().items()}


def test_states_that_do_not_fit_are_refused_in_one_line(original, tmp_path):
    backbone, state = Backbone(NAME, LEVELS), _state(original)
    norms = [k for k, v in state.items() if v.ndim == 1]
    kernels = [k for k, v in state.items() if v.ndim == 4]
    wrong = {
        "no norm": ({k: v for k, v in state.items() if k != norms[0]}, "no batch norm follows"),
        "no kernels": ({k: state[k] for k in norms}, "0 convolutions"),
        "other net": ({**state, kernels[1]: state[kernels[1]][..., :1]}, "has shape"),
        "not tensors": ({**state, "epoch": 3}, "not the state"),
        "a list": ([1, 2], "not the state"),
    }
    for what, (content, message) in wrong.items():
        path = tmp_path / f"{what}.pth"
        torch.save(content, path)
        with pytest.raises(ConfigError, match=message) as caught:
            load_folded(backbone, path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "rubbish.pth").write_bytes(b"PK\x03\x04 rubbish")
    for name in ("rubbish.pth", "none.pth"):
        with pytest.raises(ConfigError, match="cannot read") as caught:
            load_folded(backbone, tmp_path / name)
        assert "\n" not in str(caught.value)


def test_unknown_backbones_and_levels_are_refused():
    for name, levels in (("nonsense", (1, 2)), (NAME, (1, 9))):
        with pytest.raises(ConfigError, match=name):
            Backbone(name, levels)


@pytest.mark.parametrize("name", ["hf-hub:timm/lcnet_035", "hf_hub:a/b", "local-dir:x", "../x", ""])
def test_a_backbone_is_never_an_address(name, monkeypatch):
    monkeypatch.setattr(import_timm(), "create_model", pytest.fail)
    with pytest.raises(ConfigError, match=r"is not the plain name of a timm model") as caught:
        Backbone(name, LEVELS)
    assert "\n" not in str(caught.value)


def test_strides_and_channels_are_those_of_the_maps():
    backbone = Backbone(NAME, LEVELS).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    for m, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert m.shape == (1, channels, 64 // stride, 96 // stride)


def test_same_padding_is_tensorflows():
    """An even map is padded right and bottom only, by stride 2 and kernel 3."""
    stem = pair_batch_norms(Backbone(NAME, LEVELS).body)[0][0]
    assert stem.stride == (2, 2)
    impulse = torch.zeros(1, 3, 8, 8)
    impulse[0, 0, 0, 0] = 1.0
    with torch.no_grad():
        # The top left pixel is under the kernel's first entry of the first output.
        assert torch.allclose(stem(impulse)[0, :, 0, 0], stem.weight[:, 0, 0, 0])


FAKE = """
import torch
for name in ("frob", "grind"):
    if not hasattr(torch.ops.torchvision, name):
        raise RuntimeError(f"operator torchvision::{name} does not exist")
"""


@pytest.fixture
def fake_torchvision(tmp_path, monkeypatch):
    """A torchvision that cannot be imported before its operators are named."""
    before = {k: v for k, v in sys.modules.items() if k.partition(".")[0] == "torchvision"}
    for name in before:
        del sys.modules[name]
    (tmp_path / "torchvision").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "torchvision" / "__init__.py"
    for name in [k for k in sys.modules if k.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_timm_comes_also_where_torchvision_lacks_its_operators(fake_torchvision):
    fake_torchvision.write_text(FAKE)
    with pytest.raises(RuntimeError, match="frob"):
        importlib.import_module("torchvision")
    assert import_timm().__name__ == "timm"
    assert importlib.import_module("torchvision").__file__ == str(fake_torchvision)


def test_other_trouble_with_torchvision_is_not_hidden(fake_torchvision):
    fake_torchvision.write_text("raise RuntimeError('the disk is on fire')")
    with pytest.raises(RuntimeError, match="on fire"):
        import_timm()
