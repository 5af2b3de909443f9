"""Linear corrections: they fit what is taught, keep to the head elsewhere, and are exported."""

import json

import numpy as np
import pytest
import torch

from bloodfilm.core import DEFAULT_TAXONOMY
from bloodfilm.export.onnx_graphs import ClassifierGraph, classifier_onnx
from bloodfilm.export.recovered import read_weights
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint, save_checkpoint
from bloodfilm.training.config import parse_config
from bloodfilm.training.corrections import (
    begin_like_relatives,
    fit_correction,
    nearest_learnt,
    value_balance,
)
from bloodfilm.training.networks import build_classifier
from bloodfilm.training.tasks.classifier import ClassifierTask, predict_crops
from tiny import VOCABULARY, config, silent, write_set

CPU = torch.device("cpu")
LEAVES = tuple(DEFAULT_TAXONOMY.leaves_under("nucleated cell"))


def clouds(n=60, size=5):
    """Two classes that one dimension of the description tells apart, in unequal units."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 2
    x = rng.normal(size=(n, size))
    x[:, 2] = 40 * (x[:, 2] * 0.2 + truth)
    return torch.from_numpy(x).float(), torch.from_numpy(np.eye(3, dtype=bool)[truth])


def corrected(x, offset, weight, bias):
    return offset + x @ weight.T + bias


def test_what_the_head_does_not_know_is_fitted():
    x, allowed = clouds()
    offset = torch.zeros(len(x), 3)
    weight, bias = fit_correction(x, offset, allowed, torch.ones(len(x)), 1e-3)
    assert weight.shape == (3, 5) and bias.shape == (3,)
    said = corrected(x, offset, weight, bias)[:, :2].argmax(1)
    assert (said == allowed.int().argmax(1)).all()
    assert not weight[2].any() and bias[2] == 0  # nobody is of the third class


def test_a_large_penalty_keeps_the_answers_of_the_head():
    x, allowed = clouds()
    offset = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(0))
    loose, tight = (
        fit_correction(x, offset, allowed, torch.ones(len(x)), penalty)[0] * x.std(0)
        for penalty in (1e-3, 1e3)
    )
    assert tight.abs().max() < 1e-3 < loose.abs().max()


def test_a_label_of_several_answers_does_not_choose_between_them():
    x, allowed = clouds()
    wide = allowed.clone()
    wide[:, 2] = wide[:, 1]
    offset = torch.zeros(len(x), 3)
    weight, bias = fit_correction(x, offset, wide, torch.ones(len(x)), 1e-3)
    assert torch.allclose(weight[1], weight[2], atol=1e-4)
    assert torch.allclose(bias[1], bias[2], atol=1e-4)


def test_weights_of_rows_decide_between_contradicting_labels():
    x = torch.zeros(2, 1)
    allowed = torch.eye(2, dtype=torch.bool)
    bias = fit_correction(x, torch.zeros(2, 2), allowed, torch.tensor([3.0, 1.0]), 1.0)[1]
    assert torch.softmax(bias, 0)[0].item() == pytest.approx(0.75, abs=0.01)


def test_every_value_counts_the_same_and_patients_as_the_root_of_their_cells():
    codes = np.array([0] * 9 + [0] + [1] * 4)
    groups = np.array([0] * 9 + [1] + [0] * 4)
    weight = value_balance(codes, groups)
    assert weight[codes == 0].sum() == pytest.approx(weight[codes == 1].sum()) == pytest.approx(1)
    assert weight[:9].sum() == pytest.approx(3 * weight[9])


def test_the_nearest_relatives_of_a_blast_are_blasts_and_of_others_those_in_the_tree():
    learnt = [leaf in ("myeloblast", "monocyte", "lymphocyte") for leaf in LEAVES]

    def nearest(leaf):
        return [LEAVES[i] for i in nearest_learnt(leaf, LEAVES, learnt, DEFAULT_TAXONOMY)]

    assert nearest("monoblast") == ["myeloblast"]
    assert nearest("lymphoblast") == ["myeloblast"]
    assert nearest("atypical lymphocyte") == ["lymphocyte"]
    assert nearest_learnt("monoblast", LEAVES, [False] * len(LEAVES), DEFAULT_TAXONOMY) == []


def test_new_classes_share_the_odds_of_their_relatives():
    learnt = [leaf in ("myeloblast", "monocyte", "lymphocyte") for leaf in LEAVES]
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(len(LEAVES), 4, generator=generator)
    bias = torch.randn(len(LEAVES), generator=generator)
    x = torch.randn(6, 4, generator=generator)
    before = (x @ weight.T + bias)[:, learnt].softmax(1)
    new = ["monoblast", "lymphoblast"]
    begin_like_relatives(weight, bias, new, LEAVES, learnt, DEFAULT_TAXONOMY)
    offered = [leaf in new or known for leaf, known in zip(LEAVES, learnt, strict=True)]
    after = (x @ weight.T + bias)[:, offered].softmax(1)
    names = np.array(LEAVES)[offered]
    blasts = torch.tensor([name in ("myeloblast", *new) for name in names])
    kept = np.array(LEAVES)[learnt].tolist().index("myeloblast")
    assert torch.allclose(after[:, blasts].sum(1), before[:, kept], atol=1e-5)


# ---- in a run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 4, 2)
    return folder


def settings(**sections):
    return parse_config(config("classifier", **sections), "test")


@pytest.fixture(scope="module")
def start(root, tmp_path_factory):
    """A run that was never trained on monocytes."""
    folder = tmp_path_factory.mktemp("start")
    task = ClassifierTask.from_config(settings(), root, silent)
    save_checkpoint(folder / "best.pt", {"model": task.network.state_dict()})
    record = {"version": "0", "config": task.config.model_dump(mode="json"), **task.record()}
    record["untrained"]["classes"] = sorted({*record["untrained"]["classes"], "monocyte"})
    (folder / "run.json").write_text(json.dumps(record, default=list))
    return folder


@pytest.fixture(scope="module")
def run(root, start, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    given = settings(
        model={"start": str(start / "best.pt"), "frozen": True},
        optim={"epochs": 0, "samples": None},
        correction={"samples": 48, "classes": 1e-3, "attributes": 1e-3},
    )
    task = ClassifierTask.from_config(given, root, silent)
    metrics = loop.train(task, given, out, CPU)
    task.model.load_state_dict(load_checkpoint(out / loop.BEST)["model"])
    return task, out, metrics


def test_a_run_without_an_epoch_fits_what_its_cells_show(run):
    task, _, metrics = run
    assert metrics["class_accuracy"] == 1.0  # of the finished network, not of its start
    said = predict_crops(task.model.eval(), task.train, CPU, task.view)
    assert task.train.allowed[np.arange(len(task.train)), said["classes"].argmax(1)].all()


def test_only_the_heads_differ_from_the_start(run, start):
    before = load_checkpoint(start / "best.pt")["model"]
    after = run[0].model.state_dict()
    for name, value in before.items():
        if not name.startswith(("class_head.2", "prototypes", "spread")):
            assert torch.equal(after[name], value), name


def test_a_second_call_takes_up_the_finished_run(run, root, start):
    task, out, metrics = run
    again = ClassifierTask.from_config(task.config, root, silent)
    before = (out / loop.BEST).read_bytes()
    assert loop.train(again, task.config, out, CPU) == metrics
    assert (out / loop.BEST).read_bytes() == before


def test_the_graph_holds_the_corrections_and_gives_them_back(run, tmp_path):
    task = run[0]
    crops = np.stack([task.view.plain(i) for i in task.train.images[:2]])
    onnx = classifier_onnx(ClassifierGraph(task.model.eval()), torch.from_numpy(crops))
    layers = read_weights(onnx, tmp_path).layers
    for name in ("class_correction", "attribute_correction"):
        weight, bias = layers[name]
        layer = getattr(task.model, name)
        assert np.array_equal(weight, layer.weight.detach().numpy())
        assert np.array_equal(bias, layer.bias.detach().numpy())


def test_attributes_that_a_set_is_not_asked_for_are_not_learnt(root):
    source = {"path": "discs", "splits": ["train"], "omit_attributes": ["cell_size"]}
    given = config("classifier")
    data = {**given["data"], "train": [source]}
    task = ClassifierTask.from_config(parse_config({**given, "data": data}, "t"), root, silent)
    names = task.schema.names
    assert (task.train.codes[:, names.index("cell_size")] == -1).all()
    assert (task.train.codes[:, names.index("nucleolus")] >= 0).all()


def test_a_network_without_corrections_has_no_such_layers():
    names = build_classifier(settings(), VOCABULARY).state_dict()
    assert not [n for n in names if "correction" in n]
