"""Adaptation: weights recovered from graphs, statistics, the terms of self-training."""

import hashlib

import numpy as np
import pytest
import torch

import bloodfilm
from bloodfilm.core.errors import BundleError
from bloodfilm.export.onnx_graphs import (
    ClassifierGraph,
    DetectorGraph,
    classifier_onnx,
    detector_onnx,
)
from bloodfilm.export.quantize import quantize_detector
from bloodfilm.export.recovered import (
    read_weights,
    recover_classifier,
    recover_detector,
    scores_agreement,
)
from bloodfilm.models.backbone import pair_batch_norms, unfold_batch_norm
from bloodfilm.training.config import parse_config
from bloodfilm.training.networks import build_classifier, build_detector
from bloodfilm.training.tasks.adaptation import (
    AdaptationSamples,
    Calibration,
    ClassifierAdaptationTask,
    TargetCells,
    align_statistics,
)
from bloodfilm.training.tasks.classifier import crop_view
from fake_bundle import write_bundle
from tiny import VOCABULARY, config

LEAVES = VOCABULARY.leaves
CALIBRATION = Calibration((True,) * len(LEAVES), 1.0, 0.5)


def noisy(net, seed=0):
    """A network with statistics and biases that are not those of its start."""
    rng = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            size = module.num_features
            module.running_mean.copy_(torch.randn(size, generator=rng) * 0.1)
            module.running_var.copy_(torch.rand(size, generator=rng) + 0.5)
            module.weight.data.copy_(torch.rand(size, generator=rng) + 0.5)
            module.bias.data.copy_(torch.randn(size, generator=rng) * 0.1)
    return net.eval()


def crops(count, seed=0, size=128):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (count, 8, 8, 3)).astype(np.uint8)
    return np.ascontiguousarray(small.repeat(size // 8, 1).repeat(size // 8, 2))


def bundle_of(folder, part, graph, settings):
    """The fake bundle with one graph of a real network, and how that was trained."""

    def change(data):
        key = "reader" if part == "classifier" else part
        name = data[key]["file"]
        (folder / name).write_bytes(graph)
        data[key]["sha256"] = hashlib.sha256(graph).hexdigest()
        data["training"] = {key: {"config": settings}}

    write_bundle(folder, change)
    name = "reader.onnx" if part == "classifier" else "detector.onnx"
    (folder / name).write_bytes(graph)
    return bloodfilm.load_bundle(folder)


@pytest.fixture(scope="module")
def settings():
    return config("classifier")


@pytest.fixture
def classifier(settings):
    torch.manual_seed(1)
    net = noisy(build_classifier(parse_config(settings, "test"), VOCABULARY))
    means = np.random.default_rng(0).normal(size=(len(LEAVES), net.size)).astype(np.float32)
    net.set_prototypes(means, np.full(net.size, 1.5, np.float32))
    return net


def test_a_classifier_comes_back_from_its_graph(classifier, settings, tmp_path):
    probes = crops(6)
    graph = classifier_onnx(ClassifierGraph(classifier), torch.from_numpy(probes[:2]))
    found, about = recover_classifier(bundle_of(tmp_path, "classifier", graph, settings), probes)
    assert not about.eight_bit and about.agreement > 0.9999
    images = torch.from_numpy(probes)
    with torch.no_grad():
        theirs, ours = ClassifierGraph(classifier)(images), ClassifierGraph(found)(images)
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert found.size == classifier.size


def test_scores_agree_where_two_classes_are_as_likely():
    """Eight bits turn the order of near ties round; another network differs in what it sees."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(64, 20)) + np.linspace(0, 9, 20)
    scores[:, -1] = scores[:, -2]  # the two likeliest classes are as likely
    rough = scores + rng.normal(scale=0.01, size=scores.shape)
    assert (scores.argmax(1) != rough.argmax(1)).mean() > 0.2
    assert scores_agreement(scores, rough) > 0.999
    other = rng.normal(size=scores.shape) + np.linspace(0, 9, 20)
    assert abs(scores_agreement(scores, other)) < 0.2


def test_weights_in_eight_bits_come_back_nearly(tmp_path):
    torch.manual_seed(2)
    net = noisy(build_detector(parse_config(config("detector"), "test"), VOCABULARY))
    images = list(crops(3, size=64))
    graph = detector_onnx(DetectorGraph(net), torch.from_numpy(images[0][None]))
    exact = read_weights(graph, tmp_path / "a")
    rough = read_weights(quantize_detector(graph, images), tmp_path / "b")
    assert rough.eight_bit and not exact.eight_bit
    assert set(rough.layers) == set(exact.layers)
    moved = 0
    for path, (weight, bias) in exact.layers.items():
        other, other_bias = rough.layers[path]
        assert np.abs(other - weight).max() <= np.abs(weight).max() / 60, path
        np.testing.assert_allclose(other_bias, bias, atol=0.02, err_msg=path)
        moved += bool((other != weight).any())
    assert moved  # some of them are stored in eight bits


def test_a_detector_comes_back_from_its_graph(tmp_path):
    settings = config("detector")
    torch.manual_seed(2)
    net = noisy(build_detector(parse_config(settings, "test"), VOCABULARY))
    image = crops(1, size=64)[0]
    graph = detector_onnx(DetectorGraph(net), torch.from_numpy(image[None]))
    found, about = recover_detector(bundle_of(tmp_path, "detector", graph, settings), [image])
    assert about.agreement > 0.999
    with torch.no_grad():
        theirs, ours = (DetectorGraph(n)(torch.from_numpy(image[None])) for n in (net, found))
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_graphs_of_others_are_refused(classifier, settings, tmp_path):
    with pytest.raises(BundleError, match="does not record how its classifier was trained"):
        recover_classifier(bloodfilm.load_bundle(write_bundle(tmp_path / "a")), crops(2))
    graph = classifier_onnx(ClassifierGraph(classifier), torch.from_numpy(crops(2)))
    wider = {**settings, "model": {**settings["model"], "width": 24}}
    with pytest.raises(BundleError, match="that its configuration does not describe"):
        recover_classifier(bundle_of(tmp_path / "b", "classifier", graph, wider), crops(2))
    with pytest.raises(BundleError, match="is no ONNX graph"):
        read_weights(b"\xff\xfe nothing", tmp_path / "c.onnx")


def test_unfolded_batch_norms_compute_the_same_and_can_train(classifier, settings, tmp_path):
    probes = crops(8)
    graph = classifier_onnx(ClassifierGraph(classifier), torch.from_numpy(probes[:2]))
    net, _ = recover_classifier(bundle_of(tmp_path, "classifier", graph, settings), probes)
    images = torch.from_numpy(probes).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        before = net(images)["classes"]
    unfold_batch_norm(net, [images])
    with torch.no_grad():
        torch.testing.assert_close(net(images)["classes"], before, rtol=1e-3, atol=1e-3)
    assert all(float(norm.running_var.mean()) != 1.0 for _, norm in pair_batch_norms(net.backbone))


def test_aligned_statistics_are_those_of_the_new_cells(classifier):
    images = torch.from_numpy(crops(40, seed=5)).permute(0, 3, 1, 2).float()
    untouched = [n.running_mean.clone() for _, n in pair_batch_norms(classifier)]
    align_statistics(classifier, [images], all_layers=False)
    with torch.no_grad():
        described = classifier.describe(images)
    gain, bias = classifier.norm.weight, classifier.norm.bias
    torch.testing.assert_close(described.mean(0), bias.data, rtol=1e-2, atol=1e-2)
    spread = classifier.norm.running_var / (classifier.norm.running_var + classifier.norm.eps)
    torch.testing.assert_close(described.std(0), gain.data * spread.sqrt(), rtol=2e-2, atol=1e-4)
    for (_, norm), mean in zip(pair_batch_norms(classifier), untouched, strict=True):
        torch.testing.assert_close(norm.running_mean, mean)
    align_statistics(classifier, [images], all_layers=True)
    moved = [
        bool((n.running_mean != m).any())
        for (_, n), m in zip(pair_batch_norms(classifier), untouched, strict=True)
    ]
    assert any(moved)


# ---- self-training -----------------------------------------------------------------------------


def task_of(classifier, settings, sure):
    """A task of twelve cells; `sure` is the original's probability of its best class."""
    whole = parse_config(settings, "test")
    rest = (1 - sure) / (len(LEAVES) - 1)
    classes = np.full((12, len(LEAVES)), rest)
    classes[np.arange(12), np.arange(12) % 3] = sure
    cells = TargetCells(crops(12, size=224), classes, np.arange(12))
    samples = AdaptationSamples(whole, cells, crop_view(whole), VOCABULARY)
    task = ClassifierAdaptationTask(whole, classifier, samples, cells, CALIBRATION, {})
    task.set_teacher(classifier)
    return task


def test_nothing_is_learnt_of_a_class_that_nobody_is_sure_of(classifier, settings):
    task = task_of(classifier, settings, sure=0.4)  # below the bundle's confidence
    with torch.no_grad():
        for head in classifier.class_head.modules():
            if isinstance(head, torch.nn.Linear):
                head.weight.zero_()  # the teacher: all classes alike
    batch = task.samples.collate([task.samples.sample(k) for k in task.samples.keys(0)[:4]])
    terms = task.losses(classifier.train(), batch, torch.device("cpu"))
    assert set(terms) == set(task.loss_weights)
    assert [terms[k].item() for k in ("teacher", "original")] == [0.0, 0.0]
    classifier.zero_grad()
    (terms["teacher"] + terms["original"]).backward()
    gradients = [p.grad for p in classifier.class_head.parameters() if p.grad is not None]
    assert all(float(g.abs().max()) == 0.0 for g in gradients)


def test_a_sure_answer_of_the_original_is_kept(classifier, settings):
    task = task_of(classifier, settings, sure=0.9)
    batch = task.samples.collate([task.samples.sample(k) for k in task.samples.keys(0)[:8]])
    optimiser = torch.optim.SGD(classifier.parameters(), 0.05)
    values = []
    for _ in range(6):
        term = task.losses(classifier.train(), batch, torch.device("cpu"))["original"]
        optimiser.zero_grad()
        term.backward()
        optimiser.step()
        values.append(float(term.detach()))
    assert values[-1] < values[0]


def test_samples_are_the_same_whenever_they_are_drawn(classifier, settings):
    task = task_of(classifier, settings, sure=0.9)
    key = task.samples.keys(1)[3]
    one, two = task.samples.sample(key), task.samples.sample(key)
    np.testing.assert_array_equal(one.varied, two.varied)
    assert task.samples.keys(1) == task.samples.keys(1) != task.samples.keys(0)


def test_the_original_judged_by_itself_keeps_everything(classifier, settings):
    task = task_of(classifier, settings, sure=0.9)
    with torch.no_grad():
        classifier.class_head[-1].bias[0] += 50.0  # one class for everything
    figures = task.judge(classifier, torch.device("cpu"))
    assert (figures.cells, figures.consistency, figures.kept) == (12, 1.0, 1.0)
    assert figures.information == pytest.approx(0.0, abs=1e-6)
